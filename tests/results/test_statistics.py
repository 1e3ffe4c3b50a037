"""Intervals over a few seeds, against numbers worked by hand with quantiles of Student's t from a printed table."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest

from benchmarks.results.statistics import Interval, paired_interval, welch_interval


def around(middle: float, half: float) -> Interval:
    return middle - half, middle + half


@pytest.mark.parametrize(
    ("differences", "expected"),
    [
        ([], None),
        ([0.1], None),
        ([0.25, 0.25, 0.25], (0.25, 0.25)),
        ([0.02, 0.01, 0.03], around(0.02, 4.3027 * 0.01 / math.sqrt(3))),  # deviation 0.01
        ([-1.0, 1.0] * 5, around(0, 2.26216 / 3)),  # deviation sqrt(10 / 9), ten values
        ([*[-1.0, 1.0] * 5, 0.0], around(0, 2.22814 / math.sqrt(11))),  # deviation 1
        ([-1.0, 1.0] * 50, around(0, 1.9842 / math.sqrt(99))),  # deviation sqrt(100 / 99)
    ],
)
def test_the_paired_interval_is_that_worked_by_hand(differences: Sequence[float], expected: Interval | None) -> None:
    found = paired_interval(differences)
    assert found is None if expected is None else found == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ([1.0], [1.0, 2.0], None),
        ([1.0, 2.0], [1.0], None),
        ([], [1.0, 2.0], None),
        # Variance 1 on both sides: squared error 2/3, 3 + 3 - 2 = 4 degrees of freedom.
        ([1.0, 2.0, 3.0], [2.0, 3.0, 4.0], around(1, 2.77645 * math.sqrt(2 / 3))),
        # One side without spread: squared error 0 + 1/3, the degrees of freedom are the other's 2.
        ([5.0, 5.0], [1.0, 2.0, 3.0], around(-3, 4.30265 / math.sqrt(3))),
        ([1.0, 2.0, 3.0], [5.0, 5.0], around(3, 4.30265 / math.sqrt(3))),
        ([0.5, 0.5], [0.75, 0.75, 0.75], (0.25, 0.25)),
    ],
)
def test_the_welch_interval_is_that_worked_by_hand(
    old: Sequence[float], new: Sequence[float], expected: Interval | None
) -> None:
    found = welch_interval(old, new)
    assert found is None if expected is None else found == pytest.approx(expected, abs=1e-4)


def test_a_fraction_of_a_degree_of_freedom_counts() -> None:
    # Variances 1 and 4, three values each: squared error 5/3, (5/3)^2 / ((1/3)^2/2 + (4/3)^2/2) = 50/17 = 2.94 degrees.
    low, high = welch_interval([1.0, 2.0, 3.0], [4.0, 6.0, 8.0]) or (0.0, 0.0)
    assert low + high == pytest.approx(2 * 4)
    assert 3.182 < (high - low) / 2 / math.sqrt(5 / 3) < 4.303  # quantiles of 3 and of 2 degrees
