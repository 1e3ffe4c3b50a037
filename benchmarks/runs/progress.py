"""Progress output: a live view of the whole plan on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TextIO

from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from benchmarks.results.formatting import duration
from hw6core.errors import visible
from hw6core.training import Callback

_LINE_EVERY_S = 15.0
_FIRST_ESTIMATE_S = 10.0  # the first steps are slow: kernels are chosen, memory is allocated
_REFRESH_PER_S = 4  # higher rates would take time from what is measured
_HIDDEN = ("epoch", "learning_rate", "seconds", "selection_dice")
_STYLES = {"passed": "green", "completed": "green", "running": "bold", "waiting": "dim", "not run": "yellow"}


@dataclass
class _Row:
    """One run of the plan, and its current training."""

    configuration: str
    state: str = "waiting"
    text: str = ""
    label: str = ""
    steps: int = 1
    done: int = 0
    began: float = 0.0
    training_began: float = 0.0
    line_at: float = 0.0  # when the last line about the training was printed

    def by_pace_s(self, now: float) -> float | None:
        """Remaining seconds of the training, by its pace so far."""
        return (now - self.training_began) / self.done * max(self.steps - self.done, 0) if self.done else None

    def left_s(self, now: float, known_s: float | None) -> float | None:
        """Remaining seconds of the run: by earlier runs of the configuration, else by the pace of its training."""
        if self.state == "waiting":
            return known_s
        if self.state != "running":
            return 0.0
        by_pace = self.by_pace_s(now)
        if known_s is None:
            return by_pace
        return max(known_s - (now - self.began), by_pace or 0.0)


class Display:
    """Shows the progress of a plan; ``stream``: stderr by default."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._rows: dict[str, _Row] = {}
        self._known_s: dict[str, float] = {}
        self._costs: dict[str, float] = {}
        self._estimate_logged = False
        self._at_once = 1
        self._began = time.monotonic()
        self._console = Console(file=self._stream, highlight=False)
        self._live: Live | None = None

    def log(self, line: str) -> None:
        """Print a line, above the live view if there is one."""
        line = visible(line)  # error messages may quote anything
        if self._live is not None:
            self._console.print(line, markup=False)
        else:
            print(line, file=self._stream, flush=True)

    @contextmanager
    def plan(
        self,
        runs: Mapping[str, str],
        known_s: Mapping[str, float],
        at_once: int = 1,
        costs: Mapping[str, float] | None = None,
    ) -> Iterator[None]:
        """Show these runs until the end of the block.

        Args:
            runs: configuration of each run, by the run's name, in order.
            known_s: seconds that a run of a configuration took in an earlier call, where known.
            at_once: number of concurrent runs.
            costs: relative duration of a run of each configuration, in any unit; see `Work.cost`.
        """
        self._at_once, self._costs = at_once, dict(costs or {})
        self._rows = {name: _Row(configuration) for name, configuration in runs.items()}
        self._known_s = dict(known_s)
        self._began = time.monotonic()
        # Not `Console.is_terminal`, which FORCE_COLOR makes true for log files.
        if not self._stream.isatty() or self._console.is_dumb_terminal:
            yield
            return
        with Live(console=self._console, get_renderable=self._view, refresh_per_second=_REFRESH_PER_S) as self._live:
            try:
                yield
            finally:
                self._live.refresh()
                self._live = None

    def begin(self, run: str, title: str) -> None:
        """Show that a run starts."""
        row = self._rows[run]
        row.state, row.text, row.began = "running", title, time.monotonic()
        if self._live is None:
            self.log(f"[{self._position(run)}] {run}: {title}")

    def finish(self, run: str, state: str, text: str, seconds: float | None = None) -> None:
        """Show a run's verdict, its scores or the reason that there are none, and its duration (None: already done)."""
        row = self._rows[run]
        row.state, row.text, row.done = state, visible(text), row.steps
        if seconds is not None:
            self._known_s[row.configuration] = seconds
        if self._live is None:
            left = self.time_left()
            waiting = sum(entry.state in ("waiting", "running") for entry in self._rows.values())
            self.log(f"[{self._position(run)}] {run}: {state}, {text}{f' ({left} left)' if waiting and left else ''}")

    def training(self, run: str, label: str, steps: int) -> Callback:
        """A callback that shows the progress of a training of ``steps`` steps."""
        row, now = self._rows[run], time.monotonic()
        row.label, row.steps, row.done, row.training_began, row.line_at = label, steps, 0, now, now
        return RunCallback(self, run)

    def resume(self, run: str, steps: int, seconds: float) -> None:
        """Count steps of the training that an earlier process made, and its time."""
        row = self._rows[run]
        row.done += steps
        row.training_began -= seconds
        self.log(f"  {f'{run} {row.label}'.strip()}: resumed from step {row.done} of {row.steps}")

    def advance(self, run: str, steps: int) -> None:
        """Count steps of the training. Print the estimated time of the whole plan once, when it is meaningful."""
        self._rows[run].done += steps
        if self._estimate_logged or self._live is not None or time.monotonic() - self._began < _FIRST_ESTIMATE_S:
            return
        left = self.time_left()
        if left.startswith("about") and len(self._rows) > 1:
            self._estimate_logged = True
            self.log(f"  {left} left for all {len(self._rows)} runs (estimate)")

    def epoch(self, run: str, entry: Mapping[str, float]) -> None:
        """Show the scores of an epoch."""
        row, now = self._rows[run], time.monotonic()
        scores = {name.replace("_", " "): value for name, value in entry.items() if name not in _HIDDEN}
        row.text = f"epoch {entry['epoch']:.0f}, " + ", ".join(f"{name} {value:.4f}" for name, value in scores.items())
        left_s = row.by_pace_s(now)  # None if a cluster has lost the messages of all steps
        if left_s and self._live is None and now - row.line_at >= _LINE_EVERY_S:
            row.line_at = now
            self.log(f"  {f'{run} {row.label}'.strip()}: {row.text}, about {duration(left_s)} left")

    def end_training(self, run: str) -> None:
        """Show that the training has ended, but not its run."""
        self._rows[run].label = ""

    def time_left(self) -> str:
        """Text with the remaining time; "at least" if some runs cannot be estimated yet, empty if it is unknown."""
        now = time.monotonic()
        expected_s = self._expected_s(now)
        left = [row.left_s(now, expected_s.get(row.configuration)) for row in self._rows.values()]
        each = [seconds for seconds in left if seconds is not None]
        known = max(sum(each) / self._at_once, max(each, default=0.0))  # a single run cannot be split
        if None not in left:
            return f"about {duration(known)}"
        return f"at least {duration(known)}" if known >= 1 else ""

    def _expected_s(self, now: float) -> Mapping[str, float]:
        """Seconds of a run of each configuration: as known, else by its cost and the pace of other runs."""
        seen = {name: seconds for name, seconds in self._known_s.items() if name in self._costs}
        if not seen:
            for row in self._rows.values():
                left_s = row.by_pace_s(now) if row.state == "running" else None
                if left_s is not None and row.configuration in self._costs:
                    seen[row.configuration] = now - row.began + left_s
        if not seen:
            return self._known_s
        pace = sum(seen.values()) / sum(self._costs[name] for name in seen)
        return {name: cost * pace for name, cost in self._costs.items()} | self._known_s

    def _position(self, run: str) -> str:
        return f"{list(self._rows).index(run) + 1}/{len(self._rows)}"

    def _view(self) -> Table:
        table = Table.grid(padding=(0, 1), expand=True)
        table.add_column(no_wrap=True)
        table.add_column(no_wrap=True)
        table.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
        for name, row in self._rows.items():
            style = _STYLES.get(row.state, "red")
            text: RenderableType = Text(row.text, style)
            if row.state == "running":  # finished runs need the whole width for their scores
                text = Table.grid(padding=(0, 1), expand=True)
                text.add_column(width=18)
                text.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
                label = f"{row.label}: {row.text}" if row.label else row.text
                text.add_row(ProgressBar(row.steps, row.done, width=18), Text(label, style))
            table.add_row(Text(row.state, style), Text(name, style), text)
        done = sum(row.state not in ("waiting", "running") for row in self._rows.values())
        left = self.time_left() if done < len(self._rows) else ""
        footer = f"{done} of {len(self._rows)} done, {duration(time.monotonic() - self._began)} so far"
        whole = Table.grid(expand=True)
        whole.add_row(table)
        whole.add_row(Text(footer + (f", {left} left" if left else ""), "dim"))
        return whole


class RunCallback(Callback):
    """Passes the progress of a run's training to a display."""

    def __init__(self, display: Display, run: str) -> None:
        self._display, self._run = display, run

    def on_resume(self, steps: int, seconds: float) -> None:
        self._display.resume(self._run, steps, seconds)

    def on_step(self) -> None:
        self._display.advance(self._run, 1)

    def on_epoch(self, entry: Mapping[str, float]) -> None:
        self._display.epoch(self._run, entry)

    def on_end(self) -> None:
        self._display.end_training(self._run)
