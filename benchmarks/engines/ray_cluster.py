"""Carries out the runs of a plan on a Ray cluster: each run is a task, results are objects of the cluster.

Ray places the tasks, moves the objects and restarts the tasks of a lost node elsewhere. A node needs this environment
and the data under the same path (synthetic data is drawn if it is missing); Ray copies the code from here.
"""

from __future__ import annotations

import logging
import platform
import shutil
import signal
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.engines.messages import Message, Relay
from benchmarks.engines.node import LOG, run_on_node
from benchmarks.engines.order import Engine
from benchmarks.errors import InfrastructureError
from benchmarks.interruption import interruptible, restored_handlers
from benchmarks.machine.environment import CHECKOUT, git_commit
from benchmarks.results.records import Record, read_record, record_path, write_record
from benchmarks.runs.plan import SYNTHETIC_FOLDER, Plan, PlannedRun, run_name
from benchmarks.runs.progress import Display
from benchmarks.runs.runner import Runner, lost_record
from benchmarks.suite import Configuration
from benchmarks.workloads.pretrained import find_base_weights
from benchmarks.workloads.run import weights_path
from hw6core.data.synthetic import synthesize
from hw6core.errors import DataError, HW6Error, UsageError
from hw6core.files import atomic_write

try:
    import ray
    from ray.exceptions import RayError
    from ray.util.queue import Empty, Queue
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
except ImportError as error:
    raise UsageError("the engine 'ray' requires Ray; install it: python -m pip install 'ray>=2.40'") from error

_RETRIES = 2
_NODE_DATA = Path(tempfile.gettempdir()) / "hw6-synthetic"  # where a node draws the synthetic data, once
_EXCLUDED = ("/data", "/results", "/tests", "/docs", "/.[!.]*", "__pycache__", "*.egg-info")
_POLL_S = 0.25
_END_S = 60.0  # for the nodes' suites to end


@dataclass(frozen=True)
class Result:
    """The results of a run as one object: its record, and its files by their paths below the results folder."""

    record: Record
    files: dict[str, bytes]

    @staticmethod
    def pack(plan: Plan, record: Record) -> Result:
        """Read the samples, and the weights if other runs start from them."""
        name, seed, results = record.configuration, record.seed, plan.results
        paths = [results / "samples" / f"{name}-seed{seed}.npz"]
        paths += [weights_path(results, name, seed)] if plan.is_required(name) else []
        files = {path.relative_to(results).as_posix(): path.read_bytes() for path in paths if path.is_file()}
        return Result(record, files)

    def unpack(self, results: Path) -> None:
        """Write the files, then the record: a record without its weights would not be valid.

        Raises:
            OSError: the folder cannot be written.
        """
        for name, content in self.files.items():
            with atomic_write(results / name) as temporary:
                temporary.write_bytes(content)
        write_record(results, self.record)


def run_on_ray(plan: Plan, display: Display) -> list[Record]:
    """Carry out a plan on a cluster; see `benchmarks.engines.engine.execute_plan`.

    Raises:
        InfrastructureError: no cluster answers, or no node has the resources that a run needs.
    """
    assert plan.cluster is not None
    with _connected(plan.cluster.address):
        plan = replace(plan, workers=sum(count for _, count in _nodes(plan)))
        return Tasks(plan, display).run_all()


def run_on_every_node(plan: Plan, command: Sequence[str], variables: Mapping[str, str]) -> Iterator[Path]:
    """Run a python command once on each node, with all of the node's GPUs, and fetch its results.

    Args:
        command: arguments for the node's python, whose variable RESULTS names the results folder.

    Yields:
        The folder with a node's results and log as soon as they are here: `plan.results`/<the node's name>.

    Raises:
        InfrastructureError: no cluster answers, or no node has the resources that a run needs.
    """
    assert plan.cluster is not None
    with _connected(plan.cluster.address):
        task: Any = ray.remote(run_on_node)
        tasks: dict[Any, Path] = {}
        for node, _ in _nodes(plan):
            name = node["NodeManagerHostname"]
            name = name if plan.results / name not in tasks.values() else f"{name}-{node['NodeID'][:8]}"
            here = task.options(
                max_retries=0,
                num_cpus=plan.cluster.cpus,
                num_gpus=int(node["Resources"].get("GPU", 0)) if plan.device != "cpu" else 0,
                scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False),
            )
            tasks[here.remote(list(command), dict(variables))] = plan.results / name
        try:
            while tasks:
                (done, *_), _ = ray.wait(list(tasks))
                folder = tasks.pop(done)
                try:
                    files = ray.get(done)
                except RayError as error:
                    files = {LOG: f"lost on the cluster: {type(error).__name__}: {error}\n".encode()}
                shutil.rmtree(folder, ignore_errors=True)  # the results of an earlier call must not count
                for name, content in files.items():
                    with atomic_write(folder / name) as temporary:
                        temporary.write_bytes(content)
                yield folder
        finally:  # after Ctrl-C, free the nodes' GPUs
            for running in tasks:
                ray.cancel(running)
            if tasks:
                ray.wait(list(tasks), num_returns=len(tasks), timeout=_END_S)


