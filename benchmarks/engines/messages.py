"""Progress of runs in other processes, sent as messages; `benchmarks.engines.order.Engine` shows them."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.runs.progress import Display
from hw6core.training import Callback

Message = tuple[str, tuple[Any, ...]]
_EVERY_S = 0.25  # a message for each step would slow down small networks


class Relay(Display):
    """A `Display` that sends its calls as messages of plain values."""

    def __init__(self, send: Callable[[Message], None]) -> None:
        super().__init__(io.StringIO())
        self._send = send

    def log(self, line: str) -> None:
        self._send(("log", (line,)))

    def begin(self, run: str, title: str) -> None:
        self._send(("begin", (run, title)))

    def finish(self, run: str, state: str, text: str, seconds: float | None = None) -> None:
        self._send(("finish", (run, state, text, seconds)))

    def training(self, run: str, label: str, steps: int) -> Callback:
        self._send(("training", (run, label, steps)))
        return _RelayCallback(run, self._send)


class _RelayCallback(Callback):
    """Sends the progress of one training as messages."""

    def __init__(self, run: str, send: Callable[[Message], None]) -> None:
        self._run, self._send = run, send
        self._steps, self._sent_at = 0, time.monotonic()

    def on_resume(self, steps: int, seconds: float) -> None:
        self._send(("on_resume", (self._run, steps, seconds)))

    def on_step(self) -> None:
        self._steps += 1
        if time.monotonic() - self._sent_at >= _EVERY_S:
            self._flush()

    def on_epoch(self, entry: Mapping[str, float]) -> None:
        self._flush()
        self._send(("on_epoch", (self._run, dict(entry))))

    def on_end(self) -> None:
        self._flush()
        self._send(("on_end", (self._run,)))

    def _flush(self) -> None:
        self._send(("steps", (self._run, self._steps)))
        self._steps, self._sent_at = 0, time.monotonic()
