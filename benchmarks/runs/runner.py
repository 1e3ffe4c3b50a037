"""(configuration, seed, profile) -> record, in order of dependencies; what is done and still valid is skipped."""

from __future__ import annotations

import gc
import math
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from hashlib import sha256
from pathlib import Path

import msgspec
import torch

from benchmarks.errors import ExitCode, InfrastructureError
from benchmarks.exits import sentence, unexpected
from benchmarks.interruption import interruptible
from benchmarks.machine.devices import RECORDING, check_compiler, choose_precision, open_device
from benchmarks.machine.environment import environment
from benchmarks.machine.failures import (
    compiler_failed,
    first_line,
    is_out_of_memory,
    machine_failed,
    nondeterministic_operations,
)
from benchmarks.machine.monitor import Meter
from benchmarks.machine.roofline import Ceiling, measure_ceiling
from benchmarks.results.formatting import duration, gate_text, number, words
from benchmarks.results.gates import Verdict, combined, judge_run
from benchmarks.results.hardware import failure
from benchmarks.results.records import (
    Data,
    Details,
    Environment,
    Machine,
    Record,
    Timing,
    check_records,
    read_record,
    read_records,
    record_path,
    write_record,
)
from benchmarks.results.run_key import RunKey, deciding
from benchmarks.runs.plan import Plan, run_name
from benchmarks.runs.progress import Display
from benchmarks.runs.results_folder import claimed
from benchmarks.runs.timing import timing
from benchmarks.suite import STAND_IN, STAND_IN_SEED, Configuration
from benchmarks.workloads import execute
from benchmarks.workloads.datasets import Store
from benchmarks.workloads.pretrained import IMAGENET
from benchmarks.workloads.run import READS, BaseWeights, Outcome, Run, checkpoints_folder, weights_path
from hw6core.checkpoint import verified_digest
from hw6core.device import allow_tf32, keep_freed_memory
from hw6core.errors import DataError, HW6Error, TrainingDivergedError, UsageError, WeightsUnavailableError
from hw6core.models import check_vgg16_weights
from hw6core.provenance import data_kind
from hw6core.seeding import set_deterministic
from hw6core.steps import captured_or_eager

_PARTS_WHEN_OUT_OF_MEMORY = 4
_PATIENCE, _PATIENCE_S = 1.25, 60.0  # beyond a run's limit, for a step that does not end


