"""The figures of a report as matplotlib's objects: nothing is rendered, which takes seconds."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure as Drawing
from PIL import Image

from benchmarks.report.figures import write_figures
from benchmarks.results.records import Record


def drawn(folder: Path, records: Sequence[Record]) -> dict[str, tuple[Drawing, str]]:
    """Each figure and its caption, by its file's name."""
    drawings: list[Drawing] = []

    def save(drawing: Drawing, target: io.BytesIO, **_: Any) -> None:
        drawings.append(drawing)
        Image.new("RGB", (1, 1)).save(target, format="png")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Drawing, "savefig", save)
        figures = write_figures(folder, records)
    return {figure.path.name: (drawing, figure.caption) for figure, drawing in zip(figures, drawings, strict=True)}