class Tasks(Engine):
    """The engine of a cluster: each run is a task."""

    def __init__(self, plan: Plan, display: Display) -> None:
        super().__init__(plan, display)
        self._running: dict[Any, PlannedRun] = {}
        self._required: dict[tuple[str, int], Any] = {}  # results that later runs start from, owned by this process

    def begin(self) -> None:
        """Make the queue for the nodes' messages, and the task."""
        assert self._plan.cluster is not None
        # On this node, so that the queue survives the loss of any other.
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self._messages = Queue(actor_options={"num_cpus": 0, "scheduling_strategy": here})
        gpus = int(self._plan.device != "cpu")
        self._task = ray.remote(
            num_cpus=self._plan.cluster.cpus,
            num_gpus=gpus,
            max_calls=gpus,  # a process that is reused keeps its context and memory on a GPU that it no longer has
            max_retries=_RETRIES,
        )(_execute)

    def start(self, configuration: Configuration, seed: int) -> None:
        plan = self._plan
        required = [self._required[run] for run in plan.starts_from(configuration, seed)]
        data = _NODE_DATA if plan.data == SYNTHETIC_FOLDER else plan.data.resolve()
        here = replace(plan, data=data, vgg16_weights=plan.vgg16_weights and plan.vgg16_weights.resolve())
        earlier = None  # a completed result of an earlier call, which the node uses if it is still valid
        with suppress(DataError):
            record = read_record(record_path(plan.results, configuration.id, seed))
            earlier = Result.pack(plan, record) if record.status == "completed" else None
        task = self._task.remote(here, configuration, seed, self._messages, earlier, *required)
        self._running[task] = configuration, seed

    def next_record(self) -> Record:
        while not self._finished:
            done, _ = ray.wait(list(self._running), timeout=_POLL_S)
            self._show_messages()
            for task in done:
                self._finished.append(self._take(task))
        return self._finished.popleft()

    def end(self) -> None:
        """Cancel all running tasks."""
        for task in self._running:
            with suppress(RayError):
                ray.cancel(task)

    def _take(self, task: Any) -> Record:
        configuration, seed = self._running.pop(task)
        try:
            result: Result = ray.get(task)
            valid = result.record.status == "completed" or run_name(configuration, seed) in self._begun
            lost = "" if valid else result.record.message  # the node could not begin
        except RayError as error:
            last = (str(error).strip().splitlines() or [""])[-1]
            lost = f"lost on the cluster after at most {1 + _RETRIES} tries: {type(error).__name__}: {last}"
        if lost:
            result = Result(self._record_of_lost(configuration, seed, lost), {})
        else:
            result.unpack(self._plan.results)
        if self._plan.is_required(configuration.id):
            self._required[configuration.id, seed] = ray.put(result)
        return result.record

    def _show_messages(self) -> None:
        with suppress(Empty, RayError):
            waiting = self._messages.qsize()
            for message in self._messages.get_nowait_batch(waiting) if waiting else ():
                self._show(message)

    def _show(self, message: Message) -> None:
        """Also delete the earlier record of a run that a node has begun: the node found it outdated."""
        super()._show(message)
        for configuration, seed in self._running.values() if message[0] == "begin" else ():
            if message[1][0] == run_name(configuration, seed):
                record_path(self._plan.results, configuration.id, seed).unlink(missing_ok=True)


@contextmanager
def _connected(address: str) -> Iterator[None]:
    """Connect to the cluster and copy this checkout's code to its nodes."""
    environment: dict[str, Any] = {"working_dir": str(CHECKOUT), "excludes": list(_EXCLUDED)}
    environment["env_vars"] = {"BENCHMARK_COMMIT": git_commit() or ""}
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        with restored_handlers():  # Ray's handler would end the process on SIGTERM
            dashboard = False if address == "local" else None
            ray.init(address=address, runtime_env=environment, include_dashboard=dashboard, **quiet)
    except (ConnectionError, RayError, ValueError, RuntimeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InfrastructureError(
            f"no Ray cluster at {address!r} ({reason}); start one: ray start --head, or use --address local"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def _nodes(plan: Plan) -> list[tuple[Mapping[str, Any], int]]:
    """The nodes that runs fit on, each with the number of runs that fit at once.

    Raises:
        InfrastructureError: there are none; Ray would wait forever.
    """
    assert plan.cluster is not None
    nodes, found = [node for node in ray.nodes() if node["Alive"]], []
    for node in nodes:
        count = int(node["Resources"].get("CPU", 0) // plan.cluster.cpus)
        count = count if plan.device == "cpu" else min(count, int(node["Resources"].get("GPU", 0)))
        found += [(node, count)] if count else []
    if not found:
        needed = f"{plan.cluster.cpus} CPU{'' if plan.device == 'cpu' else ' and 1 GPU'}"
        raise InfrastructureError(f"a run requires {needed}, but none of the cluster's {len(nodes)} nodes has that")
    return found


def _execute(
    plan: Plan, configuration: Configuration, seed: int, messages: Queue, earlier: Result | None, *required: Result
) -> Result:
    """Carry out one run on a node."""

    def send(message: Message) -> None:
        with suppress(RayError):  # losing the progress must not fail the run
            messages.put_nowait(message)

    if plan.device == "cpu" and plan.cluster is not None:
        torch.set_num_threads(plan.cluster.cpus)
    with tempfile.TemporaryDirectory(prefix="hw6-") as folder:
        here = replace(plan, results=Path(folder))
        for result in (*required, *([earlier] if earlier else ())):
            result.unpack(here.results)
        try:
            if here.data == _NODE_DATA:
                synthesize(here.data)
            runner = Runner(here, Relay(send))
            runner.data_of(configuration)  # fails if this node has no data, before 528 MB are downloaded
            if configuration.uses_base_weights and not here.stand_in:
                runner.plan = replace(here, base_weights=find_base_weights(here.vgg16_weights, may_fetch=True))
            with interruptible(signal.SIGINT):  # sent by `ray.cancel`; on SIGTERM Ray retries the task elsewhere
                record = runner.record_of(configuration, seed)
        except HW6Error as error:  # a problem of this node: no device, no data
            record = lost_record(here, configuration, seed, f"on {platform.node()}: {error}")
        return Result.pack(here, record)
