"""Runs both sides in turn, and compares them after each pair of seeds from the third on: is NEW worse than OLD?

This is a sequential test: it ends as soon as the answer is clear, and the error probabilities of
`benchmarks.results.statistics` are divided by the largest number of looks (Bonferroni), so that they hold overall.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.errors import ExitCode
from benchmarks.results.comparison import Comparison, compare
from benchmarks.results.formatting import duration, table
from benchmarks.results.references import read_references
from benchmarks.results.statistics import ERROR, TIME_ERROR, Change
from benchmarks.suite import COST_MARGINS, MARGINS
from benchmarks.upgrade.sides import Inventory, Side

_FIRST = 3  # pairs before the first look: the paired test needs them
_MEMORY, _ENERGY = ("peak_memory_gib", "peak_device_memory_gib"), ("energy_j",)
_FAMILIES = {
    "quality": tuple(MARGINS),
    "time": tuple(name for name in COST_MARGINS if name not in _MEMORY + _ENERGY),
    "memory": _MEMORY,
    "energy": _ENERGY,
}


@dataclass(frozen=True)
class Session:
    """A comparison of two sides, with its options.

    Attributes:
        results: contains old/ and new/, a results folder each.
        most: the largest number of seeds.
        ids: the configurations; empty for all.
        variables: the suite's options for both sides, by variable name.
        costs: whether times and memory count.
    """

    old: Side
    new: Side
    results: Path
    most: int
    ids: Sequence[str]
    variables: Mapping[str, str]
    costs: bool

    def run(self, log: Callable[[str], object]) -> list[Comparison]:
        """Train both sides, skipping finished runs, and return the comparison of each look; the last is the result."""
        looks: list[Comparison] = []
        shared: dict[str, Any] = {"costs": self.costs, "references": read_references(), "looks": self.most - _FIRST + 1}
        for seed in range(self.most):
            # Alternating order, so that a machine that slows down favours neither side.
            for side in (self.old, self.new) if seed % 2 == 0 else (self.new, self.old):
                begin = time.monotonic()
                side.train(seed, self.results, self.variables)
                log(f"seed {seed} {side.name}: {duration(time.monotonic() - begin)}")
            if seed + 1 >= _FIRST:
                folders = self.results / self.old.name, self.results / self.new.name
                looks.append(compare(*folders, self.ids, seeds=range(seed + 1), **shared))
                log(f"{seed + 1} seeds per side: {_summary(looks[-1])}")
                if looks[-1].exit_code() != ExitCode.CANNOT_TELL:
                    break
        return looks


def report(session: Session, looks: Sequence[Comparison], inventories: Sequence[Inventory]) -> str:
    """UPGRADE.md: the verdict, the comparison, all looks, and the packages that differ."""
    before, after = inventories
    rows = [["Python", before.python, after.python]] if before.python != after.python else []
    rows += [[name, *versions] for name, versions in differing(before, after).items()]
    sections = [
        f"# Upgrade from `{session.old.place}` to `{session.new.place}`",
        f"**{_summary(looks[-1]).capitalize()}**, after {len(looks) + _FIRST - 1} of at most {session.most} seeds.",
        looks[-1].markdown().replace("# Comparison\n\n", "", 1).strip(),
        "## Looks",
        "\n".join(f"- {seeds} seeds per side: {_summary(look)}" for seeds, look in enumerate(looks, _FIRST)),
        f"Over all {looks[-1].looks} possible looks: if nothing changed, the probability that any score is called "
        f"worse is at most {ERROR:.0%}, for times, memory and energy at most {TIME_ERROR:.0%}; a value that dropped by "
        f"its margin is called no worse with a probability of at most {ERROR:.0%} ({TIME_ERROR:.0%}). A lost run or "
        "gate counts at once, without a test.",
        "## Packages",
        table(["package", "old", "new"], rows) if rows else "No difference.",
    ]
    return "\n\n".join(sections) + "\n"


def differing(old: Inventory, new: Inventory) -> dict[str, tuple[str, ...]]:
    """Both versions of the packages that differ, "-" if not installed; without hw6core, which is this checkout's."""
    names = sorted({*old.packages, *new.packages} - {"hw6core"})
    versions = {
        name: tuple(side.packages[name].version if name in side.packages else "-" for side in (old, new))
        for name in names
    }
    return {name: both for name, both in versions.items() if both[0] != both[1]}


def _summary(comparison: Comparison) -> str:
    """No worse, worse or cannot tell, for each of quality, time, memory and energy that both sides have."""
    found = []
    for family, names in _FAMILIES.items():
        changes = {row.change for row in comparison.rows if row.name in names}
        changes |= {Change.WORSE} if family == "quality" and comparison.lost else set()
        if changes:
            order = (Change.WORSE, Change.CANNOT_TELL)
            found.append(f"{family} {next((word for word in order if word in changes), Change.NO_WORSE)}")
    return ", ".join(found)
