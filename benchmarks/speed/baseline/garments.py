"""Fashion-MNIST as torchvision's data set and transforms give it: each image by itself, when a batch asks for it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms import v2


class ImagesInMemory(Dataset[tuple[Tensor, Tensor]]):
    """(3, size, size) float32 normalised image and its label.

    Args:
        images: (N, 1, 28, 28) uint8.
        labels: (N,) int64.
        size: height and width, 32 at least.
        statistics: mean and standard deviation of each channel, of values in [0, 1].
        flip: probability of a mirrored image.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        size: tuple[int, int],
        statistics: tuple[Sequence[float], Sequence[float]],
        flip: float = 0.0,
    ) -> None:
        self.images, self.labels = images, labels
        self.transform = v2.Compose(
            [
                v2.Grayscale(3),
                v2.Pad(2),
                v2.Resize(size),
                v2.RandomHorizontalFlip(flip),
                v2.ToImage(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(*statistics),
            ]
        )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.transform(Image.fromarray(self.images[index, 0].numpy())), self.labels[index]


def accuracy(outputs: Tensor, labels: Tensor) -> float:
    """Share of right answers in a batch."""
    return (outputs.argmax(1) == labels).float().mean().item()
