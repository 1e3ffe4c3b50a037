"""Progress of runs in other processes, sent as messages; `benchmarks.engines.order.Engine` shows them."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.runs.progress import Display, RunCallback
from hw6core.training import Callback

Message = tuple[str, tuple[Any, ...]]  # a method of `Display` and its arguments
_EVERY_S = 0.25  # a message for each step would slow down small networks


class Relay(Display):
    """A `Display` that sends its calls as messages of plain values. A process has one run at a time."""

    def __init__(self, send: Callable[[Message], None]) -> None:
        super().__init__(io.StringIO())
        self._send = send
        self._steps, self._sent_at = 0, time.monotonic()

    def log(self, line: str) -> None:
        self._send(("log", (line,)))

    def begin(self, run: str, title: str) -> None:
        self._send(("begin", (run, title)))

    def finish(self, run: str, state: str, text: str, seconds: float | None = None) -> None:
        self._send(("finish", (run, state, text, seconds)))

    def training(self, run: str, label: str, steps: int) -> Callback:
        self._send(("training", (run, label, steps)))
        return RunCallback(self, run)

    def resume(self, run: str, steps: int, seconds: float) -> None:
        self._send(("resume", (run, steps, seconds)))

    def advance(self, run: str, steps: int) -> None:
        self._steps += steps
        if time.monotonic() - self._sent_at >= _EVERY_S:
            self._flush(run)

    def epoch(self, run: str, entry: Mapping[str, float]) -> None:
        self._flush(run)
        self._send(("epoch", (run, dict(entry))))

    def end_training(self, run: str) -> None:
        self._flush(run)
        self._send(("end_training", (run,)))

    def _flush(self, run: str) -> None:
        self._send(("advance", (run, self._steps)))
        self._steps, self._sent_at = 0, time.monotonic()
