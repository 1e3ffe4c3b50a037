"""What ends a training early."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping

from benchmarks import interruption
from benchmarks.errors import TimeLimitError
from hw6core.training import Callback


class LimitedCallback(Callback):
    """Passes on what a training tells; ends it at the run's deadline, or when an interruption is asked for."""

    def __init__(self, shown: Callback, deadline: float = math.inf) -> None:
        self._shown, self._deadline = shown, deadline

    def on_resume(self, steps: int, seconds: float) -> None:
        self._shown.on_resume(steps, seconds)

    def on_step(self) -> None:
        self._shown.on_step()
        if time.monotonic() > self._deadline:
            raise TimeLimitError("not done within the time limit of a run; a longer one: LIMIT=MINUTES")

    def on_epoch(self, entry: Mapping[str, float]) -> None:
        self._shown.on_epoch(entry)

    def on_end(self) -> None:
        self._shown.on_end()

    def should_stop(self) -> bool:
        return interruption.requested()
