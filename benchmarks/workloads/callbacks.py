"""The callback that ends a training early."""

from __future__ import annotations

import time
from collections.abc import Mapping

from benchmarks import interruption
from benchmarks.errors import TimeLimitError
from hw6core.training import Callback


class LimitedCallback(Callback):
    """Forwards to another callback; ends the training at the deadline of the run or on an interruption."""

    def __init__(self, inner: Callback, deadline: float) -> None:
        self._inner, self._deadline = inner, deadline

    def on_resume(self, steps: int, seconds: float) -> None:
        self._inner.on_resume(steps, seconds)

    def on_step(self) -> None:
        self._inner.on_step()
        if time.monotonic() > self._deadline:
            raise TimeLimitError("the run exceeded its time limit; set a longer one: LIMIT=MINUTES")

    def on_epoch(self, entry: Mapping[str, float]) -> None:
        self._inner.on_epoch(entry)

    def on_end(self) -> None:
        self._inner.on_end()

    def should_stop(self) -> bool:
        return interruption.requested()
