"""(configuration, seed, profile) -> record. Keeps the order of dependencies and skips what is done and still valid."""

from __future__ import annotations

import gc
import json
import math
import os
import shutil
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch

from benchmarks.ceiling import Ceiling, measure_ceiling
from benchmarks.environment import DECISIVE, environment
from benchmarks.gates import combined, judge_run
from benchmarks.machine import Meter
from benchmarks.options import SYNTHETIC_FOLDER, Options
from benchmarks.pretrained import STAND_IN_FILES, BaseWeights, expected_label, resolve
from benchmarks.progress import Display
from benchmarks.records import History, Record, read_record, read_records, record_path, write_record
from benchmarks.results_folder import claimed
from benchmarks.shards import Shard, part
from benchmarks.store import Store
from benchmarks.suite import Configuration, Gate, Profile, with_requirements
from benchmarks.words import duration
from benchmarks.workloads import READS, Outcome, Run, carry_out, checkpoints_folder, weights_path
from hw6core.data.synthetic import synthesize
from hw6core.errors import (
    DataError,
    InfrastructureError,
    SuiteError,
    TrainingDivergedError,
    UsageError,
    WeightsUnavailableError,
)
from hw6core.interruption import interruptible
from hw6core.memory import keep_freed_memory
from hw6core.seeding import set_deterministic
from hw6core.tensor_files import verified_digest
from hw6core.train import Progress, Silent, default_precision, record_cuda_graph

_PARTS_WHEN_OUT_OF_MEMORY = 4
_PATIENCE, _PATIENCE_S = 1.25, 60.0  # beyond a run's limit, for a step that does not end


@dataclass(frozen=True)
class Plan:
    """What a call of the suite is to do.

    Attributes:
        configurations: each after those that it requires.
        data: the folder with both data sets.
        device: "cuda" or "cpu".
        vgg16_weights: a file in torchvision's format instead of its own.
        deterministic: see `hw6core.seeding.set_deterministic`.
        cuda_graphs: see `hw6core.train.record_cuda_graph`.
        shard: the part of the runs to carry out; None for all.
        limit_s: the longest that one run may take.
    """

    configurations: Sequence[Configuration]
    profile: Profile
    seeds: Sequence[int]
    data: Path
    device: str
    results: Path
    vgg16_weights: Path | None = None
    deterministic: bool = False
    cuda_graphs: bool = False
    shard: Shard | None = None
    limit_s: float = math.inf

    @property
    def runs(self) -> list[tuple[Configuration, int]]:
        """What is to be carried out, in order."""
        if self.shard is not None:
            return part(self.configurations, self.seeds, self.shard)
        return [(configuration, seed) for seed in self.seeds for configuration in self.configurations]


def make_plan(options: Options, display: Display) -> Plan:
    """The plan that a person's options ask for; draws the synthetic data where no other is at hand."""
    folder = options.data
    if folder is None:
        folder = SYNTHETIC_FOLDER
        display.say(f"synthetic data in {folder} (drawn once, about half a minute); real data: make data")
        synthesize(folder)
    return Plan(
        configurations=with_requirements(options.only),
        profile=options.profile,
        seeds=options.seeds,
        data=folder,
        device=options.device,
        results=options.results,
        vgg16_weights=options.vgg16_weights,
        deterministic=options.deterministic,
        cuda_graphs=options.cuda_graphs,
        limit_s=options.limit_s,
    )


