"""A straightforward implementation, like the assignment's public solutions: the baseline of the speed comparison.

It is not optimized, but not made slow either: files are decoded for every batch, masks are one-hot, everything is
float32 in the default layout, the loss is read after every step, Dice is summed in loops. Networks, optimizer, batch
and number of steps are those of the suite; tests check that losses and scores agree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Dataset
from torchvision.transforms import functional as TF
from torchvision.transforms import v2

from hw6core.data.endovis import read_mapping
from hw6core.data.remedy import set_folder

Pair = tuple[Tensor, Tensor]
Statistics = tuple[Sequence[float], Sequence[float]]  # mean and standard deviation of each channel, of values in [0, 1]


class Samples(Dataset[Pair]):
    """A dataset that calls ``read`` for each item of each batch."""

    def __init__(self, items: Sequence[Any], read: Callable[[Any], Pair]) -> None:
        self.items, self.read = items, read

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Pair:
        return self.read(self.items[index])


def frames(root: Path, split: str) -> Samples:
    """(3, H, W) float32 image in [0, 1] and (C, H, W) float32 one-hot mask."""
    base = set_folder(root, "endovis")
    levels = read_mapping(base / "mapping.json").values()
    folders = [inner for inner in (base / "segmentation" / split).iterdir() if inner.name.isdecimal()]

    def read(folder: Path) -> Pair:
        image = TF.to_tensor(Image.open(folder / f"{folder.name}_input.jpg").convert("RGB"))
        mask = np.array(Image.open(folder / f"{folder.name}_mask.png"))
        return image, torch.from_numpy(np.stack([mask == level for level in levels]).astype(np.float32))

    return Samples(sorted(folders, key=lambda folder: int(folder.name)), read)


def garments(images: Tensor, labels: Tensor, statistics: Statistics) -> Samples:
    """(3, 32, 32) float32 normalised image and its label, from (N, 1, 28, 28) uint8 and (N,) int64 in memory."""
    in_range = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(*statistics)]
    transform = v2.Compose([v2.Grayscale(3), v2.Pad(2), *in_range])

    def read(index: int) -> Pair:
        return transform(Image.fromarray(images[index, 0].numpy())), labels[index]

    return Samples(range(len(images)), read)


def dice_loss(logits: Tensor, one_hot: Tensor, smoothing: float = 1.0) -> Tensor:
    """The suite's loss (mean over classes, the batch pooled as one frame) in a loop over classes."""
    probabilities = torch.softmax(logits, dim=1)
    total = torch.zeros(())
    classes = logits.shape[1]
    for index in range(classes):
        predicted, target = probabilities[:, index], one_hot[:, index]
        both = (predicted * target).sum()
        total = total + (2 * both + smoothing) / (predicted.sum() + target.sum() + smoothing)
    return 1 - total / classes


def course_dice(prediction: Tensor, target: Tensor, classes: int) -> float:
    """Course Dice of (N, H, W) classes, in loops over frames and classes."""
    scores = []
    for frame in range(len(target)):
        of_frame = []
        for index in range(classes):
            predicted, truth = prediction[frame] == index, target[frame] == index
            sizes = predicted.sum().item() + truth.sum().item()
            of_frame.append(2 * (predicted & truth).sum().item() / sizes if sizes else 1.0)
        scores.append(sum(of_frame) / classes)
    return sum(scores) / len(scores)


def train(
    model: nn.Module,
    batches: Iterable[Pair],
    loss_function: Callable[[Tensor, Tensor], Tensor],
    optimizer: torch.optim.Optimizer,
    device: torch.device,
) -> list[float]:
    """Train one epoch and return the loss of every step."""
    model.train()
    losses = []
    for inputs, targets in batches:
        inputs, targets = inputs.to(device), targets.to(device)
        optimizer.zero_grad()
        loss = loss_function(model(inputs), targets)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@torch.no_grad()
def accuracy(model: nn.Module, batches: Iterable[Pair], device: torch.device) -> float:
    """The share of correct answers."""
    model.eval()
    right = [(model(inputs.to(device)).argmax(1) == labels.to(device)).float() for inputs, labels in batches]
    return torch.cat(right).mean().item()