@dataclass
class Runner:
    """Carries out a plan.

    Raises:
        InfrastructureError: the device is not there.
        UsageError: the device is unknown, or has not the precision asked for, or nothing can be compiled.
        DataError: (from `run_all`) the data, the given weights or a kept record is missing or damaged.
        KeyboardInterrupt: (from `run_all`) Ctrl-C or SIGTERM; a training under way has saved its state.
    """

    plan: Plan
    display: Display = field(default_factory=Display)
    known_ceiling: Ceiling | None = None  # of this kind of device, where another process has measured it
    on_ceiling: Callable[[Ceiling], None] = lambda ceiling: None  # told when it is measured here

    def __post_init__(self) -> None:
        set_deterministic(self.plan.deterministic)
        self.device = open_device(self.plan.device)
        try:
            self.precision = choose_precision(self.device, self.plan.precision)
            self.environment = environment(self.device, self.precision, _mode(self.plan))
        except RuntimeError as error:  # full, or another process has it to itself
            raise InfrastructureError(f"{self.device} cannot be used: {first_line(error)}; ask: make smoke") from error
        allow_tf32(self.precision == "tf32")
        self.store = Store(self.plan.data, self.device)
        if self.plan.cuda_graphs and self.device.type not in RECORDING:
            raise UsageError("CUDA_GRAPHS=1 needs a GPU; leave it out")
        if self.plan.compiled:
            check_compiler(self.device)
        if self.device.type == "cpu":
            keep_freed_memory()

    def run_all(self) -> list[Record]:
        """Run what is missing, in order; a run that fails leaves a record that says so, and the others go on."""
        self.prepare()
        with under_way(self.plan, self.display):
            records = [self.record_of(configuration, seed) for configuration, seed in self.plan.runs]
        return [record for record in records if record.configuration != STAND_IN.id]

    def record_of(self, configuration: Configuration, seed: int) -> Record:
        """The record of a run: that of an earlier call if it still holds, else a new one."""
        name, key = run_name(configuration, seed), self.run_key(configuration, seed)
        record = self._valid_record(configuration, key)
        if record is not None:
            self.display.finish(name, *verdict_and_scores(record, configuration, "done before"))
            return record
        # An old record must not answer for a run that is killed halfway. It is gone before anybody is told of a begin.
        record_path(self.plan.results, configuration.id, seed).unlink(missing_ok=True)
        self.display.begin(name, configuration.title)
        record = self._run(configuration, key)
        self._keep(record)
        seconds = record.timing.total_s or 0.0
        self.display.finish(name, *verdict_and_scores(record, configuration, duration(seconds)), seconds)
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

    def prepare(self) -> None:
        """Read the input before anything is trained: what cannot be read would only be found out hours later.

        Raises:
            DataError: the data, the given weights or a record that is kept is missing or damaged.
        """
        for name in sorted({READS[configuration.kind] for configuration in self.plan.configurations}):
            self.store.description(name)
        if self.plan.vgg16_weights and any(entry.uses_base_weights for entry in self.plan.configurations):
            check_vgg16_weights(self.plan.vgg16_weights)
        check_records(self.plan.results, [record_path(Path(), entry.id, seed).name for entry, seed in self.plan.runs])

    def _run(self, configuration: Configuration, key: RunKey) -> Record:
        seed = key.seed
        record = _planned(self.plan, configuration, seed, self.store.kind)
        record.environment = Environment(**self.environment)
        for required in self.plan.starts_from(configuration, seed):
            start = read_record(record_path(self.plan.results, *required))
            if start.status != "completed":
                record.status = "not run" if start.status == "not run" else "error"
                name, its_seed = required
                record.message = f"{name} seed {its_seed} has the status {start.status!r}, and this run starts from it"
                if name == STAND_IN.id:  # which no table shows
                    record.message += f": {start.message}"
                cause = start.details
                record.details = Details(cause.infrastructure, cause.weights_missing, cause.unexpected)
                return record
        try:
            ceiling = self.ceiling
        except (RuntimeError, MemoryError) as error:
            record.message = f"{first_line(error)}, as the limits of {self.device} were measured"
            record.details.infrastructure = machine_failed(error)
            return record
        meter = Meter(self.device, shared=self.plan.runs_at_once > 1)
        began = time.perf_counter()
        try:
            record.data = self.data_of(configuration)
            with nondeterministic_operations() as found, self._watchdog(record):
                run, outcome = self._execute(configuration, key)
        except WeightsUnavailableError as error:
            record.status, record.message = "not run", sentence(error)
            record.details.weights_missing = True
        except TrainingDivergedError as error:
            record.message = str(error)
            self._forget_trainings(record)  # going on from there would end there again
        except HW6Error as error:
            record.message = sentence(error)
        except torch.AcceleratorError as error:  # the device's context is lost: nothing can run after it
            record.message = f"the device failed: {first_line(error)}"
            record.details.infrastructure = True
            self._watched(record, meter)
            write_record(self.plan.results, record)
            raise InfrastructureError(f"{configuration.id} seed {seed}: {record.message}") from error
        except Exception as error:  # out of memory, cuDNN, disk full, a fault of the suite: others may still run
            if machine_failed(error):
                record.message = f"{type(error).__name__}: {first_line(error)}"
                record.details.infrastructure = True
            elif reason := compiler_failed(error):
                record.message = f"torch.compile failed: {reason}"
            else:
                # With its traceback among the results; those of a cluster's node are gone after the run.
                record.message = unexpected(error, None if self.plan.cluster else self.plan.results)
                record.details.unexpected = True
        else:
            self._complete(record, key, run, outcome)
            record.details.nondeterministic_operations = sorted(found) or None
        record.timing.total_s = time.perf_counter() - began - (record.timing.floors_s or 0.0)
        record.environment.ceiling = asdict(ceiling)
        self._watched(record, meter)
        return record

    def _watched(self, record: Record, meter: Meter) -> None:
        """What the machine did meanwhile goes into the record of a run; an error of the hardware makes it one."""
        record.environment.machine = msgspec.convert(meter.read(), Machine)
        reason = failure(record.environment.machine.hardware)
        if not reason or record.status == "not run":
            return
        if record.status == "completed":
            self._forget_trainings(record)  # the same command would go on from their end
        record.message = "; ".join(filter(None, (record.message, reason)))
        record.status, record.details.infrastructure, record.details.unexpected = "error", True, False

    def _complete(self, record: Record, key: RunKey, run: Run, outcome: Outcome) -> None:
        """What a run found out goes into its record."""
        record.status = "completed"
        record.metrics, record.trivial, record.floors = outcome.metrics, outcome.trivial, outcome.floors
        record.history = {curve: training.history for curve, training in run.trainings.items()}
        record.weights = outcome.weights
        record.details = Details(
            **outcome.details,
            weights_digest=run.weights_digest,
            learned=run.learned or None,
            movement=run.movement or None,
            not_recorded=run.not_captured[0] if run.not_captured else None,
            gradient_accumulation=run.accumulation_steps if run.accumulation_steps > 1 else None,
            best_epochs={curve: training.best_epoch for curve, training in run.trainings.items()},
            limited_by="arithmetic" if run.arithmetic_s > run.memory_s else "memory",
            started_from=dict(key.started_from),
        )
        record.timing = Timing(**timing(run, run.configuration.gates, outcome.trivial))

    def data_of(self, configuration: Configuration) -> Data:
        """What its runs read; nothing of a data set for a stand-in.

        Raises:
            DataError: it is missing or damaged.
        """
        name = READS.get(configuration.kind)
        return msgspec.convert(self.store.description(name), Data) if name else Data()

    def _execute(self, configuration: Configuration, key: RunKey) -> tuple[Run, Outcome]:
        """Once more with each batch in parts if the memory does not hold it whole."""
        for parts in (1, _PARTS_WHEN_OUT_OF_MEMORY):
            run = self._new_run(configuration, key, parts)
            try:
                return run, execute(run)
            except (RuntimeError, MemoryError) as error:
                if parts > 1 or not is_out_of_memory(error):
                    raise
                name = run_name(configuration, key.seed)
                self.display.say(f"{name}: out of memory; again, each batch in {_PARTS_WHEN_OUT_OF_MEMORY} parts")
            gc.collect()  # what the failed attempt held, now that its frames are gone
            if self.device.type != "cpu":
                torch.get_device_module(self.device).empty_cache()
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _new_run(self, configuration: Configuration, key: RunKey, accumulation_steps: int) -> Run:
        name, not_captured = run_name(configuration, key.seed), list[str]()

        def on_failure(reason: str) -> None:
            if not not_captured:
                self.display.say(f"{name}: steps are not recorded, as one refused: {reason}")
            not_captured.append(reason)

        return Run(
            configuration,
            self.plan.profile,
            key.seed,
            self.store,
            self.device,
            self.precision,
            self.plan.results,
            self._base_weights() if configuration.uses_base_weights else None,
            lambda label, steps: self.display.training(name, label, steps),
            self.ceiling,
            identity=key.digest(),
            floors_identity=replace(key, seed=0, started_from={}, base_weights=None).digest(),
            warn=self.display.say,
            deadline=time.monotonic() + self.plan.limit_s,
            capture=captured_or_eager(on_failure) if self.plan.cuda_graphs else None,
            compiled=self.plan.compiled,
            not_captured=not_captured,
            accumulation_steps=accumulation_steps,
        )

    def run_key(self, configuration: Configuration, seed: int) -> RunKey:
        """What decides a run's numbers, here and now."""
        # Another run of what it starts from, even with the same scores, leaves another record.
        records = {name: record_path(self.plan.results, name, seed) for name in configuration.requires}
        started_from = {
            name: sha256(path.read_bytes()).hexdigest()[:16] for name, path in records.items() if path.exists()
        }
        return RunKey(
            configuration.id,
            seed,
            self.plan.profile,
            configuration.fingerprint(self.plan.profile, self.store.kind),
            msgspec.to_builtins(self.data_of(configuration)),
            deciding(self.environment),
            started_from,
            self._base_label() if configuration.uses_base_weights else None,
        )

    @contextmanager
    def _watchdog(self, record: Record) -> Iterator[None]:
        """Ends the process if a run hangs far beyond its limit: a step that never ends cannot be asked to."""
        if math.isinf(self.plan.limit_s):
            yield
            return

        def give_up() -> None:
            record.message = f"no step was done any more; given up after {duration(after_s)}"
            record.details.infrastructure = True
            write_record(self.plan.results, record)
            print(f"error: {record.configuration} seed {record.seed}: {record.message}", file=sys.stderr, flush=True)
            os._exit(ExitCode.MACHINE)

        after_s = self.plan.limit_s * _PATIENCE + _PATIENCE_S
        timer = threading.Timer(after_s, give_up)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    @cached_property
    def ceiling(self) -> Ceiling:
        """Measured once, before the first run that is not done yet."""
        if self.known_ceiling is not None:
            return self.known_ceiling
        measured = measure_ceiling(self.device, self.precision)
        self.on_ceiling(measured)
        return measured

    def _valid_record(self, configuration: Configuration, now: RunKey) -> Record | None:
        """The record of an earlier call, if the same would be computed again and its weights are still there."""
        try:
            record = read_record(record_path(self.plan.results, configuration.id, now.seed))
        except DataError:
            return None
        then = RunKey.of_record(record, configuration)
        if not self.plan.on_one_device:  # another of the same kind, with the same driver, may have carried it out
            then, now = then.on_any_gpu(), now.on_any_gpu()
        same_gates = record.gates == configuration.gates
        if record.status != "completed" or then != now or not same_gates:
            return None
        path = weights_path(self.plan.results, configuration.id, now.seed)
        if self.plan.is_required(configuration.id) and verified_digest(path) != record.details.weights_digest:
            return None
        return record

    def _base_weights(self) -> BaseWeights:
        """Raises WeightsUnavailableError: there are none."""
        if self.plan.stand_in:
            return BaseWeights(weights_path(self.plan.results, STAND_IN.id, STAND_IN_SEED), "stand-in")
        if isinstance(self.plan.base_weights, WeightsUnavailableError):
            raise self.plan.base_weights
        assert self.plan.base_weights is not None
        return self.plan.base_weights

    def _base_label(self) -> str:
        with suppress(WeightsUnavailableError):  # an earlier call may have had them
            return self._base_weights().label
        return IMAGENET