@dataclass
class Runner:
    """Carries out a plan.

    Raises:
        InfrastructureError: the device is not there.
        UsageError: the device is unknown.
        DataError: (from `run_all`) the data is missing.
        KeyboardInterrupt: (from `run_all`) Ctrl-C or SIGTERM; a training under way has saved its state.
    """

    plan: Plan
    display: Display = field(default_factory=Display)

    def __post_init__(self) -> None:
        set_deterministic(self.plan.deterministic)
        self.device = open_device(self.plan.device)
        self.precision = default_precision(self.device)
        self.store = Store(self.plan.data, self.device)
        if self.plan.cuda_graphs and self.device.type != "cuda":
            raise UsageError("CUDA_GRAPHS=1 needs a GPU; leave it out")
        mode = "deterministic" if self.plan.deterministic else "fast"
        self.environment = environment(
            self.device, self.precision, f"{mode}, CUDA graphs" if self.plan.cuda_graphs else mode
        )
        self._base_weights: BaseWeights | WeightsUnavailableError | None = None
        if self.device.type == "cpu":
            keep_freed_memory()

    def run_all(self) -> list[Record]:
        """Run what is missing, in order; a run that fails leaves a record that says so, and the others go on."""
        self.prepare()
        with under_way(self.plan, self.display):
            self.find_weights()
            return [self.record_of(configuration, seed) for configuration, seed in self.plan.runs]

    def record_of(self, configuration: Configuration, seed: int) -> Record:
        """The record of a run: that of an earlier call if it still holds, else a new one."""
        name = run_name(configuration, seed)
        record = self._valid_record(configuration, seed)
        if record is not None:
            self.display.finish(name, *_outcome(record, configuration, "done before"))
            return record
        self.display.begin(name, configuration.title)
        # An old record must not answer for a run that is killed halfway.
        record_path(self.plan.results, configuration.id, seed).unlink(missing_ok=True)
        record = self._run(configuration, seed)
        self._keep(record)
        seconds = record.timing.get("total_s") or 0.0
        self.display.finish(name, *_outcome(record, configuration, duration(seconds)), seconds)
        return record

    def _keep(self, record: Record) -> None:
        """Write the record; when it is completed, the states of its trainings are of no more use."""
        try:
            write_record(self.plan.results, record)
        except OSError as error:
            raise InfrastructureError(
                f"the record of {record.configuration} seed {record.seed} could not be written ({error}); "
                "finished runs are kept: make room and give the same command"
            ) from error
        if record.status == "completed":
            self._forget_trainings(record)

    def _forget_trainings(self, record: Record) -> None:
        shutil.rmtree(checkpoints_folder(self.plan.results, record.configuration, record.seed), ignore_errors=True)

    def find_weights(self) -> None:
        """Before anything is trained: a download takes time, and its failure is better known now than in hours."""
        if self.plan.profile == "full" and any(_uses_base_weights(entry) for entry in self.plan.configurations):
            try:
                self.base_weights()
            except WeightsUnavailableError as error:
                self.display.say(f"no ImageNet weights, so what needs them will be 'not run': {error}")

    def prepare(self) -> None:
        """Read the data before anything is trained: a folder that cannot be read would only be found out hours later.

        Raises:
            DataError: there is none, or it is damaged.
        """
        for name in sorted({READS[configuration.kind] for configuration in self.plan.configurations}):
            self.store.description(name)

    def _run(self, configuration: Configuration, seed: int) -> Record:
        record = Record(
            configuration.id,
            self.plan.profile,
            seed,
            "error",
            gates=[asdict(gate) for gate in configuration.gates],
            environment=self.environment,
            settings=configuration.fingerprint(self.plan.profile, self.store.kind),
        )
        for required in configuration.requires:
            start = read_record(record_path(self.plan.results, required, seed))
            if start.status != "completed":
                record.status = "not run" if start.status == "not run" else "error"
                record.message = f"{required} seed {seed} has the status {start.status!r}, and this run starts from it"
                record.details = {key: True for key in ("infrastructure",) if start.details.get(key)}
                return record
        meter = Meter(self.device)
        began = time.perf_counter()
        try:
            record.data = self.store.description(READS[configuration.kind])
            with _nondeterministic_operations() as found, self._watchdog(record):
                run, outcome = self._carry_out(configuration, seed)
        except WeightsUnavailableError as error:
            record.status, record.message = "not run", str(error)
        except TrainingDivergedError as error:
            record.message = str(error)
            self._forget_trainings(record)  # going on from there would end there again
        except SuiteError as error:
            record.message = str(error)
        except torch.AcceleratorError as error:  # the device's context is lost: nothing can run after it
            record.message = f"the device failed: {_first_line(error)}"
            record.details["infrastructure"] = True
            write_record(self.plan.results, record)
            raise InfrastructureError(f"{configuration.id} seed {seed}: {record.message}") from error
        except (RuntimeError, OSError, MemoryError) as error:  # out of memory, cuDNN, disk full: others may still run
            record.message = f"{type(error).__name__}: {_first_line(error)}"
            record.details["infrastructure"] = _machine_failed(error)
        else:
            record.status = "completed"
            record.metrics, record.trivial = outcome.metrics, outcome.trivial
            record.history = {curve: training.history for curve, training in run.trainings.items()}
            record.weights, record.details = outcome.weights, outcome.details
            record.details["weights_digest"] = run.weights_digest
            if run.parts > 1:
                record.details["gradient_accumulation"] = run.parts
            record.details["best_epochs"] = {curve: training.best_epoch for curve, training in run.trainings.items()}
            record.details["limited_by"] = "arithmetic" if run.arithmetic_s > run.memory_s else "memory"
            if found:
                record.details["nondeterministic_operations"] = sorted(found)
            record.details["started_from"] = self._started_from(configuration, seed)
            record.timing = _timing(run, configuration.gates, outcome.trivial)
        record.timing["total_s"] = time.perf_counter() - began
        record.environment = self.environment | {"ceiling": asdict(self.ceiling), "machine": meter.read()}
        return record

    def _carry_out(self, configuration: Configuration, seed: int) -> tuple[Run, Outcome]:
        """Once more with each batch in parts if the memory does not hold it whole."""
        for parts in (1, _PARTS_WHEN_OUT_OF_MEMORY):
            run = self._new_run(configuration, seed, parts)
            try:
                return run, carry_out(run)
            except (RuntimeError, MemoryError) as error:
                if parts > 1 or not _is_out_of_memory(error):
                    raise
                name = run_name(configuration, seed)
                self.display.say(f"{name}: out of memory; again, each batch in {_PARTS_WHEN_OUT_OF_MEMORY} parts")
            gc.collect()  # what the failed attempt held, now that its frames are gone
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _new_run(self, configuration: Configuration, seed: int, parts: int) -> Run:
        return Run(
            configuration,
            self.plan.profile,
            seed,
            self.store,
            self.device,
            self.precision,
            self.plan.results,
            lambda: self.base_weights(self.progress_of(configuration, seed)),
            self.progress_of(configuration, seed),
            self.ceiling,
            identity=self._identity(configuration, seed),
            complain=self.display.say,
            deadline=time.monotonic() + self.plan.limit_s,
            recorder=record_cuda_graph if self.plan.cuda_graphs else None,
            parts=parts,
        )

    def _identity(self, configuration: Configuration, seed: int) -> str:
        """Everything that decides what a run computes: a training is gone on with only if it is the same."""
        deciding = {
            "run": run_name(configuration, seed),
            "profile": self.plan.profile,
            "settings": configuration.fingerprint(self.plan.profile, self.store.kind),
            "data": self.store.description(READS[configuration.kind]),
            "environment": {name: self.environment[name] for name in DECISIVE},
            "started_from": self._started_from(configuration, seed),
            "base_weights": self._base_label() if _uses_base_weights(configuration) else None,
        }
        return sha256(json.dumps(deciding, sort_keys=True, default=str).encode()).hexdigest()

    @contextmanager
    def _watchdog(self, record: Record) -> Iterator[None]:
        """Ends the process if a run hangs far beyond its limit: a step that never ends cannot be asked to."""
        if math.isinf(self.plan.limit_s):
            yield
            return

        def give_up() -> None:
            record.message = f"no step was done any more; given up after {duration(after_s)}"
            record.details["infrastructure"] = True
            write_record(self.plan.results, record)
            print(f"error: {record.configuration} seed {record.seed}: {record.message}", file=sys.stderr, flush=True)
            os._exit(InfrastructureError.exit_code)

        after_s = self.plan.limit_s * _PATIENCE + _PATIENCE_S
        timer = threading.Timer(after_s, give_up)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _started_from(self, configuration: Configuration, seed: int) -> dict[str, str]:
        """A digest of each required run's record: another run of it, even with the same scores, leaves another."""
        paths = {required: record_path(self.plan.results, required, seed) for required in configuration.requires}
        return {name: sha256(path.read_bytes()).hexdigest()[:16] for name, path in paths.items() if path.exists()}

    @cached_property
    def ceiling(self) -> Ceiling:
        """Measured once, before the first run that is not done yet."""
        return measure_ceiling(self.device, self.precision)

    def progress_of(self, configuration: Configuration, seed: int) -> Callable[[str, int], Progress]:
        """(label, steps) -> the progress of one training of a run."""
        return lambda label, steps: self.display.training(run_name(configuration, seed), label, steps)

    def base_weights(self, progress: Callable[[str, int], Progress] = lambda label, steps: Silent()) -> BaseWeights:
        """Pre-trained VGG16 weights; only the quick profile accepts a stand-in, and does not download 528 MB.

        Raises:
            WeightsUnavailableError: there are none. They are looked for once, not again for every seed.
        """
        if isinstance(self._base_weights, WeightsUnavailableError):
            raise self._base_weights
        if self._base_weights is None:
            name = f"{STAND_IN_FILES}{self.environment['source']}.safetensors"
            try:
                self._base_weights = resolve(
                    self.plan.vgg16_weights,
                    stand_in=self.plan.results / "weights" / name if self.plan.profile == "quick" else None,
                    device=self.device,
                    precision=self.precision,
                    progress=progress,
                )
            except WeightsUnavailableError as error:
                self._base_weights = error
                raise
        return self._base_weights

    def _valid_record(self, configuration: Configuration, seed: int) -> Record | None:
        """The record of an earlier call, if the same work would be done again; see `is_current`."""
        path = record_path(self.plan.results, configuration.id, seed)
        try:
            record = read_record(path)
        except DataError:
            return None
        data = self.store.description(READS[configuration.kind])
        current = is_current(record, configuration, self.plan.profile, self.environment, data)
        same_start = record.details.get("started_from") == self._started_from(configuration, seed)
        return record if current and same_start and self._weights_fit(record, configuration) else None

    def _weights_fit(self, record: Record, configuration: Configuration) -> bool:
        """The weights that the run started from are still the ones in use, those it made are still there."""
        if _uses_base_weights(configuration) and not record.weights.endswith(self._base_label()):
            return False
        needed = any(configuration.id in other.requires for other in self.plan.configurations)
        path = weights_path(self.plan.results, configuration.id, record.seed)
        return not needed or verified_digest(path) == record.details.get("weights_digest")

    def _base_label(self) -> str:
        return expected_label(self.plan.vgg16_weights, stand_in=self.plan.profile == "quick")


