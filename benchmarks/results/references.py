"""Reference populations: the results of many seeds of each configuration, kept in the repository to judge new runs.

A run fits a reference if it has the same profile, data, precision, weights and settings. Device, versions and code may
differ: they are what is judged.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any

import msgspec
from msgspec import Struct

from benchmarks.results.curves import Deviation, deviations, learning_curve
from benchmarks.results.formatting import json_text, number, seeds_text, signed, spread_text, visible_text, words
from benchmarks.results.records import Number, Record, best_floor, by_configuration, read_records, write_atomically
from benchmarks.results.statistics import ERROR, TIME_ERROR, Change, Evidence, changes, evidence
from benchmarks.suite import COST_MARGINS, MARGINS, SUITE, Margin
from hw6core.errors import DataError, UsageError

REFERENCES = Path(__file__).parents[2] / "references"
_SCHEMA_VERSION = 1
_LEAST_SEEDS = 5  # fewer seeds hardly show the spread


class Key(Struct, frozen=True):
    """What a run and a reference must have in common: the run key without device, versions and code."""

    profile: str
    precision: str
    data: dict[str, Any]
    weights: str
    settings: dict[str, Any]

    @staticmethod
    def of(record: Record) -> Key:
        content = record.data.drawn or record.data.fingerprint
        data = {"kind": record.data.kind, "fingerprint": content, "samples": record.data.samples}
        settings = json.loads(json.dumps(record.settings))  # lists instead of tuples, as read from a file
        return Key(record.profile, str(record.environment.precision), data, record.weights, settings)


class Source(Struct, frozen=True):
    """Where and when some of the runs were made."""

    seeds: list[int]
    device: str | None
    torch: str | None
    git_commit: str | None
    day: str | None


class Population(Struct):
    """The results of the runs of one configuration, in the order of ``seeds``."""

    key: Key
    seeds: list[int]
    metrics: dict[str, list[Number]]  # final scores of the metrics with a gate
    made: list[Source]
    curves: dict[str, list[Number | None]] = {}  # see `learning_curve`; None for a run without the quantity

    def values(self, metric: str) -> dict[int, float]:
        """The values of a metric by seed."""
        return dict(zip(self.seeds, self.metrics[metric], strict=True))

    def learning_curves(self) -> dict[int, dict[str, float]]:
        """The learning curves by seed; empty ones are left out."""
        found = {
            seed: {name: value for name, column in self.curves.items() if (value := column[place]) is not None}
            for place, seed in enumerate(self.seeds)
        }
        return {seed: curve for seed, curve in found.items() if curve}


class Reference(Struct, forbid_unknown_fields=True):
    """The populations of all configurations under one profile, on one kind of data, at one precision."""

    populations: dict[str, Population]
    schema_version: int = _SCHEMA_VERSION


def read_references() -> list[Reference]:
    """The references in `REFERENCES`, by name; none if there is no such folder.

    Raises:
        DataError: a file is not a reference.
    """
    return [read_reference(path) for path in sorted(REFERENCES.glob("*.json")) if not path.name.startswith(".")]


def read_reference(path: Path) -> Reference:
    """Read a reference.

    Raises:
        DataError: the file cannot be read or is not a reference.
    """
    try:
        reference = msgspec.json.decode(path.read_bytes(), type=Reference)
        if reference.schema_version != _SCHEMA_VERSION:
            raise ValueError(f"schema version {reference.schema_version}, expected {_SCHEMA_VERSION}")
        for name, population in reference.populations.items():
            sizes = {len(population.seeds), len(set(population.seeds)), *map(len, population.metrics.values())}
            if len(sizes | {len(column) for column in population.curves.values()}) > 1:
                raise ValueError(f"{name} does not have one value of each quantity per seed")
        return reference
    except (OSError, ValueError, msgspec.MsgspecError) as error:  # MsgspecError is a ValueError in newer versions only
        raise DataError(f"{path} is not a readable reference ({error}); make it again, or delete it") from error


def make_reference(results: Sequence[Path], path: Path | None = None) -> tuple[Path, list[str]]:
    """Make a reference of the completed records of results folders, or add their seeds to an existing one.

    Args:
        path: default: `REFERENCES`/<profile>-<data>-<precision>.json.

    Returns:
        The path, and a line for each population: its seeds, profile, data, precision and weights.

    Raises:
        DataError: there is no completed record, one missed a gate, or two of one configuration and seed differ.
        UsageError: the records of a configuration have different keys, or another one than the existing reference.
    """
    records = [record for folder in results for record in read_records(folder) if record.status == "completed"]
    completed = by_configuration(records)
    if not completed:
        raise DataError(f"no completed run in {', '.join(map(str, results))}: cannot make a reference")
    first = Key.of(next(iter(completed.values()))[0])
    path = path or REFERENCES / f"{first.profile}-{first.data['kind']}-{first.precision}.json"
    populations = read_reference(path).populations if path.exists() else {}
    replaced: list[str] = []
    for name, runs in completed.items():
        gates, known = SUITE[name].gates, populations.get(name)
        for run, gate in product(runs, gates):
            value, (floor, _) = run.metrics.get(gate.metric), best_floor(run, SUITE[name], gate)
            bounds = [gate.bound(run.trivial), *([] if floor is None else [floor])]
            if value is None or not all(gate.better(value, bound) for bound in bounds):
                raise DataError(
                    f"{name} seed {run.seed} missed its gate or its floor ({gate.metric} {gate}), but a reference must "
                    "consist of good runs; find the cause, or leave out that folder"
                )
        key, metrics = _common_key(name, runs, first), [gate.metric for gate in gates]
        if known is not None and (known.key.settings != key.settings or [*known.metrics] != metrics):
            replaced.append(f"{name}: replaced {len(known.seeds)} runs with different settings or gates")
            known = None
        elif known is not None and known.key != key:
            raise UsageError(
                f"the new runs of {name} differ in {_differing(known.key, key)} from the {len(known.seeds)} in "
                f"{path}; choose another file: --output FILE"
            )
        populations[name] = _condensed(key, runs, known, metrics)
    populations = {name: populations[name] for name in SUITE if name in populations}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json_text(msgspec.to_builtins(Reference(populations))))
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
    key = msgspec.structs.replace(Key.of(runs[0]), profile=first.profile, precision=first.precision)
    for run in runs:
        if differing := _differing(Key.of(run), key):
            raise UsageError(
                f"{name} seed {run.seed} differs from the first run in its {differing}, which must be the same in a "
                "reference; leave out one of them"
            )
    return key


def _condensed(key: Key, runs: Sequence[Record], known: Population | None, metrics: Sequence[str]) -> Population:
    known = known or Population(key, [], {metric: [] for metric in metrics}, [])
    values = {seed: [known.values(metric)[seed] for metric in metrics] for seed in known.seeds}
    curves = known.learning_curves()
    new: dict[tuple[str | None, ...], list[int]] = {}
    for run in runs:
        scores = [value for metric in metrics if (value := run.metrics[metric]) is not None]  # they passed their gates
        if values.get(run.seed) == scores:
            curves.setdefault(run.seed, learning_curve(run))
            continue
        if run.seed in values:
            raise DataError(f"{run.configuration} seed {run.seed} occurs twice with different results; keep one")
        values[run.seed] = scores
        curves[run.seed] = learning_curve(run)
        day = (run.environment.machine.started_at or "")[:10] or None
        source = run.environment.device_name, run.environment.torch, run.environment.git_commit, day
        new.setdefault(source, []).append(run.seed)
    made = [*known.made, *(Source(sorted(seeds), *source) for source, seeds in new.items())]
    seeds = sorted(values)
    columns = {metric: [values[seed][place] for seed in seeds] for place, metric in enumerate(metrics)}
    quantities = dict.fromkeys(name for curve in curves.values() for name in curve)
    by_seed = {name: [curves.get(seed, {}).get(name) for seed in seeds] for name in quantities}
    return Population(key, seeds, columns, made, by_seed)


@dataclass(frozen=True)
class Row:
    """One quantity of one configuration on two sides, by seed, and the verdict."""

    configuration: str
    name: str  # a metric with a gate, or a key of `COST_MARGINS`
    old: Mapping[int, float]  # or those of a reference
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
        """The error rate of the verdicts on all quantities of its kind together."""
        return TIME_ERROR if self.is_cost else ERROR

    def cells(self, error: float) -> list[str]:
        """Table cells: configuration, name, old, new, difference, margin, verdict, visible drop at this error."""
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
    """Set the verdicts of rows: one family of tests for quality, one for costs; for ``looks`` see `compare`."""
    verdicts: dict[int, Change] = {}
    for is_cost, error in ((False, ERROR), (True, TIME_ERROR)):
        places = [place for place, row in enumerate(rows) if row.is_cost == is_cost]
        verdicts |= zip(places, changes([rows[place].evidence for place in places], error / looks), strict=True)
    return [replace(row, change=verdicts[place]) for place, row in enumerate(rows)]


def standings(
    records: Sequence[Record], references: Sequence[Reference]
) -> tuple[list[Row], dict[str, str], list[Deviation], str]:
    """Compare records with the references that fit: the metrics of all gates together, and all learning curves.

    Returns:
        A row for each metric; why a configuration with a completed run has none; the first deviation of learning curves
        for each configuration that has one; why no learning curves could be tested, else "".
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
        # The reference may contain the runs that are judged: these are left out. Seeds are not paired, because on
        # another machine the same seed is another sample.
        if population.curves:
            new = {run.seed: learning_curve(run) for run in runs}
            old = {seed: curve for seed, curve in population.learning_curves().items() if new.get(seed) != curve}
            curves[name] = old, new
        for gate in SUITE[name].gates:
            values = {run.seed: value for run in runs if (value := run.metrics.get(gate.metric)) is not None}
            others = {s: value for s, value in population.values(gate.metric).items() if values.get(s) != value}
            if len(others) < _LEAST_SEEDS:
                has = "1 other seed" if len(others) == 1 else f"{len(others)} other seeds"
                left_out[name] = f"the reference has {has}, at least {_LEAST_SEEDS} are required"
            elif values:
                unpaired = {-1 - seed: value for seed, value in others.items()}
                found = evidence(unpaired, values, MARGINS[gate.metric], shuffle=True)
                rows.append(Row(name, gate.metric, others, values, found))
    differing, reason = deviations(curves) if curves else ([], "the reference has none")
    return judged_rows(rows), left_out, differing, reason


