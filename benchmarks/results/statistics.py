"""What a few runs can show, by Student's t: is a result no worse, worse, or can these runs not tell?

Every rule of judging that weighs noise stands here; the margins stand in `benchmarks.suite`, the page about both is
docs/judging.md.
"""

from __future__ import annotations

import math
import warnings
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

ERROR = 0.01  # how often a verdict may be wrong: see `changes`
# Of each of the two permutation tests beside a reference, of final scores and of learning curves: 1% together.
ALARM = ERROR / 2
TIME_ERROR = 0.05  # the same of times, which decide less and are noisier
POWER = 0.8  # what a drop must be found with to be called visible
_LEAST_PAIRS = 3  # two differences that are equal by chance would show no noise at all
_LEAST_DEGREES = 4  # neither would two values; three on either side hardly ever are
_MOST_SEEDS = 100  # that anybody would add
_LEAST_WAYS = 1_000  # to divide runs into two sides; of fewer, a permutation test could hardly find a drop
_MOST_WAYS = 10_000  # to divide runs into two sides that are counted; of more, so many are drawn


class Change(StrEnum):
    """How a number compares with an older one, or with a reference."""

    NO_WORSE = "no worse"
    WORSE = "worse"
    CANNOT_TELL = "cannot tell"
    BETTER = "better"


@dataclass(frozen=True)
class Spread:
    """Squared deviations from their means, and how many of them are free: of one sample, or of several together."""

    squares: float = 0.0
    degrees: int = 0

    @staticmethod
    def of(*samples: Sequence[float]) -> Spread:
        """Pooled over samples of any means."""
        squares = [(value - fmean(sample)) ** 2 for sample in samples if sample for value in sample]
        return Spread(math.fsum(squares), len(squares) - sum(map(bool, samples)))

    def __add__(self, other: Spread) -> Spread:
        return Spread(self.squares + other.squares, self.degrees + other.degrees)

    @property
    def deviation(self) -> float:
        """Standard deviation of one value."""
        return math.sqrt(self.squares / self.degrees)


