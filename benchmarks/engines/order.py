"""What engines have in common: the order of the runs, each after those that it starts from, and lost runs."""

from __future__ import annotations

import platform
from abc import ABC, abstractmethod
from collections import deque
from contextlib import suppress
from graphlib import TopologicalSorter

from benchmarks.engines.messages import Message
from benchmarks.errors import InfrastructureError
from benchmarks.results.records import Record, read_record, record_path, write_record
from benchmarks.runs.plan import Plan, run_name
from benchmarks.runs.progress import Display
from benchmarks.runs.runner import execution, lost_record, verdict_and_scores
from benchmarks.suite import STAND_IN, Configuration
from hw6core.errors import DataError


class Engine(ABC):
    """Carries out the runs of a plan in other processes, which send their progress as messages."""

    def __init__(self, plan: Plan, display: Display) -> None:
        self._plan, self._display = plan, display
        self._finished: deque[Record] = deque()
        self._begun: set[str] = set()  # names of runs that a process has begun
        self._unchecked: list[Record] = []  # of lost runs that have a completed record of an earlier call

    def run_all(self) -> list[Record]:
        """Carry out the plan; see `benchmarks.engines.engine.execute_plan`.

        Raises:
            InfrastructureError: (among others) nobody could check whether some earlier records are still valid.
        """
        with execution(self._plan, self._display):
            try:
                self.begin()
                records = run_in_order(self._plan, self)
            finally:
                self.end()
            self._raise_if_unchecked()
            return records

    @abstractmethod
    def begin(self) -> None:
        """Prepare for the first run."""

    @abstractmethod
    def start(self, configuration: Configuration, seed: int) -> None:
        """Start a run whose requirements are done, or let it wait for a free process."""

    @abstractmethod
    def next_record(self) -> Record:
        """Wait for the next run to finish."""

    @abstractmethod
    def end(self) -> None:
        """End all processes."""

    def _show(self, message: Message) -> None:
        """Pass a message of a `benchmarks.engines.messages.Relay` on to the display."""
        method, arguments = message
        if method == "begin":
            self._begun.add(arguments[0])
        getattr(self._display, method)(*arguments)

    def _record_of_lost(self, configuration: Configuration, seed: int, reason: str) -> Record:
        """The record that the process itself wrote after it had begun the run, else one with the reason."""
        record, name = lost_record(self._plan, configuration, seed, reason), run_name(configuration, seed)
        if self._plan.cluster is None:
            record.environment.node = platform.node()
        found: Record | None = None
        with suppress(DataError):
            found = read_record(record_path(self._plan.results, configuration.id, seed))
        if found is not None and name in self._begun:
            record = found
        elif found is not None and found.status == "completed":
            # Of an earlier call, and not checked: neither deleted nor used as this call's result.
            self._unchecked.append(record)
        else:
            write_record(self._plan.results, record)
        self._display.finish(name, *verdict_and_scores(record, configuration, "lost"))
        return record

    def _raise_if_unchecked(self) -> None:
        if self._unchecked:
            names = ", ".join(f"{record.configuration} seed {record.seed}" for record in self._unchecked)
            raise InfrastructureError(
                f"could not check whether the earlier records of {names} are still valid "
                f"({self._unchecked[0].message}); they are kept but do not count: fix that and run the same command "
                "again"
            )


def run_in_order(plan: Plan, engine: Engine) -> list[Record]:
    """Carry out the runs on an engine, each after those that it starts from, and return the records in plan order.

    Runs that most others wait for start first.
    """
    planned = {(configuration.id, seed): configuration for configuration, seed in plan.runs}
    after = {run: plan.starts_from(configuration, run[1]) for run, configuration in planned.items()}
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
