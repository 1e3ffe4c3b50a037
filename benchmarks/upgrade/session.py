"""Runs of both sides in turns, and after each pair of seeds from the third on the question: is new worse than old?

A sequential test: it ends as soon as the answer is clear, and the errors of `benchmarks.results.statistics` are divided
by the number of looks that there can be (Bonferroni), so that they hold over all of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.errors import ExitCode
from benchmarks.results.comparison import Comparison, compare
from benchmarks.results.formatting import duration, table
from benchmarks.results.references import read_references
from benchmarks.results.statistics import ERROR, TIME_ERROR, Change
from benchmarks.suite import COST_MARGINS, MARGINS
from benchmarks.upgrade.sides import Inventory, Side

_FIRST = 3  # pairs before the first look: of fewer there is no paired test
_MEMORY = ("peak_memory_gib", "peak_device_memory_gib")
_FAMILIES = {
    "quality": tuple(MARGINS),
    "time": tuple(name for name in COST_MARGINS if name not in _MEMORY),
    "memory": _MEMORY,
}


@dataclass(frozen=True)
class Session:
    """What is asked of both sides.

    Attributes:
        results: where old/ and new/ lie, a results folder each.
        most: how many seeds there are at most.
        ids: the configurations; none for all.
        variables: the suite's options for both sides, by the names of their variables.
        costs: whether times and memory count.
    """

    old: Side
    new: Side
    results: Path
    most: int
    ids: Sequence[str] = ()
    variables: Mapping[str, str] = field(default_factory=dict)
    costs: bool = True

    def answer(self, say: Callable[[str], object]) -> list[Comparison]:
        """What each look showed; the last one is the answer. What was run before and still holds is not run again."""
        looks: list[Comparison] = []
        shared: dict[str, Any] = {"costs": self.costs, "references": read_references(), "looks": self.most - _FIRST + 1}
        for seed in range(self.most):
            # Old new, new old: of a machine that slows down neither side has the better half.
            for side in (self.old, self.new) if seed % 2 == 0 else (self.new, self.old):
                begin = time.monotonic()
                side.train(seed, self.results, self.variables)
                say(f"seed {seed} {side.name}: {duration(time.monotonic() - begin)}")
            if seed + 1 >= _FIRST:
                folders = self.results / self.old.name, self.results / self.new.name
                looks.append(compare(*folders, self.ids, seeds=range(seed + 1), **shared))
                say(f"{seed + 1} seeds a side: {_in_words(looks[-1])}")
                if looks[-1].exit_code() != ExitCode.CANNOT_TELL:
                    break
        return looks


def report(session: Session, looks: Sequence[Comparison], inventories: Sequence[Inventory]) -> str:
    """UPGRADE.md: the answer, the comparison, how it came about, and what differs."""
    return "\n\n".join(_sections(session, looks, inventories)) + "\n"


def _sections(session: Session, looks: Sequence[Comparison], inventories: Sequence[Inventory]) -> Iterator[str]:
    yield f"# Upgrade from `{session.old.place}` to `{session.new.place}`"
    seeds = len(looks) + _FIRST - 1
    yield f"**{_in_words(looks[-1]).capitalize()}**, after {seeds} of at most {session.most} seeds."
    yield looks[-1].markdown().replace("# Comparison\n\n", "", 1).strip()
    yield "## Looks"
    yield "\n".join(f"- {_FIRST + place} seeds a side: {_in_words(look)}" for place, look in enumerate(looks))
    yield (
        f"Over all {looks[-1].looks} looks that there can be: where nothing changed, some score is called worse in at "
        f"most {ERROR:.0%} of upgrades, some time or memory in at most {TIME_ERROR:.0%}; what dropped by its margin is "
        f"called no worse in at most {ERROR:.0%} ({TIME_ERROR:.0%}). A run or a gate that was lost is no matter of "
        "statistics and counts at once."
    )
    yield "## Packages"
    before, after = inventories
    rows = [["Python", before.python, after.python]] if before.python != after.python else []
    rows += [[name, *versions] for name, versions in differing(before, after).items()]
    yield table(["package", "old", "new"], rows) if rows else "No difference."


def differing(old: Inventory, new: Inventory) -> dict[str, tuple[str, ...]]:
    """The packages whose versions differ, with both, "-" where it is not there. The suite is this checkout's."""
    names = sorted({*old.packages, *new.packages} - {"hw6core"})
    versions = {
        name: tuple(side.packages[name].version if name in side.packages else "-" for side in (old, new))
        for name in names
    }
    return {name: both for name, both in versions.items() if both[0] != both[1]}


def _in_words(comparison: Comparison) -> str:
    """No worse, worse or cannot tell: of quality, time and memory, as far as both sides have such numbers."""
    found = []
    for family, names in _FAMILIES.items():
        changes = {row.change for row in comparison.rows if row.name in names}
        changes |= {Change.WORSE} if family == "quality" and comparison.lost else set()
        if changes:
            order = (Change.WORSE, Change.CANNOT_TELL)
            found.append(f"{family} {next((word for word in order if word in changes), Change.NO_WORSE)}")
    return ", ".join(found)
