"""The straightforward way does the same work: its losses and scores are those of the suite."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.speed import baseline
from benchmarks.suite import SUITE
from benchmarks.workloads.datasets import Store
from hw6core.data import load_endovis, load_fashion_mnist
from hw6core.data.endovis import one_hot
from hw6core.data.synthetic import synthesize
from hw6core.dice import mean_dice
from hw6core.losses import DiceLoss
from hw6core.models import UNet
from hw6core.tasks import ColorizationTask, unit_range
from tests.short_runs import shortened
from tests.tiny_data import TINY

DRAWS = torch.Generator().manual_seed(0)


def test_losses_and_their_gradients_agree() -> None:
    logits = torch.randn(2, 8, 12, 10, generator=DRAWS)
    target = torch.randint(0, 8, (2, 12, 10), generator=DRAWS)
    ours, theirs = (logits.clone().requires_grad_(True) for _ in range(2))
    loss, plain = DiceLoss(1.0, "batch")(ours, target), baseline.dice_loss(theirs, one_hot(target, 8).float())
    torch.testing.assert_close(loss, plain)
    loss.backward()
    plain.backward()
    torch.testing.assert_close(ours.grad, theirs.grad)


def test_scores_agree() -> None:
    prediction, target = (torch.randint(0, 4, (5, 9, 7), generator=DRAWS) for _ in range(2))
    assert baseline.course_dice(prediction, target, 8) == pytest.approx(mean_dice(prediction, target, 8))


def test_frames_from_disk_are_those_of_the_suite(tmp_path: Path) -> None:
    synthesize(tmp_path / "data", sizes=TINY)
    frames, dataset = load_endovis(tmp_path / "data", "train"), baseline.frames(tmp_path / "data", "train")
    assert len(dataset) == len(frames.images) == TINY.segmentation_train
    for index in range(3):
        image, mask = dataset[index]
        torch.testing.assert_close(image, frames.images[index].float() / 255)
        assert torch.equal(mask.argmax(0), frames.masks[index].long())
        assert torch.equal(mask.sum(0), torch.ones(256, 320))


def test_samples_of_the_other_questions_are_those_of_the_suite(tmp_path: Path) -> None:
    synthesize(tmp_path, sizes=TINY)
    store = Store(tmp_path, torch.device("cpu"))
    frames = baseline.gray_frames(tmp_path, "validation", (256, 320))
    inputs, targets = ColorizationTask((256, 320), None).evaluation_batch(
        *[store.colorization_split("validation").inputs] * 2
    )
    assert len(frames) == len(inputs)
    gray, lacking = frames[1]
    torch.testing.assert_close(gray, inputs[1])
    torch.testing.assert_close(lacking, targets[1])

    still = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    shown = store.instruments_split("test", (256, 320))
    instruments = baseline.instruments(tmp_path, "test", (256, 320), still)
    assert len(instruments) == len(shown)
    for index in range(len(shown)):
        image, labels = instruments[index]
        torch.testing.assert_close(image, unit_range(shown.inputs[index]))
        assert torch.equal(labels.long(), shown.targets[index])

    ours = store.garment_splits((32, 32), None)["test"]
    test = load_fashion_mnist(tmp_path, False)
    plain = baseline.garments(test.images, test.labels, (32, 32), still)
    assert len(plain) == len(ours)
    image, label = plain[3]
    torch.testing.assert_close(image, unit_range(ours.inputs[3]).expand(3, -1, -1))
    assert label == ours.targets[3]


class Small(torch.nn.Module):
    """What is used of VGG16: a last layer called as there, and something below it."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.features = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten())
        self.classifier = torch.nn.ModuleDict({"6": torch.nn.Linear(12, classes)})

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.classifier["6"](self.features(images))
        return logits


def test_all_seven_are_trained_and_scored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a small network in VGG16's place, whose steps take seconds."""
    synthesize(tmp_path / "data", sizes=TINY)
    asked: list[tuple[int, Path | None, bool]] = []

    def small(classes: int, weights: Path | None = None, freeze_features: bool = False) -> torch.nn.Module:
        asked.append((classes, weights, freeze_features))
        return Small(classes)

    monkeypatch.setattr(baseline, "vgg16", small)
    monkeypatch.setattr(baseline, "SUITE", {name: shortened(entry) for name, entry in SUITE.items()})
    scores = baseline.run_quick_suite(tmp_path / "data", Path("W"), torch.device("cpu"))
    assert {name.split(",")[0] for name in scores} == set(SUITE)
    assert asked == [(10, None, False), (10, Path("W"), True), (7, None, True), (7, Path("W"), True)]
    assert all(math.isfinite(score) for score in scores.values())
    assert all(0 <= score <= 1 for name, score in scores.items() if name != "colorization")


def test_both_loops_train() -> None:
    torch.manual_seed(0)
    images, masks = torch.rand(2, 3, 16, 16), torch.zeros(2, 16, 16, dtype=torch.int64)
    masks[:, :8] = 1
    model, cpu = UNet(2), torch.device("cpu")
    batches = DataLoader(TensorDataset(images, one_hot(masks, 2).float()), 2)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    losses = [loss for _ in range(8) for loss in baseline.train(model, batches, baseline.dice_loss, optimizer, cpu)]
    assert losses[-1] < losses[0] / 2

    classifier = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2))
    inputs = torch.tensor([[[0.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [0.0, 0.0]]]).repeat(10, 1, 1)
    pairs = DataLoader(TensorDataset(inputs, torch.tensor([0, 1]).repeat(10)), 4)
    optimizer = torch.optim.Adam(classifier.parameters(), 0.1)
    for _ in range(20):
        baseline.train(classifier, pairs, cross_entropy, optimizer, cpu)
    assert baseline.score(classifier, pairs, baseline.accuracy, cpu) == 1.0
