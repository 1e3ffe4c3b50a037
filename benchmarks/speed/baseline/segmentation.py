"""U-Net, Dice loss and Dice score, straightforwardly."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.transforms import functional as TF
from torchvision.transforms import v2

from hw6core.data.endovis import endovis_folder, read_mapping


class FramesOnDisk(Dataset[tuple[Tensor, Tensor]]):
    """(3, H, W) float32 image in [0, 1] and (C, H, W) float32 one-hot mask, decoded from their files each time.

    Args:
        root: the folder with the data.
        split: "train", "validation" or "test".
        size: height and width; None for those of the files.
        transform: torchvision's, of an image and its mask.
    """

    def __init__(
        self,
        root: Path,
        split: str,
        size: tuple[int, int] | None = None,
        transform: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None = None,
    ) -> None:
        base = endovis_folder(root)
        self.levels = read_mapping(base / "mapping.json").levels
        self.samples = _numbered(base / "segmentation" / split)
        self.size, self.transform = size, transform

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        folder = self.samples[index]
        image = TF.to_tensor(Image.open(folder / f"{folder.name}_input.jpg").convert("RGB"))
        mask = np.array(Image.open(folder / f"{folder.name}_mask.png"))
        one_hot = torch.from_numpy(np.stack([mask == level for level in self.levels]).astype(np.float32))
        if self.size is not None:
            image = TF.resize(image, list(self.size))
            one_hot = TF.resize(one_hot, list(self.size), TF.InterpolationMode.NEAREST_EXACT)
        if self.transform is not None:
            return self.transform(tv_tensors.Image(image), tv_tensors.Mask(one_hot))
        return image, one_hot


class GrayFramesOnDisk(Dataset[tuple[Tensor, Tensor]]):
    """(3, H, W) float32 grey image and what it lacks of the colours, decoded from their files each time.

    Args:
        root: the folder with the data.
        split: "train" or "validation".
        size: height and width.
        flip: probability of a mirrored frame.
    """

    def __init__(self, root: Path, split: str, size: tuple[int, int], flip: float = 0.0) -> None:
        self.samples = _numbered(endovis_folder(root) / "colorization" / f"{split}_cor")
        self.size, self.flip = size, v2.RandomHorizontalFlip(flip)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        folder = self.samples[index]
        color = TF.to_tensor(Image.open(folder / f"{folder.name}_input.jpg").convert("RGB"))
        gray = TF.to_tensor(Image.open(folder / f"{folder.name}_gray.jpg").convert("L")).expand(3, -1, -1)
        color, gray = self.flip(tv_tensors.Image(color), tv_tensors.Image(gray))
        color, gray = TF.resize(color, list(self.size)), TF.resize(gray, list(self.size))
        return gray, color - gray


class InstrumentsOnDisk(Dataset[tuple[Tensor, Tensor]]):
    """(3, H, W) float32 normalised image and, for each class but background, 1.0 where the frame shows it.

    Args:
        statistics: mean and standard deviation of each channel, of values in [0, 1].
        flip: probability of a mirrored frame.
        Others as of `FramesOnDisk`.
    """

    def __init__(
        self,
        root: Path,
        split: str,
        size: tuple[int, int],
        statistics: tuple[Sequence[float], Sequence[float]],
        flip: float = 0.0,
    ) -> None:
        self.frames = FramesOnDisk(root, split)
        self.transform = v2.Compose([v2.Resize(size), v2.RandomHorizontalFlip(flip), v2.Normalize(*statistics)])

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image, one_hot = self.frames[index]
        return self.transform(image), one_hot[1:].flatten(1).any(1).float()


def _numbered(folder: Path) -> list[Path]:
    return sorted((inner for inner in folder.iterdir() if inner.name.isdecimal()), key=lambda inner: int(inner.name))


def per_sample(
    augmentation: Mapping[str, float], interpolation: v2.InterpolationMode = v2.InterpolationMode.BILINEAR
) -> v2.Transform:
    """torchvision's transforms that draw what `hw6core.data.augment.Augmentation` with these arguments draws.

    Bilinear as there; torchvision's own choice for images is the nearest neighbour. Masks always take the nearest.
    """
    shift, scale = augmentation["shift"], augmentation["scale"]
    moves = v2.RandomAffine(
        augmentation["rotation_degrees"], (shift, shift), (1 - scale, 1 + scale), interpolation=interpolation
    )
    flip = v2.RandomHorizontalFlip(augmentation["horizontal_flip"])
    return v2.Compose([flip, moves, v2.ColorJitter(augmentation["brightness"], augmentation["contrast"])])


def dice_loss(logits: Tensor, one_hot: Tensor, smoothing: float = 1.0) -> Tensor:
    """The suite's loss (mean over classes of the batch taken as one frame) in a loop over classes."""
    probabilities = torch.softmax(logits, dim=1)
    total = torch.zeros(())
    classes = logits.shape[1]
    for index in range(classes):
        predicted, target = probabilities[:, index], one_hot[:, index]
        both = (predicted * target).sum()
        total = total + (2 * both + smoothing) / (predicted.sum() + target.sum() + smoothing)
    return 1 - total / classes


def course_dice(prediction: Tensor, target: Tensor, classes: int) -> float:
    """(N, H, W) classes -> the course's Dice, in loops over frames and classes."""
    scores = []
    for frame in range(len(target)):
        of_frame = []
        for index in range(classes):
            predicted, truth = prediction[frame] == index, target[frame] == index
            answered, shown, both = predicted.sum().item(), truth.sum().item(), (predicted & truth).sum().item()
            if shown == 0:
                of_frame.append(1.0 if answered == 0 else 0.0)
            else:
                of_frame.append(2 * both / (answered + shown))
        scores.append(sum(of_frame) / classes)
    return sum(scores) / len(scores)
