"""Which devices lie too far from the rest of the fleet: leave-one-out tests, for four devices as for thousands.

In a fleet in which nothing is odd, anything at all is named in at most `ERROR` of cases, as far as the logarithms of
speeds, and scores, are normally distributed; docs/fleet.md says what happens where not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import median
from typing import Literal

from benchmarks.results.formatting import number
from benchmarks.suite import Margin

ERROR = 0.01
# Rosner's tests are approximate: drawn fleets of 5 to 24 have up to 2.5 times as many alarms as stated, of 25 to 40 1.2
# times.
_OF_FEW, _OF_MANY = 0.4, 0.8
LEAST_DEVICES = 3  # of two that differ, either may be the odd one


@dataclass(frozen=True)
class Quantity:
    """A number that every device of a kind has.

    Attributes:
        of: "speed" is of all runs together, "rate" of one configuration.
        values: by device.
        weight: its part of the error, beside those of the others.
    """

    title: str
    metric: str
    of: Literal["speed", "rate", "score", "error"]
    margin: Margin
    values: Mapping[int, float]
    weight: float = 1.0

    @cached_property
    def median(self) -> float:
        return median(self.values.values())

    def shortfall(self, device: int) -> float:
        """How much worse than the fleet's median a device is, in units of the margin; negative if it is better."""
        sign, size = (1 if self.margin.more_is_better else -1), self.margin.size
        apart = self._counted(self.median) - self._counted(self.values[device])
        return apart / (abs(math.log1p(-sign * size)) if self.margin.relative else size)

    def odd(self, error: float) -> list[int]:
        """The devices that are worse than the others, by more than the margin and beyond what the noise explains."""
        if len(self.values) < LEAST_DEVICES:
            return []
        devices = list(self.values)
        below = far_below([self._counted(value) for value in self.values.values()], error)
        return [devices[place] for place in below if self.shortfall(devices[place]) > 1]

    def text(self, value: float) -> str:
        plain = {"speed": "{:.1%}", "error": "{:.3g}"}.get(self.of)
        return plain.format(value) if plain else number(self.metric, value)

    def _counted(self, value: float) -> float:
        """So that more is better, and that the margin is a difference; no error and one are the same."""
        value = max(value, 1.0) if self.of == "error" and self.margin.relative else value
        return (1 if self.margin.more_is_better else -1) * (math.log(value) if self.margin.relative else value)


def odd_devices(quantities: Sequence[Quantity]) -> list[tuple[int, Quantity]]:
    """All devices that are odd in any of them: these share the error by their weights (Bonferroni)."""
    total = sum(quantity.weight for quantity in quantities)
    return [(device, entry) for entry in quantities for device in entry.odd(ERROR * entry.weight / total)]


def far_below(values: Sequence[float], error: float) -> list[int]:
    """The places of values that are too small to belong to the others, the smallest first.

    As in the generalized extreme studentized deviate test (Rosner, Technometrics 25, 1983) the value farthest from the
    mean is set aside, then the next, until more than half are left, and each is tested against those that then remain:
    by Student's t for one more value of a normal sample, times the number of values that it might have been. The last
    one that fails its test takes all before it along: so several bad devices, which each hide the others by widening
    the spread, are found together. Of those set aside only the small ones are told.

    >>> far_below([5.0, 5.1, 4.9, 5.2, 2.0, 5.0, 4.8, 1.9, 5.1, 5.0], 0.01)
    [7, 4]
    """
    import numpy as np
    from scipy.stats import t  # takes a second or two to import

    order = sorted(range(len(values)), key=values.__getitem__)
    middle = median(values)
    ordered = [values[place] - middle for place in order]
    low, high = 0, len(order) - 1  # of what remains
    total, squares = math.fsum(ordered), math.fsum(value * value for value in ordered)
    aside: list[int | None] = []
    distances, remaining = [], []
    for _ in range((len(order) - 1) // 2):
        is_low = ordered[low] + ordered[high] <= 2 * total / (high - low + 1)
        value = ordered[low if is_low else high]
        aside.append(order[low] if is_low else None)
        low, high = low + is_low, high - (not is_low)
        total, squares, rest = total - value, squares - value * value, high - low + 1
        deviation = math.sqrt(max(squares - total * total / rest, 0.0) / (rest - 1) * (1 + 1 / rest))
        apart = abs(value - total / rest)
        distances.append(apart / deviation if deviation else math.inf if apart else 0.0)
        remaining.append(rest)
    rests = np.array(remaining)
    part = 1.0 if len(order) < 5 else _OF_FEW if len(order) < 25 else _OF_MANY
    fails = (rests + 1) * t.sf(distances, rests - 1) <= error * part
    last = max((step for step, place in enumerate(aside) if place is not None and fails[step]), default=-1)
    return [place for place in aside[: last + 1] if place is not None]
