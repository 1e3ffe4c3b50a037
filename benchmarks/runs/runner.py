"""Carries out runs, in order of their dependencies, and writes their records; skips runs that are already done."""

from __future__ import annotations

import gc
import math
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from hashlib import sha256

import msgspec
import torch

from benchmarks.errors import ExitCode, InfrastructureError
from benchmarks.exits import report_unexpected, with_fix
from benchmarks.interruption import interruptible
from benchmarks.machine.devices import check_compiler, choose_precision, open_device
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
    read_record,
    read_records,
    record_files,
    record_path,
    write_record,
)
from benchmarks.results.run_key import RunKey, deciding
from benchmarks.runs.plan import Plan, run_name
from benchmarks.runs.progress import Display
from benchmarks.runs.results_folder import locked
from benchmarks.runs.timing import timing
from benchmarks.suite import STAND_IN, STAND_IN_SEED, Configuration
from benchmarks.workloads import execute
from benchmarks.workloads.datasets import Store
from benchmarks.workloads.pretrained import IMAGENET
from benchmarks.workloads.run import READS, BaseWeights, Outcome, Run, check_data, checkpoints_folder, weights_path
from hw6core.checkpoint import verified_digest
from hw6core.device import allow_tf32, keep_freed_memory
from hw6core.errors import DataError, HW6Error, TrainingDivergedError, WeightsUnavailableError
from hw6core.models import check_vgg16_weights
from hw6core.provenance import data_kind
from hw6core.seeding import set_deterministic
from hw6core.steps import capture_cuda_graph

_PARTS_WHEN_OUT_OF_MEMORY = 4
_PATIENCE, _PATIENCE_S = 1.25, 60.0  # factor and extra seconds after a run's time limit, before the process is ended


