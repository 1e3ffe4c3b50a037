"""The runs of a plan on a Ray cluster: each a task, its results and those that it starts from objects of the cluster.

Ray places the tasks, moves the objects and takes up elsewhere what a lost node was at. A node needs this environment
and the data under the same path (synthetic data is drawn where it is missing); the code comes from here.
"""

from __future__ import annotations

import logging
import platform
import signal
import tempfile
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.engines.messages import Message, Relay, Screen
from benchmarks.engines.node import LOG, run_command
from benchmarks.engines.order import in_order
from benchmarks.errors import InfrastructureError
from benchmarks.interruption import handlers_kept, interruptible
from benchmarks.machine.environment import CHECKOUT, git_commit
from benchmarks.results.records import Record, read_record, record_path, write_record
from benchmarks.runs.plan import SYNTHETIC_FOLDER, Plan, run_name
from benchmarks.runs.progress import Display
from benchmarks.runs.runner import Runner, check_looked_at, leave_lost, lost, under_way, verdict_and_scores
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
    raise UsageError("the engine 'ray' needs Ray; install it: python -m pip install 'ray>=2.40'") from error

_TRIES_AFTER_A_LOSS = 2
_DRAWN = Path(tempfile.gettempdir()) / "hw6-synthetic"  # where a node draws the synthetic data, once
_NOT_FOR_NODES = ("/data", "/results", "/tests", "/docs", "/.[!.]*", "__pycache__", "*.egg-info")
_LOOK_EVERY_S = 0.25
_END_S = 60.0  # for the nodes' suites to end


@dataclass(frozen=True)
class Result:
    """What a run leaves in a results folder, as one object: the record, and its files by their paths below it."""

    record: Record
    files: dict[str, bytes]

    @staticmethod
    def pack(results: Path, record: Record, *paths: Path) -> Result:
        """With those of the files that exist."""
        files = {path.relative_to(results).as_posix(): path.read_bytes() for path in paths if path.is_file()}
        return Result(record, files)

    def unpack(self, results: Path) -> None:
        """Weights before the record: a record without its weights would answer for nothing.

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
        InfrastructureError: no cluster answers, or none of its nodes ever has what a run takes.
    """
    assert plan.cluster is not None
    with _connected(plan.cluster.address):
        plan = replace(plan, workers=_places(plan.device, plan.cluster.cpus))
        with under_way(plan, display):
            tasks = Tasks(plan, display)
            try:
                records = in_order(plan, tasks)
            finally:
                tasks.end()
            check_looked_at(tasks.passed_over)
            return records


def run_on_every_node(plan: Plan, command: Sequence[str], variables: Mapping[str, str], log: str) -> Iterator[Path]:
    """Start a python command once on each node, with all of the node's GPUs, and fetch the results that it leaves.

    Args:
        command: for the node's python; it finds its results folder in RESULTS, beside these variables.
        log: name of the file that says why there is nothing else of a node; of the others it is node.log.

    Yields:
        The results of a node as soon as they are here: `plan.results`/<the node's name>.

    Raises:
        InfrastructureError: no cluster answers, or none of its nodes has what is asked for.
    """
    assert plan.cluster is not None
    with _connected(plan.cluster.address):
        _places(plan.device, plan.cluster.cpus)
        tasks: dict[Any, Path] = {}
        for node in ray.nodes():
            resources, name = node["Resources"], node["NodeManagerHostname"]
            gpus = int(resources.get("GPU", 0)) if plan.device != "cpu" else 0
            if node["Alive"] and resources.get("CPU", 0) >= plan.cluster.cpus and (gpus or plan.device == "cpu"):
                name = name if plan.results / name not in tasks.values() else f"{name}-{node['NodeID'][:8]}"
                here = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
                needs: dict[str, Any] = {"num_cpus": plan.cluster.cpus, "num_gpus": gpus, "scheduling_strategy": here}
                task: Any = ray.remote(max_retries=0, **needs)(run_command)
                tasks[task.remote(list(command), dict(variables))] = plan.results / name
        try:
            while tasks:
                (done, *_), _ = ray.wait(list(tasks))
                folder = tasks.pop(done)
                try:
                    files = ray.get(done)
                except RayError as error:
                    files = {LOG: f"lost on the cluster: {type(error).__name__}: {error}\n".encode()}
                if files.keys() == {LOG}:
                    files = {log: files[LOG]}
                for name, content in files.items():
                    with atomic_write(folder / name) as temporary:
                        temporary.write_bytes(content)
                yield folder
        finally:  # after Ctrl-C the nodes' GPUs are given back
            for task in tasks:
                ray.cancel(task)
            if tasks:
                ray.wait(list(tasks), num_returns=len(tasks), timeout=_END_S)


