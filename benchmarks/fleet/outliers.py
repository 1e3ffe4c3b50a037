"""Outlier tests: which devices are too far from the rest of a fleet of any size (leave-one-out tests).

In a fleet without odd devices, the probability that any is reported is at most `ERROR`, if scores and the logarithms of
speeds are normally distributed; docs/fleet.md says what happens if they are not.
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
# Correct for the approximation in Rosner's tests: in simulated fleets of 5 to 24 (25 to 40) devices they have up to 2.5
# (1.2) times as many false alarms as stated.
_OF_FEW, _OF_MANY = 0.4, 0.8
LEAST_DEVICES = 3  # if only two differ, either may be the odd one


@dataclass(frozen=True)
class Quantity:
    """A number by which devices of the same kind are compared.

    Attributes:
        of: "speed" is that of all runs together, "rate" that of one configuration.
        values: by device index.
        weight: its share of the error probability, relative to the other quantities.
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
        difference = self._transformed(self.median) - self._transformed(self.values[device])
        return difference / (abs(math.log1p(-sign * size)) if self.margin.relative else size)

    def odd(self, error: float) -> list[int]:
        """The devices that are worse than the others, by more than the margin and significantly."""
        if len(self.values) < LEAST_DEVICES:
            return []
        devices = list(self.values)
        below = far_below([self._transformed(value) for value in self.values.values()], error)
        return [devices[index] for index in below if self.shortfall(devices[index]) > 1]

    def text(self, value: float) -> str:
        plain = {"speed": "{:.1%}", "error": "{:.3g}"}.get(self.of)
        return plain.format(value) if plain else number(self.metric, value)

    def _transformed(self, value: float) -> float:
        """The value on a scale on which more is better and the margin is a difference."""
        value = max(value, 1.0) if self.of == "error" and self.margin.relative else value  # treats no error as one
        return (1 if self.margin.more_is_better else -1) * (math.log(value) if self.margin.relative else value)


def odd_devices(quantities: Sequence[Quantity]) -> list[tuple[int, Quantity]]:
    """The devices that are odd in any quantity; the quantities share the error by their weights (Bonferroni)."""
    total = sum(quantity.weight for quantity in quantities)
    return [(device, entry) for entry in quantities for device in entry.odd(ERROR * entry.weight / total)]


def far_below(values: Sequence[float], error: float) -> list[int]:
    """The indices of values that are too small to belong to the others, the smallest first.

    As in the generalized extreme studentized deviate test (Rosner, Technometrics 25, 1983), the value farthest from the
    mean is removed, then the next, as long as more than half remain, and each is tested against those that remain: by
    Student's t for one more value of a normal sample, times the number of values that it might have been. All values up
    to the last significant one are outliers, so that several bad devices are found although each widens the spread and
    hides the others. Only small outliers are returned.

    >>> far_below([5.0, 5.1, 4.9, 5.2, 2.0, 5.0, 4.8, 1.9, 5.1, 5.0], 0.01)
    [7, 4]
    """
    import numpy as np
    from scipy.stats import t  # takes a second or two to import

    order = sorted(range(len(values)), key=values.__getitem__)
    middle = median(values)
    ordered = [values[index] - middle for index in order]
    low, high = 0, len(order) - 1  # bounds of the remaining values
    total, squares = math.fsum(ordered), math.fsum(value * value for value in ordered)
    removed: list[int | None] = []
    distances, remaining = [], []
    for _ in range((len(order) - 1) // 2):
        is_low = ordered[low] + ordered[high] <= 2 * total / (high - low + 1)
        value = ordered[low if is_low else high]
        removed.append(order[low] if is_low else None)
        low, high = low + is_low, high - (not is_low)
        total, squares, count = total - value, squares - value * value, high - low + 1
        deviation = math.sqrt(max(squares - total * total / count, 0.0) / (count - 1) * (1 + 1 / count))
        distance = abs(value - total / count)
        distances.append(distance / deviation if deviation else math.inf if distance else 0.0)
        remaining.append(count)
    counts = np.array(remaining)
    factor = 1.0 if len(order) < 5 else _OF_FEW if len(order) < 25 else _OF_MANY
    significant = (counts + 1) * t.sf(distances, counts - 1) <= error * factor
    last = max((step for step, index in enumerate(removed) if index is not None and significant[step]), default=-1)
    return [index for index in removed[: last + 1] if index is not None]
