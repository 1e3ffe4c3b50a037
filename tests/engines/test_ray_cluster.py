"""Runs on a Ray cluster of several nodes on this machine, one of which is lost during a run."""

from __future__ import annotations

import io
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster as LocalCluster
from ray.exceptions import NodeDiedError

from benchmarks.engines import ray_cluster as ray_engine
from benchmarks.engines.engine import execute_plan
from benchmarks.engines.ray_cluster import Result, Tasks, run_on_every_node
from benchmarks.errors import InfrastructureError
from benchmarks.interruption import restored_handlers
from benchmarks.results.gates import Asked, judge
from benchmarks.results.records import read_record, read_records, record_path, write_record
from benchmarks.runs.plan import Cluster, Plan
from benchmarks.runs.progress import Display
from benchmarks.suite import SUITE, select, with_requirements
from benchmarks.workloads.run import weights_path
from tests.record_factory import make_record
from tests.short_runs import shortened


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    """A head node without CPUs, so that every run is on another node."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_worker_niceness", "0")  # the default is 15: concurrent tests would slow it down too much
        with restored_handlers():
            # Find lost nodes soon; a slow node still has ten seconds to answer each check.
            checks = {"health_check_initial_delay_ms": 1000, "health_check_period_ms": 1000}
            arguments = {"num_cpus": 0, "include_dashboard": False, "_system_config": checks}
            made = LocalCluster(initialize_head=True, head_node_args=arguments)
        yield made
        ray.shutdown()
        made.shutdown()


@pytest.fixture(autouse=True)
def _restore_handlers() -> Iterator[None]:
    """Adding a node in this process installs Ray's handler of SIGTERM, which would end the process."""
    with restored_handlers():
        yield


@pytest.fixture
def plan(cluster: LocalCluster, data: Path, tmp_path: Path) -> Plan:
    """A run for a cluster in which two nodes have a CPU."""
    with restored_handlers():
        while len(cluster.worker_nodes) < 2:
            cluster.add_node(num_cpus=1)
    chosen = [shortened(SUITE["seg-baseline"], epochs=100_000)]
    return Plan(chosen, "quick", (0,), data, "cpu", tmp_path, cluster=Cluster(cluster.address))


class Saboteur(Display):
    """Removes the node that has begun the first run, and adds another one."""

    def __init__(self, cluster: LocalCluster) -> None:
        super().__init__(io.StringIO())
        self.cluster = cluster
        self.begun: list[str] = []

    def begin(self, run: str, title: str) -> None:
        super().begin(run, title)
        self.begun.append(run)
        if len(self.begun) == 1:
            self.cluster.remove_node(next(iter(self.cluster.worker_nodes)), allow_graceful=False)
            self.cluster.add_node(num_cpus=1)


def test_the_run_of_a_lost_node_is_repeated_elsewhere(cluster: LocalCluster, data: Path, tmp_path: Path) -> None:
    cluster.add_node(num_cpus=1)
    chosen = [shortened(entry) for entry in with_requirements(select(["seg-pretrained"]))]
    plan = Plan(chosen, "quick", (0,), data, "cpu", tmp_path, cluster=Cluster(cluster.address))
    display = Saboteur(cluster)
    records = execute_plan(plan, display)
    assert {record.configuration: record.message for record in records if record.status != "completed"} == {}
    assert [record.configuration for record in records] == [entry.id for entry in chosen]
    assert display.begun == [f"{name} seed 0" for name in ("colorization", "colorization", "seg-pretrained")]
    for record in records:
        assert read_record(record_path(tmp_path, record.configuration, 0)).metrics == record.metrics
        assert (tmp_path / str(record.details.samples)).is_file()
    assert weights_path(tmp_path, "colorization", 0).is_file()
    assert records[-1].weights == "colorization"
    # A second call finds all runs done, as the records of their requirements are unchanged, and begins none.
    again = io.StringIO()
    execute_plan(plan, Display(again))
    assert again.getvalue().count("already done") == len(again.getvalue().splitlines()) == len(chosen)


