"""The progress of a run that another process carries out: sent as messages from there, shown here."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.runs.progress import Display
from hw6core.training import Callback

Message = tuple[str, tuple[Any, ...]]
_EVERY_S = 0.25  # enough for the eye; a message for each step would be felt by small networks


class Relay(Display):
    """What a `Display` is told, sent on as messages of plain values."""

    def __init__(self, send: Callable[[Message], None]) -> None:
        super().__init__(quiet=True)
        self._send = send

    def say(self, line: str) -> None:
        self._send(("say", (line,)))

    def begin(self, run: str, title: str) -> None:
        self._send(("begin", (run, title)))

    def finish(self, run: str, state: str, text: str, seconds: float | None = None) -> None:
        self._send(("finish", (run, state, text, seconds)))

    def training(self, run: str, label: str, steps: int) -> Callback:
        self._send(("training", (run, label, steps)))
        return _RelayedWatch(run, self._send)


class _RelayedWatch(Callback):
    """`hw6core.training.Callback` of a training that is watched elsewhere."""

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


class Screen:
    """Shows on one display what the relays of several processes tell."""

    def __init__(self, display: Display) -> None:
        self._display = display
        self._watches: dict[str, Callback] = {}

    def show(self, message: Message) -> None:
        """One message of a `Relay`."""
        kind, arguments = message
        if kind in ("say", "begin", "finish"):
            getattr(self._display, kind)(*arguments)
        elif kind == "training":
            self._watches[arguments[0]] = self._display.training(*arguments)
        elif arguments[0] in self._watches:
            watch = self._watches[arguments[0]]
            if kind == "steps":
                for _ in range(arguments[1]):
                    watch.on_step()
            else:
                getattr(watch, kind)(*arguments[1:])
