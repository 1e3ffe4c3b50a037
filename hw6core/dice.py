"""Overlap counts and the rules for absent classes: the only Dice arithmetic of this project.

For frame n and class c let t be the number of target pixels, p of predicted pixels and i of pixels that are both. The
score is ``2 i / (t + p)`` (Dice 1945; Milletari et al. 2016 for the soft form). The loss and every score are computed
from an `Overlap`; they differ in what they count (probabilities or predicted classes) and in how they average.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from hw6core.device import double

Absent = Literal["course", "ignore", "zero"]
_FRAMES_AT_ONCE = 100  # counting takes up to sixteen times the memory of the masks
# Types with little support in torch -> a supported type that holds the same classes.
_WIDER = {torch.bool: torch.uint8, torch.uint16: torch.int32, torch.uint32: torch.int64, torch.uint64: torch.int64}


class Overlap(NamedTuple):
    """Pixels per frame and class, each (N, C): int64 for class masks, floating for probabilities."""

    both: Tensor
    predicted: Tensor
    target: Tensor


def confusion_counts(prediction: Tensor, target: Tensor, num_classes: int) -> Tensor:
    """Count every pair of target class and predicted class.

    Args:
        prediction, target: (N, H, W) classes in [0, num_classes), of any integer type or bool.
        num_classes: C.

    Returns:
        (N, C, C) int64; ``[n, t, p]`` is the number of pixels of frame n with target class t and predicted class p.

    Raises:
        ValueError: not (N, H, W), shapes differ, no pixels, a floating type, or a class outside [0, num_classes).

    >>> confusion_counts(torch.tensor([[[0, 1]]]), torch.tensor([[[1, 1]]]), num_classes=2)  # rows: target
    tensor([[[0, 0],
             [1, 1]]])
    """
    prediction, target = _masks("prediction", prediction), _masks("target", target)
    if prediction.shape != target.shape:
        raise ValueError(
            f"prediction has shape {tuple(prediction.shape)}, target {tuple(target.shape)}; expected the same"
        )
    _check_classes("prediction", prediction, num_classes)
    _check_classes("target", target, num_classes)
    frames, kinds = len(target), num_classes**2
    dtype = torch.uint8 if kinds <= 256 else torch.int64
    counts = []
    for chunk, predicted in zip(target.split(_FRAMES_AT_ONCE), prediction.split(_FRAMES_AT_ONCE), strict=True):
        pairs = chunk.flatten(1).to(dtype) * num_classes
        pairs += predicted.flatten(1).to(dtype)
        counts.append(_histograms(pairs, kinds))
    return torch.cat(counts).view(frames, num_classes, num_classes)


def _histograms(values: Tensor, bins: int) -> Tensor:
    """(N, X) integers in [0, bins), overwritten -> (N, bins) int64: the histogram of each row."""
    rows = len(values)
    if values.device.type != "cpu" or values.dtype != torch.uint8:  # one kernel for all rows
        offsets = torch.arange(rows, device=values.device).unsqueeze(1) * bins
        return torch.bincount((values.long() + offsets).flatten(), minlength=rows * bins).view(rows, bins)
    # Neighbouring pixels mostly hold the same value, and each increment of a bin must wait for the one before it.
    # Consecutive pixels therefore use different copies of the bins, as many as a byte can number.
    copies = 256 // bins
    lanes = (torch.arange(copies) * bins).to(torch.uint8).repeat(-(-values.shape[1] // copies))[: values.shape[1]]
    values += lanes
    counts = torch.stack([torch.bincount(row, minlength=256) for row in values])
    return counts[:, : copies * bins].view(rows, copies, bins).sum(1)


def softmax_overlap(logits: Tensor, target: Tensor) -> Overlap:
    """Sum the target, predicted and common pixels of each class of each frame, weighted by the class probabilities.

    The sums are accurate to the precision of the result, for any number of pixels.

    Args:
        logits: (N, C, H, W) floating.
        target: (N, H, W) classes in [0, C), of any integer type or bool.

    Returns:
        An `Overlap` of (N, C) tensors, differentiable once with respect to the logits; does not wait for a GPU.

    Raises:
        ValueError: shapes do not match, a floating target, or, on the CPU, a class outside [0, C). On a GPU, where
            the check would have to wait, the sums of such a frame are NaN.

    >>> overlap = softmax_overlap(torch.zeros(1, 2, 1, 4), torch.tensor([[[0, 1, 1, 1]]]))
    >>> overlap.both, overlap.predicted, overlap.target
    (tensor([[0.5000, 1.5000]]), tensor([[2., 2.]]), tensor([[1., 3.]]))
    """
    if logits.ndim != 4:
        hint = "; for one frame pass logits[None]" if logits.ndim == 3 else ""
        raise ValueError(f"logits have shape {tuple(logits.shape)}; expected (N, C, H, W){hint}")
    classes = _masks("target", target)
    if logits.shape[:1] + logits.shape[2:] != target.shape:
        expected = (len(logits), *logits.shape[2:])
        raise ValueError(f"target has shape {tuple(target.shape)}, expected {tuple(expected)} for these logits")
    if logits.device.type != "cpu":
        return _masked_overlap(logits.flatten(2), classes.flatten(1))
    _check_classes("target", classes, logits.shape[1])
    classes = classes.flatten(1).long()
    both, predicted = _SoftmaxOverlap.apply(logits.flatten(2), classes)
    return Overlap(both, predicted, _pixels_of_classes(classes, logits.shape[1]).to(logits.dtype))


def _masked_overlap(logits: Tensor, classes: Tensor) -> Overlap:
    """`softmax_overlap` of (N, C, X) logits and (N, X) classes on a GPU: few kernels, deterministic sums."""
    onehot = classes.unsqueeze(1) == torch.arange(logits.shape[1], device=classes.device).view(-1, 1)  # (N, C, X)
    probabilities = logits.softmax(1)
    both, predicted, target = (probabilities * onehot).sum(2), probabilities.sum(2), onehot.sum(2)
    unknown = target.sum(1, keepdim=True) != classes.shape[1]  # a class outside [0, C) is in no sum
    return Overlap(both.masked_fill(unknown, torch.nan), predicted, target.to(logits.dtype))


def _pixels_of_classes(classes: Tensor, num_classes: int) -> Tensor:
    """(N, X) int64 classes -> (N, C) int64: number of pixels of each class; does not wait for a GPU."""
    if classes.device.type != "cpu":
        return torch.stack([(classes == number).sum(1) for number in range(num_classes)], 1)
    return _histograms(classes.to(torch.uint8) if num_classes <= 256 else classes, num_classes)


class _SoftmaxOverlap(torch.autograd.Function):
    """(N, C, X) logits and (N, X) target classes -> (N, C) sums of the probability of each class: over its target
    pixels, and over all pixels.

    For CPUs, where one-hot masks take twice the time. The explicit gradient needs fewer passes over full-size tensors.
    With p the probabilities, t the target, a and b the gradients of the two sums for frame and class, the gradient of
    p_c is ``b_c + [t = c] a_c``, and that of the logits ``p_c (b_c - s) + [t = c] p_t a_t`` with
    ``s = sum_k p_k b_k + p_t a_t``.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        probabilities = logits.softmax(1)
        p_target = probabilities.gather(1, classes.unsqueeze(1)).squeeze(1)  # (N, X)
        ctx.save_for_backward(probabilities, classes, p_target)
        # scatter_add_ adds one by one: in float32 the sum over a million pixels would be off by a thousandth.
        both = logits.new_zeros(logits.shape[:2], dtype=torch.float64).scatter_add_(1, classes, p_target.double())
        return both.to(logits.dtype), probabilities.sum(2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_both: Tensor, grad_predicted: Tensor) -> tuple[Tensor, None]:
        probabilities, classes, p_target = ctx.saved_tensors
        on_target = p_target * grad_both.gather(1, classes)  # (N, X): p_t a_t
        s = torch.baddbmm(on_target.unsqueeze(1), grad_predicted.unsqueeze(1), probabilities)  # (N, 1, X)
        gradient = (grad_predicted.unsqueeze(2) - s).mul_(probabilities)
        return gradient.scatter_add_(1, classes.unsqueeze(1), on_target.unsqueeze(1)), None