def fitting(runs: Sequence[Record], references: Sequence[Reference]) -> tuple[Population | None, str]:
    """The population that all of the runs fit, or why there is none."""
    name = runs[0].configuration
    populations = [reference.populations[name] for reference in references if name in reference.populations]
    if not populations:
        return None, "no reference contains it"
    keys = [Key.of(run) for run in runs]
    if odd := next((key for key in keys if key != keys[0]), None):
        return None, f"its runs differ in {_differing(odd, keys[0])}"
    for population in populations:
        if population.key == keys[0]:
            lacking = [words(gate.metric) for gate in SUITE[name].gates if gate.metric not in population.metrics]
            return (None, f"the reference has no {lacking[0]}; make it again") if lacking else (population, "")
    nearest = min((_differing(population.key, keys[0]) for population in populations), key=lambda text: text.count(","))
    return None, f"the reference differs in {nearest}"


def verdict_on(row: Row) -> str:
    """The verdict beside a reference, where "better" means too good to be true."""
    return "better than possible" if row.change is Change.BETTER else row.change


def standing_text(row: Row) -> str:
    """A sentence: "course Dice 0.710 (n=1) is worse than the reference's 0.750 ± 0.010 (n=20)"."""
    name = words(row.name)
    here, reference = (spread_text(row.name, side.values()) for side in (row.new, row.old))
    if row.change is Change.BETTER:
        return f"{name} {here} is better than possible, given the reference's {reference}: suspect a data leak"
    if row.change is Change.CANNOT_TELL:
        return f"{name} {here}: too few runs to tell whether it is worse than the reference's {reference}"
    return f"{name} {here} is {row.change} than the reference's {reference}"