@contextmanager
def under_way(plan: Plan, display: Display) -> Iterator[None]:
    """While a plan is carried out: its results folder is claimed, its progress shown, an interruption is heeded.

    Raises:
        UsageError, InfrastructureError: the folder cannot be used; see `benchmarks.runs.results_folder.claimed`.
    """
    with claimed(plan, display.say), interruptible():
        names = {run_name(configuration, seed): configuration.id for configuration, seed in plan.runs}
        works = {entry.id: entry.work_on(plan.profile, data_kind(plan.data)) for entry, _ in plan.runs}
        costs = {name: work.cost for name, work in works.items() if work.cost is not None}
        with display.plan(names, _known_seconds(plan.results), plan.workers, costs):
            yield


def lost(plan: Plan, configuration: Configuration, seed: int, reason: str) -> Record:
    """The record of a run whose process or machine is gone."""
    record = _planned(plan, configuration, seed, data_kind(plan.data))
    record.message, record.details = reason, Details(infrastructure=True)
    return record


def leave_lost(plan: Plan, record: Record) -> bool:
    """Write the record of a run that was lost before it began.

    Returns:
        False, with nothing written, if a completed one of an earlier call is there. Whether it still holds nobody has
        found out: it must neither be deleted nor answer for this call.
    """
    with suppress(DataError):
        if read_record(record_path(plan.results, record.configuration, record.seed)).status == "completed":
            return False
    write_record(plan.results, record)
    return True


