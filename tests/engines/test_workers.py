"""Concurrent runs on one machine: the same records as in sequence, even if a process dies."""

from __future__ import annotations

import io
import multiprocessing
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from benchmarks.engines import workers
from benchmarks.engines.engine import execute_plan
from benchmarks.engines.order import Engine, run_in_order
from benchmarks.engines.workers import Workers
from benchmarks.errors import InfrastructureError
from benchmarks.machine.devices import visible_devices
from benchmarks.machine.roofline import Ceiling
from benchmarks.results.gates import Asked, judge
from benchmarks.results.records import Record, read_records, write_record
from benchmarks.runs.plan import Plan, run_name
from benchmarks.runs.progress import Display
from benchmarks.suite import SUITE, Configuration, select, with_requirements
from tests.killed_suite import make_fast
from tests.own_process import FORKS
from tests.record_factory import make_record
from tests.short_runs import shortened

ALL = list(SUITE.values())


class FakeEngine(Engine):
    """An engine that trains nothing and finishes the last run that was started first."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.waiting: list[Record] = []

    def begin(self) -> None: ...

    def end(self) -> None: ...

    def start(self, configuration: Configuration, seed: int) -> None:
        self.started.append(f"{configuration.id} {seed}")
        self.waiting.append(Record(configuration.id, "quick", seed, "completed"))

    def next_record(self) -> Record:
        return self.waiting.pop()


def test_runs_start_after_their_requirements_and_records_are_in_plan_order() -> None:
    engine = FakeEngine()
    plan = Plan(ALL, "quick", (0, 1), Path(), "cpu", Path())
    records = run_in_order(plan, engine)
    assert [(record.configuration, record.seed) for record in records] == [
        (entry.id, seed) for seed in (0, 1) for entry in ALL
    ]
    for configuration, seed in plan.runs:
        position = engine.started.index(f"{configuration.id} {seed}")
        assert all(engine.started.index(f"{name} {seed}") < position for name in configuration.requires)
    required = [f"{name} {seed}" for seed in (0, 1) for name in ("colorization", "vgg-scratch", "vgg-frozen")]
    assert engine.started[:6] == required  # runs that no other starts from come last


def test_a_stand_in_is_made_once_and_before_what_starts_from_it() -> None:
    engine = FakeEngine()
    records = run_in_order(Plan(ALL, "quick", (3, 4), Path(), "cpu", Path(), stand_in=True), engine)
    assert engine.started[0] == "vgg16-stand-in 0"  # most runs wait for it
    assert engine.started.count("vgg16-stand-in 0") == 1
    assert [record.seed for record in records] == [3] * len(ALL) + [4] * len(ALL)
    frozen = Plan([SUITE["seg-baseline"], SUITE["vgg-frozen"]], "quick", (3,), Path(), "cpu", Path(), stand_in=True)
    assert [run_name(*run) for run in frozen.runs] == ["seg-baseline seed 3", "vgg16-stand-in", "vgg-frozen seed 3"]


@pytest.mark.parametrize(
    ("visible", "count", "expected"),
    [("", 1, "0"), (" ", 2, "0 1"), ("2,3,5", 2, "2 3"), (" 1, 3 ", 2, "1 3"), ("GPU-abc,GPU-def", 1, "GPU-abc")],
)
def test_a_worker_sees_one_of_the_gpus_that_the_suite_sees(
    visible: str, count: int, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert visible_devices(count) == expected.split()


@pytest.mark.parametrize(
    ("workers", "gpus", "at_once"), [(1, 0, 1), (2, 0, 2), (4, 4, 1), (8, 4, 2), (3, 2, 2), (1, 1, 1)]
)
def test_the_number_of_concurrent_runs_per_device(workers: int, gpus: int, at_once: int) -> None:
    assert Plan([], "quick", (0,), Path(), "cpu", Path(), workers=workers, gpus=gpus).runs_at_once == at_once


class Saboteur(Display):
    """Kills the process that begins seg-augmented, as `kill -9` does."""

    workers: Workers

    def begin(self, run: str, title: str) -> None:
        super().begin(run, title)
        if run == "seg-augmented seed 0":
            (at,) = [worker for worker in self.workers._workers if worker.run and run_name(*worker.run) == run]
            at.process.kill()


def work(connection: Connection, plan: Plan, index: int, carry_out: Callable[..., None] = workers._work) -> None:
    """A worker's main function with small networks; its measured limit is its process id."""
    with pytest.MonkeyPatch.context() as patch:
        make_fast(patch)
        patch.setattr("benchmarks.runs.runner.measure_ceiling", lambda *_: Ceiling(float(os.getpid()), 1e10))
        carry_out(connection, plan, index)