def overlap_of(counts: Tensor) -> Overlap:
    """The diagonal and the margins of `confusion_counts`.

    >>> overlap_of(torch.tensor([[[0, 0], [1, 1]]]))
    Overlap(both=tensor([[0, 1]]), predicted=tensor([[1, 1]]), target=tensor([[0, 2]]))
    """
    return Overlap(counts.diagonal(dim1=1, dim2=2), counts.sum(1), counts.sum(2))


def smooth_dice(overlap: Overlap, smoothing: float) -> Tensor:
    """``(2 both + smoothing) / (predicted + target + smoothing)``, in the shape of the counts.

    The same term in numerator and denominator: a class that is absent and not predicted scores 1, false positives of
    an absent class lower the score (and have a gradient), and no score exceeds 1.

    >>> smooth_dice(Overlap(torch.tensor([1.0]), torch.tensor([1.0]), torch.tensor([2.0])), smoothing=1.0)
    tensor([0.7500])
    """
    return (2 * overlap.both + smoothing) / (overlap.predicted + overlap.target + smoothing)


def dice_of_counts(overlap: Overlap, absent: Absent = "course") -> Tensor:
    """Dice score, float64, of counts in any shape; ``absent`` as in `dice_per_class`.

    Raises:
        ValueError: the rule is unknown.

    >>> dice_of_counts(overlap_of(torch.tensor([[[0, 0], [1, 1]]])))
    tensor([[0.0000, 0.6667]], dtype=torch.float64)
    """
    if absent not in get_args(Absent):
        raise ValueError(f"absent={absent!r} is not a rule for absent classes; known: {', '.join(get_args(Absent))}")
    both, predicted, target = map(double, overlap)
    score = 2 * both / (predicted + target).clamp(min=1)  # absent from both: 0 / 1, replaced below
    if absent == "course":
        return torch.where((target == 0) & (predicted == 0), 1.0, score)
    return torch.where(target == 0, torch.nan if absent == "ignore" else 0.0, score)