def test_a_lost_run_is_an_infrastructure_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lose(task: object) -> Result:
        raise NodeDiedError("the node was preempted")

    monkeypatch.setattr(ray, "get", lose)
    monkeypatch.setattr(ray, "put", lambda result: result)
    chosen = [SUITE["colorization"], SUITE["seg-pretrained"]]
    plan, display = Plan(chosen, "quick", (0,), tmp_path, "cpu", tmp_path, cluster=Cluster("auto")), Display()
    tasks = Tasks(plan, display)
    tasks._running = {"task": (chosen[0], 0)}
    with display.plan({"colorization seed 0": "colorization"}, {}):
        pass
    record = tasks._take("task")
    assert record.message.startswith("lost on the cluster after at most 3 tries: NodeDiedError: the node was preempted")
    assert judge([record], Asked(chosen[:1], [0])).exit_code == 4
    assert read_records(tmp_path) == [record]
    assert tasks._required["colorization", 0].record is record  # the run that starts from it does not wait
    # A record that a node found outdated is deleted when its run begins, and then the run is lost.
    write_record(tmp_path, make_record("colorization"))
    tasks._running = {"task": (chosen[0], 0)}
    tasks._show(("begin", ("colorization seed 0", "")))
    assert read_records(tmp_path) == []
    assert tasks._take("task").status == "error"
    assert [record.status for record in read_records(tmp_path)] == ["error"]


def test_an_interruption_cancels_running_tasks(cluster: LocalCluster, plan: Plan) -> None:
    class Interrupter(Display):
        def begin(self, run: str, title: str) -> None:
            os.kill(os.getpid(), signal.SIGTERM)

    handler = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        execute_plan(plan, Interrupter(io.StringIO()))
    with ray_engine._connected(cluster.address):
        end = time.monotonic() + 60
        while ray.available_resources().get("CPU", 0) < ray.cluster_resources()["CPU"] and time.monotonic() < end:
            time.sleep(0.2)
        assert ray.available_resources().get("CPU", 0) == ray.cluster_resources()["CPU"]
        assert signal.getsignal(signal.SIGTERM) == handler  # not Ray's, which would end this process


def test_a_cluster_without_enough_resources_is_an_infrastructure_error(cluster: LocalCluster, plan: Plan) -> None:
    plan = replace(plan, device="cuda", cluster=Cluster(cluster.address, 2))
    with pytest.raises(InfrastructureError, match=r"requires 2 CPU and 1 GPU, but none of the cluster's \d nodes has"):
        execute_plan(plan, Display(io.StringIO()))


def test_missing_data_on_a_node_is_an_infrastructure_error(tmp_path: Path) -> None:
    class NoQueue:
        def put_nowait(self, message: object) -> None:
            pass

    chosen = [shortened(SUITE["vgg-scratch"])]
    plan = Plan(chosen, "quick", (0,), tmp_path, "cpu", tmp_path / "results", cluster=Cluster("auto"))
    record = ray_engine._execute(plan, chosen[0], 0, NoQueue(), None).record  # type: ignore[arg-type]
    assert record.status == "error"
    assert "no Fashion-MNIST in" in record.message
    assert record.message.startswith("on ")
    assert record.details.infrastructure


def test_a_command_runs_on_each_node_and_its_results_are_fetched(cluster: LocalCluster, plan: Plan) -> None:
    script = (
        "import os, pathlib; here = pathlib.Path(os.environ['RESULTS']); print(os.environ['ONLY']);"
        "[path.parent.mkdir() or path.write_text('x') for path in (here / 'records/a.json', here / 'weights/b')]"
    )
    folders = list(run_on_every_node(plan, ["-c", script], {"ONLY": "colorization"}))
    assert len(folders) == len({*folders}) == len(cluster.worker_nodes)
    for folder in folders:
        files = {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}
        assert files == {"records/a.json": "x", "every-gpu.log": "colorization\n"}
    (folder, *_) = run_on_every_node(plan, ["-c", "print('no data')"], {})
    assert [path.read_text() for path in folder.rglob("*")] == ["no data\n"]  # nothing remains of the first call


def test_interrupted_commands_end(
    cluster: LocalCluster, plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = "import os, pathlib, time; pathlib.Path(os.environ['PIDS'], str(os.getpid())).touch(); time.sleep(600)"
    (tmp_path / "pids").mkdir()

    def pids() -> list[int]:
        return [int(path.name) for path in (tmp_path / "pids").iterdir()]

    def interrupted(*_: object) -> None:
        while len(pids()) < len(cluster.worker_nodes):
            time.sleep(0.1)
        time.sleep(1)  # an interrupt within `Popen` would leave a process that nobody knows
        monkeypatch.undo()
        raise KeyboardInterrupt

    monkeypatch.setattr(ray, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        list(run_on_every_node(plan, ["-c", script], {"PIDS": str(tmp_path / "pids")}))
    assert [pid for pid in pids() if Path(f"/proc/{pid}").exists()] == []
