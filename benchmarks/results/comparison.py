"""Two result sets side by side: what became better, what became worse, and what is noise."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from statistics import mean
from typing import Any

import msgspec

from benchmarks.results.formatting import (
    as_text,
    interval_text,
    one_line,
    seeds_text,
    signed,
    spread_text,
    table,
    values_of,
)
from benchmarks.results.gates import Verdict, judge_run
from benchmarks.results.records import ENVIRONMENT, Record, read_records
from benchmarks.results.statistics import Interval, welch_interval
from benchmarks.suite import SUITE, select
from hw6core.errors import DataError, UsageError


@dataclass(frozen=True)
class Thresholds:
    """When a difference counts; every number of the comparison stands here.

    A difference counts if it is larger than the tolerance and the 95% interval of Welch's t test over seeds leaves out
    zero. Larger than the tolerance, but within the noise, it is unclear. From ``certain`` tolerances on it counts
    whatever the noise: that alone decides where a side has one run, whose noise nobody knows.

    Attributes:
        score: of a score between 0 and 1, absolute.
        error: of an error, as a share of the old one.
        seconds: of a time or a rate, as a share of the old one.
        seconds_to_gate: the same; an epoch more or less is a large step there.
    """

    score: float = 0.02
    error: float = 0.10
    seconds: float = 0.10
    seconds_to_gate: float = 0.25
    certain: float = 3.0


THRESHOLDS = Thresholds()
# What is compared of a record's timing, and whether more is better.
_TIMES = {"training_s": False, "samples_per_s": True, "seconds_to_gate": False, "total_s": False}
# What two records of a configuration must have in common to be compared.
_SAME = ("profile", "data", "weights", "settings", "gates")
_SEVERITY = {Verdict.PASSED: 0, Verdict.FAILED: 1, Verdict.NOT_RUN: 2, Verdict.ERROR: 3}


class Change(StrEnum):
    SAME = "same"
    BETTER = "better"
    WORSE = "worse"
    UNCLEAR = "unclear"


@dataclass(frozen=True)
class Row:
    """One number of one configuration on both sides, a value for each completed seed."""

    configuration: str
    name: str
    old: Sequence[float]
    new: Sequence[float]
    change: Change
    interval: Interval | None

    @property
    def difference(self) -> float:
        return mean(self.new) - mean(self.old)


@dataclass(frozen=True)
class Comparison:
    """Every number that both sides have, and the runs that one of them lost."""

    old: Path
    new: Path
    rows: Sequence[Row]
    lost: Sequence[str]
    notes: Sequence[str]
    facts: str
    seeds: tuple[Sequence[int], Sequence[int]]
    environment: Sequence[tuple[str, str, str]]

    @property
    def regressions(self) -> list[str]:
        """A sentence for each."""
        return [*self.lost, *(_sentence(row) for row in self.rows if row.change is Change.WORSE)]

    def markdown(self) -> str:
        """The comparison as a text for people, its verdict first."""
        return "\n\n".join(_sections(self)) + "\n"


def compare(old: Path, new: Path, ids: Sequence[str] = (), *, times: bool = True) -> Comparison:
    """Compare the records of two results folders.

    Args:
        ids: the configurations to compare; default: all that either side has.
        times: whether times count; on another kind of device they cannot.

    Raises:
        DataError: a folder has no readable records, or nothing was completed on both sides.
        UsageError: the sides differ in what they are about: configurations, profile, data, weights, settings, gates.
    """
    chosen = [configuration.id for configuration in select(ids)]
    sides = [_by_configuration(folder, chosen) for folder in (old, new)]
    if ids:
        for folder, side in zip((old, new), sides, strict=True):
            if missing := [name for name in chosen if name not in side]:
                raise DataError(f"{folder} has no record of {missing[0]}")
    if set(sides[0]) != set(sides[1]):
        name = sorted(set(sides[0]) ^ set(sides[1]))[0]
        has, lacks = (old, new) if name in sides[0] else (new, old)
        raise UsageError(
            f"{has} has a record of {name}, {lacks} has none; to compare what both have, name it: --only ID ..."
        )
    rows: list[Row] = []
    lost: list[str] = []
    notes: list[str] = []
    new_seeds = {record.seed for runs in sides[1].values() for record in runs}
    for name in sides[0]:
        before, after = (side[name] for side in sides)
        _check_same(name, before, after)
        lost += _lost(name, before, after, new_seeds)
        compared = [row for row in _rows(name, before, after, times) if row.old or row.new]
        rows += [row for row in compared if row.old and row.new]
        for row in compared:
            if not row.old:
                notes.append(f"{name}: {row.name} is now {spread_text(row.name, row.new)}; the old side has none")
            elif not row.new:
                notes.append(f"{name}: {row.name} was {spread_text(row.name, row.old)}; the new side has none")
        if not compared:
            notes.append(f"{name}: neither side has a completed run")
    if not rows and not lost:
        raise DataError(f"no run was completed both in {old} and in {new}: nothing can be compared")
    before, after = ([record for runs in side.values() for record in runs] for side in sides)
    records = [*before, *after]
    facts = (  # so that a trial never looks like an acceptance result
        f"Profile **{values_of(record.profile for record in records)}** · "
        f"{values_of(record.data.kind for record in records)} data · "
        f"device {values_of(record.environment.device_name for record in records)} · "
        f"weights {values_of(record.weights or None for record in records)}"
    )
    environment = []
    for key in ENVIRONMENT:
        was, is_now = (values_of(getattr(record.environment, key) for record in side) for side in (before, after))
        if was != is_now:
            environment.append((as_text(key), was, is_now))
    seeds = sorted({record.seed for record in before}), sorted({record.seed for record in after})
    return Comparison(old, new, rows, lost, notes, facts, seeds, environment)


def _by_configuration(folder: Path, chosen: Collection[str]) -> dict[str, list[Record]]:
    """Records of the suite's configurations, in its order."""
    records = read_records(folder)
    if unknown := [record.configuration for record in records if record.configuration not in SUITE]:
        raise UsageError(f"{folder} has a record of {unknown[0]}, which this version of the suite does not know")
    found = {name: [record for record in records if record.configuration == name] for name in chosen}
    return {name: runs for name, runs in found.items() if runs}


