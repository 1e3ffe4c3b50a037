"""A report's lines, and its figures as matplotlib's objects: nothing is rendered, which takes seconds."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from matplotlib.figure import Figure as Drawing

from benchmarks.report.figures import write_figures
from benchmarks.report.markdown import write_report
from benchmarks.results.gates import Asked, Judgement, judge
from benchmarks.results.records import Record
from benchmarks.results.references import Reference
from benchmarks.suite import select
from tests.record_factory import write_records


def judged(records: Sequence[Record]) -> Judgement:
    """The judgement on all of the records."""
    ids, seeds = ({getattr(record, key) for record in records} for key in ("configuration", "seed"))
    return judge(records, Asked(select(sorted(ids)), sorted(seeds)))


def report_lines(
    folder: Path, records: Sequence[Record], asked: Asked, references: Sequence[Reference] = ()
) -> list[str]:
    """Of RESULTS.md on these records, without figures; runs of spaces are one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("benchmarks.report.markdown.write_figures", lambda results, judgement: [])
        path = write_report(write_records(folder, records), asked, references).path
    return [re.sub(" +", " ", line) for line in path.read_text(encoding="utf-8").splitlines()]


def drawn(folder: Path, records: Sequence[Record]) -> dict[str, tuple[Drawing, str]]:
    """Each figure and its caption, by its file's name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Drawing, "savefig", lambda *_, **__: None)
        return {figure.name: (figure.drawing, figure.caption) for figure in write_figures(folder, judged(records))}