@dataclass
class Runner:
    """Carries out a plan.

    Raises:
        InfrastructureError: the device is not available.
        UsageError: the device does not support the precision, or torch.compile does not work.
        DataError: (from `run_all`) the data, the given weights or an existing record is missing or damaged.
        KeyboardInterrupt: (from `run_all`) Ctrl-C or SIGTERM; the current training has saved its state.
    """

    plan: Plan
    display: Display
    known_ceiling: Ceiling | None = None  # the device's limits, if another process has measured them
    on_ceiling: Callable[[Ceiling], None] = lambda ceiling: None  # called when this process measures them

    def __post_init__(self) -> None:
        set_deterministic(self.plan.deterministic)
        self.device = open_device(self.plan.device)
        try:
            self.precision = choose_precision(self.device, self.plan.precision)
            self.environment = environment(self.device, self.precision, _mode(self.plan))
        except RuntimeError as error:  # out of memory, or in exclusive use by another process
            raise InfrastructureError(f"cannot use {self.device}: {first_line(error)}; see: make smoke") from error
        allow_tf32(self.precision == "tf32")
        self.store = Store(self.plan.data, self.device)
        if self.plan.compiled:
            check_compiler(self.device)
        if self.device.type == "cpu":
            keep_freed_memory()

    def run_all(self) -> list[Record]:
        """Carry out the missing runs in order; a run that fails leaves a record with the error, and the next starts."""
        self.prepare()
        with execution(self.plan, self.display):
            records = [self.record_of(configuration, seed) for configuration, seed in self.plan.runs]
        return [record for record in records if record.configuration != STAND_IN.id]

    def record_of(self, configuration: Configuration, seed: int) -> Record:
        """The record of a run: the one of an earlier call if it is still valid, else a new one."""
        name, key = run_name(configuration, seed), self.run_key(configuration, seed)
        record = self._valid_record(configuration, key)
        if record is not None:
            self.display.finish(name, *verdict_and_scores(record, configuration, "already done"))
            return record
        # Delete an outdated record first, so that it is not taken for the result of a run that is killed halfway.
        record_path(self.plan.results, configuration.id, seed).unlink(missing_ok=True)
        self.display.begin(name, configuration.title)
        record = self._run(configuration, key)
        write_record(self.plan.results, record)
        if record.status == "completed":
            self._delete_checkpoints(record)
        seconds = record.timing.total_s or 0.0
        self.display.finish(name, *verdict_and_scores(record, configuration, duration(seconds)), seconds)
        return record

    def _delete_checkpoints(self, record: Record) -> None:
        shutil.rmtree(checkpoints_folder(self.plan.results, record.configuration, record.seed), ignore_errors=True)

    def prepare(self) -> None:
        """Read all input before the first training, so that errors in it are reported now and not hours later.

        Raises:
            DataError: the data, the given weights or an existing record is missing or damaged.
        """
        check_data(self.store, self.plan.configurations)
        if self.plan.vgg16_weights and any(entry.uses_base_weights for entry in self.plan.configurations):
            check_vgg16_weights(self.plan.vgg16_weights)
        replaced = {record_path(self.plan.results, entry.id, seed) for entry, seed in self.plan.runs}
        for path in record_files(self.plan.results):
            if path not in replaced:  # the report needs all
                read_record(path)

    def _run(self, configuration: Configuration, key: RunKey) -> Record:
        seed = key.seed
        record = _new_record(self.plan, configuration, seed)
        record.environment = Environment(**self.environment)
        for required in self.plan.starts_from(configuration, seed):
            start = read_record(record_path(self.plan.results, *required))
            if start.status != "completed":
                name, its_seed = required
                record.status, cause = start.status, start.details
                record.message = f"this run starts from {name} seed {its_seed}, which has the status {start.status!r}"
                if name == STAND_IN.id:  # no table shows its message
                    record.message += f": {start.message}"
                record.details = Details(cause.infrastructure, cause.weights_missing, cause.unexpected)
                return record
        try:
            ceiling = self.ceiling
        except (RuntimeError, MemoryError) as error:
            record.message = f"{first_line(error)}, while measuring the limits of {self.device}"
            record.details.infrastructure = True  # a matrix product and a copy fail on no sound machine
            return record
        meter = Meter(self.device, shared=self.plan.runs_at_once > 1)
        began = time.perf_counter()
        try:
            record.data = self.data_of(configuration)
            with nondeterministic_operations() as found, self._watchdog(record):
                run, outcome = self._execute(configuration, key, meter)
        except WeightsUnavailableError as error:
            record.status, record.message = "not run", with_fix(error)
            record.details.weights_missing = True
        except TrainingDivergedError as error:
            record.message = str(error)
            self._delete_checkpoints(record)  # resuming would diverge again
        except HW6Error as error:
            record.message = with_fix(error)
        except Exception as error:  # out of memory, cuDNN, disk full, a bug: other runs may still succeed
            if isinstance(error, torch.AcceleratorError) and not is_out_of_memory(error):
                # The device's context is lost: no further run is possible.
                record.message = f"the device failed: {first_line(error)}"
                record.details.infrastructure = True
                self._add_measurements(record, meter)
                write_record(self.plan.results, record)
                raise InfrastructureError(f"{configuration.id} seed {seed}: {record.message}") from error
            if machine_failed(error):
                record.message = f"{type(error).__name__}: {first_line(error)}"
                record.details.infrastructure = True
            elif reason := compiler_failed(error):
                record.message = f"torch.compile failed: {reason}"
            else:
                # The traceback goes to the results folder, except on a cluster, whose nodes use temporary ones.
                record.message = report_unexpected(error, None if self.plan.cluster else self.plan.results)
                record.details.unexpected = True
        else:
            self._complete(record, key, run, outcome)
            record.details.nondeterministic_operations = sorted(found) or None
        record.timing.total_s = time.perf_counter() - began - (record.timing.floors_s or 0.0)
        record.environment.ceiling = asdict(ceiling)
        self._add_measurements(record, meter)
        return record

    def _add_measurements(self, record: Record, meter: Meter) -> None:
        """Add what the meter measured to the record; a hardware error turns its status into "error"."""
        record.environment.machine = msgspec.convert(meter.read(), Machine)
        reason = failure(record.environment.machine.hardware)
        if not reason or record.status == "not run":
            return
        if record.status == "completed":
            self._delete_checkpoints(record)  # the next call would resume from the end of the training
        record.message = "; ".join(filter(None, (record.message, reason)))
        record.status, record.details.infrastructure, record.details.unexpected = "error", True, False

    def _complete(self, record: Record, key: RunKey, run: Run, outcome: Outcome) -> None:
        """Fill in the record of a run that completed."""
        record.status = "completed"
        record.metrics, record.trivial, record.floors = outcome.metrics, outcome.trivial, outcome.floors
        record.history = {curve: training.history for curve, training in run.trainings.items()}
        record.weights = outcome.weights
        record.details = Details(
            **outcome.details,
            weights_digest=run.weights_digest,
            learned=run.learned or None,
            movement=run.movement or None,
            not_recorded=run.not_captured,
            gradient_accumulation=run.accumulation_steps if run.accumulation_steps > 1 else None,
            best_epochs={curve: training.best_epoch for curve, training in run.trainings.items()},
            limited_by="arithmetic" if run.arithmetic_s > run.memory_s else "memory",
            started_from=dict(key.started_from),
        )
        record.timing = Timing(**timing(run, run.configuration.gates, outcome.trivial))

    def data_of(self, configuration: Configuration) -> Data:
        """The data that the configuration's runs read; empty for a stand-in.

        Raises:
            DataError: it is missing or damaged.
        """
        name = READS.get(configuration.kind)
        return msgspec.convert(self.store.description(name), Data) if name else Data()

    def _execute(self, configuration: Configuration, key: RunKey, meter: Meter) -> tuple[Run, Outcome]:
        """Run; if the memory does not suffice, run again with each batch split into parts."""
        name = run_name(configuration, key.seed)
        run = Run(
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
            warn=self.display.log,
            on_trained=meter.stop_energy,
            deadline=time.monotonic() + self.plan.limit_s,
            capture=capture_cuda_graph if self.plan.cuda_graphs else None,
            compiled=self.plan.compiled,
        )
        try:
            return run, execute(run)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        self.display.log(f"{name}: out of memory; retrying with batches in {_PARTS_WHEN_OUT_OF_MEMORY} parts")
        run = replace(run, accumulation_steps=_PARTS_WHEN_OUT_OF_MEMORY)  # without what the first attempt measured
        gc.collect()  # frees the first attempt's memory, now that its frames are gone
        if self.device.type != "cpu":
            torch.get_device_module(self.device).empty_cache()
        return run, execute(run)

    def run_key(self, configuration: Configuration, seed: int) -> RunKey:
        """The current run key: everything that decides the run's numbers."""
        # By the records' bytes: a new run of a requirement counts as a change even if its scores are the same.
        paths = ((name, record_path(self.plan.results, name, seed)) for name in configuration.requires)
        started_from = {name: sha256(path.read_bytes()).hexdigest()[:16] for name, path in paths if path.exists()}
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
        """End the process if a run hangs far beyond its limit: a step that never ends cannot be interrupted."""
        if math.isinf(self.plan.limit_s):
            yield
            return

        def give_up() -> None:
            record.message = f"the run hung and was ended after {duration(after_s)}"
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
        """The device's limits, measured once, before the first run that is not already done."""
        if self.known_ceiling is not None:
            return self.known_ceiling
        measured = measure_ceiling(self.device, self.precision)
        self.on_ceiling(measured)
        return measured

    def _valid_record(self, configuration: Configuration, now: RunKey) -> Record | None:
        """The record of an earlier call, if its run key, gates and floors are unchanged and its weights still exist."""
        try:
            record = read_record(record_path(self.plan.results, configuration.id, now.seed))
        except DataError:
            return None
        then = RunKey.of_record(record, configuration)
        if not self.plan.on_one_device:  # a device of the same kind, with the same driver, may have carried it out
            then, now = then.on_any_gpu(), now.on_any_gpu()
        judged_alike = record.gates == configuration.gates and set(configuration.floors) <= set(record.floors or {})
        if record.status != "completed" or then != now or not judged_alike:
            return None
        path = weights_path(self.plan.results, configuration.id, now.seed)
        if self.plan.is_required(configuration.id) and verified_digest(path) != record.details.weights_digest:
            return None
        return record

    def _base_weights(self) -> BaseWeights:
        """The pre-trained weights; raises WeightsUnavailableError if there are none."""
        if self.plan.stand_in:
            return BaseWeights(weights_path(self.plan.results, STAND_IN.id, STAND_IN_SEED), "stand-in")
        if isinstance(self.plan.base_weights, WeightsUnavailableError):
            raise self.plan.base_weights
        assert self.plan.base_weights is not None
        return self.plan.base_weights

    def _base_label(self) -> str:
        with suppress(WeightsUnavailableError):  # a record of an earlier call that had them stays valid
            return self._base_weights().label
        return IMAGENET