def _check_same(name: str, before: Sequence[Record], after: Sequence[Record]) -> None:
    """What makes numbers comparable at all. A run that failed early knows neither its weights nor its data."""
    for what in _SAME:
        values = [msgspec.to_builtins(getattr(record, what)) for record in [*before, *after]]
        first, *others = [value for value in values if value] or [None]
        for other in others:
            if other != first:
                verb = "differs" if what == "profile" else "differ"
                raise UsageError(f"{name}: {what} {verb}, {_first_difference(first, other)}: not comparable")


def _first_difference(old: Any, new: Any) -> str:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        lacking = object()
        key = next(key for key in sorted({*old, *new}) if old.get(key, lacking) != new.get(key, lacking))
        if key not in old or key not in new:
            return f"{key} is on {'the new' if key in new else 'the old'} side alone"
        return f"{key} {_first_difference(old[key], new[key])}"
    if isinstance(old, list | tuple) and isinstance(new, list | tuple) and len(old) != len(new):
        return f"{len(old)} against {len(new)}"
    if isinstance(old, list | tuple) and isinstance(new, list | tuple):
        return next(_first_difference(a, b) for a, b in zip(old, new, strict=True) if a != b)
    return f"{old!r} against {new!r}"


def _lost(name: str, before: Sequence[Record], after: Sequence[Record], new_seeds: Collection[int]) -> Iterator[str]:
    """Runs that were completed and are no more, gates that were passed and are no more.

    A seed that the new side has nowhere was not asked for; one that it has elsewhere, but not here, left no record.
    """
    then, now = ({record.seed: record for record in side} for side in (before, after))
    for seed in sorted({*then, *now}):
        run, old, new = f"{name} seed {seed}", then.get(seed), now.get(seed)
        if new is None:
            if old and old.status == "completed" and seed in new_seeds:
                yield f"{run}: there is no record of this run any more"
        elif new.status != "completed":
            if old is None or old.status == "completed":
                yield f"{run}: {new.status}, {new.message}"
        elif old is not None:
            pairs = zip(judge_run(old, SUITE[name], seed), judge_run(new, SUITE[name], seed), strict=True)
            reasons = [finding.reason for was, finding in pairs if _SEVERITY[finding.verdict] > _SEVERITY[was.verdict]]
            if reasons:
                yield f"{run}: passed before and does not now: {'; '.join(dict.fromkeys(reasons))}"