class Tasks:
    """`benchmarks.engines.order.Engine` of a cluster's tasks."""

    def __init__(self, plan: Plan, display: Display) -> None:
        assert plan.cluster is not None
        self._plan = plan
        self._screen = Screen(display)
        # On this node, so that no other one takes it along when it is lost.
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self._messages = Queue(actor_options={"num_cpus": 0, "scheduling_strategy": here})
        gpus = int(plan.device != "cpu")
        self._task = ray.remote(
            num_cpus=plan.cluster.cpus,
            num_gpus=gpus,
            max_calls=gpus,  # a process that goes on keeps its context and memory on a GPU that is no longer its own
            max_retries=_TRIES_AFTER_A_LOSS,
        )(_execute)
        self._under_way: dict[Any, tuple[Configuration, int]] = {}
        self._kept: dict[tuple[str, int], Any] = {}  # what later runs start from, as objects that this process owns
        self._over: deque[Record] = deque()
        self._begun: set[str] = set()  # names of runs of which a node said so
        self.passed_over: list[Record] = []  # see `benchmarks.runs.runner.leave_lost`

    def start(self, configuration: Configuration, seed: int) -> None:
        required = [self._kept[run] for run in self._plan.starts_from(configuration, seed)]
        earlier = _earlier(self._plan, configuration, seed)
        task = self._task.remote(_for_nodes(self._plan), configuration, seed, self._messages, earlier, *required)
        self._under_way[task] = configuration, seed

    def next_over(self) -> Record:
        while not self._over:
            done, _ = ray.wait(list(self._under_way), timeout=_LOOK_EVERY_S)
            self._show_messages()
            for task in done:
                self._over.append(self._take(task))
        return self._over.popleft()

    def end(self) -> None:
        """Cancel what is still under way."""
        for task in self._under_way:
            with suppress(RayError):
                ray.cancel(task)

    def _take(self, task: Any) -> Record:
        configuration, seed = self._under_way.pop(task)
        name = run_name(configuration, seed)
        try:
            result: Result = ray.get(task)
        except RayError as error:
            last = (str(error).strip().splitlines() or [""])[-1]
            reason = (
                f"lost on the cluster, after {1 + _TRIES_AFTER_A_LOSS} tries at most: {type(error).__name__}: {last}"
            )
            result = Result(lost(self._plan, configuration, seed, reason), {})
            said = verdict_and_scores(result.record, configuration, f"{1 + _TRIES_AFTER_A_LOSS} tries")
            self._screen.show(("finish", (name, *said)))
        if result.record.status == "completed" or name in self._begun:
            result.unpack(self._plan.results)
        elif not leave_lost(self._plan, result.record):
            self.passed_over.append(result.record)
        if self._plan.is_required(configuration.id):
            self._kept[configuration.id, seed] = ray.put(result)
        return result.record

    def _show_messages(self) -> None:
        with suppress(Empty, RayError):
            waiting = self._messages.qsize()
            for message in self._messages.get_nowait_batch(waiting) if waiting else ():
                self._screen.show(message)
                if message[0] == "begin":
                    self._forget_earlier(message[1][0])

    def _forget_earlier(self, name: str) -> None:
        """A node found that an earlier call's record of this run no longer holds."""
        for configuration, seed in self._under_way.values():
            if name == run_name(configuration, seed):
                self._begun.add(name)
                record_path(self._plan.results, configuration.id, seed).unlink(missing_ok=True)


