"""The scores of the same weights in two precisions, as `make gpu-check` compares them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

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
from hw6core.training import Split, predict


@pytest.fixture
def options(data: Path, tmp_path: Path) -> Plan:
    asked = {"DEVICE": "cpu", "PROFILE": "quick", "DATA": str(data), "RESULTS": str(tmp_path), "SEEDS": "0"}
    return read_options(asked)


def save_constant_network(options: Plan) -> None:
    """Save the weights of a network that predicts one class everywhere, by the bias of its last layer."""
    network = UNet(8)
    nn.init.zeros_(network.head.weight)
    assert network.head.bias is not None
    with torch.no_grad():
        network.head.bias.copy_(torch.tensor([5.0, *[0.0] * 7]))
    save_weights(weights_path(options.results, "seg-baseline", 0), network.state_dict())


def test_a_constant_network_has_the_same_scores_in_both(options: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []

    def watched_predict(model: UNet, task: SegmentationTask, split: Split, **others: Any) -> Any:
        sizes.append(tuple(split.inputs.shape[-2:]))
        return predict(model, task, split, **others)

    monkeypatch.setattr("benchmarks.speed.precisions.predict", watched_predict)
    save_constant_network(options)
    text, agreed = precisions.compare(options)
    assert sizes == [(24, 32)] * 2  # the working size of drawn data
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()[2:]]
    assert [row[:2] for row in rows] == [["seg-baseline", "course_dice"], ["seg-baseline", "present_dice"]]
    for row in rows:
        assert row[2] == row[3]
        assert 0.0 < float(row[3]) < 1.0
        assert float(row[4]) == 0.0
    assert agreed


def test_different_verdicts_are_reported(options: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    save_constant_network(options)
    scores = iter([{"course_dice": 0.7, "present_dice": 0.49}, {"course_dice": 0.7, "present_dice": 0.51}])
    monkeypatch.setattr(SegmentationTask, "score", lambda *_: next(scores))
    text, agreed = precisions.compare(options)
    assert "-0.02000" in text
    assert not agreed


def test_missing_weights_are_an_error(options: Plan) -> None:
    with pytest.raises(DataError, match=r"no segmentation weights for seed 0 in .*; make them: python -m benchmarks"):
        precisions.compare(options)
