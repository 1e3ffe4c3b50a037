"""Several ways of doing the same work, timed in turn in one process: a ratio holds where a time does not."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median, quantiles

OURS = "ours"


@dataclass(frozen=True)
class Ratio:
    """How many times as long as ours another way took.

    Attributes:
        median, low, high: over pairs timed one after the other; the quartiles.
    """

    median: float
    low: float
    high: float


def time_in_turn(
    ways: Mapping[str, Callable[[], object]], rounds: int, wait: Callable[[], object] = lambda: None
) -> dict[str, list[float]]:
    """Seconds of each way in each round; every round starts with another way. Each is called once before, untimed.

    Args:
        ways: by their names.
        rounds: how often each is timed.
        wait: for a device, which goes on working when a call is over.
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
    """Of the rounds, pair by pair."""
    pairs = sorted(theirs / mine for mine, theirs in zip(ours, other, strict=True))
    low, _, high = quantiles(pairs, n=4, method="inclusive") if len(pairs) > 1 else (pairs[0],) * 3
    return Ratio(median(pairs), low, high)


def verdict(found: Ratio, goal: float) -> str:
    """A goal between the quartiles is neither reached nor missed: another hour of the same machine says otherwise."""
    return "reached" if found.low >= goal else "missed" if found.high < goal else "at the line"
