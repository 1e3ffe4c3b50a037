"""Replaces trainings: the existing records in the results folder are judged."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.results.gates import Judgement
from benchmarks.results.records import Record, read_records
from benchmarks.runs.plan import Plan
from benchmarks.runs.progress import Display


class FinishedRunner:
    """Replaces `benchmarks.runs.runner.Runner` in the engine."""

    def __init__(self, plan: Plan, display: Display) -> None:
        self.plan = plan

    def run_all(self) -> list[Record]:
        return read_records(self.plan.results)


def no_figures(results: Path, judgement: Judgement) -> list[object]:
    """Replaces `benchmarks.report.figures.write_figures`, which takes seconds."""
    return []


def install(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("benchmarks.engines.engine.Runner", FinishedRunner)
    patch.setattr("benchmarks.engines.engine.synthesize", lambda root: None)
    patch.setattr("benchmarks.report.markdown.write_figures", no_figures)