@contextmanager
def execution(plan: Plan, display: Display) -> Iterator[None]:
    """Lock the results folder, show the progress and handle signals while a plan is carried out.

    Raises:
        UsageError, InfrastructureError: the folder cannot be used; see `benchmarks.runs.results_folder.locked`.
    """
    with locked(plan, display.log), interruptible():
        names = {run_name(configuration, seed): configuration.id for configuration, seed in plan.runs}
        works = {entry.id: entry.work_on(plan.profile, data_kind(plan.data)) for entry, _ in plan.runs}
        costs = {name: work.cost for name, work in works.items() if work.cost is not None}
        known_s: dict[str, float] = {}  # from records of earlier calls, whether or not they are still valid
        with suppress(DataError):
            for record in read_records(plan.results):
                if record.status == "completed" and record.timing.total_s:
                    known_s[record.configuration] = record.timing.total_s
        with display.plan(names, known_s, plan.workers, costs):
            yield


def lost_record(plan: Plan, configuration: Configuration, seed: int, reason: str) -> Record:
    """The record of a run whose process or machine died."""
    record = _new_record(plan, configuration, seed)
    record.message, record.details = reason, Details(infrastructure=True)
    return record


def _new_record(plan: Plan, configuration: Configuration, seed: int) -> Record:
    """A record with what is known before the run."""
    return Record(
        configuration.id,
        plan.profile,
        seed,
        "error",
        gates=configuration.gates,
        settings=configuration.fingerprint(plan.profile, data_kind(plan.data)),
    )


def _mode(plan: Plan) -> str:
    """How runs are carried out, for the environment in their records."""
    words = ["deterministic" if plan.deterministic else "fast"]
    if plan.compiled:
        words.append("compiled")
    if plan.cuda_graphs:
        words.append("CUDA graphs")
    if plan.runs_at_once > 1:
        words.append(f"{plan.runs_at_once} runs at once")
    return ", ".join(words)


def verdict_and_scores(record: Record, configuration: Configuration, how_long: str) -> tuple[str, str]:
    """The verdict, and the scores or the reason that there are none."""
    findings = judge_run(record, configuration, record.seed)
    verdict = combined(findings) if findings else record.status
    if record.status != "completed":
        return verdict, f"{record.message} ({how_long})"
    findings.sort(key=lambda entry: entry.verdict is not Verdict.FAILED)  # failed first: narrow screens cut the rest
    scores = [
        f"{words(gate.metric)} {number(gate.metric, value)} ({gate_text(gate, [record.trivial])})"
        for gate, value in ((entry.gate, entry.value) for entry in findings)
        if value is not None
    ]
    return verdict, f"{', '.join(scores) or 'no gate'} ({how_long})"
