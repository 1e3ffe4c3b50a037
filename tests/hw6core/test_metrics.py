"""Scores worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from hw6core.metrics import accuracy, confusion_matrix, majority_class, segmentation_scores

# Three frames of 1x4 pixels, classes 0 to 3; class 3 is neither present nor predicted.
#           target     prediction
# frame 0:  0 0 1 1    0 1 1 1
# frame 1:  0 1 2 2    0 0 2 0
# frame 2:  0 0 0 0    0 0 0 1
TARGET = torch.tensor([[[0, 0, 1, 1]], [[0, 1, 2, 2]], [[0, 0, 0, 0]]])
ANSWER = torch.tensor([[[0, 1, 1, 1]], [[0, 0, 2, 0]], [[0, 0, 0, 1]]])


def test_segmentation_scores_worked_out_by_hand() -> None:
    scores = segmentation_scores(ANSWER, TARGET, 4)

    # Dice, course rule (present: the first values of each frame, without those of absent classes):
    # frame 0: 2*1/(2+1) = 2/3, 2*2/(2+3) = 4/5, absent 1, absent 1
    # frame 1: 2*1/(1+3) = 1/2, 2*0/(1+0) = 0, 2*1/(2+1) = 2/3, absent 1
    # frame 2: 2*3/(4+3) = 6/7, absent but predicted 0, absent 1, absent 1
    present = [(2 / 3 + 4 / 5) / 2, (1 / 2 + 0 + 2 / 3) / 3, 6 / 7]
    course = [(2 / 3 + 4 / 5 + 2) / 4, (1 / 2 + 0 + 2 / 3 + 1) / 4, (6 / 7 + 0 + 2) / 4]
    assert scores.course_dice == pytest.approx(sum(course) / 3)
    assert scores.present_dice == pytest.approx(sum(present) / 3)
    assert scores.frame_present_dice == pytest.approx(present)
    # IoU without background: frame 0: 2/3; frame 1: class 1 0/1, class 2 1/2; frame 2 shows only background
    assert scores.challenge_iou == pytest.approx((2 / 3 + (0 + 1 / 2) / 2) / 2)
    # frame 0: 3 of 4, frame 1: 2 of 4, frame 2: 3 of 4
    assert scores.pixel_accuracy == pytest.approx(8 / 12)
    # class 0: t=7 p=1+3+3 i=1+1+3, 10/14; class 1: t=3 p=3+0+1 i=2, 4/7; class 2: t=2 p=1 i=1, 2/3; class 3: nothing
    assert scores.pooled_dice == pytest.approx((10 / 14, 4 / 7, 2 / 3, math.nan), nan_ok=True)
    assert scores.support_frames == (3, 2, 1, 0)


def test_scores_of_hundreds_of_frames_keep_their_order() -> None:
    """Frame n of 230 has one class, predicted for n + 1 of 230 pixels: Dice 2 (n + 1) / (n + 231)."""
    answer = (torch.arange(230) <= torch.arange(230).unsqueeze(1)).long().unsqueeze(1)
    scores = segmentation_scores(answer, torch.ones_like(answer), 3)
    assert scores.frame_present_dice == pytest.approx([2 * (n + 1) / (n + 231) for n in range(230)])


def test_a_class_that_is_predicted_and_never_present() -> None:
    scores = segmentation_scores(torch.tensor([[[0, 1]]]), torch.tensor([[[0, 0]]]), 2)
    assert scores.pooled_dice == pytest.approx((2 / 3, 0))
    assert scores.support_frames == (1, 0)
    assert math.isnan(scores.challenge_iou)  # no frame has an instrument


@pytest.mark.parametrize(("answers", "truth"), [((3,), (4,)), ((4, 1), (4,)), ((0,), (0,))])
def test_accuracy_of_different_or_empty_shapes_is_an_error(answers: tuple[int], truth: tuple[int]) -> None:
    with pytest.raises(ValueError, match="of the same shape with at least one element"):
        accuracy(torch.zeros(answers, dtype=torch.int64), torch.zeros(truth, dtype=torch.int64))


LABELS = torch.tensor([0, 1, 1])


@pytest.mark.parametrize("wrong", [F.one_hot(LABELS), LABELS.float()], ids=["one-hot", "float"])
def test_invalid_labels_are_an_error(wrong: Tensor) -> None:
    for call in (lambda: confusion_matrix(wrong, wrong, 2), lambda: majority_class(wrong, 2)):
        with pytest.raises(ValueError, match=r"expected \(N,\) integers"):
            call()
    with pytest.raises(ValueError, match=r"cannot compare predictions \(3,\) torch.float32 .* logits.argmax\(1\)"):
        accuracy(LABELS.float(), LABELS)


def test_confusion_matrix_has_targets_in_rows() -> None:
    matrix = confusion_matrix(torch.tensor([0, 1, 1, 2, 2, 2]), torch.tensor([0, 0, 1, 1, 1, 2]), 4)
    assert matrix.tolist() == [[1, 1, 0, 0], [0, 1, 2, 0], [0, 0, 1, 0], [0, 0, 0, 0]]


def test_majority_class_is_the_most_frequent_label() -> None:
    assert majority_class(torch.tensor([3, 1, 3, 0, 1, 3]), 5) == 3
    assert majority_class(torch.tensor([2, 2, 0], dtype=torch.uint8), 3) == 2
