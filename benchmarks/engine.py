"""Who carries out the runs of a plan: this process, several on this machine, or a Ray cluster."""

from __future__ import annotations

from collections.abc import Sequence
from graphlib import TopologicalSorter
from typing import Protocol

from benchmarks.plan import Plan
from benchmarks.progress import Display
from benchmarks.records import Record
from benchmarks.runner import Runner
from benchmarks.suite import Configuration

PlannedRun = tuple[Configuration, int]


class Engine(Protocol):
    """Takes runs whose requirements are there, and hands each back when it is over, in whatever order."""

    def start(self, configuration: Configuration, seed: int) -> None: ...

    def next_over(self) -> Record:
        """Wait for the next record."""


def carry_out_plan(plan: Plan, display: Display) -> list[Record]:
    """The records of all runs of a plan; a run that fails leaves one that says so, and the others go on.

    Raises:
        SuiteError: nothing can be run: no data, no device, a results folder that is taken or full.
        KeyboardInterrupt: Ctrl-C or SIGTERM; trainings on this machine have saved their state.
    """
    if plan.cluster is not None:
        from benchmarks.ray_engine import run_on_ray

        return run_on_ray(plan, display)
    if plan.workers > 1:
        from benchmarks.workers import run_on_workers

        return run_on_workers(plan, display)
    return Runner(plan, display).run_all()


def in_order(runs: Sequence[PlannedRun], engine: Engine) -> list[Record]:
    """Have an engine carry out the runs, each after those that it starts from; the records in the order of the runs.

    What most others wait for goes first.
    """
    planned = {(configuration.id, seed): configuration for configuration, seed in runs}
    after = {
        (configuration.id, seed): [(name, seed) for name in configuration.requires if (name, seed) in planned]
        for configuration, seed in runs
    }
    waiting = {run: sum(run in needed for needed in after.values()) for run in after}
    sorter = TopologicalSorter(after)
    sorter.prepare()
    records: dict[tuple[str, int], Record] = {}
    while sorter.is_active():
        for run in sorted(sorter.get_ready(), key=lambda run: -waiting[run]):
            engine.start(planned[run], run[1])
        record = engine.next_over()
        run = (record.configuration, record.seed)
        records[run] = record
        sorter.done(run)
    return [records[configuration.id, seed] for configuration, seed in runs]
