"""The straightforward baseline does the same work as the suite; for its losses see tests/hw6core/test_fast_path.py."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.speed import baseline
from benchmarks.workloads.datasets import Store
from hw6core.data import load_endovis, load_fashion_mnist
from hw6core.dice import mean_dice
from hw6core.tasks import unit_range
from tests.tiny_data import TINY


def test_scores_agree() -> None:
    draws = torch.Generator().manual_seed(0)
    prediction, target = (torch.randint(0, 4, (5, 9, 7), generator=draws) for _ in range(2))
    assert baseline.course_dice(prediction, target, 8) == pytest.approx(mean_dice(prediction, target, 8))


def test_frames_from_disk_equal_those_of_the_suite(data: Path) -> None:
    frames, dataset = load_endovis(data, "train"), baseline.frames(data, "train")
    assert len(dataset) == len(frames.images) == TINY.segmentation_train
    for index in range(3):
        image, mask = dataset[index]
        torch.testing.assert_close(image, frames.images[index].float() / 255)
        assert torch.equal(mask.argmax(0), frames.masks[index].long())
        assert torch.equal(mask.sum(0), torch.ones(256, 320))


def test_garments_equal_those_of_the_suite(data: Path) -> None:
    ours = Store(data, torch.device("cpu")).garment_splits((32, 32), None)["test"]
    test, no_change = load_fashion_mnist(data, False), ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    plain = baseline.garments(test.images, test.labels, no_change)
    assert len(plain) == len(ours)
    image, label = plain[3]
    torch.testing.assert_close(image, unit_range(ours.inputs[3]).expand(3, -1, -1))
    assert label == ours.targets[3]
