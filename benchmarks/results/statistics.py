"""Statistical tests on a few runs, with the verdicts no worse, worse, better and cannot tell.

The margins are in `benchmarks.suite`; docs/judging.md explains both.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import combinations
from statistics import fmean

import numpy as np
import numpy.typing as npt

from benchmarks.suite import Margin

Interval = tuple[float, float]
Table = npt.NDArray[np.float64]

ERROR = 0.01  # error rate of verdicts on quality: see `changes`
# Error rate of each of the two permutation tests on a reference (final scores, learning curves): together `ERROR`.
ALARM = ERROR / 2
TIME_ERROR = 0.05  # error rate of verdicts on times, which matter less and are noisier
POWER = 0.8  # probability of detecting a "visible" drop
_LEAST_PAIRS = 3  # two differences may be equal by chance, which would look like no noise
_LEAST_DEGREES = 4  # so may two values; three on either side are hardly ever equal
_MOST_SEEDS = 100  # more seeds are not suggested
_LEAST_WAYS = 1_000  # of dividing runs into two sides: with fewer, a permutation test hardly ever finds a drop
_MOST_WAYS = 10_000  # of dividing runs into two sides: if there are more, a random sample of this size is used


class Change(StrEnum):
    """The verdict on a number beside an older one, or beside a reference."""

    NO_WORSE = "no worse"
    WORSE = "worse"
    CANNOT_TELL = "cannot tell"
    BETTER = "better"


@dataclass(frozen=True)
class Spread:
    """Sum of squared deviations from the mean, and its degrees of freedom; of one sample, or pooled over several."""

    squares: float = 0.0
    degrees: int = 0

    @staticmethod
    def of(*samples: Sequence[float]) -> Spread:
        """Pooled over samples, whose means may differ."""
        squares: list[float] = []
        for sample in filter(None, samples):
            middle = fmean(sample) if len(set(sample)) > 1 else sample[0]  # the mean of equal ones may be rounded
            squares += [(value - middle) ** 2 for value in sample]
        return Spread(math.fsum(squares), len(squares) - sum(map(bool, samples)))

    @property
    def deviation(self) -> float:
        """Standard deviation of a single value."""
        return math.sqrt(self.squares / self.degrees)


@dataclass(frozen=True)
class Evidence:
    """The difference of the means of two samples and its uncertainty; the sign is such that more is better.

    Attributes:
        difference: new minus old; for a relative margin the logarithm of their ratio.
        margin: how large a drop may be and still count as no worse, in the same unit.
        spread: of both samples, and of a reference's runs where one fits.
        sizes: number of old and of new values.
        shuffled: p value of a permutation test: the share of ways to choose the new values among all whose mean is as
            low; 0 if not requested.
        paired: deviation and number of the differences seed by seed, if both sides have the same three seeds or more.
        identical: the new runs repeat the old ones to the last digit.
    """

    difference: float
    margin: float
    spread: Spread
    sizes: tuple[int, int]
    paired: tuple[float, int] | None = None
    identical: bool = False
    shuffled: float = 0.0

    @property
    def tests(self) -> list[tuple[float, float]]:
        """Standard error and degrees of freedom of each possible t test."""
        if self.identical:
            return [(0.0, math.inf)]
        found: list[tuple[float, float]] = []
        if self.spread.squares or self.spread.degrees >= _LEAST_DEGREES:
            old, new = self.sizes
            found.append((self.spread.deviation * math.sqrt(1 / old + 1 / new), self.spread.degrees))
        if self.paired is not None:
            deviation, count = self.paired
            found.append((deviation / math.sqrt(count), count - 1))
        return found

    def p_above(self, bound: float) -> float:
        """One-sided p value of "the true difference is the bound or less"; 1 if no test is possible.

        Of two tests the one with the smaller p value counts, with Bonferroni's correction.
        """
        from scipy.special import stdtr  # scipy.stats.t uses it, but takes a second or two to import

        tests = self.tests
        values = [stdtr(degrees, -_quotient(self.difference - bound, error)) for error, degrees in tests]
        return min([1.0, *(len(tests) * float(value) for value in values)])

    def p_below(self, bound: float) -> float:
        """One-sided p value of "the true difference is the bound or more"."""
        return replace(self, difference=-self.difference).p_above(-bound)

    def visible_drop(self, error: float) -> float | None:
        """The true drop that a test at this error detects in 80% of cases; None if no test is possible."""
        from scipy.optimize import brentq
        from scipy.stats import nct, t

        drops = []
        for standard_error, degrees in self.tests:
            limit = float(t.isf(error / len(self.tests), degrees))
            drop = brentq(lambda shift, n=degrees, at=limit: nct.sf(at, n, shift) - POWER, 0, 5 * limit + 20)
            drops.append(float(drop) * standard_error)
        return min(drops, default=None)

    def more_seeds(self, error: float, *, on_both_sides: bool) -> int | None:
        """How many more runs, on the new side or on both, show in 80% of cases that nothing changed.

        None if the noise is unknown, or if a hundred are not enough.
        """
        from scipy.stats import nct, t

        if not self.spread.degrees:
            return None
        old, new = self.sizes
        for more in range(1, _MOST_SEEDS + 1):
            degrees = self.spread.degrees + more * (1 + on_both_sides)
            deviation = self.spread.deviation * math.sqrt(1 / (old + more * on_both_sides) + 1 / (new + more))
            if not deviation or nct.sf(t.isf(error, degrees), degrees, self.margin / deviation) >= POWER:
                return more
        return None


def _quotient(difference: float, error: float) -> float:
    """The ratio; infinite for any difference without noise."""
    if error:
        return difference / error
    return math.copysign(math.inf, difference) if difference else 0.0


def evidence(
    old: Mapping[int, float],
    new: Mapping[int, float],
    margin: Margin,
    *,
    reference: Sequence[float] = (),
    identical: bool = False,
    shuffle: bool = False,
) -> Evidence:
    """The evidence on the difference between two sides, whose values are given by seed.

    Args:
        margin: how large a drop may be and still count as no worse.
        reference: further values of the same population, which add to the estimate of the noise.
        shuffle: make a permutation test as well, if there are a thousand ways to divide the runs. Scores with a tail
            of low values, as when a run misses a class, drop by chance more often than Student's t assumes.

    >>> found = evidence({0: 0.90, 1: 0.91, 2: 0.92}, {0: 0.80, 1: 0.81, 2: 0.82}, Margin(0.02))
    >>> round(found.difference, 3), changes([found])
    (-0.1, [<Change.WORSE: 'worse'>])
    """
    sign = 1 if margin.more_is_better else -1

    def scaled(value: float) -> float:
        return sign * (math.log(value) if margin.relative else value)

    before, after = ({seed: scaled(value) for seed, value in side.items()} for side in (old, new))
    samples = [list(before.values()), list(after.values())]
    paired = None
    if before.keys() == after.keys() and len(before) >= _LEAST_PAIRS:
        differences = [after[seed] - before[seed] for seed in before]
        paired = Spread.of(differences).deviation, len(differences)
    return Evidence(
        fmean(samples[1]) - fmean(samples[0]),
        abs(math.log1p(-sign * margin.size)) if margin.relative else margin.size,
        Spread.of(*samples, [scaled(value) for value in reference]),
        (len(before), len(after)),
        paired,
        identical,
        _shuffled(*samples) if shuffle else 0.0,
    )


def _shuffled(old: Sequence[float], new: Sequence[float]) -> float:
    if math.comb(len(old) + len(new), len(new)) < _LEAST_WAYS:
        return 0.0
    values = np.array([*new, *old])
    means = values[_ways(len(values), len(new))].mean(1)
    return float((means <= means[0] + 1e-9 * np.ptp(values)).mean())


def changes(found: Sequence[Evidence], error: float = ERROR) -> list[Change]:
    """The verdict on each of several numbers that are judged together.

    "No worse": a drop of the margin or more is rejected, each at ``error``, so a number that dropped by its margin
    passes with at most this probability, however many numbers there are. "Worse" (it dropped) and "better" (it gained
    more than the margin) use Holm's correction (1979) over all numbers: if nothing changed, the probability that any of
    them is called so is at most ``error``. With a large enough reference "worse" requires a permutation test as well
    (`Evidence.shuffled`). Everything else is "cannot tell".
    """
    worse = holm([entry.p_below(0.0) for entry in found if entry.tests], error)
    better = holm([entry.p_above(entry.margin) for entry in found if entry.tests], error)
    verdicts = []
    tested = iter(zip(worse, better, strict=True))
    for entry in found:
        is_worse, is_better = next(tested) if entry.tests else (False, False)
        if entry.p_above(-entry.margin) <= error:
            verdicts.append(Change.BETTER if is_better else Change.NO_WORSE)
        else:
            verdicts.append(Change.WORSE if is_worse and entry.shuffled <= ALARM else Change.CANNOT_TELL)
    return verdicts


def holm(p_values: Sequence[float], error: float) -> list[bool]:
    """Which of several hypotheses are rejected, with at most this probability of rejecting any true one.

    >>> holm([0.01, 0.04, 0.03], 0.05)  # 0.01 <= 0.05 / 3, but 0.03 > 0.05 / 2
    [True, False, False]
    """
    rejected = [False] * len(p_values)
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda place: p_values[place])):
        if p_values[place] > error / (len(p_values) - rank):
            break
        rejected[place] = True
    return rejected


def permutation_p(old: Table, new: Table) -> Table:
    """For each of many quantities, the probability that any quantity differs as much if nothing changed.

    The permutation test of Westfall and Young (1993): the largest |t| of all quantities, for every way to choose which
    runs are the new ones. Whatever the distributions and correlations of the quantities, the smallest p value of runs
    that do not differ is 1% or less in at most 1% of cases.

    Args:
        old, new: (runs, quantities), at least one run each.

    Returns:
        (quantities,).

    >>> old = np.array([[0.1], [0.2], [0.3], [0.2]])
    >>> permutation_p(old, np.array([[0.9]])).tolist()  # the most extreme of five
    [0.2]
    """
    values = np.concatenate([new, old])
    values = np.where(np.ptp(values, 0), values - values.mean(0), 0.0)  # of equal ones the mean may be rounded
    size, count = len(new), len(values)
    ways = _ways(count, size)
    squares = np.empty((len(ways), values.shape[1]))
    for start in range(0, len(ways), 500):  # in chunks: a thousand quantities of ten runs take 40 MB
        part = slice(start, start + 500)
        of_new = values[ways[part]].mean(1)
        of_old = -size * of_new / (count - size)
        within = (values**2).sum(0) - size * of_new**2 - (count - size) * of_old**2
        with np.errstate(divide="ignore", invalid="ignore"):
            squares[part] = np.nan_to_num((of_new - of_old) ** 2 / within.clip(0), nan=0.0)
    largest = squares.max(1)
    shares: Table = (largest[:, None] >= squares[0] * (1 - 1e-9)).mean(0)
    return shares


def _ways(count: int, size: int) -> npt.NDArray[np.int64]:
    """(ways, size) ways to choose ``size`` of ``count`` runs, all or a random sample; the first is the true one."""
    if math.comb(count, size) <= _MOST_WAYS:
        return np.array(list(combinations(range(count), size)))
    rng = np.random.default_rng(0)
    return np.array([range(size), *(rng.permutation(count)[:size] for _ in range(_MOST_WAYS))])


def paired_interval(differences: Sequence[float]) -> Interval | None:
    """The 95% confidence interval of the mean of paired differences; None for fewer than two."""
    if len(differences) < 2:
        return None
    from scipy.special import stdtrit

    count, middle = len(differences), fmean(differences)
    half = float(stdtrit(count - 1, 0.975)) * Spread.of(differences).deviation / math.sqrt(count)
    return middle - half, middle + half
