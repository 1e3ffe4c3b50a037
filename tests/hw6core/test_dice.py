"""Dice: masks worked out by hand, background on the real data, independent implementations."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from monai.metrics.meandice import compute_dice
from torch import Tensor
from torch.nn import functional as F

from hw6core import dice
from hw6core.data import load_endovis
from hw6core.dice import (
    Absent,
    Overlap,
    confusion_counts,
    dice_per_class,
    drop_small_classes,
    mean_dice,
    mean_over_frames,
    softmax_overlap,
)
from hw6core.losses import DiceLoss

NAN = math.nan
RULES: tuple[Absent, ...] = ("course", "ignore", "zero")


class Case(NamedTuple):
    """One frame of classes 0, 1, 2 and its scores per class under each rule."""

    prediction: list[list[int]]
    target: list[list[int]]
    course: list[float]
    ignore: list[float]
    zero: list[float]


# dice = 2 i / (t + p), with t target pixels, p predicted ones, i both.
CASES = {
    # class 0: 2*3/(3+3); class 1: 2*2/(2+2); class 2: 2*1/(1+1)
    "perfect": Case([[0, 0, 1], [0, 2, 1]],
                    [[0, 0, 1], [0, 2, 1]], [1, 1, 1], [1, 1, 1], [1, 1, 1]),
    # every class: 2*0/(2+2)
    "disjoint": Case([[1, 1, 2], [2, 0, 0]],
                     [[0, 0, 1], [1, 2, 2]], [0, 0, 0], [0, 0, 0], [0, 0, 0]),
    # class 0: t=2 p=2 i=1, 2*1/4; class 1: t=2 p=2 i=1, 2*1/4; class 2: t=2 p=2 i=2
    "half": Case([[0, 1, 1], [0, 2, 2]],
                 [[0, 0, 1], [1, 2, 2]], [1 / 2, 1 / 2, 1], [1 / 2, 1 / 2, 1], [1 / 2, 1 / 2, 1]),
    # classes 0 and 2: t=0 p=0; class 1: 2*1/(1+1)
    "one pixel, found": Case([[1]], [[1]], [1, 1, 1], [NAN, 1, NAN], [0, 1, 0]),
    # class 0: t=0 p=1; class 1: t=1 p=0, 2*0/(1+0); class 2: t=0 p=0
    "one pixel, missed": Case([[0]], [[1]], [0, 0, 1], [NAN, 0, NAN], [0, 0, 0]),
    # class 0: t=2 p=3 i=2, 4/5; class 1: t=2 p=1 i=1, 2/3; class 2: t=0 p=0
    "absent and not predicted": Case([[0, 0], [0, 1]],
                                     [[0, 0], [1, 1]], [4 / 5, 2 / 3, 1], [4 / 5, 2 / 3, NAN], [4 / 5, 2 / 3, 0]),
    # class 0: t=2 p=2 i=1, 2/4; class 1: t=2 p=1 i=1, 2/3; class 2: t=0 p=1
    "absent and predicted": Case([[0, 2], [0, 1]],
                                 [[0, 0], [1, 1]], [1 / 2, 2 / 3, 0], [1 / 2, 2 / 3, NAN], [1 / 2, 2 / 3, 0]),
    # class 0: t=6 p=5 i=5, 10/11; class 1: t=0 p=1; class 2: t=0 p=0
    "only background shown, one stray pixel": Case([[0, 0, 0], [0, 1, 0]],
                                                   [[0, 0, 0], [0, 0, 0]], [10 / 11, 0, 1], [10 / 11, NAN, NAN],
                                                   [10 / 11, 0, 0]),
}  # fmt: skip


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_dice_of_masks_worked_out_by_hand(case: Case, rule: Absent) -> None:
    expected: list[float] = getattr(case, rule)
    prediction, target = torch.tensor([case.prediction]), torch.tensor([case.target])
    scores = dice_per_class(prediction, target, 3, rule)
    assert scores.dtype == torch.float64
    assert scores.tolist() == [pytest.approx(expected, abs=1e-12, nan_ok=True)]
    shown = [value for value in expected if not math.isnan(value)]
    assert mean_dice(prediction, target, 3, rule) == pytest.approx(sum(shown) / len(shown), abs=1e-12)


def test_mean_ignores_nan_classes_and_frames_with_no_other() -> None:
    per_class = torch.tensor([[1.0, NAN, 0.0], [NAN, NAN, NAN], [0.25, NAN, NAN]])
    assert mean_over_frames(per_class) == (0.5 + 0.25) / 2  # not (1 + 0 + 0.25) / 3


INTEGERS = ["bool", "uint8", "int8", "int16", "int32", "int64", "uint16", "uint32", "uint64"]


@pytest.mark.parametrize("dtype", INTEGERS)
def test_masks_of_every_integer_type_score_the_same(dtype: str) -> None:
    kind: torch.dtype = getattr(torch, dtype)
    largest = {"bool": 1, "int8": 127}.get(dtype, 200)  # as bytes, 200 * 201 + 200 would overflow
    target, answer = torch.tensor([[[0, 1, largest, largest]]]), torch.tensor([[[0, 1, largest, 0]]])
    classes = largest + 1
    logits = F.one_hot(answer, classes).permute(0, 3, 1, 2).float()
    for ours in (answer, answer.to(kind)):
        scores = dice_per_class(ours, target.to(kind), classes)
        assert torch.equal(scores, dice_per_class(answer, target, classes))
    assert scores[0, 0] == 2 / 3
    assert torch.equal(drop_small_classes(answer.to(kind), classes, 2), drop_small_classes(answer, classes, 2).to(kind))
    assert torch.equal(DiceLoss()(logits, target.to(kind)), DiceLoss()(logits, target))


def test_drop_small_classes_predicts_background_below_the_minimum() -> None:
    prediction = torch.tensor([[[1, 1, 2], [1, 0, 0]], [[2, 2, 2], [1, 1, 0]]], dtype=torch.uint8)
    dropped = drop_small_classes(prediction, 3, 3)  # frame 0 keeps class 1 (3 pixels), frame 1 class 2
    assert dropped.tolist() == [[[1, 1, 0], [1, 0, 0]], [[2, 2, 2], [0, 0, 0]]]
    assert dropped.dtype == torch.uint8
    assert torch.equal(drop_small_classes(prediction, 3, 0), prediction)


def indicator(masks: Tensor, num_classes: int = 6) -> Tensor:
    return F.one_hot(masks, num_classes).permute(0, 3, 1, 2)


MASK = torch.zeros(2, 3, 4, dtype=torch.int64)
LOGITS = torch.zeros(2, 3, 3, 4)
INVALID = [
    (MASK, MASK[:, :2], r"prediction has shape \(2, 3, 4\), target \(2, 2, 4\)"),
    (MASK, MASK[:1], "expected the same"),
    (MASK + 3, MASK, "prediction holds classes 3 to 3; expected 0 to 2"),
    (MASK, MASK - 1, "target holds classes -1 to -1; expected 0 to 2"),
    (LOGITS, MASK, "expected integer classes"),
    (MASK, MASK.float(), "target is torch.float32; expected integer classes"),
    (MASK[:, :0], MASK[:, :0], "nothing to score"),
    (MASK[:0], MASK[:0], "nothing to score"),
]
# Common mistakes instead of (N, H, W), and the hint in the error message.
FORMS = [
    (MASK[0], r"expected \(N, H, W\).*{}\[None\]"),
    (MASK.flatten(), r"expected \(N, H, W\).*{}.view\(N, H, W\)"),
    (MASK.flatten(1), r"expected \(N, H, W\).*{}.view\(N, H, W\)"),
    (indicator(MASK, 3), r"expected \(N, H, W\).*{}.argmax\(1\)"),
    (MASK.unsqueeze(1), r"expected \(N, H, W\).*{}.squeeze\(1\)"),
]


@pytest.mark.parametrize(
    ("prediction", "target", "message"),
    [*INVALID, *((masks, masks, hint.format("prediction")) for masks, hint in FORMS)],
)
def test_invalid_masks_are_an_error(prediction: Tensor, target: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mean_dice(prediction, target, 3)


@pytest.mark.parametrize(
    ("logits", "target", "message"),
    [
        *((LOGITS, masks, hint.format("target")) for masks, hint in FORMS),
        (LOGITS[0], MASK[:1], r"pass logits\[None\]"),
        (LOGITS, MASK[:1], r"target has shape \(1, 3, 4\), expected \(2, 3, 4\)"),
        (LOGITS, MASK.float(), "target is torch.float32; expected integer classes"),
        (LOGITS, MASK + 255, "target holds classes 255 to 255; expected 0 to 2"),
        (LOGITS, MASK - 1, "target holds classes -1 to -1; expected 0 to 2"),
    ],
)
def test_targets_that_do_not_match_the_logits_are_an_error(logits: Tensor, target: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DiceLoss()(logits, target)


def test_an_unknown_rule_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"absent='skip' is not a rule .* course, ignore, zero"):
        dice_per_class(MASK, MASK, 3, "skip")  # type: ignore[arg-type]


@pytest.mark.parametrize(("split", "course", "present", "zero"), [("test", 0.762, 0.343, 0.115),
                                                                  ("validation", 0.782, 0.360, 0.114)])  # fmt: skip
def test_predicting_background_everywhere_on_real_data(
    real_data: Path, split: str, course: float, present: float, zero: float
) -> None:
    masks = load_endovis(real_data, split).masks
    scores = [round(mean_dice(torch.zeros_like(masks), masks, 8, rule), 3) for rule in RULES]
    assert scores == [course, present, zero]


def random_masks(seed: int, num_classes: int = 6) -> tuple[Tensor, Tensor]:
    """12 frames, each with only some of the classes in prediction and target."""
    source = torch.Generator().manual_seed(seed)
    pair = []
    for _ in range(2):
        shown = torch.randint(0, num_classes, (12, 3), generator=source)  # at most 3 classes a frame
        pair.append(shown.gather(1, torch.randint(0, 3, (12, 7 * 9), generator=source)).view(12, 7, 9))
    return pair[0], pair[1]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("rule", "ignore_empty"), [("course", False), ("ignore", True)])
def test_dice_agrees_with_monai(rule: Absent, ignore_empty: bool, seed: int) -> None:
    prediction, target = random_masks(seed)
    theirs = compute_dice(indicator(prediction), indicator(target), include_background=True, ignore_empty=ignore_empty)
    ours = dice_per_class(prediction, target, 6, rule)
    torch.testing.assert_close(ours, theirs.double(), rtol=0, atol=1e-6, equal_nan=True)


@pytest.mark.parametrize(("num_classes", "pixels"), [(2, 7), (3, 1), (8, 101), (11, 64), (16, 50), (17, 50), (40, 33)])
def test_confusion_counts_for_any_number_of_classes(num_classes: int, pixels: int) -> None:
    draws = torch.Generator().manual_seed(num_classes)
    prediction, target = (torch.randint(0, num_classes, (3, 1, pixels), generator=draws) for _ in range(2))
    expected = torch.zeros(3, num_classes, num_classes, dtype=torch.int64)
    for frame in range(3):
        for answered, shown in zip(prediction[frame, 0].tolist(), target[frame, 0].tolist(), strict=True):
            expected[frame, shown, answered] += 1
    assert torch.equal(confusion_counts(prediction, target, num_classes), expected)


def masked_overlap(logits: Tensor, target: Tensor) -> Overlap:
    """The implementation of `softmax_overlap` for GPUs, on the CPU."""
    return dice._masked_overlap(logits.flatten(2), target.flatten(1))


@pytest.mark.parametrize("function", [softmax_overlap, masked_overlap])
@pytest.mark.parametrize("num_classes", [1, 2, 8, 300])
def test_softmax_overlap_and_its_gradient_match_the_definition(
    num_classes: int, function: Callable[[Tensor, Tensor], Overlap]
) -> None:
    draws = torch.Generator().manual_seed(0)
    values = torch.randn(2, num_classes, 5, 6, generator=draws, dtype=torch.float64)
    target = torch.randint(0, num_classes, (2, 5, 6), generator=draws)
    weights = torch.randn(3, 2, num_classes, generator=draws, dtype=torch.float64)
    fused, plain = (values.clone().requires_grad_(True) for _ in range(2))
    shown, probabilities = F.one_hot(target, num_classes).permute(0, 3, 1, 2).double(), plain.softmax(1)
    defined = Overlap(*(part.sum((2, 3)) for part in (probabilities * shown, probabilities, shown)))
    overlaps = function(fused, target), defined
    for overlap in overlaps:
        # An arbitrary nonlinear function of all sums.
        sum((w * count**2).sum() for w, count in zip(weights, overlap, strict=True)).backward()
    for one, other in zip(*overlaps, strict=True):
        torch.testing.assert_close(one, other)
    torch.testing.assert_close(fused.grad, plain.grad)


def test_a_class_out_of_range_gives_nan_on_a_gpu() -> None:
    target = MASK.clone()
    target[1, 0, 0] = 255
    overlap = masked_overlap(LOGITS, target)
    assert overlap.both.isnan().tolist() == [[False] * 3, [True] * 3]
