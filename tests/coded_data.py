"""Small data in memory with distinct samples, for tests that identify the samples of each batch."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from benchmarks.workloads.datasets import Store
from hw6core.data.endovis import ColorizationFrames, SegmentationFrames
from hw6core.data.fashion_mnist import Garments

NAMES = ("tissue", "forceps", "driver")
COUNTS = {"train": 13, "validation": 7, "test": 103}  # 103, for more than one chunk of ten and of a hundred
GARMENTS = {"train": 330, "test": 103}
FRAME, WORKING = (16, 20), (8, 10)


def frames(count: int, seed: int) -> SegmentationFrames:
    """Noise with a red rectangle of class 1 in two of three frames, and a blue one of class 2 in two of four.

    More than half of the training frames show class 2, and less than half of the test frames (seed 2).
    """
    draws = torch.Generator().manual_seed(seed)
    images = torch.randint(40, 90, (count, 3, *FRAME), generator=draws, dtype=torch.uint8)
    masks = torch.zeros(count, *FRAME, dtype=torch.uint8)
    for index in range(count):
        for shown, label in ((index % 3 < 2, 1), ((index + seed) % 4 < 2, 2)):
            top, left, height, width = torch.randint(2, 9, (4,), generator=draws).tolist()
            if shown:
                masks[index, top : top + height, left : left + width] = label
    for label, channel in ((1, 0), (2, 2)):
        images[:, channel][masks == label] += 150
    return SegmentationFrames(images, masks, NAMES, ())


def coded_store(root: Path) -> Store:
    """A store with data in memory."""
    store = Store(root, torch.device("cpu"))
    store.segmentation = {split: frames(count, seed) for seed, (split, count) in enumerate(COUNTS.items())}
    store.colorization = {
        split: ColorizationFrames(shown.images, noise(len(shown.images), 1, *FRAME, seed=seed), ())
        for seed, (split, shown) in enumerate(store.segmentation.items())
        if split != "test"
    }
    names = tuple(f"garment {label}" for label in range(10))
    store.garments = {
        split: Garments(noise(count, 1, 28, 28, seed=count), labels(count, most), names, ())
        for (split, count), most in zip(GARMENTS.items(), (3, 7), strict=True)
    }
    return store


def labels(count: int, most: int) -> Tensor:
    """Labels 0 to 9, with one more frequent than the others."""
    drawn = noise(count, seed=count + 1).long() % 13
    return torch.where(drawn < 10, drawn, most)


def noise(*shape: int, seed: int) -> Tensor:
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def halved(images: Tensor) -> Tensor:
    """(N, C, 2h, 2w) -> (N, C, h, w) float32: the mean of four pixels."""
    count, channels, height, width = images.shape
    return images.float().view(count, channels, height // 2, 2, width // 2, 2).mean((3, 5))


def every_second(masks: Tensor) -> Tensor:
    """Nearest-neighbour resizing to half the size: all four pixels are equally near, rounding decides."""
    return masks[:, 1::2, 1::2]


def garments(images: Tensor, mean: float | tuple[float, ...], std: float | tuple[float, ...]) -> Tensor:
    """(N, 1, 28, 28) uint8 -> the expected input of VGG16: padded by two pixels, three channels, normalised."""
    padded = torch.zeros(len(images), 1, 32, 32)
    padded[:, :, 2:-2, 2:-2] = images.float() / 255
    return normalised(padded.expand(-1, 3, -1, -1), mean, std)


def normalised(images: Tensor, mean: float | tuple[float, ...], std: float | tuple[float, ...]) -> Tensor:
    shift, scale = (torch.tensor(values).reshape(-1, 1, 1) for values in (mean, std))
    return (images - shift) / scale


def places(batch: Tensor, stored: Tensor) -> list[int]:
    """The index of each sample of a batch among the stored samples."""
    distances = torch.cdist(batch.flatten(1).double(), stored.flatten(1).double())
    found = distances.min(1)
    assert float(found.values.max()) < 1e-3, "not a stored sample"
    return found.indices.tolist()
