"""Comparison of learning curves with a reference's: they show more than final scores, which are noisier."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

import numpy as np

from benchmarks.results.formatting import words
from benchmarks.results.records import Record
from benchmarks.results.statistics import ALARM, Table, permutation_p

Curve = Mapping[str, float]
_NOT_LEARNED = {"epoch", "learning_rate", "seconds"}  # keys of an epoch that are not results
_MOVEMENT = "movement"
_SMALLEST = 1e-12  # losses are clamped to it before their logarithm is taken
_MOST_SEEDS = 100  # more seeds are not suggested


@dataclass(frozen=True)
class Deviation:
    """The first difference of a configuration's learning curves from the reference's."""

    configuration: str
    quantity: str  # see `learning_curve`
    old: Sequence[float]
    new: Sequence[float]

    def __str__(self) -> str:
        curve, name, epoch = self.quantity.split("/")
        of = "" if curve == "training" else f" {words(curve)}"
        of += f" of epoch {epoch}" if name != _MOVEMENT else ""
        name = f"how far training moved {epoch or 'the last layer'}" if name == _MOVEMENT else words(name)
        new, old = (
            f"{fmean(side):.4g}{f' ± {stdev(side):.2g}' if len(side) > 1 else ''} (n={len(side)})"
            for side in (self.new, self.old)
        )
        return f"{name}{of} is {new}, the reference's {old}"


def learning_curve(record: Record) -> dict[str, float]:
    """Losses and scores of every epoch of a run, and how far training moved each layer.

    Returns:
        By curve, name and epoch or layer: "training/validation_loss/3", "training/movement/up1.conv"; six digits.
    """
    values = {
        f"{curve}/{name}/{number}": value
        for curve, epochs in record.history.items()
        for number, epoch in enumerate(epochs, 1)
        for name, value in epoch.items()
        if name not in _NOT_LEARNED
    }
    for curve, moves in (record.details.movement or {}).items():
        values |= {f"{curve}/{_MOVEMENT}/{layer}": value for layer, value in moves.items()}
    return {name: float(f"{value:.6g}") for name, value in values.items() if value is not None}


def deviations(sides: Mapping[str, tuple[Mapping[int, Curve], Mapping[int, Curve]]]) -> tuple[list[Deviation], str]:
    """Test the curves of all configurations together; each seed is one sample of the whole suite.

    Args:
        sides: for each configuration the curves of the reference and the new ones, by seed.

    Returns:
        One deviation for each configuration that differs, and why nothing could be tested, else "".
    """
    old_seeds, new_seeds = (sorted(set.intersection(*(set(pair[side]) for pair in sides.values()))) for side in (0, 1))
    if not _enough(len(old_seeds), len(new_seeds)):
        more = next((n for n in range(1, _MOST_SEEDS) if _enough(len(old_seeds), len(new_seeds) + n)), None)
        advice = f"; {more} more would be enough" if more and old_seeds else ""
        return [], f"too few seeds with all configurations ({len(new_seeds)} new, {len(old_seeds)} old){advice}"
    tables: list[list[Table]] = [[], []]
    places: list[tuple[str, str]] = []
    for name, pair in sides.items():
        chosen = [[side[seed] for seed in seeds] for side, seeds in zip(pair, (old_seeds, new_seeds), strict=True)]
        quantities = [key for key in chosen[1][0] if all(key in curve for side in chosen for curve in side)]
        places += [(name, quantity) for quantity in quantities]
        for table, side in zip(tables, chosen, strict=True):
            table.append(np.array([[_scaled(key, curve[key]) for key in quantities] for curve in side]))
    found: dict[str, Deviation] = {}
    for (name, quantity), p in zip(places, permutation_p(*map(np.hstack, tables)), strict=True):
        if p <= ALARM and name not in found:
            old = [curve[quantity] for seed, curve in sides[name][0].items() if seed in old_seeds]
            new = [curve[quantity] for seed, curve in sides[name][1].items() if seed in new_seeds]
            found[name] = Deviation(name, quantity, old, new)
    return list(found.values()), ""


def _enough(old: int, new: int) -> bool:
    """Whether a permutation test with so many runs can reach a p value of `ALARM`."""
    return bool(old and new) and math.comb(old + new, new) * ALARM >= 1


def _scaled(quantity: str, value: float) -> float:
    """The logarithm of losses, errors and distances, which change by factors; scores as they are."""
    name = quantity.split("/")[1]
    return math.log(max(value, _SMALLEST)) if name == _MOVEMENT or "loss" in name or "mse" in name else value