@pytest.fixture
def forked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fork workers, which is faster because torch is already imported."""
    monkeypatch.setattr(multiprocessing, "get_context", lambda _: FORKS)
    monkeypatch.setattr(workers, "_work", work)


@pytest.mark.usefixtures("forked")
def test_if_a_process_dies_only_its_run_is_lost(data: Path, tmp_path: Path) -> None:
    chosen = [shortened(entry) for entry in with_requirements(select(["seg-augmented", "seg-pretrained"]))]
    plan = Plan(chosen, "quick", (0,), data, "cpu", tmp_path, workers=2)
    seen = io.StringIO()
    display = Saboteur(seen)
    display.workers = Workers(plan, display)
    records = display.workers.run_all()
    assert not multiprocessing.active_children()
    status = {record.configuration: record.status for record in records}
    assert status == {"seg-augmented": "error", "colorization": "completed", "seg-pretrained": "completed"}
    kept = {(record.configuration, record.status) for record in read_records(tmp_path)}
    assert kept == set(status.items())
    lost = records[0]
    assert lost.message == "its process was killed by signal 9"
    assert lost.environment.node == records[1].environment.node  # in the table of a fleet, it is the same device
    assert judge([lost], Asked([chosen[0]], [0])).exit_code == 4
    assert all(record.environment.mode == "fast, 2 runs at once" for record in records if record is not lost)
    ceilings = [record.environment.ceiling for record in records if record is not lost]
    assert ceilings == ceilings[:1] * 2, "measured once, before the other workers had runs"
    assert "seg-augmented seed 0: error, its process was killed by signal 9 (lost)" in seen.getvalue()
    # A second call repeats only the lost run.
    second = io.StringIO()
    again = execute_plan(plan, Display(second))
    assert [record.status for record in again] == ["completed"] * 3
    assert second.getvalue().count("already done") == 2


def die(*_: object) -> None:
    os._exit(3)


@pytest.mark.usefixtures("forked")
def test_the_suite_ends_if_no_process_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "_work", die)
    plan = Plan([SUITE["seg-baseline"]], "quick", (0, 1), tmp_path, "cpu", tmp_path, workers=2)
    with pytest.raises(InfrastructureError, match="a worker ended with exit code 3 before its first run"):
        execute_plan(plan, Display(io.StringIO()))
    assert not multiprocessing.active_children()


def test_an_earlier_record_of_a_lost_run_is_kept_but_does_not_count(tmp_path: Path) -> None:
    plan = Plan(ALL, "full", (0,), tmp_path, "cpu", tmp_path, workers=2)
    display = Display(io.StringIO())
    workers = Workers(plan, display)
    earlier = make_record("vgg-scratch")
    write_record(tmp_path, earlier)
    with display.plan({"vgg-scratch seed 0": "vgg-scratch"}, {}):
        record = workers._record_of_lost(SUITE["vgg-scratch"], 0, "its process was killed by signal 9")
        # A run that had begun has deleted the earlier record, so an existing one is its own.
        workers._show(("begin", ("vgg-scratch seed 0", "")))
        own = workers._record_of_lost(SUITE["vgg-scratch"], 0, "its process was killed")
    assert record.status == "error"
    assert read_records(tmp_path) == [earlier]
    with pytest.raises(InfrastructureError, match=r"records of vgg-scratch seed 0 are still valid \(its process was"):
        workers._raise_if_unchecked()
    assert own == earlier


@pytest.mark.usefixtures("forked")
def test_an_interruption_ends_the_workers_with_their_trainings_saved(data: Path, tmp_path: Path) -> None:
    class Interrupter(Display):
        def begin(self, run: str, title: str) -> None:
            os.kill(os.getpid(), signal.SIGTERM)

    chosen = [shortened(SUITE["seg-baseline"], epochs=10_000)]
    plan = Plan(chosen, "quick", (0, 1), data, "cpu", tmp_path, workers=2)
    with pytest.raises(KeyboardInterrupt):
        execute_plan(plan, Interrupter(io.StringIO()))
    assert not multiprocessing.active_children()
    assert not list((tmp_path / "records").glob("*"))
    assert not execute_plan(replace(plan, seeds=()), Display(io.StringIO()))  # the folder is free again
