"""Reference populations: what many seeds of each configuration reached, kept in the repository to judge new runs by.

A run fits a reference if it was made under the same profile, on the same data, at the same precision, from the same
weights and with the same settings; on which device does not matter, nor in which version of this code or of torch:
those are what is judged.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import msgspec
from msgspec import Struct

from benchmarks.results.curves import Deviation, deviations, learning_curve
from benchmarks.results.formatting import number, seeds_text, signed, spread_text, visible_text, words
from benchmarks.results.records import Number, Record, by_configuration, read_records, write_atomically
from benchmarks.results.statistics import ERROR, TIME_ERROR, Change, Evidence, changes, evidence
from benchmarks.suite import COST_MARGINS, MARGINS, SUITE, Margin
from hw6core.errors import DataError, UsageError

REFERENCES = Path(__file__).parents[2] / "references"
_SCHEMA_VERSION = 1
_LEAST_SEEDS = 5  # of fewer, the spread is hardly known


class Key(Struct, frozen=True):
    """What a run must have in common with a reference: its run key without device, versions and code."""

    profile: str
    precision: str
    data: dict[str, Any]
    weights: str
    settings: dict[str, Any]

    @staticmethod
    def of(record: Record) -> Key:
        content = record.data.drawn or record.data.fingerprint
        data = {"kind": record.data.kind, "fingerprint": content, "samples": record.data.samples}
        settings = json.loads(json.dumps(record.settings))  # as they are read from a file: lists for tuples
        return Key(record.profile, str(record.environment.precision), data, record.weights, settings)


class Source(Struct, frozen=True):
    """Where and when some of the runs were made."""

    seeds: list[int]
    device: str | None
    torch: str | None
    git_commit: str | None
    day: str | None


class Population(Struct):
    """What the runs of one configuration reached, each in the order of ``seeds``.

    Attributes:
        metrics: final scores, of each gate's metric.
        curves: see `benchmarks.results.curves.learning_curve`; None where a run has none, as in older references.
    """

    key: Key
    seeds: list[int]
    metrics: dict[str, list[Number]]
    made: list[Source]
    curves: dict[str, list[Number | None]] = {}

    def values(self, metric: str) -> dict[int, float]:
        """By seed."""
        return dict(zip(self.seeds, self.metrics[metric], strict=True))

    def learning_curves(self) -> dict[int, dict[str, float]]:
        """By seed; those of no epoch are left out."""
        rows = zip(*self.curves.values(), strict=True) if self.curves else ()
        found = {
            seed: {name: value for name, value in zip(self.curves, row, strict=True) if value is not None}
            for seed, row in zip(self.seeds, rows, strict=False)
        }
        return {seed: curve for seed, curve in found.items() if curve}


class Reference(Struct, forbid_unknown_fields=True):
    """The populations of all configurations under one profile, on one kind of data, at one precision."""

    populations: dict[str, Population]
    schema_version: int = _SCHEMA_VERSION


def read_references(folder: Path = REFERENCES) -> list[Reference]:
    """Those of a folder, by name; none if there is no such folder.

    Raises:
        DataError: a file is no reference.
    """
    return [read_reference(path) for path in sorted(folder.glob("*.json")) if not path.name.startswith(".")]


def read_reference(path: Path) -> Reference:
    """Read a reference.

    Raises:
        DataError: the file cannot be read or is no reference.
    """
    try:
        reference = msgspec.json.decode(path.read_bytes(), type=Reference)
        if reference.schema_version != _SCHEMA_VERSION:
            raise ValueError(f"schema version {reference.schema_version}, expected {_SCHEMA_VERSION}")
        for name, population in reference.populations.items():
            sizes = {len(population.seeds), len(set(population.seeds)), *map(len, population.metrics.values())}
            if len(sizes | {len(column) for column in population.curves.values()}) > 1:
                raise ValueError(f"{name} has not one value of each quantity for each seed")
        return reference
    except (OSError, ValueError, msgspec.MsgspecError) as error:  # a ValueError in newer versions alone
        raise DataError(f"{path} is not a readable reference ({error}); make it again, or delete it") from error


def make_reference(results: Sequence[Path], path: Path | None = None) -> tuple[Path, list[str]]:
    """Condense the completed records of results folders into a reference; one that is there gets further seeds.

    Args:
        path: default: `REFERENCES`/<profile>-<data>-<precision>.json.

    Returns:
        Where it lies, and a line for each population: its size, and what it is valid for.

    Raises:
        DataError: there is no completed record, one missed its gates, or two of one configuration and seed differ.
        UsageError: the records of a configuration were made under different keys, or under another than those there.
    """
    records = [record for folder in results for record in read_records(folder) if record.status == "completed"]
    completed = by_configuration(records)
    if not completed:
        raise DataError(f"no completed run in {', '.join(map(str, results))}: nothing to make a reference of")
    first = Key.of(next(iter(completed.values()))[0])
    path = path or REFERENCES / f"{first.profile}-{first.data['kind']}-{first.precision}.json"
    populations = read_reference(path).populations if path.exists() else {}
    replaced: list[str] = []
    for name, runs in completed.items():
        gates, known = SUITE[name].gates, populations.get(name)
        for run in runs:
            for gate in gates:
                value = run.metrics.get(gate.metric)
                if value is None or not gate.passes(value, run.trivial):
                    raise DataError(
                        f"{run.configuration} seed {run.seed} missed its gate ({gate.metric} {gate}): a reference is "
                        "of sound runs; find out why, or leave that folder out"
                    )
        key = _common_key(name, runs, first)
        if known is not None and known.key != key:
            if known.key.settings == key.settings:
                differing = _differing(known.key, key)
                raise UsageError(
                    f"{path} has {len(known.seeds)} runs of {name} with other {differing}; "
                    "name another file: --output FILE"
                )
            replaced.append(f"{name}: {len(known.seeds)} runs with other settings are replaced")
            known = None
        populations[name] = _condensed(key, runs, known, [gate.metric for gate in gates])
    populations = {name: populations[name] for name in SUITE if name in populations}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(msgspec.to_builtins(Reference(populations)), indent=1) + "\n")
    lines = [
        f"{identifier}: {seeds_text(found.seeds)}; {found.key.profile}, {found.key.data['kind']} data, "
        f"{found.key.precision}, weights {found.key.weights}"
        for identifier, found in populations.items()
    ]
    return path, [*replaced, *lines]


def _differing(one: Key, other: Key) -> str:
    """The parts of two keys that differ: "precision, weights"."""
    return ", ".join(part for part in Key.__struct_fields__ if getattr(one, part) != getattr(other, part))


def _common_key(name: str, runs: Sequence[Record], first: Key) -> Key:
    keys = [Key.of(run) for run in runs]
    for run, key in zip(runs, keys, strict=True):
        for what in Key.__struct_fields__:
            expected = first if what in ("profile", "precision") else keys[0]
            if getattr(key, what) != getattr(expected, what):
                raise UsageError(
                    f"{name} seed {run.seed} was made with another {what} than seed {runs[0].seed}: "
                    "a reference is of one; name the results of one"
                )
    return keys[0]


def _condensed(key: Key, runs: Sequence[Record], known: Population | None, metrics: Sequence[str]) -> Population:
    values = {seed: [known.values(metric)[seed] for metric in metrics] for seed in known.seeds} if known else {}
    curves = known.learning_curves() if known else {}
    made = list(known.made) if known else []
    new: dict[tuple[str | None, ...], list[int]] = {}
    for run in runs:
        scores = [value for metric in metrics if (value := run.metrics[metric]) is not None]  # they passed their gates
        if values.get(run.seed) == scores:
            curves.setdefault(run.seed, learning_curve(run))
            continue
        if run.seed in values:
            raise DataError(f"{run.configuration} seed {run.seed} is there twice, with different results; keep one")
        values[run.seed] = scores
        curves[run.seed] = learning_curve(run)
        day = (run.environment.machine.started_at or "")[:10] or None
        source = run.environment.device_name, run.environment.torch, run.environment.git_commit, day
        new.setdefault(source, []).append(run.seed)
    made += [Source(sorted(seeds), *source) for source, seeds in new.items()]
    seeds = sorted(values)
    columns = {metric: [values[seed][place] for seed in seeds] for place, metric in enumerate(metrics)}
    quantities = dict.fromkeys(name for curve in curves.values() for name in curve)
    by_seed = {name: [curves.get(seed, {}).get(name) for seed in seeds] for name in quantities}
    return Population(key, seeds, columns, made, by_seed)


@dataclass(frozen=True)
class Row:
    """One number of one configuration on two sides, for each completed seed, and what it shows.

    Attributes:
        name: of a metric with a gate, or of what a run costs.
        old: the other result set's, or the reference's.
    """

    configuration: str
    name: str
    old: Mapping[int, float]
    new: Mapping[int, float]
    evidence: Evidence
    change: Change = Change.CANNOT_TELL

    @property
    def margin(self) -> Margin:
        return (MARGINS | COST_MARGINS)[self.name]

    @property
    def is_cost(self) -> bool:
        return self.name in COST_MARGINS

    @property
    def error(self) -> float:
        """How often a verdict on all numbers of its kind may be wrong."""
        return TIME_ERROR if self.is_cost else ERROR

    def cells(self, error: float) -> list[str]:
        """For a table: old, new, difference, margin, verdict, and the drop that would be visible at this error."""
        was, difference = fmean(self.old.values()), fmean(self.new.values()) - fmean(self.old.values())
        percent = f" ({round(100 * difference / was):+d}%)" if self.margin.relative and was else ""
        return [
            self.configuration,
            words(self.name),
            *(spread_text(self.name, side.values()) for side in (self.old, self.new)),
            signed(self.name, difference) + percent,
            f"{self.margin.size:.0%}" if self.margin.relative else number(self.name, self.margin.size),
            self.change,
            visible_text(self.name, self.margin, self.evidence.visible_drop(error)),
        ]


def judged_rows(rows: Sequence[Row], looks: int = 1) -> list[Row]:
    """With their verdicts: quality is judged together, and so are times, memory and energy; see `compare` for looks."""
    verdicts: dict[int, Change] = {}
    for is_cost, error in ((False, ERROR), (True, TIME_ERROR)):
        places = [place for place, row in enumerate(rows) if row.is_cost == is_cost]
        verdicts |= zip(places, changes([rows[place].evidence for place in places], error / looks), strict=True)
    return [replace(row, change=verdicts[place]) for place, row in enumerate(rows)]


def standings(
    records: Sequence[Record], references: Sequence[Reference]
) -> tuple[list[Row], dict[str, str], list[Deviation], str]:
    """What a reference fits, held against it: every gate's metric, and every learning curve; each judged together.

    Returns:
        The metrics, and for each configuration with a completed run that is not among them, why not; where learning
        curves differ, one for each configuration, and why none could be tested, else "".
    """
    rows: list[Row] = []
    left_out: dict[str, str] = {}
    completed = by_configuration(record for record in records if record.status == "completed")
    curves: dict[str, tuple[Mapping[int, dict[str, float]], Mapping[int, dict[str, float]]]] = {}
    for name, runs in completed.items() if references else ():
        population, reason = fitting(runs, references)
        if population is None:
            left_out[name] = reason
            continue
        # The very runs that are judged are left out. And not seed by seed: elsewhere a seed is another draw.
        if population.curves:
            new = {run.seed: learning_curve(run) for run in runs}
            old = {seed: curve for seed, curve in population.learning_curves().items() if new.get(seed) != curve}
            curves[name] = old, new
        for gate in SUITE[name].gates:
            values = {run.seed: value for run in runs if (value := run.metrics.get(gate.metric)) is not None}
            others = {s: value for s, value in population.values(gate.metric).items() if values.get(s) != value}
            if len(others) < _LEAST_SEEDS:
                left_out[name] = f"the reference has {len(others)} other seeds, and needs {_LEAST_SEEDS}"
            elif values:
                apart = {-1 - seed: value for seed, value in others.items()}
                shown = evidence(apart, values, MARGINS[gate.metric], shuffle=True)
                rows.append(Row(name, gate.metric, others, values, shown))
    differing, reason = deviations(curves) if curves else ([], "no reference that fits has any")
    return judged_rows(rows), left_out, differing, reason


def fitting(runs: Sequence[Record], references: Sequence[Reference]) -> tuple[Population | None, str]:
    """The population that all of the runs fit, or why there is none."""
    known = [reference.populations.get(runs[0].configuration) for reference in references]
    populations = [population for population in known if population is not None]
    if not populations:
        return None, "no reference has it"
    keys = [Key.of(run) for run in runs]
    if odd := next((key for key in keys if key != keys[0]), None):
        return None, f"its runs differ in {_differing(odd, keys[0])}"
    for population in populations:
        if population.key == keys[0]:
            return population, ""
    nearest = min((_differing(population.key, keys[0]) for population in populations), key=lambda text: text.count(","))
    return None, f"the reference was made with other {nearest}"


def word_of(row: Row) -> str:
    """The verdict; so far above the reference, a result is too good to be true."""
    return "better than possible" if row.change is Change.BETTER else row.change


def standing_text(row: Row) -> str:
    """A sentence: "course Dice 0.710 (n=1) is worse than the reference's 0.750 ± 0.010 (n=20)"."""
    name = words(row.name)
    here, reference = (spread_text(row.name, side.values()) for side in (row.new, row.old))
    if row.change is Change.BETTER:
        return f"{name} {here} is better than possible, by the reference's {reference}: something leaks"
    if row.change is Change.CANNOT_TELL:
        return f"{name} {here}: so few runs cannot tell whether that is worse than the reference's {reference}"
    return f"{name} {here} is {row.change} than the reference's {reference}"