def dice_per_class(prediction: Tensor, target: Tensor, num_classes: int, absent: Absent = "course") -> Tensor:
    """Dice score of each class of each frame.

    Args:
        prediction, target: (N, H, W) classes in [0, num_classes), of any integer type or bool.
        num_classes: C.
        absent: the score of a class that is absent from the target. ``"course"``, the assignment's rule: 1 if it was
            not predicted either, else 0. ``"ignore"``: NaN. ``"zero"``: 0.

    Returns:
        (N, C) float64 in [0, 1] or NaN.

    Raises:
        ValueError: the rule is unknown, or as for `confusion_counts`.

    >>> preds, target = torch.tensor([[[0, 1, 1]]]), torch.tensor([[[0, 0, 1]]])
    >>> dice_per_class(preds, target, num_classes=3)
    tensor([[0.6667, 0.6667, 1.0000]], dtype=torch.float64)
    >>> dice_per_class(preds, target, num_classes=3, absent="ignore")
    tensor([[0.6667, 0.6667,    nan]], dtype=torch.float64)
    """
    return dice_of_counts(overlap_of(confusion_counts(prediction, target, num_classes)), absent)


def mean_dice(prediction: Tensor, target: Tensor, num_classes: int, absent: Absent = "course") -> float:
    """Mean over the classes of each frame (without NaN), then over frames: all frames have the same weight.

    Arguments and errors as for `dice_per_class`. With ``absent="course"`` this is the course Dice, with
    ``absent="ignore"`` the present Dice.

    >>> mean_dice(torch.tensor([[[0, 1, 1]]]), torch.tensor([[[0, 0, 1]]]), num_classes=2)
    0.6666666666666666
    """
    return mean_over_frames(dice_per_class(prediction, target, num_classes, absent))


def mean_over_frames(per_class: Tensor) -> float:
    """(N, C) scores -> mean over classes, then over frames; NaN scores, and frames with no other, are ignored.

    >>> mean_over_frames(torch.tensor([[1.0, 0.5], [0.5, torch.nan]]))
    0.625
    """
    return float(per_class.nanmean(1).nanmean())


def drop_small_classes(prediction: Tensor, num_classes: int, minimum_pixels: int) -> Tensor:
    """Replace each class that covers fewer than ``minimum_pixels`` of a frame by background (class 0).

    Under the course rule one stray pixel of an absent class costs the whole score of that class; no instrument is that
    small. (N, H, W) integer -> the same shape and type.

    Raises:
        ValueError: not (N, H, W), or a floating type.

    >>> drop_small_classes(torch.tensor([[[0, 0, 1, 2, 2]]]), num_classes=3, minimum_pixels=2)
    tensor([[[0, 0, 0, 2, 2]]])
    """
    dropped = torch.empty_like(prediction)
    masks = _masks("prediction", prediction)
    for frames, destination in zip(masks.split(_FRAMES_AT_ONCE), dropped.split(_FRAMES_AT_ONCE), strict=True):
        destination.copy_(torch.where(_in_large_classes(frames, num_classes, minimum_pixels), frames, 0))
    return dropped


def _in_large_classes(frames: Tensor, num_classes: int, minimum_pixels: int) -> Tensor:
    """(N, H, W) classes -> (N, H, W) bool: pixels whose class has at least ``minimum_pixels`` in the frame."""
    classes = frames.flatten(1).long()
    large = _pixels_of_classes(classes, num_classes) >= minimum_pixels  # (N, C)
    return large.gather(1, classes).view(frames.shape)


_HINTS = {
    1: "; for flattened masks pass {name}.view(N, H, W)",
    2: "; for one mask pass {name}[None], for flattened ones {name}.view(N, H, W)",
    4: "; for one-hot masks pass {name}.argmax(1), for masks with one channel {name}.squeeze(1)",
}


def _masks(name: str, masks: Tensor) -> Tensor:
    """Check for (N, H, W) masks of an integer type; returns them in a type that torch computes with."""
    if masks.is_floating_point() or masks.is_complex():
        raise ValueError(f"{name} is {masks.dtype}; expected integer classes, for instance logits.argmax(1)")
    if masks.ndim != 3:
        hint = _HINTS.get(masks.ndim, "").format(name=name)
        raise ValueError(f"{name} has shape {tuple(masks.shape)}; expected (N, H, W){hint}")
    return masks.to(_WIDER.get(masks.dtype, masks.dtype))


def _check_classes(name: str, classes: Tensor, num_classes: int) -> None:
    """Raise ValueError for masks without a pixel or with a class outside [0, num_classes)."""
    if classes.numel() == 0:
        raise ValueError(f"nothing to score: the {name} has shape {tuple(classes.shape)}")
    low, high = (int(limit) for limit in classes.aminmax())
    if low < 0 or high >= num_classes:
        raise ValueError(f"{name} holds classes {low} to {high}; expected 0 to {num_classes - 1}")