@contextmanager
def under_way(plan: Plan, display: Display) -> Iterator[None]:
    """While a plan is carried out: its results folder is claimed, its progress shown, an interruption is heeded.

    Raises:
        UsageError, InfrastructureError: the folder cannot be used; see `benchmarks.results_folder.claimed`.
    """
    names = {run_name(configuration, seed): configuration.id for configuration, seed in plan.runs}
    with claimed(plan.results, plan.configurations), interruptible(), display.plan(names, _known_seconds(plan.results)):
        yield


def _known_seconds(results: Path) -> dict[str, float]:
    """How long a run of a configuration took in an earlier call, whether or not its record still holds."""
    with suppress(DataError):
        return {
            record.configuration: seconds
            for record in read_records(results)
            if record.status == "completed" and (seconds := record.timing.get("total_s"))
        }
    return {}


def is_current(
    record: Record, configuration: Configuration, profile: Profile, now: Mapping[str, Any], data: Mapping[str, Any]
) -> bool:
    """Whether a record answers for what would be run now: completed, with the same numbers, data, device and code."""
    return (
        record.status == "completed"
        and record.profile == profile
        and record.settings == configuration.fingerprint(profile, str(data["kind"]))
        and record.gates == [asdict(gate) for gate in configuration.gates]
        and record.data == data
        and all(record.environment.get(name) == now[name] for name in DECISIVE)
    )


