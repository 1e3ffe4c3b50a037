"""Intervals over a few seeds, against numbers worked by hand and against Student's density itself."""

from __future__ import annotations

import math
from statistics import stdev

import pytest

from benchmarks.results.statistics import paired_interval, welch_interval


def student_cdf(t: float, degrees: int, steps: int = 2000) -> float:
    """The probability below ``t`` > 0, by Simpson's rule on the density."""
    scale = math.exp(math.lgamma((degrees + 1) / 2) - math.lgamma(degrees / 2)) / math.sqrt(degrees * math.pi)
    weights = [1 if step in (0, steps) else 4 if step % 2 else 2 for step in range(steps + 1)]
    density: list[float] = [
        (1 + (t * step / steps) ** 2 / degrees) ** (-(degrees + 1) / 2) for step in range(steps + 1)
    ]
    area = sum(weight * height for weight, height in zip(weights, density, strict=True))
    return 0.5 + scale * area * t / steps / 3


# ------------------------------------------------------------------------------------------------------------ paired


def test_the_paired_interval_is_that_worked_by_hand() -> None:
    # Mean 0.02, deviation 0.01: 4.303 * 0.01 / sqrt(3) = 0.0248434.
    assert paired_interval([0.02, 0.01, 0.03]) == pytest.approx((0.02 - 0.0248434, 0.02 + 0.0248434), abs=1e-6)
    # Ten values of deviation sqrt(10 / 9): 2.262 / sqrt(9). An eleventh of zero: deviation 1, so 2.228 / sqrt(11).
    ten = [-1.0, 1.0] * 5
    assert paired_interval(ten) == pytest.approx((-2.262 / 3, 2.262 / 3))
    assert paired_interval([*ten, 0.0]) == pytest.approx((-2.228 / 11**0.5, 2.228 / 11**0.5))


@pytest.mark.parametrize("count", range(2, 32))
def test_the_quantile_of_every_number_of_seeds_is_students(count: int) -> None:
    values = [float(value) for value in range(count)]
    low, high = paired_interval(values) or (0.0, 0.0)
    quantile = (high - low) / 2 / (stdev(values) / math.sqrt(count))
    assert student_cdf(quantile, count - 1) == pytest.approx(0.975, abs=3e-5)  # rounded to three decimals


def test_more_than_31_seeds_get_an_interval_that_is_a_little_too_wide() -> None:
    values = [-1.0, 1.0] * 50  # deviation sqrt(100 / 99)
    assert paired_interval(values) == pytest.approx((-2.042 / 99**0.5, 2.042 / 99**0.5))


@pytest.mark.parametrize("differences", [[], [0.1]])
def test_one_difference_shows_no_noise(differences: list[float]) -> None:
    assert paired_interval(differences) is None


def test_equal_differences_leave_no_doubt() -> None:
    assert paired_interval([0.25, 0.25, 0.25]) == (0.25, 0.25)


# ------------------------------------------------------------------------------------------------------------- Welch


def test_the_welch_interval_is_that_worked_by_hand() -> None:
    # Variances 1 and 4, three values each: squared error 1/3 + 4/3 = 5/3.
    # Degrees of freedom (5/3)^2 / ((1/3)^2/2 + (4/3)^2/2) = 50/17 = 2.94, taken as 2: quantile 4.303.
    half = 4.303 * math.sqrt(5 / 3)  # 5.5551
    assert welch_interval([1.0, 2.0, 3.0], [4.0, 6.0, 8.0]) == pytest.approx((4 - half, 4 + half))


def test_sides_of_equal_spread_have_all_their_degrees_of_freedom() -> None:
    # Variance 1 on both sides: squared error 2/3, 3 + 3 - 2 = 4 degrees, quantile 2.776.
    half = 2.776 * math.sqrt(2 / 3)
    assert welch_interval([1.0, 2.0, 3.0], [2.0, 3.0, 4.0]) == pytest.approx((1 - half, 1 + half))


def test_the_welch_interval_turns_its_sign_with_the_sides() -> None:
    old, new = [0.80, 0.83, 0.84], [0.91, 0.90, 0.97, 0.93]
    low, high = welch_interval(old, new) or (0.0, 0.0)
    assert welch_interval(new, old) == pytest.approx((-high, -low))


def test_a_side_without_spread_counts_by_the_other_alone() -> None:
    # Squared error 0 + 1/3, the degrees of freedom are the new side's 2.
    half = 4.303 / math.sqrt(3)
    assert welch_interval([5.0, 5.0], [1.0, 2.0, 3.0]) == pytest.approx((-3 - half, -3 + half))
    assert welch_interval([1.0, 2.0, 3.0], [5.0, 5.0]) == pytest.approx((3 - half, 3 + half))


def test_two_sides_without_spread_leave_no_doubt() -> None:
    assert welch_interval([0.5, 0.5], [0.75, 0.75, 0.75]) == (0.25, 0.25)


@pytest.mark.parametrize(("old", "new"), [([1.0], [1.0, 2.0]), ([1.0, 2.0], [1.0]), ([1.0], [2.0]), ([], [1.0, 2.0])])
def test_one_value_on_a_side_shows_no_noise(old: list[float], new: list[float]) -> None:
    assert welch_interval(old, new) is None
