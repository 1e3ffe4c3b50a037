"""One set of weights in two precisions: what `make gpu-check` sets side by side."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks.options import read_options
from benchmarks.runs.plan import Plan
from benchmarks.speed import precisions
from benchmarks.workloads.run import weights_path
from hw6core.checkpoint import save_weights
from hw6core.errors import DataError
from hw6core.models import UNet
from hw6core.tasks import SegmentationTask


@pytest.fixture
def options(data: Path, tmp_path: Path) -> Plan:
    asked = {"DEVICE": "cpu", "PROFILE": "quick", "DATA": str(data), "RESULTS": str(tmp_path), "SEEDS": "0"}
    return read_options(asked, {})


def left(options: Plan, background: float) -> None:
    """Weights of a network that answers one class everywhere, by the bias of its last layer alone."""
    network = UNet(8)
    nn.init.zeros_(network.head.weight)
    assert network.head.bias is not None
    with torch.no_grad():
        network.head.bias.copy_(torch.tensor([background, *[0.0] * 7]))
    save_weights(weights_path(options.results, "seg-baseline", 0), network.state_dict())


def test_a_network_that_is_sure_scores_the_same_in_both(options: Plan) -> None:
    left(options, 5.0)
    text, agreed = precisions.compare(options)
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()[2:]]
    assert [row[:2] for row in rows] == [["seg-baseline", "course_dice"], ["seg-baseline", "present_dice"]]
    for row in rows:
        assert row[2] == row[3]
        assert 0.0 < float(row[3]) < 1.0
        assert float(row[4]) == 0.0
    assert agreed


def test_another_verdict_is_told(options: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    left(options, 5.0)
    scores = iter([{"course_dice": 0.7, "present_dice": 0.49}, {"course_dice": 0.7, "present_dice": 0.51}])
    monkeypatch.setattr(SegmentationTask, "score", lambda *_: next(scores))
    text, agreed = precisions.compare(options)
    assert "-0.02000" in text
    assert not agreed


def test_without_weights_it_says_so(options: Plan) -> None:
    with pytest.raises(DataError, match=r"no weights of a segmentation with seed 0 in .*; run the suite there first"):
        precisions.compare(options)
