"""Reads the tables of mutants: `judging.txt`, `library.txt` and `suite.txt`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path

from tests.mutants.runner import Mutant

_CHANGE = re.compile("«(.*?)→(.*?)»", re.DOTALL)


def read_table(text: str) -> Iterator[Mutant]:
    """The mutants of a table in the layout that `tests/mutants/__init__.py` shows."""
    text = text.replace(":\n        ", ": ").replace("⏎\n        ", "⏎")
    for block in text.split("\n\n"):
        lines = block.splitlines()
        tests = tuple(takewhile(lambda line: line.startswith("tests/"), lines))
        place = ""
        for line in lines[len(tests) :]:
            if line.startswith("    "):
                name, _, change = line[4:].replace("⏎", "\n").partition(": ")
                yield Mutant(name, place, _CHANGE.sub(r"\1", change), _CHANGE.sub(r"\2", change), tests)
            else:
                place = line


MUTANTS = tuple(
    mutant
    for room in ("judging", "library", "suite")
    for mutant in read_table(Path(__file__).with_name(f"{room}.txt").read_text(encoding="utf-8"))
)