def open_device(name: str) -> torch.device:
    """The device of that name.

    Raises:
        UsageError: no such name.
        InfrastructureError: torch does not see it.
    """
    if name not in ("cpu", "cuda"):
        raise UsageError(f"unknown device {name!r}; expected cpu or cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise InfrastructureError(
            f"no CUDA device is visible to torch {torch.__version__}; check nvidia-smi, or use the CPU: DEVICE=cpu"
        )
    return torch.device(name)


def _timing(run: Run, gates: Sequence[Gate], trivial: Mapping[str, float]) -> dict[str, float | None]:
    trainings = run.trainings.values()
    features_s, new_layer_s = run.seconds.get("features_s", 0.0), run.seconds.get("new_layer_s", 0.0)
    counted_s = sum(training.training_s for training in trainings) + features_s
    samples = sum(training.samples for training in trainings)
    first = [_first_pass(curve, training.history, gates, trivial) for curve, training in run.trainings.items()]
    reached = [entry for entry in first if entry is not None]
    return {
        "data_s": run.seconds.get("data_s", 0.0),
        "base_weights_s": run.seconds.get("base_weights_s"),
        "interruptions": float(sum(training.interruptions for training in trainings)),
        "warmup_s": sum(training.warmup_s for training in trainings),
        "training_s": counted_s + new_layer_s,
        "evaluation_s": sum(training.evaluation_s for training in trainings) + run.seconds.get("evaluation_s", 0.0),
        "epochs": max(len(training.history) for training in trainings),
        "best_epoch": next(iter(trainings)).best_epoch if len(trainings) == 1 else None,
        "samples_per_s": samples / counted_s if samples else None,
        "least_training_s": max(run.arithmetic_s, run.memory_s),
        "share_of_attainable": max(run.arithmetic_s, run.memory_s) / counted_s if samples else None,
        "epochs_to_gate": max(entry["epoch"] for entry in reached) if len(reached) == len(first) else None,
        "seconds_to_gate": features_s + new_layer_s + sum(entry["seconds"] for entry in reached)
        if len(reached) == len(first)
        else None,
    }


