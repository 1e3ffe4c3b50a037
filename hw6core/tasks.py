"""The assignment's tasks for the training loop: batches, loss and scores (see `hw6core.training.Task`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

from hw6core import losses, metrics
from hw6core.data.augment import Augmentation, augment
from hw6core.device import double
from hw6core.dice import drop_small_classes

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
FASHION_MEAN, FASHION_STD = (0.2860,) * 3, (0.3530,) * 3
_FRAMES_AT_ONCE = 10  # full-size logits of ten frames take 26 MB
_MASKS_AT_ONCE = 100
_CELL_THRESHOLD = 0.25  # a cell is 1 if more than this share of its pixels shows an instrument


def resize_images(images: Tensor, size: tuple[int, int]) -> Tensor:
    """(N, C, H, W) uint8 -> (N, C, *size) uint8, averaged over the area of each new pixel.

    >>> resize_images(torch.tensor([[[[0, 2], [4, 6]]]], dtype=torch.uint8), (1, 1)).item()
    3
    """
    if images.shape[-2:] == size:
        return images
    resized = images.new_empty(*images.shape[:2], *size)
    for chunk, destination in zip(images.split(100), resized.split(100), strict=True):
        destination.copy_(F.interpolate(chunk.float(), size=size, mode="area").round())
    return resized


def resize_masks(masks: Tensor, size: tuple[int, int]) -> Tensor:
    """(N, H, W) classes in [0, 255], of any integer type -> (N, *size) uint8, nearest neighbour.

    >>> resize_masks(torch.tensor([[[0, 0, 1, 1]]], dtype=torch.uint8), (1, 2))
    tensor([[[0, 1]]], dtype=torch.uint8)
    """
    resized: Tensor = F.interpolate(masks.unsqueeze(1).to(torch.uint8), size=size, mode="nearest-exact")
    return resized[:, 0]


@dataclass
class SegmentationTask:
    """Frames at the working size, masks at their own size; the loss at the working size, scores at the masks' size.

    Inputs (N, 3, h, w) uint8; targets (N, H, W) classes in [0, 255], of any integer type; outputs (N, C, h, w) logits.

    >>> task = SegmentationTask(2, losses.DiceLoss(), augmentation=None, minimum_class_pixels=0)
    >>> frames, masks = torch.zeros(1, 3, 4, 4, dtype=torch.uint8), torch.ones(1, 8, 8, dtype=torch.uint8)
    >>> inputs, targets = task.evaluation_batch(frames, masks)
    >>> inputs.shape, targets.shape
    (torch.Size([1, 3, 4, 4]), torch.Size([1, 4, 4]))
    >>> preds = task.summary(torch.tensor([0.0, 1.0]).view(1, 2, 1, 1).expand(1, 2, 4, 4), masks)
    >>> task.score(preds, masks)["course_dice"]
    1.0
    """

    num_classes: int
    loss_function: losses.DiceLoss
    augmentation: Augmentation | None
    minimum_class_pixels: int
    monitor: str = "selection_dice"
    maximise: bool = True

    def training_batch(self, inputs: Tensor, targets: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        return augment(*self.evaluation_batch(inputs, targets), self.augmentation, generator)

    def evaluation_batch(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        return unit_range(inputs), resize_masks(targets, (inputs.shape[-2], inputs.shape[-1])).long()

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        value: Tensor = self.loss_function(outputs, targets)
        return value

    def summary(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The predicted classes at the size of the masks, (N, H, W) uint8."""
        size = (targets.shape[-2], targets.shape[-1])
        preds = torch.empty(len(outputs), *size, dtype=torch.uint8, device=outputs.device)
        for chunk, destination in zip(outputs.split(_FRAMES_AT_ONCE), preds.split(_FRAMES_AT_ONCE), strict=True):
            destination.copy_(F.interpolate(chunk, size=size, mode="bilinear", align_corners=False).argmax(1))
        return drop_small_classes(preds, self.num_classes, self.minimum_class_pixels)

    def score(self, summaries: Tensor, targets: Tensor) -> Mapping[str, float]:
        scores = metrics.segmentation_scores(summaries, targets, self.num_classes)
        return {
            "course_dice": scores.course_dice,
            "present_dice": scores.present_dice,
            # Both conditions of the gate have the same weight in the choice of the best epoch.
            "selection_dice": (scores.course_dice + scores.present_dice) / 2,
        }


