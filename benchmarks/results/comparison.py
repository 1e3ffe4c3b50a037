"""Comparison of two result sets: what is no worse, what is worse, and where there are too few runs to tell."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.errors import ExitCode
from benchmarks.results.formatting import as_text, few, one_line, seeds_text, spread_text, table, values_of, words
from benchmarks.results.gates import Verdict, judge_run
from benchmarks.results.hardware import throttled
from benchmarks.results.records import ENVIRONMENT, Record, by_configuration, read_records
from benchmarks.results.references import Reference, Row, fitting, judged_rows
from benchmarks.results.statistics import ERROR, TIME_ERROR, Change, Evidence, evidence
from benchmarks.suite import COST_MARGINS, MARGINS, SUITE, select
from hw6core.errors import DataError, UsageError

# Of a resumed run; training times are of all processes.
_OF_THE_LAST_PROCESS = ("total_s", "energy_j", "peak_memory_gib", "peak_device_memory_gib")
# Fields that must be equal for two records of a configuration to be comparable.
_SAME = ("profile", "data", "weights", "settings", "gates")
_SEVERITY = {Verdict.PASSED: 0, Verdict.FAILED: 1, Verdict.NOT_RUN: 2, Verdict.ERROR: 3}


@dataclass(frozen=True)
class Comparison:
    """A comparison of two results folders."""

    old: Path
    new: Path
    rows: Sequence[Row]  # every number that both sides have
    lost: Sequence[str]  # a sentence for each run or gate that the new side lost
    notes: Sequence[str]  # further sentences
    records: Sequence[Sequence[Record]]  # of the old side, of the new side
    looks: int = 1  # see `compare`

    @property
    def regressions(self) -> list[str]:
        return [*self.lost, *(_sentence(row) for row in self.rows if row.change is Change.WORSE)]

    def exit_code(self, *, unclear_passes: bool = False) -> int:
        """0 nothing is worse, 1 something is, 5 cannot tell (0 with ``unclear_passes``)."""
        if self.regressions:
            return ExitCode.FAILED
        unclear = any(row.change is Change.CANNOT_TELL for row in self.rows)
        return ExitCode.CANNOT_TELL if unclear and not unclear_passes else ExitCode.PASSED

    def markdown(self) -> str:
        """The comparison as Markdown, the verdict first."""
        return "\n\n".join(_sections(self)) + "\n"


def compare(
    old: Path,
    new: Path,
    ids: Sequence[str] = (),
    *,
    costs: bool = True,
    references: Sequence[Reference] = (),
    seeds: Collection[int] | None = None,
    looks: int = 1,
) -> Comparison:
    """Compare the records of two results folders.

    Args:
        ids: the configurations to compare; default: all that either side has.
        costs: whether to compare times, memory and energy; False for different kinds of devices.
        references: a matching one adds its runs to the estimate of the noise.
        seeds: the seeds to compare; default: all.
        looks: how often the comparison is repeated while seeds are added. The errors are divided by it, so that they
            hold over all repetitions (Bonferroni).

    Raises:
        DataError: a folder has no readable records, or nothing was completed on both sides.
        UsageError: the sides differ in configurations, profile, data, weights, settings or gates.
    """
    sides = _sides(old, new, ids, seeds)
    records = [[record for runs in side.values() for record in runs] for side in sides]
    new_seeds = {record.seed for record in records[1]}
    rows: list[Row] = []
    lost: list[str] = []
    notes: list[str] = []
    for name in sides[0]:
        before, after = (side[name] for side in sides)
        _check_same(name, before, after)
        lost += _lost(name, before, after, new_seeds)
        finished = [[record for record in side if record.status == "completed"] for side in (before, after)]
        for side, runs in zip(("old", "new"), finished if costs else (), strict=False):
            slow = [(run, text) for run in runs if (text := throttled(run))]
            notes += [f"{name} seed {run.seed}, {side}: {text}; its times are ignored" for run, text in slow]
            resumed = [run.seed for run in runs if run.timing.interruptions]
            notes += [
                f"{name} seed {seed}, {side}: resumed; its total time, energy and memory are ignored"
                for seed in resumed
            ]
            late = [run.seed for run in runs if run.timing.seconds_to_gate is None]
            if 0 < len(late) < len(runs):
                notes.append(f"{name}, {side}: {seeds_text(late)} never passed the gates on validation")
        for what in [*(gate.metric for gate in SUITE[name].gates), *(COST_MARGINS if costs else ())]:
            was, is_now = (_by_seed(side, what) for side in finished)
            if was and is_now:
                rows.append(Row(name, what, was, is_now, _evidence(what, was, is_now, finished, references)))
            elif was or is_now:
                verb, values, other = ("was", was, "new") if was else ("is now", is_now, "old")
                text = spread_text(what, values.values())
                notes.append(f"{name}: {words(what)} {verb} {text}; the {other} side has none")
        if not any(finished):
            notes.append(f"{name}: neither side has a completed run")
    if not rows and not lost:
        raise DataError(f"no run was completed both in {old} and in {new}: nothing can be compared")
    return Comparison(old, new, judged_rows(rows, looks), lost, notes, records, looks)


def _sides(old: Path, new: Path, ids: Sequence[str], seeds: Collection[int] | None) -> list[dict[str, list[Record]]]:
    """The records of both sides by configuration; both must have all that are named, or the same ones."""
    chosen = [configuration.id for configuration in select(ids)]
    sides = []
    for folder in (old, new):
        records = [record for record in read_records(folder) if seeds is None or record.seed in seeds]
        if unknown := [record.configuration for record in records if record.configuration not in SUITE]:
            raise UsageError(f"{folder} has a record of {unknown[0]}, which this version of the suite does not know")
        sides.append(by_configuration(record for record in records if record.configuration in chosen))
        if ids and (missing := [name for name in chosen if name not in sides[-1]]):
            raise DataError(f"{folder} has no record of {missing[0]}")
    if differing := sorted(set(sides[0]) ^ set(sides[1])):
        has, lacks = (old, new) if differing[0] in sides[0] else (new, old)
        raise UsageError(
            f"{has} has a record of {differing[0]}, {lacks} has none; select configurations that both have: "
            "--only 'ID ID'"
        )
    return sides


def _check_same(name: str, before: Sequence[Record], after: Sequence[Record]) -> None:
    """Refuse records that are not comparable; a run that failed early has neither weights nor data."""
    for what in _SAME:
        values = [msgspec.to_builtins(getattr(record, what)) for record in [*before, *after]]
        if what == "data":  # files of drawn data differ slightly between kinds of processors
            left_out = "fingerprint" if all("drawn" in data for data in values if data) else "drawn"
            values = [{key: value for key, value in data.items() if key != left_out} for data in values]
        first, *others = [value for value in values if value] or [None]
        for other in others:
            if other != first:
                verb = "differs" if what == "profile" else "differ"
                raise UsageError(f"{name}: {what} {verb}, {_first_difference(first, other)}: not comparable")


def _first_difference(old: Any, new: Any) -> str:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in sorted({*old, *new}):
            if key not in old or key not in new:
                return f"{key} is on the {'new' if key in new else 'old'} side only"
            if old[key] != new[key]:
                return f"{key} {_first_difference(old[key], new[key])}"
    if isinstance(old, list | tuple) and isinstance(new, list | tuple):
        if len(old) != len(new):
            return f"{len(old)} against {len(new)}"
        return next(_first_difference(a, b) for a, b in zip(old, new, strict=True) if a != b)
    return f"{old!r} against {new!r}"


def _lost(name: str, before: Sequence[Record], after: Sequence[Record], new_seeds: Collection[int]) -> Iterator[str]:
    """A sentence for each run that is no longer completed, and for each gate whose verdict is worse.

    A seed that no configuration of the new side has was not selected; otherwise its record is missing.
    """
    then, now = ({record.seed: record for record in side} for side in (before, after))
    for seed in sorted({*then, *now}):
        run, old, new = f"{name} seed {seed}", then.get(seed), now.get(seed)
        if new is None:
            if old and old.status == "completed" and seed in new_seeds:
                yield f"{run}: the record of this run is missing"
        elif new.status != "completed":
            if old.status == "completed" if old else any(run.status == "completed" for run in before):
                yield f"{run}: {new.status}, {new.message}"
        elif old is not None:
            # By gates and floors alone: both sides may have other settings than the suite's, such as a working size.
            suites = SUITE[name].fingerprint(new.profile, str(new.data.kind))
            judged = (judge_run(msgspec.structs.replace(it, settings=suites), SUITE[name], seed) for it in (old, new))
            pairs = zip(*judged, strict=True)
            reasons = [finding.reason for was, finding in pairs if _SEVERITY[finding.verdict] > _SEVERITY[was.verdict]]
            if reasons:
                yield f"{run}: worse verdict than before: {'; '.join(dict.fromkeys(reasons))}"


def _by_seed(runs: Sequence[Record], name: str) -> dict[int, float]:
    """A metric or cost of each run that has it; without the times of throttled runs."""
    found: dict[int, float | None] = {}
    for run in runs:
        if name in _OF_THE_LAST_PROCESS and run.timing.interruptions:
            continue
        if name not in COST_MARGINS:
            found[run.seed] = run.metrics.get(name)
        elif not hasattr(run.timing, name):  # a counter that stays at 0 is not supported
            found[run.seed] = getattr(run.environment.machine, name) or None
        elif not throttled(run):
            found[run.seed] = getattr(run.timing, name) or None
    return {seed: value for seed, value in found.items() if value is not None}


def _evidence(
    name: str,
    old: Mapping[int, float],
    new: Mapping[int, float],
    runs: Sequence[Sequence[Record]],
    references: Sequence[Reference],
) -> Evidence:
    margin = (MARGINS | COST_MARGINS)[name]
    population = None if name in COST_MARGINS else fitting(runs[0], references)[0]
    same = old == new and (name in COST_MARGINS or _learned(runs[0]) == _learned(runs[1]))
    others = population.values(name).items() if population else ()
    # Runs that are also on one of the sides must not count twice.
    reference = [value for seed, value in others if value not in (old.get(seed), new.get(seed))]
    return evidence(old, new, margin, reference=reference, identical=same)


def _learned(runs: Sequence[Record]) -> Any:
    """The history of each run without times: equal only if the runs computed the same."""
    return {
        run.seed: {curve: [{**epoch, "seconds": None} for epoch in epochs] for curve, epochs in run.history.items()}
        for run in runs
    }


# -------------------------------------------------------------------------------------------------------------- text


def _sections(comparison: Comparison) -> Iterator[str]:
    rows, found, sides = comparison.rows, comparison.regressions, comparison.records
    counts = {change: sum(row.change is change for row in rows) for change in Change}
    counted = ", ".join(f"{count} {change}" for change, count in counts.items() if count) or "no number on both sides"
    unclear = [row for row in rows if row.change is Change.CANNOT_TELL]
    environments = [
        (key, *(values_of(getattr(r.environment, key) for r in side) for side in sides)) for key in ENVIRONMENT
    ]
    environment = [(as_text(words(key)), was, is_now) for key, was, is_now in environments if was != is_now]
    yield "# Comparison"
    if found:
        yield f"**{len(found)} REGRESSION{'S' if len(found) > 1 else ''}**; {counted}."
        yield "\n".join(f"- {as_text(text)}" for text in found)
    else:
        yield f"**{'CANNOT TELL' if unclear else 'NO WORSE'}**; {counted}."
    if unclear:
        yield _seeds_needed(unclear, comparison.looks)
    if any(key == "device name" for key, *_ in environment):
        yield "**The devices differ**, so the times say little about the software; --quality-only omits them."
    if comparison.notes:
        yield "\n".join(f"- {as_text(text)}" for text in comparison.notes)
    records = [record for side in sides for record in side]
    yield (  # so that nobody takes a quick or synthetic result for an acceptance result
        f"Profile **{values_of(record.profile for record in records)}** · "
        f"{values_of(record.data.kind for record in records)} data · "
        f"device {values_of(record.environment.device_name for record in records)} · "
        f"weights {values_of(record.weights or None for record in records)}"
    )
    before, after = (seeds_text(sorted({record.seed for record in side})) for side in sides)
    old, new = (one_line(str(folder)).replace("`", "'") for folder in (comparison.old, comparison.new))
    yield f"Old: `{old}`, {before}. New: `{new}`, {after}."
    for title, is_cost in (("Quality", False), ("Time, memory, energy", True)):
        if chosen := [row for row in rows if row.is_cost == is_cost]:
            yield f"## {title}"
            yield table(
                ["configuration", "what", "old", "new", "difference", "margin", "verdict", "visible"],
                [row.cells(row.error / comparison.looks / len(chosen)) for row in chosen],
            )
    looks = f" and all {comparison.looks} looks" if comparison.looks > 1 else ""
    yield (
        "No worse: a drop (of errors, times, memory and energy: a rise) as large as the margin is ruled out. Worse: it "
        f"dropped, at an error of {ERROR:.0%} (times: {TIME_ERROR:.0%}) over all rows of the table{looks}. "
        "Visible: the drop that these runs detect in 80% of cases. docs/judging.md explains the tests."
    )
    yield "## Environment"
    yield table(["what", "old", "new"], environment) if environment else "No difference."


def _seeds_needed(unclear: Sequence[Row], looks: int) -> str:
    """How many more seeds would be enough for the rows that cannot tell."""
    needed = [(row, row.evidence.more_seeds(row.error / looks, on_both_sides=True)) for row in unclear]
    sentences = []
    for what, is_cost in (("quality", False), ("times, memory and energy", True)):
        if enough := [count for row, count in needed if row.is_cost == is_cost and count is not None]:
            more = f"{max(enough)} more seed{'s' if max(enough) > 1 else ''} per side"
            sentences.append(f"If nothing changed, {more} would show it for {what}, each row in 80% of cases.")
    if any(row.evidence.spread.degrees < 1 for row in unclear):
        sentences.append("One run per side shows no noise: run three or more seeds, the same on both sides.")
    if hopeless := [
        f"{row.configuration} {words(row.name)}" for row, n in needed if n is None and row.evidence.spread.degrees
    ]:
        sentences.append(f"100 more seeds per side would not be enough for {few(hopeless)}.")
    return " ".join(sentences)


def _sentence(row: Row) -> str:
    old, new = (spread_text(row.name, side.values()) for side in (row.old, row.new))
    return f"{row.configuration}: {words(row.name)} {old} is now {new}, beyond the noise of the seeds"