@dataclass(frozen=True)
class Evidence:
    """What two samples say of the difference of their means, counted so that more is better.

    Attributes:
        difference: new less old; of a relative margin the logarithm of their ratio.
        margin: how large a drop may be and still be no worse, in the same unit.
        spread: of both samples, and of a reference's runs where one fits.
        sizes: how many values there are, old and new.
        shuffled: how often as many of all values would have a mean as low as the new ones; 0 where that was not asked.
        paired: deviation and number of the differences seed by seed, where both sides have the same three or more.
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
        """Standard error and degrees of freedom of each t test that can be made."""
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
        """One-sided p value of "the true difference is the bound or less"; 1 where no test can be made.

        Of two tests the clearer one counts, at half the error each (Bonferroni).
        """
        from scipy.special import stdtr  # what scipy.stats.t asks as well, which takes a second or two to import

        tests = self.tests
        values = [stdtr(degrees, -_quotient(self.difference - bound, error)) for error, degrees in tests]
        return min([1.0, *(len(tests) * float(value) for value in values)])

    def p_below(self, bound: float) -> float:
        """One-sided p value of "the true difference is the bound or more"."""
        return replace(self, difference=-self.difference).p_above(-bound)

    def visible_drop(self, error: float) -> float | None:
        """The true drop that a test at this error would find in 80% of cases; None where no test can be made."""
        from scipy.optimize import brentq
        from scipy.stats import nct, t

        drops = []
        for standard_error, degrees in self.tests:
            limit = float(t.isf(error / len(self.tests), degrees))
            drop = brentq(lambda shift, n=degrees, at=limit: nct.sf(at, n, shift) - POWER, 0, 5 * limit + 20)
            drops.append(float(drop) * standard_error)
        return min(drops, default=None)

    def more_seeds(self, error: float, *, on_both_sides: bool) -> int | None:
        """How many more runs, on the new side or on each, would show in 80% of cases that nothing changed.

        None where nothing is known of the noise, or a hundred would not do.
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
    """Their ratio; without any noise, every difference is beyond it."""
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
    """What the values of two sides, by seed, say of their difference.

    Args:
        margin: the largest drop that counts for nothing.
        reference: further values made as these were, which tell of the noise.
        shuffle: hold the new values against all ways to choose as many, too, if there are a thousand: scores with a
            tail of low ones, as where a run misses a class, drop by chance more often than Student's t takes them to.

    >>> found = evidence({0: 0.90, 1: 0.91, 2: 0.92}, {0: 0.80, 1: 0.81, 2: 0.82}, Margin(0.02))
    >>> round(found.difference, 3), changes([found])
    (-0.1, [<Change.WORSE: 'worse'>])
    """
    sign = 1 if margin.more_is_better else -1

    def counted(value: float) -> float:
        return sign * (math.log(value) if margin.relative else value)

    before, after = ({seed: counted(value) for seed, value in side.items()} for side in (old, new))
    samples = [list(before.values()), list(after.values())]
    paired = None
    if before.keys() == after.keys() and len(before) >= _LEAST_PAIRS:
        differences = [after[seed] - before[seed] for seed in before]
        paired = Spread.of(differences).deviation, len(differences)
    return Evidence(
        fmean(samples[1]) - fmean(samples[0]),
        abs(math.log1p(-sign * margin.size)) if margin.relative else margin.size,
        Spread.of(*samples) + Spread.of([counted(value) for value in reference]),
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

    "No worse": a drop of the margin or more is refuted, each at ``error``: then nothing that dropped by its margin
    passes as no worse more often than that, however many numbers there are. "Worse": it dropped at all, and "better":
    it gained more than the margin, by Holm's correction (1979) over all numbers: where nothing changed, that any of
    them is called so happens at most as often as ``error`` says. Beside a large enough reference "worse" takes a
    permutation test as well (`Evidence.shuffled`). What is none of these, these runs cannot tell.
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
    """Which of several hypotheses are refuted, with at most this chance that any true one is among them.

    >>> holm([0.01, 0.04, 0.03], 0.05)  # 0.01 <= 0.05 / 3, but 0.03 > 0.05 / 2
    [True, False, False]
    """
    refuted = [False] * len(p_values)
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda place: p_values[place])):
        if p_values[place] > error / (len(p_values) - rank):
            break
        refuted[place] = True
    return refuted


def permutation_p(old: Table, new: Table) -> Table:
    """For each of many quantities, how often some quantity would differ as much if nothing had changed.

    The largest |t| of all quantities is found for every way to say which runs are the new ones (Westfall and Young
    1993). So however the quantities are distributed, and however they hang together, the smallest p value of runs that
    do not differ is 1% or less in 1% of cases at most.

    Args:
        old, new: (runs, quantities), at least one run each.

    Returns:
        (quantities,).

    >>> old = np.array([[0.1], [0.2], [0.3], [0.2]])
    >>> permutation_p(old, np.array([[0.9]])).tolist()  # the most extreme of five
    [0.2]
    """
    values = np.concatenate([new, old])
    values = values - values.mean(0)
    size, count = len(new), len(values)
    ways = _ways(count, size)
    squares = np.empty((len(ways), values.shape[1]))
    for start in range(0, len(ways), 500):  # a thousand quantities of ten runs take 40 MB at once
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
    """(ways, size) the ways to choose so many of all; the first is the true one."""
    if math.comb(count, size) <= _MOST_WAYS:
        return np.array(list(combinations(range(count), size)))
    rng = np.random.default_rng(0)
    return np.array([range(size), *(rng.permutation(count)[:size] for _ in range(_MOST_WAYS))])


def paired_interval(differences: Sequence[float]) -> Interval | None:
    """The 95% interval of the mean of paired differences; None for fewer than two."""
    if len(differences) < 2:
        return None
    from scipy.stats import ttest_1samp

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of equal values, which leave no doubt here
        low, high = ttest_1samp(differences, 0.0).confidence_interval(0.95)
    return float(low), float(high)
