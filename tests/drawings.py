"""The figures of a report as matplotlib's objects: nothing is rendered, which takes seconds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure as Drawing

from benchmarks.report.figures import write_figures
from benchmarks.results.records import Record


def drawn(folder: Path, records: Sequence[Record]) -> dict[str, tuple[Drawing, str]]:
    """Each figure and its caption, by its file's name."""
    drawings: list[Drawing] = []

    def save(drawing: Drawing, *_: Any, **__: Any) -> None:
        drawings.append(drawing)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Drawing, "savefig", save)
        figures = write_figures(folder, records)
    return {figure.path.name: (drawing, figure.caption) for figure, drawing in zip(figures, drawings, strict=True)}
