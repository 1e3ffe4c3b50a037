"""Scores of predictions, as pure functions; Dice itself is in `hw6core.dice`."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hw6core.device import double
from hw6core.dice import Overlap, confusion_counts, dice_of_counts, mean_over_frames, overlap_of


@dataclass(frozen=True)
class SegmentationScores:
    """Scores of a segmentation on a split; all values in [0, 1].

    Attributes:
        course_dice: the assignment's rule: an absent class scores 1 if it was not predicted, else 0.
        present_dice: mean over the classes that are present in a frame.
        challenge_iou: intersection over union, mean over the classes present except background, then over frames
            (EndoVis 2017, Allan et al. 2019); frames with only background are ignored.
        pixel_accuracy: share of correct pixels.
        pooled_dice: Dice of each class over all pixels of the split; NaN for a class neither present nor predicted.
        support_frames: for each class, the number of frames whose target contains it.
        frame_present_dice: present Dice of each frame.
    """

    course_dice: float
    present_dice: float
    challenge_iou: float
    pixel_accuracy: float
    pooled_dice: tuple[float, ...]
    support_frames: tuple[int, ...]
    frame_present_dice: tuple[float, ...]


def segmentation_scores(prediction: Tensor, target: Tensor, num_classes: int) -> SegmentationScores:
    """All segmentation scores of (N, H, W) integer predictions and targets, from one count.

    Raises:
        ValueError: as for `hw6core.dice.confusion_counts`.

    >>> scores = segmentation_scores(torch.tensor([[[0, 1, 1]]]), torch.tensor([[[0, 0, 1]]]), num_classes=3)
    >>> round(scores.course_dice, 4), round(scores.present_dice, 4), scores.challenge_iou
    (0.7778, 0.6667, 0.5)
    """
    counts = confusion_counts(prediction, target, num_classes)
    if counts.device.type == "mps":  # see `double`
        counts = counts.cpu()
    overlap = overlap_of(counts)
    present = dice_of_counts(overlap, "ignore")
    pooled = Overlap(*(count.sum(0) for count in overlap))
    pooled_dice = torch.where(pooled.predicted + pooled.target == 0, torch.nan, dice_of_counts(pooled))
    iou = overlap.both.double() / (overlap.predicted + overlap.target - overlap.both)
    iou = torch.where(overlap.target == 0, torch.nan, iou)[:, 1:]
    return SegmentationScores(
        course_dice=mean_over_frames(dice_of_counts(overlap, "course")),
        present_dice=mean_over_frames(present),
        challenge_iou=mean_over_frames(iou),
        pixel_accuracy=float(overlap.both.sum() / counts.sum()),
        pooled_dice=tuple(pooled_dice.tolist()),
        support_frames=tuple((overlap.target > 0).sum(0).tolist()),
        frame_present_dice=tuple(present.nanmean(1).tolist()),
    )


def accuracy(prediction: Tensor, target: Tensor) -> float:
    """Share of equal elements of two integer tensors of the same shape, in [0, 1].

    For binary labels (N, L) this is one minus the Hamming loss.

    Raises:
        ValueError: shapes differ or are empty, or a floating type.

    >>> accuracy(torch.tensor([0, 1, 2, 2]), torch.tensor([0, 1, 2, 0]))
    0.75
    """
    floating = prediction.is_floating_point() or target.is_floating_point()
    if floating or prediction.shape != target.shape or target.numel() == 0:
        one, other = (f"{tuple(labels.shape)} {labels.dtype}" for labels in (prediction, target))
        raise ValueError(
            f"cannot compare predictions {one} with targets {other}; expected integers, for instance "
            "logits.argmax(1), of the same shape with at least one element"
        )
    return float(double(prediction == target).mean())


def confusion_matrix(prediction: Tensor, target: Tensor, num_classes: int) -> Tensor:
    """(N,) integer predictions and targets -> (C, C) int64; rows are targets, columns predictions.

    Raises:
        ValueError: not (N,), or as for `hw6core.dice.confusion_counts`.

    >>> confusion_matrix(torch.tensor([0, 1, 1]), torch.tensor([0, 0, 1]), num_classes=2)
    tensor([[1, 1],
            [0, 1]])
    """
    _check_labels(prediction)
    _check_labels(target)
    return confusion_counts(prediction.view(1, 1, -1), target.view(1, 1, -1), num_classes)[0]


def majority_class(labels: Tensor, num_classes: int) -> int:
    """The most frequent of (N,) integer labels: the constant predictor with the best accuracy.

    Raises:
        ValueError: not (N,), or a floating type.

    >>> majority_class(torch.tensor([2, 0, 2]), num_classes=3)
    2
    """
    _check_labels(labels)
    return int(torch.bincount(labels.long(), minlength=num_classes).argmax())


def _check_labels(labels: Tensor) -> None:
    if labels.ndim != 1 or labels.is_floating_point():
        hint = "; for one-hot labels or logits pass .argmax(1)" if labels.ndim == 2 else ""
        raise ValueError(f"labels have shape {tuple(labels.shape)} and {labels.dtype}; expected (N,) integers{hint}")
