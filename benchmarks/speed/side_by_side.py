"""Times several implementations in turn in one process: ratios are more reproducible than times."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

OURS = "ours"


class Ratio(NamedTuple):
    """The time of another implementation divided by ours: median and quartiles of pairs timed one after the other."""

    median: float
    low: float
    high: float


def time_in_turn(
    ways: Mapping[str, Callable[[], object]], rounds: int, wait: Callable[[], object] = lambda: None
) -> dict[str, list[float]]:
    """Seconds of each implementation in each round, after one untimed call; every round starts with another one.

    Args:
        ways: the implementations by name.
        rounds: how often each is timed.
        wait: waits for the device, which may still be computing when a call returns.
    """
    names = list(ways)
    for way in ways.values():
        way()
        wait()
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            start = time.perf_counter()
            ways[name]()
            wait()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def ratio(ours: list[float], other: list[float]) -> Ratio:
    """The ratio over all rounds, pair by pair."""
    low, middle, high = np.percentile(np.divide(other, ours), (25, 50, 75))
    return Ratio(middle, low, high)


def verdict(found: Ratio, goal: float) -> str:
    """A goal between the quartiles is neither reached nor missed, as the next measurement may differ."""
    return "reached" if found.low >= goal else "missed" if found.high < goal else "borderline"