def _first_pass(
    curve: str, history: History, gates: Sequence[Gate], trivial: Mapping[str, float]
) -> Mapping[str, float] | None:
    """The first epoch whose validation scores passed every gate on this curve; None where none did.

    Of several curves each answers for the gates that bear its name, as from_scratch for accuracy_from_scratch.
    """
    named = [gate for gate in gates if gate.metric.endswith(f"_{curve}")]
    scores = {gate: gate.metric.removesuffix(f"_{curve}") for gate in named or gates}
    for entry in history:
        if all(score in entry and gate.passes(entry[score], trivial) for gate, score in scores.items()):
            return entry
    return None


@contextmanager
def _nondeterministic_operations() -> Iterator[set[str]]:
    """Collects the names of operations that torch warns of in deterministic mode; other warnings are shown as ever."""
    names: set[str] = set()
    if not torch.are_deterministic_algorithms_enabled():
        yield names
        return
    with warnings.catch_warnings():
        show = warnings.showwarning

        def collect(message: Warning | str, *where: Any, **more: Any) -> None:
            if "deterministic" in str(message):
                names.add(str(message).split()[0])
            else:
                show(message, *where, **more)

        warnings.filterwarnings("always", message=".*deterministic.*")
        warnings.showwarning = collect
        yield names


def _machine_failed(error: Exception) -> bool:
    """Whether an error is the machine's (memory, disk, driver), not the program's."""
    named = ("CUDA error", "CUDA driver", "cuDNN", "cuBLAS", "CUBLAS", "CUDNN")
    return isinstance(error, OSError) or _is_out_of_memory(error) or any(n in str(error) for n in named)


def _is_out_of_memory(error: Exception) -> bool:
    """The GPU's memory, or this machine's: of the latter torch knows no class of its own."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0]


def _outcome(record: Record, configuration: Configuration, how_long: str) -> tuple[str, str]:
    """Verdict, and the scores behind it or the reason that there are none."""
    findings = judge_run(record, configuration, record.seed)
    if record.status != "completed":
        return combined(findings), f"{record.message} ({how_long})"
    scores = [f"{entry.gate.metric} {entry.value:.4g} ({entry.gate})" for entry in findings if entry.value is not None]
    return combined(findings), f"{', '.join(scores)} ({how_long})"


def run_name(configuration: Configuration, seed: int) -> str:
    return f"{configuration.id} seed {seed}"


def _uses_base_weights(configuration: Configuration) -> bool:
    return configuration.kind in ("frozen", "new-task")