@contextmanager
def _connected(address: str) -> Iterator[None]:
    """To the cluster, with this code for its nodes."""
    try:
        with handlers_kept():  # Ray would end the process on SIGTERM
            ray.init(
                address=address,
                runtime_env={
                    "working_dir": str(CHECKOUT),
                    "excludes": list(_NOT_FOR_NODES),
                    "env_vars": {"BENCHMARK_COMMIT": git_commit() or ""},
                },
                log_to_driver=False,
                logging_level=logging.ERROR,
                include_dashboard=False if address == "local" else None,
            )
    except (ConnectionError, RayError, ValueError, RuntimeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InfrastructureError(
            f"no Ray cluster answers at {address!r} ({reason}); start one: ray start --head (or --address local)"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def _places(device: str, cpus: int) -> int:
    """How many runs the cluster's nodes take at once.

    Raises:
        InfrastructureError: none. A task that fits on no node would wait for ever.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    places = [int(node.get("CPU", 0) // cpus) for node in nodes]
    if device != "cpu":
        places = [min(place, int(node.get("GPU", 0))) for place, node in zip(places, nodes, strict=True)]
    if not any(places):
        needed = f"{cpus} CPU" + (" and 1 GPU" if device != "cpu" else "")
        raise InfrastructureError(f"a run takes {needed}, and none of the cluster's {len(nodes)} nodes has that")
    return sum(places)


def _earlier(plan: Plan, configuration: Configuration, seed: int) -> Result | None:
    """What an earlier call left of this run: where it still holds it is not done again."""
    try:
        record = read_record(record_path(plan.results, configuration.id, seed))
    except DataError:
        return None
    return _packed(plan, configuration, seed, record) if record.status == "completed" else None


def _packed(plan: Plan, configuration: Configuration, seed: int, record: Record) -> Result:
    files = [weights_path(plan.results, configuration.id, seed)] if plan.is_required(configuration.id) else []
    samples = plan.results / "samples" / f"{configuration.id}-seed{seed}.npz"
    return Result.pack(plan.results, record, samples, *files)


def _execute(
    plan: Plan, configuration: Configuration, seed: int, messages: Queue, earlier: Result | None, *required: Result
) -> Result:
    """One run, on whatever node."""

    def tell(message: Message) -> None:
        with suppress(RayError):  # the progress is not worth the run
            messages.put_nowait(message)

    if plan.device == "cpu" and plan.cluster is not None:
        torch.set_num_threads(plan.cluster.cpus)
    with tempfile.TemporaryDirectory(prefix="hw6-") as folder:
        here = replace(plan, results=Path(folder))
        for result in (*required, *([earlier] if earlier else ())):
            result.unpack(here.results)
        try:
            if here.data == _DRAWN:
                synthesize(here.data)
            if configuration.uses_base_weights and not here.stand_in:  # this node's own
                found = find_base_weights(here.vgg16_weights, may_fetch=True)
                here = replace(here, base_weights=found)
            runner = Runner(here, Relay(tell))
            runner.data_of(configuration)  # read here, or this node has no data
            with interruptible(signal.SIGINT):  # of `ray.cancel`; on SIGTERM Ray ends this and tries again elsewhere
                record = runner.record_of(configuration, seed)
        except HW6Error as error:  # of this node: no device, no data
            record = lost(here, configuration, seed, f"on {platform.node()}: {error}")
        return _packed(here, configuration, seed, record)


def _for_nodes(plan: Plan) -> Plan:
    """With paths that mean the same on every node."""
    given = plan.vgg16_weights
    return replace(
        plan,
        data=_DRAWN if plan.data == SYNTHETIC_FOLDER else plan.data.resolve(),
        vgg16_weights=given and given.resolve(),
    )
