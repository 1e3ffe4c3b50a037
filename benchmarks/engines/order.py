"""The order in which an engine carries out runs: each run after those that it starts from."""

from __future__ import annotations

from graphlib import TopologicalSorter
from typing import Protocol

from benchmarks.results.records import Record
from benchmarks.runs.plan import Plan
from benchmarks.suite import STAND_IN, Configuration


class Engine(Protocol):
    """Starts runs whose requirements are done, and returns their records in the order in which they finish."""

    def start(self, configuration: Configuration, seed: int) -> None: ...

    def next_record(self) -> Record:
        """Wait for the next run to finish."""


def run_in_order(plan: Plan, engine: Engine) -> list[Record]:
    """Carry out the runs on an engine, each after those that it starts from, and return the records in plan order.

    Runs that most others wait for start first.
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
        record = engine.next_record()
        run = (record.configuration, record.seed)
        records[run] = record
        sorter.done(run)
    return [records[run] for run in planned if run[0] != STAND_IN.id]
