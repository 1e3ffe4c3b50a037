"""(configuration, seed, profile) -> record. Keeps the order of dependencies and skips what is done and still valid."""

from __future__ import annotations

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
from benchmarks.options import DEVICES, SYNTHETIC_FOLDER, Options
from benchmarks.pretrained import STAND_IN_FILES, BaseWeights, expected_label, resolve
from benchmarks.progress import Display
from benchmarks.records import History, Record, check_results, read_record, read_records, record_path, write_record
from benchmarks.shards import Shard, part
from benchmarks.store import Store
from benchmarks.suite import Configuration, Gate, Profile, with_requirements
from benchmarks.words import duration
from benchmarks.workloads import READS, Run, carry_out, weights_path
from hw6core.data.synthetic import synthesize
from hw6core.errors import DataError, InfrastructureError, SuiteError, UsageError, WeightsUnavailableError
from hw6core.memory import keep_freed_memory
from hw6core.models import check_vgg16_weights
from hw6core.seeding import set_deterministic
from hw6core.train import Progress, Silent, default_precision, record_cuda_graph


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

    @property
    def runs(self) -> list[tuple[Configuration, int]]:
        """What is to be carried out, in order."""
        if self.shard is not None:
            return part(self.configurations, self.seeds, self.shard)
        return [(configuration, seed) for seed in self.seeds for configuration in self.configurations]


def make_plan(options: Options, display: Display) -> Plan:
    """The plan that a person's options ask for; draws the synthetic data where no other is at hand."""
    open_device(options.device)  # one that is not there is told before data is drawn
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
    )


@dataclass
class Runner:
    """Carries out a plan.

    Raises:
        InfrastructureError: the device is not there.
        UsageError: the device is unknown; (from `run_all`) the results folder cannot be written.
        DataError: (from `run_all`) the data, the given weights or a kept record is missing or damaged.
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
        runs = self.plan.runs
        self._check_input()
        names = {_run_name(configuration, seed): configuration.id for configuration, seed in runs}
        with self.display.plan(names, self._known_seconds()):
            self._find_weights()
            return [self._record_of(configuration, seed) for configuration, seed in runs]

    def _record_of(self, configuration: Configuration, seed: int) -> Record:
        """The record of a run: that of an earlier call if it still holds, else a new one."""
        name = _run_name(configuration, seed)
        record = self._valid_record(configuration, seed)
        if record is not None:
            self.display.finish(name, *_outcome(record, configuration, "done before"))
            return record
        self.display.begin(name, configuration.title)
        # An old record must not answer for a run that is killed halfway.
        record_path(self.plan.results, configuration.id, seed).unlink(missing_ok=True)
        record = self._run(configuration, seed)
        write_record(self.plan.results, record)
        seconds = record.timing.get("total_s") or 0.0
        self.display.finish(name, *_outcome(record, configuration, duration(seconds)), seconds)
        return record

    def _known_seconds(self) -> dict[str, float]:
        """How long a run of a configuration took in an earlier call, whether or not its record still holds."""
        with suppress(DataError):
            return {
                record.configuration: seconds
                for record in read_records(self.plan.results)
                if record.status == "completed" and (seconds := record.timing.get("total_s"))
            }
        return {}

    def _find_weights(self) -> None:
        """Before anything is trained: a download takes time, and its failure is better known now than in hours."""
        if self.plan.profile == "full" and any(_uses_base_weights(entry) for entry in self.plan.configurations):
            try:
                self.base_weights()
            except WeightsUnavailableError as error:
                self.display.say(f"no ImageNet weights, so what needs them will be 'not run': {error}")

    def _check_input(self) -> None:
        """Before anything is trained: what cannot be read or written would only be found out hours later."""
        for name in sorted({READS[configuration.kind] for configuration in self.plan.configurations}):
            self.store.description(name)
        if self.plan.vgg16_weights and any(_uses_base_weights(entry) for entry in self.plan.configurations):
            check_vgg16_weights(self.plan.vgg16_weights)
        check_results(self.plan.results, [record_path(Path(), entry.id, seed).name for entry, seed in self.plan.runs])

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
        run = Run(
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
            record_cuda_graph if self.plan.cuda_graphs else None,
        )
        meter = Meter(self.device)
        began = time.perf_counter()
        try:
            record.data = self.store.description(READS[configuration.kind])
            with _nondeterministic_operations() as found:
                outcome = carry_out(run)
        except WeightsUnavailableError as error:
            record.status, record.message = "not run", str(error)
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
            record.details["best_epochs"] = {curve: training.best_epoch for curve, training in run.trainings.items()}
            record.details["limited_by"] = "arithmetic" if run.arithmetic_s > run.memory_s else "memory"
            if found:
                record.details["nondeterministic_operations"] = sorted(found)
            record.details["started_from"] = self._started_from(configuration, seed)
            record.timing = _timing(run, configuration.gates, outcome.trivial)
        record.timing["total_s"] = time.perf_counter() - began
        record.environment = self.environment | {"ceiling": asdict(self.ceiling), "machine": meter.read()}
        return record

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
        return lambda label, steps: self.display.training(_run_name(configuration, seed), label, steps)

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
        if _uses_base_weights(configuration):
            label = expected_label(self.plan.vgg16_weights, stand_in=self.plan.profile == "quick")
            if not record.weights.endswith(label):
                return False
        needed = any(configuration.id in other.requires for other in self.plan.configurations)
        return not needed or weights_path(self.plan.results, configuration.id, record.seed).is_file()


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
    if name not in DEVICES:
        raise UsageError(f"unknown device {name!r}; expected {' or '.join(DEVICES)}")
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
    named = ("can't allocate memory", "CUDA error", "CUDA driver", "cuDNN", "cuBLAS", "CUBLAS", "CUDNN")
    return isinstance(error, torch.OutOfMemoryError | OSError | MemoryError) or any(n in str(error) for n in named)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0]


def _outcome(record: Record, configuration: Configuration, how_long: str) -> tuple[str, str]:
    """Verdict, and the scores behind it or the reason that there are none."""
    findings = judge_run(record, configuration, record.seed)
    if record.status != "completed":
        return combined(findings), f"{record.message} ({how_long})"
    scores = [f"{entry.gate.metric} {entry.value:.4g} ({entry.gate})" for entry in findings if entry.value is not None]
    return combined(findings), f"{', '.join(scores)} ({how_long})"


def _run_name(configuration: Configuration, seed: int) -> str:
    return f"{configuration.id} seed {seed}"


def _uses_base_weights(configuration: Configuration) -> bool:
    return configuration.kind in ("frozen", "new-task")
