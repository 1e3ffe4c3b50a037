"""The report stays readable with many seeds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from benchmarks.report.markdown import summary
from benchmarks.results.gates import Asked, judge
from benchmarks.results.records import Record
from benchmarks.suite import select
from tests.drawings import drawn as figures_of
from tests.drawings import report_lines
from tests.record_factory import make_record


def some(name: str, seeds: int, missed: Sequence[int] = ()) -> list[Record]:
    """Accuracies 0.900, 0.901 and so on; seeds in ``missed`` have 0.100, 0.101 and so on."""
    return [
        make_record(name, seed, metrics={"accuracy": (0.1 if seed in missed else 0.9) + seed / 1000})
        for seed in range(seeds)
    ]


def test_a_row_of_many_seeds_has_no_column_for_each(tmp_path: Path) -> None:
    records = some("vgg-scratch", 12, missed=[3, 7])
    lines = report_lines(tmp_path, records, Asked(select(["vgg-scratch"]), range(14)))
    # Mean (12 * 0.9 + 0.066 - 2 * 0.8) / 12 = 0.7722. Two of twelve lie 0.8 lower: sqrt(12 * 1/6 * 5/6 * 0.64 / 11).
    gate, row = [line for line in lines if "| vgg-scratch, accuracy |" in line]
    assert gate.startswith("| failed | vgg-scratch, accuracy | 0.772 ± 0.31")
    assert "(n=12) | > 0.85 | 0.853 (5 nearest neighbours) | 0.100 | -0.081 not above floor | +0.672 |" in gate
    assert row.startswith("| vgg-scratch, accuracy | 0.772 ± 0.31")
    assert row.endswith("(n=12) | 0.103 to 0.911 | 36/40, 36/40 and 10 more | 4 min 05 s |")
    assert "| configuration | mean ± std (n) | smallest to largest | epochs (best/trained) | training time |" in lines
    assert "- vgg-scratch, seed 3: failed: accuracy is 0.103, expected > 0.85" in lines
    assert "- vgg-scratch, seeds 12, 13: not run: there is no record of this run" in lines
    assert any(" · 14 seeds (0 to 13) · " in line for line in lines)


def test_many_reasons_are_counted_after_the_first_ones() -> None:
    found = some("vgg-scratch", 40, missed=range(1, 40, 2))
    lines = summary(judge(found, Asked(select(["vgg-scratch"]), range(40)))).splitlines()
    assert len(lines) == 13
    assert lines[10:12] == [
        "- vgg-scratch, seed 19: failed: accuracy is 0.119, expected > 0.85",
        "- vgg-scratch, seeds 21, 23, 25, 27, 29, 31, 33, 35, 37, 39: 10 more reasons; see junit.xml",
    ]


def test_more_than_ten_curves_become_a_median_and_a_band(tmp_path: Path) -> None:
    # Eleven seeds with 0.0, 0.1 to 1.0 in the first epoch; only the last two, 0.9 and 1.0, train a second one.
    found = []
    for seed in range(11):
        epochs = (1, 2) if seed >= 9 else (1,)
        record = make_record("vgg-scratch", seed, details={"best_epochs": {"training": 1}})
        record.history = {"training": [{"epoch": float(epoch), "accuracy": seed / 10} for epoch in epochs]}
        found.append(record)
    drawing, caption = figures_of(tmp_path, found)["curves-vgg-scratch.png"]
    (line, _), (band,) = drawing.axes[0].lines, drawing.axes[0].collections
    assert np.asarray(line.get_xydata()).tolist() == [[1, 0.5], [2, pytest.approx(0.95)]]
    (outline,) = band.get_paths()
    corners = {tuple(corner) for corner in np.asarray(outline.vertices).tolist()}
    assert corners == {(1, 0.0), (1, 1.0), (2, 0.9), (2, 1.0)}
    assert caption.endswith("Each line is the median over 11 seeds, the band spans the smallest to the largest.")
    drawing, caption = figures_of(tmp_path, found[:10])["curves-vgg-scratch.png"]
    # A line and a dot for each, and the gate.
    assert (len(drawing.axes[0].lines), len(drawing.axes[0].collections)) == (21, 0)
    assert caption.endswith("A dot marks the epoch whose weights were kept. One line per seed.")
