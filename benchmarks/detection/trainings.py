"""The two short trainings for fault injection: seconds on one core, with the library's own loop, tasks and losses.

"segmentation" is the suite's U-Net at a quarter of its width, with flips. "classification" is a small network with
dropout and without batch norm on drawn garments, pre-trained on other garments.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from math import isfinite
from unittest.mock import patch

import numpy as np
import torch
from msgspec import Struct
from torch import Tensor, nn

from benchmarks.detection.faults import Fault, Site
from benchmarks.suite import Gate
from benchmarks.workloads.floors import nearest
from benchmarks.workloads.movement import movement, sampled
from hw6core import models
from hw6core.checkpoint import transfer
from hw6core.data.augment import Augmentation
from hw6core.data.synthetic_garments import draw_garments
from hw6core.errors import TrainingDivergedError
from hw6core.losses import DiceLoss
from hw6core.models import UNet, start_from_frequencies
from hw6core.schedule import Schedule
from hw6core.seeding import seed_everything
from hw6core.tasks import FASHION_MEAN, FASHION_STD, ClassificationTask, SegmentationTask, resize_images
from hw6core.training import Split, Task, predict, train

Splits = Mapping[str, Split]
State = Mapping[str, Tensor]
_WIDTHS = (8, 16, 32, 64)
_CLASSES, _FRAME = 4, (16, 24)
_COLOURS = np.array([[60, -30, -30], [-30, 60, -30], [-30, -30, 60]])  # of each class, added to the tissue's
_INFINITE = 1e30  # JSON has no infinity
_START_SEED = 10**6  # of the pre-training for classification


class Run(Struct, frozen=True):
    """The results of one training."""

    training: str
    fault: str  # "" for a clean one
    strength: str
    seed: int
    metrics: dict[str, float]  # of the test split; empty if the training diverged
    curve: dict[str, list[float]]  # for each quantity its values, epoch by epoch
    moved: dict[str, float]  # distance of each layer's parameters and running averages from their start, relative to it

    def learning_curve(self) -> dict[str, float]:
        """In the format of `benchmarks.results.curves.learning_curve`."""
        found = {
            f"training/{name}/{n}": value for name, epochs in self.curve.items() for n, value in enumerate(epochs, 1)
        }
        return found | {f"training/movement/{layer}": value for layer, value in self.moved.items()}


@dataclass(frozen=True)
class Training:
    """One of the two trainings: data, model, task, gates and answers without training."""

    splits: Callable[[], Splits]
    start: Callable[[], State]  # initial weights for `build`; made once, without a fault
    build: Callable[[Split, State], nn.Module]
    task: Task
    schedule: Schedule
    gates: tuple[Gate, ...]  # "better than the best constant answer", as for vgg-new-task
    neighbours: int  # number of training samples whose most frequent target is the look-up's answer


@cache
def trivial(name: str) -> Mapping[str, float]:
    """The scores of the best constant answer, the most frequent class."""
    training = TRAININGS[name]
    truth = training.splits()["test"].targets
    return training.task.score(truth.flatten().mode().values.expand_as(truth), truth)


@cache
def floor(name: str) -> Mapping[str, float]:
    """The scores of a look-up in the training split."""
    training = TRAININGS[name]
    known, test = (training.splits()[split] for split in ("train", "test"))
    answers = known.targets[nearest(test.inputs, known.inputs, training.neighbours)].mode(1).values
    return training.task.score(answers, test.targets)


def run(fault: Fault, seed: int) -> Run:
    """Train once with a fault and score the test split; the fault's patches are undone afterwards."""
    training = TRAININGS[fault.training]
    splits, start, schedule, task = training.splits(), training.start(), training.schedule, training.task
    seed_everything(seed)
    with fault.patches():
        learned_from = fault.spoil(splits["train"], fault.draws(seed))
        model = training.build(learned_from, start)
        before = sampled(model.state_dict())
        fault.enter(Site(model, fault.draws(seed), schedule.epochs * (len(learned_from) // schedule.batch_size)))
        try:
            result = train(model, task, learned_from, splits["validation"], schedule, seed=seed)
        except TrainingDivergedError:
            return Run(*fault.key, seed, {}, {}, {})
        summaries, _ = predict(model, task, splits["test"])
        metrics = dict(task.score(summaries, splits["test"].targets))
    curve = {
        key: [entry[key] if isfinite(entry[key]) else _INFINITE for entry in result.history]
        for key in ("train_loss", "validation_loss", task.monitor)
    }
    return Run(*fault.key, seed, metrics, curve, movement(before, sampled(result.best_state)))


# -------------------------------------------------------------------------------------------------------- segmentation


def small_unet(channels: int) -> UNet:
    """The suite's U-Net at a quarter of its width."""
    with patch.object(models, "UNET_WIDTHS", _WIDTHS):
        return UNet(channels)


@cache
def frames() -> Splits:
    """Noise in the colour of tissue with one to three ellipses in the colours of their classes."""
    splits, (height, width) = {}, _FRAME
    y, x = np.mgrid[:height, :width]
    for seed, (split, count) in enumerate({"train": 60, "validation": 20, "test": 60}.items()):
        rng = np.random.default_rng(seed)
        images = rng.normal(110, 12, (count, 3, 1, 1)) + rng.normal(0, 20, (count, 3, height, width))
        masks = np.zeros((count, height, width), np.uint8)
        for image, mask in zip(images, masks, strict=True):
            for kind in rng.permutation(_CLASSES - 1)[: rng.integers(1, _CLASSES)]:
                top, left, high, wide = rng.uniform([4, 4, 3, 3], [height - 4, width - 4, 7, 9])
                inside = ((y - top) / high) ** 2 + ((x - left) / wide) ** 2 < 1
                mask[inside] = kind + 1
                image[:, inside] += (_COLOURS[kind] * rng.uniform(0.8, 1.6))[:, None]
        splits[split] = Split(torch.from_numpy(images.clip(0, 255).astype(np.uint8)), torch.from_numpy(masks))
    return splits


def _segmenter(training: Split, _: State) -> nn.Module:
    model = small_unet(_CLASSES)
    start_from_frequencies(model.head, training.targets)
    model.to(memory_format=torch.channels_last)
    return model


# ------------------------------------------------------------------------------------------------------ classification


@cache
def garments() -> Splits:
    """Drawn garments of ten classes, 14x14."""
    splits = {}
    for seed, (split, count) in enumerate({"train": 400, "validation": 200, "test": 600, "others": 1000}.items()):
        images, labels = draw_garments(np.random.default_rng(seed), count)
        small = resize_images(torch.from_numpy(images).unsqueeze(1), (14, 14))
        splits[split] = Split(small, torch.from_numpy(labels).long())
    return splits


def small_classifier() -> nn.Sequential:
    """Two convolutions and two linear layers with dropout between them."""
    linear = [nn.Linear(32 * 3 * 3, 64), nn.ReLU(inplace=True), nn.Dropout(0.2), nn.Linear(64, 10)]
    layers: list[nn.Module] = []
    for inputs, outputs in ((3, 16), (16, 32)):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2)]
    model = nn.Sequential(*layers, nn.Flatten(), *linear)
    for layer in model:
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    nn.init.normal_(linear[-1].weight, std=0.01)  # type: ignore[arg-type]
    return model


@cache
def _pretrained() -> State:
    """Weights of the same network, trained on other garments."""
    seed_everything(_START_SEED)
    model, splits = small_classifier(), garments()
    schedule = Schedule(8, 20, 6e-3, weight_decay=1e-2)
    train(model, TRAININGS["classification"].task, splits["others"], splits["validation"], schedule, seed=_START_SEED)
    return {key: value.clone() for key, value in model.state_dict().items()}


def _classifier(_: Split, start: State) -> nn.Module:
    model = small_classifier()
    transfer(start, model, "10", "the other garments' weights")
    return model


TRAININGS: Mapping[str, Training] = {
    "segmentation": Training(
        frames,
        dict,
        _segmenter,
        SegmentationTask(_CLASSES, DiceLoss(1.0, "batch"), Augmentation(0.5, 0.5), minimum_class_pixels=0),
        Schedule(8, 10, 3e-2, weight_decay=1e-4),
        tuple(Gate(metric, "above", share_of_trivial=1.0) for metric in ("course_dice", "present_dice")),
        neighbours=1,
    ),
    "classification": Training(
        garments,
        _pretrained,
        _classifier,
        ClassificationTask(FASHION_MEAN, FASHION_STD),
        Schedule(5, 20, 3e-3, weight_decay=1e-2),
        (Gate("accuracy", "above", share_of_trivial=1.0),),
        neighbours=5,
    ),
}
