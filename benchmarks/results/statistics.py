"""What a few seeds can show: 95% intervals of differences, by Student's t."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

Interval = tuple[float, float]


def paired_interval(differences: Sequence[float]) -> Interval | None:
    """The 95% interval of the mean of paired differences; None for fewer than two."""
    if len(differences) < 2:
        return None
    from scipy.stats import ttest_1samp  # takes a second or two to import

    return _interval(ttest_1samp, differences, 0.0)


def welch_interval(old: Sequence[float], new: Sequence[float]) -> Interval | None:
    """The 95% interval of mean(new) - mean(old), of unequal spread (Welch 1947); None where a side has one value."""
    if len(old) < 2 or len(new) < 2:
        return None
    from scipy.stats import ttest_ind

    return _interval(ttest_ind, new, old, equal_var=False)


def _interval(test: Any, *samples: object, **options: object) -> Interval:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of equal values, which leave no doubt here
        low, high = test(*samples, **options).confidence_interval(0.95)
    return float(low), float(high)
