"""All seven configurations, one after the other, straightforwardly."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from benchmarks.speed.baseline import garments, loop, segmentation
from benchmarks.suite import SUITE, Configuration, Profile, Work
from hw6core import tasks
from hw6core.data import load_fashion_mnist
from hw6core.models import UNET_HEAD, VGG_HEAD, UNet, vgg16

CLASSES = 8
GARMENTS = 10
FASHION, IMAGENET = (tasks.FASHION_MEAN, tasks.FASHION_STD), (tasks.IMAGENET_MEAN, tasks.IMAGENET_STD)
Loss = Callable[[Tensor, Tensor], Tensor]
Samples = Dataset[tuple[Tensor, Tensor]]


@dataclass
class StraightforwardSuite:
    """What a solution of the assignment does in one go.

    Attributes:
        root: the folder with both data sets.
        data_kind: "real" or "synthetic"; see `Configuration.work_on`.
        vgg16_weights: in torchvision's format, in place of ImageNet's.
        configurations: all seven, by their names.
        scores: of each configuration on its test split (colorization: minus the error on validation).
    """

    root: Path
    profile: Profile
    data_kind: str
    vgg16_weights: Path
    device: torch.device
    configurations: Mapping[str, Configuration] = field(default_factory=lambda: SUITE)
    scores: dict[str, float] = field(default_factory=dict)

    def run(self) -> None:
        """Train and score everything once."""
        self._segmentation("seg-baseline")
        self._segmentation("seg-augmented")
        colors = self._colorization("colorization")
        self._segmentation("seg-pretrained", colors)
        scratch = self._garments("vgg-scratch", None)
        self._garments("vgg-frozen", self.vgg16_weights)
        self._new_task("vgg-new-task", scratch)

    def _work(self, name: str) -> Work:
        return self.configurations[name].work_on(self.profile, self.data_kind)

    def _flip(self, name: str) -> float:
        return (self.configurations[name].augmentation or {}).get("horizontal_flip", 0.0)

    def _segmentation(self, name: str, start: nn.Module | None = None) -> None:
        size, augmentation = self._work(name).working_size, self.configurations[name].augmentation
        moved = None if augmentation is None else segmentation.per_sample(augmentation)
        model = UNet(CLASSES)
        if start is not None:
            model.load_state_dict(_below(UNET_HEAD, start), strict=False)
        frames = {
            split: segmentation.FramesOnDisk(self.root, split, size, moved if split == "train" else None)
            for split in ("train", "validation", "test")
        }
        self._fit(name, model, frames, segmentation.dice_loss, _dice_of_batch)

    def _colorization(self, name: str) -> nn.Module:
        size = self._work(name).working_size
        model = UNet(3)
        nn.init.zeros_(model.head.weight)
        training = segmentation.GrayFramesOnDisk(self.root, "train", size, self._flip(name))
        validation = segmentation.GrayFramesOnDisk(self.root, "validation", size)
        frames = {"train": training, "validation": validation, "test": validation}
        self._fit(name, model, frames, nn.functional.mse_loss, _closeness)
        return model

    def _garments(self, name: str, weights: Path | None) -> nn.Module:
        work = self._work(name)
        train, test = (load_fashion_mnist(self.root, which) for which in (True, False))
        images, labels = train.images[: work.training_samples], train.labels[: work.training_samples]
        held_out = len(images) // 10
        statistics = FASHION if weights is None else IMAGENET

        def of(images: Tensor, labels: Tensor, flip: float = 0.0) -> garments.ImagesInMemory:
            return garments.ImagesInMemory(images, labels, work.working_size, statistics, flip)

        splits = {
            "train": of(images[held_out:], labels[held_out:], self._flip(name)),
            "validation": of(images[:held_out], labels[:held_out]),
            "test": of(test.images, test.labels),
        }
        model: nn.Module = vgg16(GARMENTS, weights, freeze_features=weights is not None)
        self._fit(name, model, splits, nn.functional.cross_entropy, garments.accuracy)
        return model

    def _new_task(self, name: str, scratch: nn.Module) -> None:
        """From both starts, the new last layer first and then everything."""
        size, flip = self._work(name).working_size, self._flip(name)
        new_layer = Work(working_size=size, **self.configurations[name].settings["new_layer"])
        for start, statistics in (("scratch", FASHION), ("pretrained", IMAGENET)):
            splits = {
                split: segmentation.InstrumentsOnDisk(self.root, split, size, statistics, flip * (split == "train"))
                for split in ("train", "validation", "test")
            }
            model = vgg16(CLASSES - 1, self.vgg16_weights if start == "pretrained" else None, freeze_features=True)
            if start == "scratch":
                model.load_state_dict(_below(VGG_HEAD, scratch), strict=False)
            loss = nn.functional.binary_cross_entropy_with_logits
            self._fit(f"{name}, {start}, new layer", model, splits, loss, _right_answers, new_layer)
            model.requires_grad_(True)
            self._fit(f"{name}, {start}", model, splits, loss, _right_answers, self._work(name))

    def _fit(
        self,
        name: str,
        model: nn.Module,
        splits: Mapping[str, Samples],
        loss: Loss,
        of_batch: Callable[[Tensor, Tensor], float],
        work: Work | None = None,
    ) -> None:
        """Train, keep the best epoch, score the test split."""
        work = work or self._work(name)
        model.to(self.device)
        learned = [value for value in model.parameters() if value.requires_grad]
        optimizer = torch.optim.AdamW(learned, work.learning_rate, weight_decay=work.weight_decay)
        # As the suite does, without an incomplete last batch: the same number of steps.
        whole = len(splits["train"]) >= work.batch_size  # type: ignore[arg-type]
        training = DataLoader(splits["train"], work.batch_size, shuffle=True, drop_last=whole)
        validation, test = (DataLoader(splits[split], work.batch_size) for split in ("validation", "test"))
        best, state = float("-inf"), model.state_dict()
        for _ in range(work.epochs):
            loop.train(model, training, loss, optimizer, self.device)
            score = loop.score(model, validation, of_batch, self.device)
            if score > best:
                best, state = score, deepcopy(model.state_dict())
        model.load_state_dict(state)
        self.scores[name] = loop.score(model, test, of_batch, self.device)


def _below(head: str, model: nn.Module) -> Mapping[str, Tensor]:
    """Its weights without those of the last layer."""
    return {key: value for key, value in model.state_dict().items() if not key.startswith(head)}


def _dice_of_batch(logits: Tensor, one_hot: Tensor) -> float:
    return segmentation.course_dice(logits.argmax(1), one_hot.argmax(1), CLASSES)


def _closeness(outputs: Tensor, lacking: Tensor) -> float:
    return -nn.functional.mse_loss(outputs, lacking).item()


def _right_answers(logits: Tensor, shown: Tensor) -> float:
    return ((logits > 0) == (shown > 0)).float().mean().item()