def mean_colour(frames: Tensor) -> Tensor:
    """Mean difference between colour and grey: (N, 4, H, W) uint8, grey before RGB -> (3, 1, 1) float32.

    Added to every grey frame, it is the constant predictor with the smallest squared error.

    >>> mean_colour(torch.tensor([0, 255, 0, 51], dtype=torch.uint8).view(1, 4, 1, 1)).flatten()
    tensor([1.0000, 0.0000, 0.2000])
    """
    means = torch.cat([unit_range(chunk).mean((2, 3)) for chunk in frames.split(_FRAMES_AT_ONCE)]).mean(0)
    return (means[1:] - means[:1]).view(3, 1, 1)


def unit_range(images: Tensor) -> Tensor:
    """uint8 -> float32 in [0, 1].

    Raises:
        ValueError: another type, for instance images that are in [0, 1] already.

    >>> unit_range(torch.tensor([0, 51, 255], dtype=torch.uint8))
    tensor([0.0000, 0.2000, 1.0000])
    """
    if images.dtype != torch.uint8:
        raise ValueError(f"images are {images.dtype}; expected uint8, 0 to 255")
    return images.float() / 255


@dataclass
class ColorizationTask:
    """Grey to RGB, learned as the difference between the colour and the grey frame.

    Stored samples are (N, 4, H, W) uint8, grey before RGB, at their own size, as inputs and as targets. The network
    gets the grey frame in three channels (the same input layer as for RGB) at the working size and predicts RGB minus
    grey, (N, 3, h, w). The prediction is enlarged to full size and added to the grey frame, whose detail remains.

    >>> task = ColorizationTask((2, 2), augmentation=None)
    >>> frames = torch.tensor([100, 100, 151, 49], dtype=torch.uint8).view(1, 4, 1, 1).expand(1, 4, 4, 4)
    >>> inputs, difference = task.evaluation_batch(frames, frames)
    >>> inputs.shape, difference[0, :, 0, 0]
    (torch.Size([1, 3, 2, 2]), tensor([ 0.0000,  0.2000, -0.2000]))
    """

    working_size: tuple[int, int]
    augmentation: Augmentation | None
    monitor: str = "validation_mse"
    maximise: bool = False

    def training_batch(self, inputs: Tensor, targets: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        frames, _ = augment(self._resized(inputs), None, self.augmentation, generator)
        return self._pair(frames)

    def evaluation_batch(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        return self._pair(self._resized(inputs))

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return losses.squared_error(outputs, targets)

    def recolor(self, outputs: Tensor, grays: Tensor) -> Tensor:
        """Outputs and (N, 1, H, W) uint8 grey frames -> (N, 3, H, W) float32 RGB in [0, 1]."""
        size = (grays.shape[-2], grays.shape[-1])
        colour = F.interpolate(outputs, size=size, mode="bilinear", align_corners=False)
        return (unit_range(grays) + colour).clamp(0, 1)

    def frame_errors(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """(N,) float64 mean squared error of each frame at full size, values in [0, 1]."""
        errors = [
            double(self.recolor(chunk, frames[:, :1]) - unit_range(frames[:, 1:])).square().mean((1, 2, 3))
            for chunk, frames in zip(outputs.split(_FRAMES_AT_ONCE), targets.split(_FRAMES_AT_ONCE), strict=True)
        ]
        return torch.cat(errors)

    def summary(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return self.frame_errors(outputs, targets)

    def score(self, summaries: Tensor, targets: Tensor) -> Mapping[str, float]:
        return {"validation_mse": float(summaries.mean())}

    def _resized(self, frames: Tensor) -> Tensor:
        return F.interpolate(unit_range(frames), size=self.working_size, mode="area")

    @staticmethod
    def _pair(frames: Tensor) -> tuple[Tensor, Tensor]:
        gray, colour = frames[:, :1], frames[:, 1:]
        return gray.expand(-1, 3, -1, -1), colour - gray


@dataclass
class ClassificationTask:
    """One label for each image: inputs (N, 1 or 3, h, w) uint8, targets (N,) int64, outputs (N, C) logits.

    ``mean`` and ``std`` are the channel statistics, of values in [0, 1], that the weights were trained with.

    >>> task = ClassificationTask(FASHION_MEAN, FASHION_STD)
    >>> inputs, labels = task.evaluation_batch(torch.zeros(2, 1, 32, 32, dtype=torch.uint8), torch.tensor([3, 1]))
    >>> inputs.shape, labels
    (torch.Size([2, 3, 32, 32]), tensor([3, 1]))
    """

    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    augmentation: Augmentation | None = None
    monitor: str = "accuracy"
    maximise: bool = True

    def training_batch(self, inputs: Tensor, targets: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        images, _ = augment(unit_range(inputs), None, self.augmentation, generator)
        return self.normalise(images), targets

    def evaluation_batch(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        return self.normalise(unit_range(inputs)), targets

    def normalise(self, images: Tensor) -> Tensor:
        """(N, 1 or 3, h, w) in [0, 1] -> (N, 3, h, w); a grey image is repeated in all three channels."""
        return (images - _planes(self.mean, images.device)) / _planes(self.std, images.device)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return losses.cross_entropy(outputs, targets)

    def summary(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The predicted labels, in the form of the targets."""
        return outputs.argmax(1)

    def score(self, summaries: Tensor, targets: Tensor) -> Mapping[str, float]:
        return {"accuracy": metrics.accuracy(summaries, targets)}


@cache
@torch.inference_mode(False)  # otherwise no gradient of the images could be computed after a first call in that mode
def _planes(values: tuple[float, float, float], device: torch.device) -> Tensor:
    """(1, 3, 1, 1) on the device; cached, because a copy in every step would make the host wait."""
    return torch.tensor(values, device=device).view(1, 3, 1, 1)


class FeatureTask(ClassificationTask):
    """Classification of precomputed features of a frozen network: inputs (N, F) floating.

    >>> FeatureTask().summary(torch.tensor([[0.1, 2.0], [1.0, 0.0]]), torch.tensor([1, 1]))
    tensor([1, 0])
    """

    def training_batch(self, inputs: Tensor, targets: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        return inputs, targets

    def evaluation_batch(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        return inputs, targets


class MultiLabelTask(ClassificationTask):
    """Several binary labels for each image: targets (N, L) int64 in {0, 1}; accuracy is the share of correct ones.

    >>> task = MultiLabelTask()
    >>> task.score(task.summary(torch.tensor([[2.0, -1.0]]), torch.tensor([[1, 1]])), torch.tensor([[1, 1]]))
    {'accuracy': 0.5}
    """

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return losses.binary_cross_entropy(outputs, targets)

    def summary(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs > 0).long()


def instrument_cells(masks: Tensor, grid: tuple[int, int]) -> Tensor:
    """Which cells of a grid show instruments: (N, H, W) classes -> (N, rows * columns) int64 in {0, 1}, row by row.

    A cell is 1 if more than a quarter of its pixels belong to any class but 0, the background.

    >>> masks = torch.tensor([[[0, 5, 0, 0], [0, 5, 0, 3]]], dtype=torch.uint8)
    >>> instrument_cells(masks, (1, 2))
    tensor([[1, 0]])
    """
    shares = [F.adaptive_avg_pool2d((chunk > 0).float(), grid).flatten(1) for chunk in masks.split(_MASKS_AT_ONCE)]
    return (torch.cat(shares) > _CELL_THRESHOLD).long()


@dataclass
class InstrumentCellsTask(MultiLabelTask):
    """Predict `instrument_cells`: inputs (N, 3, h, w) uint8, targets masks (N, H, W) uint8, outputs (N, cells) logits.

    The labels are computed from the masks after augmentation, so that they match the augmented frames.

    >>> task = InstrumentCellsTask(grid=(1, 2))
    >>> frames, masks = torch.zeros(1, 3, 4, 4, dtype=torch.uint8), torch.zeros(1, 8, 8, dtype=torch.uint8)
    >>> task.evaluation_batch(frames, masks)[1]
    tensor([[0, 0]])
    """

    grid: tuple[int, int] = (1, 1)

    def training_batch(self, inputs: Tensor, targets: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        masks = resize_masks(targets, (inputs.shape[-2], inputs.shape[-1]))
        images, masks = augment(unit_range(inputs), masks, self.augmentation, generator)
        return self.normalise(images), instrument_cells(masks, self.grid)

    def evaluation_batch(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        return self.normalise(unit_range(inputs)), instrument_cells(targets, self.grid)

    def score(self, summaries: Tensor, targets: Tensor) -> Mapping[str, float]:
        return super().score(summaries, instrument_cells(targets, self.grid))
