"""What a person sees while the suite runs: a bar for each training on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Never, TextIO

from tqdm import tqdm

_LINE_EVERY_S = 15.0


class Display:
    """Lines about runs, and the progress of what a run trains."""

    def __init__(self, stream: TextIO | None = None, quiet: bool = False) -> None:
        self.stream = stream or sys.stderr
        self.quiet = quiet

    def say(self, line: str) -> None:
        """Print a line, without breaking a bar."""
        if not self.quiet:
            tqdm.write(line, file=self.stream)
            self.stream.flush()

    def training(self, name: str, steps: int) -> _Watch:
        """The progress of one training of so many steps."""
        return _Watch(self, name, steps)


class _Watch:
    """`hw6core.train.Progress` for one training; closes its bar at the last step or with `close`."""

    def __init__(self, display: Display, name: str, steps: int) -> None:
        self._display = display
        self._name = name
        self._steps = steps
        self._done = 0
        self._start = self._last_line = time.monotonic()
        terminal = display.stream.isatty() and not display.quiet
        self._bar: tqdm[Never] | None = None
        if terminal:
            self._bar = tqdm(total=steps, desc=name, file=display.stream, unit="step", leave=False, dynamic_ncols=True)

    def step(self) -> None:
        self._done += 1
        if self._bar is not None:
            self._bar.update()
        if self._done >= self._steps:
            self.close()

    def epoch(self, entry: Mapping[str, float]) -> None:
        scores = {
            name: value
            for name, value in entry.items()
            if name not in ("epoch", "learning_rate", "seconds", "selection_dice")
        }
        text = ", ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in scores.items())
        if self._bar is not None:
            self._bar.set_postfix_str(text)
            return
        now = time.monotonic()
        if now - self._last_line >= _LINE_EVERY_S and self._done < self._steps:
            self._last_line = now
            left = (now - self._start) / self._done * (self._steps - self._done)
            self._display.say(f"  {self._name}: epoch {entry['epoch']:.0f}, {text}, about {left:.0f} s left")

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
