"""Nothing is trained, the records that lie in the results folder are judged instead."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks.results.records import Record, read_records
from benchmarks.runs.plan import Plan
from benchmarks.runs.progress import Display


class FinishedRunner:
    """In the place of `benchmarks.runs.runner.Runner`, as the engine knows it."""

    def __init__(self, plan: Plan, display: Display) -> None:
        self.plan = plan

    def run_all(self) -> list[Record]:
        return read_records(self.plan.results)


def draw_nothing(root: Path) -> None:
    """In the place of `hw6core.data.synthetic.synthesize`."""


def no_figures(results: Path, records: Sequence[Record]) -> list[object]:
    """In the place of `benchmarks.report.figures.write_figures`, which takes seconds."""
    return []


def install(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("benchmarks.engines.engine.Runner", FinishedRunner)
    patch.setattr("benchmarks.engines.engine.synthesize", draw_nothing)
    patch.setattr("benchmarks.report.markdown.write_figures", no_figures)