def check_looked_at(passed_over: Sequence[Record]) -> None:
    """The end of a plan whose `leave_lost` left completed records in place.

    Raises:
        InfrastructureError: there are some.
    """
    if passed_over:
        names = ", ".join(f"{record.configuration} seed {record.seed}" for record in passed_over)
        raise InfrastructureError(
            f"nobody could look at what is left of {names} ({passed_over[0].message}); "
            "it is kept and answers for nothing yet: mend that and give the same command again"
        )


def _planned(plan: Plan, configuration: Configuration, seed: int, kind: str) -> Record:
    """What is known of a run before it is carried out."""
    return Record(
        configuration.id,
        plan.profile,
        seed,
        "error",
        gates=configuration.gates,
        settings=configuration.fingerprint(plan.profile, kind),
    )


def _mode(plan: Plan) -> str:
    """For people, and to tell records apart that were made in different ways."""
    words = ["deterministic" if plan.deterministic else "fast"]
    if plan.compiled:
        words.append("compiled")
    if plan.cuda_graphs:
        words.append("CUDA graphs")
    if plan.runs_at_once > 1:
        words.append(f"{plan.runs_at_once} runs at once")
    return ", ".join(words)


def _known_seconds(results: Path) -> dict[str, float]:
    """How long a run of a configuration took in an earlier call, whether or not its record still holds."""
    with suppress(DataError):
        return {
            record.configuration: seconds
            for record in read_records(results)
            if record.status == "completed" and (seconds := record.timing.total_s)
        }
    return {}


def verdict_and_scores(record: Record, configuration: Configuration, how_long: str) -> tuple[str, str]:
    """Verdict, and the scores behind it or the reason that there are none."""
    findings = judge_run(record, configuration, record.seed)
    verdict = combined(findings) if findings else record.status
    if record.status != "completed":
        return verdict, f"{record.message} ({how_long})"
    findings.sort(key=lambda entry: entry.verdict is not Verdict.FAILED)  # first what a narrow screen must show
    scores = [
        f"{words(gate.metric)} {number(gate.metric, value)} ({gate_text(gate, [record.trivial])})"
        for gate, value in ((entry.gate, entry.value) for entry in findings)
        if value is not None
    ]
    return verdict, f"{', '.join(scores) or 'no gate'} ({how_long})"
