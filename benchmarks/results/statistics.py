"""What a few seeds can show: intervals of differences. Student's t throughout, at 95%."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import mean, stdev, variance

# 97.5% quantiles for 1 to 30 degrees of freedom; more get that of 30, which makes an interval a little too wide.
_T_QUANTILES = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
    *(2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
)

Interval = tuple[float, float]


def paired_interval(differences: Sequence[float]) -> Interval | None:
    """The 95% interval of the mean of paired differences; None for fewer than two."""
    count = len(differences)
    if count < 2:
        return None
    half = _quantile(count - 1) * stdev(differences) / math.sqrt(count)
    return mean(differences) - half, mean(differences) + half


def welch_interval(old: Sequence[float], new: Sequence[float]) -> Interval | None:
    """The 95% interval of mean(new) - mean(old), of unequal spread (Welch 1947); None where a side has one value."""
    if len(old) < 2 or len(new) < 2:
        return None
    difference = mean(new) - mean(old)
    shares = [(variance(values) / len(values), len(values) - 1) for values in (old, new)]
    squared_error = sum(share for share, _ in shares)
    if squared_error == 0:
        return difference, difference
    freedom = squared_error**2 / sum(share**2 / degrees for share, degrees in shares)
    half = _quantile(freedom) * math.sqrt(squared_error)
    return difference - half, difference + half


def _quantile(degrees_of_freedom: float) -> float:
    """A fraction of a degree is dropped, which widens the interval."""
    return _T_QUANTILES[min(max(int(degrees_of_freedom), 1), len(_T_QUANTILES)) - 1]
