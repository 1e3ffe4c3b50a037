"""The order in which an engine carries out runs: each after those that it starts from."""

from __future__ import annotations

from graphlib import TopologicalSorter
from typing import Protocol

from benchmarks.results.records import Record
from benchmarks.runs.plan import Plan
from benchmarks.suite import STAND_IN, Configuration


class Engine(Protocol):
    """Takes runs whose requirements are there, and hands each back when it is over, in whatever order."""

    def start(self, configuration: Configuration, seed: int) -> None: ...

    def next_over(self) -> Record:
        """Wait for the next record."""


def in_order(plan: Plan, engine: Engine) -> list[Record]:
    """Have an engine carry out the runs, each after those that it starts from; the records in the order of the runs.

    What most others wait for goes first.
    """
    planned = {(configuration.id, seed): configuration for configuration, seed in plan.runs}
    after = {
        (name, seed): [required for required in plan.starts_from(configuration, seed) if required in planned]
        for (name, seed), configuration in planned.items()
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
    return [records[run] for run in planned if run[0] != STAND_IN.id]
