"""The straightforward way does the same work: its losses and scores are those of the suite."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.baseline import garments, segmentation
from hw6core.data import load_endovis
from hw6core.data.endovis import one_hot
from hw6core.data.synthetic import synthesize
from hw6core.dice import mean_dice
from hw6core.losses import DiceLoss
from hw6core.models import UNet
from tests.tiny_data import TINY

DRAWS = torch.Generator().manual_seed(0)


def test_losses_and_their_gradients_agree() -> None:
    logits = torch.randn(2, 8, 12, 10, generator=DRAWS)
    target = torch.randint(0, 8, (2, 12, 10), generator=DRAWS)
    ours, theirs = (logits.clone().requires_grad_(True) for _ in range(2))
    loss, plain = DiceLoss(1.0, "batch")(ours, target), segmentation.dice_loss(theirs, one_hot(target, 8).float())
    torch.testing.assert_close(loss, plain)
    loss.backward()
    plain.backward()
    torch.testing.assert_close(ours.grad, theirs.grad)


def test_scores_agree() -> None:
    prediction, target = (torch.randint(0, 4, (5, 9, 7), generator=DRAWS) for _ in range(2))
    assert segmentation.course_dice(prediction, target, 8) == pytest.approx(mean_dice(prediction, target, 8))


def test_frames_from_disk_are_those_of_the_suite(tmp_path: Path) -> None:
    synthesize(tmp_path / "data", sizes=TINY)
    frames, dataset = load_endovis(tmp_path / "data", "train"), segmentation.FramesOnDisk(tmp_path / "data", "train")
    assert len(dataset) == len(frames.images) == TINY.segmentation_train
    for index in range(3):
        image, mask = dataset[index]
        torch.testing.assert_close(image, frames.images[index].float() / 255)
        assert torch.equal(mask.argmax(0), frames.masks[index].long())
        assert torch.equal(mask.sum(0), torch.ones(256, 320))


def test_both_loops_train() -> None:
    torch.manual_seed(0)
    images, masks = torch.rand(2, 3, 16, 16), torch.zeros(2, 16, 16, dtype=torch.int64)
    masks[:, :8] = 1
    model, cpu = UNet(2), torch.device("cpu")
    batches = DataLoader(TensorDataset(images, one_hot(masks, 2).float()), 2)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    losses = [loss for _ in range(8) for loss in segmentation.train(model, batches, optimizer, cpu)]
    assert losses[-1] < losses[0] / 2

    classifier = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2))
    inputs = torch.tensor([[[0.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [0.0, 0.0]]]).repeat(10, 1, 1)
    pairs = DataLoader(TensorDataset(inputs, torch.tensor([0, 1]).repeat(10)), 4)
    optimizer = torch.optim.Adam(classifier.parameters(), 0.1)
    for _ in range(20):
        garments.train_classifier(classifier, pairs, optimizer, cpu)
    assert garments.accuracy(classifier, pairs, cpu) == 1.0