def _rows(name: str, before: Sequence[Record], after: Sequence[Record], times: bool) -> Iterator[Row]:
    """Every number that is compared; a side that lacks it has no values there."""
    sides = [[record for record in side if record.status == "completed"] for side in (before, after)]
    for gate in SUITE[name].gates:
        old, new = (_numbers(record.metrics.get(gate.metric) for record in side) for side in sides)
        above = gate.direction == "above"
        tolerance = THRESHOLDS.score if above else THRESHOLDS.error * abs(mean(old or [0]))
        yield _row(name, gate.metric, old, new, tolerance, more_is_better=above)
    for key, more_is_better in _TIMES.items() if times else ():
        old, new = (_numbers(getattr(record.timing, key) for record in side) for side in sides)
        share = THRESHOLDS.seconds_to_gate if key == "seconds_to_gate" else THRESHOLDS.seconds
        yield _row(name, key, old, new, share * mean(old or [0]), more_is_better=more_is_better)


def _numbers(found: Iterable[float | None]) -> list[float]:
    return [value for value in found if value is not None]


def _row(
    configuration: str, name: str, old: Sequence[float], new: Sequence[float], tolerance: float, *, more_is_better: bool
) -> Row:
    interval = welch_interval(old, new)
    gain = (mean(new) - mean(old)) * (1 if more_is_better else -1) if old and new else 0.0
    if abs(gain) <= tolerance:
        change = Change.SAME
    elif _beyond_noise(interval) or abs(gain) > THRESHOLDS.certain * tolerance:
        change = Change.BETTER if gain > 0 else Change.WORSE
    else:
        change = Change.UNCLEAR
    return Row(configuration, name, old, new, change, interval)


def _beyond_noise(interval: Interval | None) -> bool:
    return interval is not None and not interval[0] <= 0 <= interval[1]


# -------------------------------------------------------------------------------------------------------------- text


def _sections(comparison: Comparison) -> Iterator[str]:
    counts = {change: sum(row.change is change for row in comparison.rows) for change in Change}
    found = comparison.regressions
    yield "# Comparison"
    counted = f"{counts[Change.BETTER]} better, {counts[Change.UNCLEAR]} unclear, {counts[Change.SAME]} the same."
    if found:
        yield f"**{len(found)} REGRESSION{'S' if len(found) > 1 else ''}**; {counted}"
        yield "\n".join(f"- {as_text(text)}" for text in found)
    else:
        yield f"**NO REGRESSION**; {counted}"
    if any(key == "device_name" for key, *_ in comparison.environment):
        yield "**The devices differ**, so the times say little about the software; --quality-only leaves them out."
    if comparison.notes:
        yield "\n".join(f"- {as_text(text)}" for text in comparison.notes)
    yield comparison.facts
    before, after = map(seeds_text, comparison.seeds)
    old, new = (one_line(str(folder)).replace("`", "'") for folder in (comparison.old, comparison.new))
    yield f"Old: `{old}`, {before}. New: `{new}`, {after}."
    headers = ["configuration", "what", "old", "new", "difference", "95% interval", "change"]
    for title, is_time in (("Quality", False), ("Time", True)):
        if rows := [_cells(row) for row in comparison.rows if (row.name in _TIMES) == is_time]:
            yield f"## {title}"
            yield table(headers, rows)
    limits = THRESHOLDS
    how = (
        f"A difference counts if it is larger than {limits.score:g} of a score, {limits.error:.0%} of an error or "
        f"{limits.seconds:.0%} of a time ({limits.seconds_to_gate:.0%} of the time to gate) and the 95% interval of "
        f"Welch's t test over seeds leaves out zero; beyond {limits.certain:g} times that it counts whatever the noise."
    )
    if any(row.interval is None for row in comparison.rows):
        how += " One run on a side shows no noise: only the latter holds there."
    yield how
    yield "## Environment"
    yield table(["what", "old", "new"], comparison.environment) if comparison.environment else "No difference."


def _cells(row: Row) -> list[str]:
    share = round(100 * row.difference / mean(row.old)) if row.name in _TIMES and mean(row.old) else None
    return [
        row.configuration,
        row.name,
        spread_text(row.name, row.old),
        spread_text(row.name, row.new),
        signed(row.name, row.difference) + ("" if share is None else f" ({share:+d}%)"),
        interval_text(row.name, row.interval),
        row.change,
    ]


def _sentence(row: Row) -> str:
    certain = f"more than {THRESHOLDS.certain:g} times the tolerance"
    noise = "beyond the noise of the seeds" if _beyond_noise(row.interval) else certain
    old, new = (spread_text(row.name, side) for side in (row.old, row.new))
    return f"{row.configuration}: {row.name} {old} is now {new}, {noise}"
