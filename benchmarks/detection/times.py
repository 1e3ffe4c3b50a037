"""Slow machines: how many the comparison of times finds. Times are simulated."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from benchmarks.results.statistics import TIME_ERROR, Change, changes, evidence
from benchmarks.suite import COST_MARGINS

Factors = npt.NDArray[np.float64]
NOISE = (0.05, 0.10)  # standard deviation of the logarithm of a run's time
TOLERANCE = COST_MARGINS["training_s"]
OLD, NEW = 20, 3  # runs on either side
ERRORS = (TIME_ERROR, 0.01)  # the suite's error rates for times and for quality


@dataclass(frozen=True)
class Slowness:
    """A kind of slow machine; ``factors``: draws how many times as long each run takes."""

    name: str
    strength: str
    factors: Callable[[np.random.Generator, int], Factors]


def _steady(factor: float, _: np.random.Generator, count: int) -> Factors:
    return np.full(count, factor)


def _stalls(share: float, rng: np.random.Generator, count: int) -> Factors:
    return 1 + rng.exponential(share, count)


def _some(factor: float, rng: np.random.Generator, count: int) -> Factors:
    return np.where(rng.random(count) < 0.2, factor, 1.0)


def slownesses() -> Iterator[Slowness]:
    for more in (0.05, 0.10, 0.20, 0.50):
        yield Slowness("steps are slower", f"{more:.0%}", partial(_steady, 1 + more))
    for more in (0.05, 0.15, 0.30):
        yield Slowness("loading stalls, exponentially", f"{more:.0%} on average", partial(_stalls, more))
    for more in (0.10, 0.25, 0.50):
        yield Slowness("throttled in the second half", f"{more:.0%}", partial(_steady, 1 + more / 2))
    for factor in (1.5, 2.0, 3.0):
        yield Slowness("one run in five is slow", f"{factor:g} times", partial(_some, factor))


CLEAN = Slowness("none", "", partial(_steady, 1.0))


def drawn(slowness: Slowness, noise: float, rng: np.random.Generator, count: int) -> Factors:
    """Times of ``count`` runs; the median of a sound machine is 1."""
    return slowness.factors(rng, count) * np.exp(rng.normal(0, noise, count))


def slowdown(slowness: Slowness, noise: float, count: int = 20_000) -> tuple[float, float]:
    """The mean slowdown relative to a sound machine, and its standard error."""
    rng = np.random.default_rng(0)
    ratio = drawn(slowness, noise, rng, count) / np.exp(noise**2 / 2)
    return float(ratio.mean()) - 1, float(ratio.std(ddof=1)) / count**0.5


def found(slowness: Slowness, noise: float, trials: int, error: float = TIME_ERROR) -> int:
    """The number of comparisons of 3 new runs with 20 old ones whose verdict is "worse"."""
    rng, count = np.random.default_rng(1), 0
    for _ in range(trials):
        old, new = drawn(CLEAN, noise, rng, OLD), drawn(slowness, noise, rng, NEW)
        sides = dict(enumerate(old.tolist())), dict(enumerate(new.tolist(), OLD))
        count += changes([evidence(*sides, TOLERANCE)], error) == [Change.WORSE]
    return count
