"""Objectives on logits. Each returns a scalar, is differentiable, and does not wait for the device."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hw6core.dice import Overlap, smooth_dice, softmax_overlap


class DiceLoss(nn.Module):
    """One minus the soft Dice score of softmax probabilities, mean over classes (Milletari et al. 2016).

    Args:
        smoothing: pixels added to numerator and denominator (see `hw6core.dice.smooth_dice`): an absent class costs
            nothing unless it is predicted. Larger values penalize small false positives less.
        pool: ``"frame"`` scores each frame, then averages: the value does not depend on the batching.
            ``"batch"`` counts the whole batch as one frame: the gradient of rare classes is less noisy.
        absent: ``"course"`` averages over all classes, as course Dice does: an absent class scores 1 if it is not
            predicted. ``"ignore"`` averages over the classes that occur in the target of the frame or batch, as
            present Dice does: batches without a rare class do not teach the network to never predict it.

    Shapes:
        logits (N, C, H, W) floating, target (N, H, W) classes in [0, C), of any integer type or bool -> scalar in
        [0, 1], 0 for a perfect prediction. Computed in float32 at least, also under autocast: sums of 80,000 bf16
        terms are not exact.

    Raises:
        ValueError: an argument is out of range, or as for `hw6core.dice.softmax_overlap`; a class outside [0, C) on a
            GPU gives NaN.

    >>> target = torch.tensor([[[0, 1], [1, 1]]])
    >>> logits = 100.0 * torch.nn.functional.one_hot(target, 2).permute(0, 3, 1, 2)
    >>> DiceLoss()(logits, target)
    tensor(0.)
    """

    def __init__(
        self,
        smoothing: float = 1.0,
        pool: Literal["frame", "batch"] = "frame",
        absent: Literal["course", "ignore"] = "course",
    ) -> None:
        super().__init__()
        if smoothing <= 0:
            raise ValueError(f"smoothing is {smoothing}; expected more than 0, or an absent class divides by zero")
        if pool not in ("frame", "batch"):
            raise ValueError(f"pool={pool!r}; expected 'frame' or 'batch'")
        if absent not in ("course", "ignore"):
            raise ValueError(f"absent={absent!r}; expected 'course' or 'ignore'")
        self.smoothing = smoothing
        self.pool = pool
        self.absent = absent

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        # Type and memory layout in one pass; the network's outputs may be channels last.
        dtype = torch.promote_types(logits.dtype, torch.float32)
        overlap = softmax_overlap(logits.to(dtype, memory_format=torch.contiguous_format), target)
        if self.pool == "batch":
            overlap = Overlap(*(count.sum(0) for count in overlap))
        scores = smooth_dice(overlap, self.smoothing)
        if self.absent == "ignore":
            present = overlap.target > 0
            scores = (scores * present).sum(-1) / present.sum(-1)
        return 1 - scores.mean()


def squared_error(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean squared error over all elements; any equal shapes, computed in float32 at least.

    >>> squared_error(torch.tensor([1.0, 3.0]), torch.tensor([1.0, 1.0]))
    tensor(2.)
    """
    return F.mse_loss(prediction.float(), target.float())


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """logits (N, C), labels (N,) int64 -> mean cross-entropy, computed in float32 at least.

    >>> cross_entropy(torch.zeros(1, 4), torch.tensor([2]))  # the logarithm of 4
    tensor(1.3863)
    """
    return F.cross_entropy(logits.float(), labels)


def binary_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Independent binary labels: logits (N, L), labels (N, L) in {0, 1} -> mean cross-entropy, float32 at least.

    >>> binary_cross_entropy(torch.zeros(1, 2), torch.tensor([[0, 1]]))  # the logarithm of 2
    tensor(0.6931)
    """
    return F.binary_cross_entropy_with_logits(logits.float(), labels.float())
