"""The soft Dice loss by hand, by gradient and against MONAI; the other objectives by one literal each."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.losses.dice import DiceLoss as MonaiDiceLoss
from torch import Tensor, nn
from torch.nn import functional as F

from hw6core.dice import mean_dice
from hw6core.losses import DiceLoss, binary_cross_entropy, cross_entropy, squared_error

Pool = Literal["frame", "batch"]
POOLS: tuple[Pool, ...] = ("frame", "batch")


def random_batch(num_classes: int = 4, shown: int = 3) -> tuple[Tensor, Tensor]:
    """Three frames of 5x6 pixels in float64; classes from ``shown`` on are absent."""
    source = torch.Generator().manual_seed(7)
    logits = torch.randn(3, num_classes, 5, 6, dtype=torch.float64, generator=source)
    return logits, torch.randint(0, shown, (3, 5, 6), generator=source)


def certain(answer: Tensor, num_classes: int) -> Tensor:
    """Logits whose softmax is 1 for the answer and 0 elsewhere."""
    return 1000.0 * F.one_hot(answer, num_classes).permute(0, 3, 1, 2)


def test_loss_of_an_undecided_answer_worked_out_by_hand() -> None:
    # Two pixels, both of class 0; every probability 1/2.
    # class 0: both 1, predicted 1, target 2: (2*1 + 1) / (1 + 2 + 1) = 3/4
    # class 1: both 0, predicted 1, target 0: (2*0 + 1) / (1 + 0 + 1) = 1/2
    loss = DiceLoss(smoothing=1.0)(torch.zeros(1, 2, 1, 2), torch.tensor([[[0, 0]]]))

    assert float(loss) == pytest.approx(1 - (3 / 4 + 1 / 2) / 2)


def test_pooled_over_the_batch_worked_out_by_hand() -> None:
    # The frame above, and one with both pixels of class 1. Pooled, for either class: both 1, predicted 2, target 2:
    # (2*1 + 1) / (2 + 2 + 1) = 3/5. Frame by frame either frame costs 3/8 as above.
    logits, target = torch.zeros(2, 2, 1, 2), torch.tensor([[[0, 0]], [[1, 1]]])

    assert float(DiceLoss(pool="batch")(logits, target)) == pytest.approx(2 / 5)
    assert float(DiceLoss(pool="frame")(logits, target)) == pytest.approx(3 / 8)
    assert float(DiceLoss()(logits, target)) == pytest.approx(3 / 8)  # so it is unless told otherwise


def test_smoothing_worked_out_by_hand() -> None:
    # class 0: (2*1 + 10) / (1 + 2 + 10) = 12/13; class 1: (0 + 10) / (1 + 0 + 10) = 10/11
    loss = DiceLoss(smoothing=10)(torch.zeros(1, 2, 1, 2), torch.tensor([[[0, 0]]]))

    assert float(loss) == pytest.approx(1 - (12 / 13 + 10 / 11) / 2)


def test_hard_answer_worked_out_by_hand() -> None:
    # target 0 0 1 1, answer 0 1 1 1, no class 2. Smoothing 1:
    # class 0: (2*1 + 1) / (1 + 2 + 1) = 3/4; class 1: (2*2 + 1) / (3 + 2 + 1) = 5/6; class 2: 1/1
    loss = DiceLoss()(certain(torch.tensor([[[0, 1, 1, 1]]]), 3), torch.tensor([[[0, 0, 1, 1]]]))

    assert float(loss) == pytest.approx(1 - (3 / 4 + 5 / 6 + 1) / 3)


@pytest.mark.parametrize("pool", POOLS)
def test_perfect_answer_costs_nothing_even_with_absent_classes(pool: Pool) -> None:
    _, target = random_batch()

    assert float(DiceLoss(pool=pool)(certain(target, 6), target)) == 0


def test_loss_of_hard_answers_is_one_minus_course_dice() -> None:
    logits, target = random_batch()
    answer = logits.argmax(1)

    loss = float(DiceLoss(smoothing=1e-9)(certain(answer, 4).double(), target))

    assert loss == pytest.approx(1 - mean_dice(answer, target, 4, "course"), abs=1e-8)


@pytest.mark.parametrize("pool", POOLS)
def test_gradient_is_the_derivative(pool: Pool) -> None:
    logits, target = random_batch()

    assert torch.autograd.gradcheck(lambda x: DiceLoss(pool=pool)(x, target), logits.requires_grad_())


@pytest.mark.parametrize("pool", POOLS)
def test_false_positive_of_an_absent_class_is_pushed_down(pool: Pool) -> None:
    target = torch.zeros(1, 2, 3, dtype=torch.int64)
    logits = torch.zeros(1, 3, 2, 3)
    logits[0, 2, 1, 1] = 2.0  # class 2 is predicted there, and the frame does not show it
    logits.requires_grad_()

    DiceLoss(pool=pool)(logits, target).backward()

    assert logits.grad is not None
    assert float(logits.grad[0, 2, 1, 1]) > 1e-3  # descent lowers it
    assert float(logits.grad[0, 0, 1, 1]) < -1e-3  # and raises the truth


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("smoothing", [1e-5, 1.0, 50.0])
def test_loss_and_gradient_agree_with_monai(smoothing: float, pool: Pool) -> None:
    logits, target = random_batch()
    theirs = MonaiDiceLoss(
        include_background=True, to_onehot_y=True, softmax=True, smooth_nr=smoothing, smooth_dr=smoothing,
        batch=pool == "batch",
    )  # fmt: skip

    def value_and_gradient(loss: nn.Module, target: Tensor) -> tuple[Tensor, Tensor]:
        x = logits.clone().requires_grad_()
        value: Tensor = loss(x, target)
        return value.detach(), torch.autograd.grad(value, x)[0]

    ours = value_and_gradient(DiceLoss(smoothing=smoothing, pool=pool), target)
    torch.testing.assert_close(ours, value_and_gradient(theirs, target.unsqueeze(1)))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_logits_are_summed_in_float32(dtype: torch.dtype) -> None:
    source = torch.Generator().manual_seed(1)
    logits = torch.randn(1, 3, 128, 160, generator=source).to(dtype).requires_grad_()
    target = torch.randint(0, 3, (1, 128, 160), generator=source)

    loss = DiceLoss()(logits, target)
    loss.backward()

    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, DiceLoss()(logits.float(), target), rtol=0, atol=0)
    assert logits.grad is not None
    assert logits.grad.dtype == dtype
    assert bool(logits.grad.isfinite().all())


def test_float32_loss_of_a_large_frame_is_close_to_float64() -> None:
    draws = torch.Generator().manual_seed(0)
    logits = torch.randn(1, 2, 1024, 1280, generator=draws) + torch.tensor([0.0, 4]).view(2, 1, 1)
    target = (torch.rand(1, 1024, 1280, generator=draws) < 0.97).long()

    assert float(DiceLoss()(logits, target)) == pytest.approx(float(DiceLoss()(logits.double(), target)), abs=1e-5)


def test_arguments_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="smoothing is 0; expected more than 0"):
        DiceLoss(smoothing=0)
    with pytest.raises(ValueError, match="pool='mean'; expected 'frame' or 'batch'"):
        DiceLoss(pool="mean")  # type: ignore[arg-type]


def test_squared_error_worked_out_by_hand() -> None:
    # differences 1, 0, -2, 3: (1 + 0 + 4 + 9) / 4
    loss = squared_error(torch.tensor([[1.0, 2], [3, 4]]).bfloat16(), torch.tensor([[0.0, 2], [5, 1]]))

    assert (float(loss), loss.dtype) == (3.5, torch.float32)


def test_cross_entropy_worked_out_by_hand() -> None:
    # softmax of (ln 3, 0) is (3/4, 1/4); labels 0, 0 and 1: mean of -ln 3/4 twice and -ln 1/4
    loss = cross_entropy(torch.tensor([[3.0, 1], [3, 1], [3, 1]]).log(), torch.tensor([0, 0, 1]))

    assert float(loss) == pytest.approx(-math.log(9 / 64) / 3)


def test_binary_cross_entropy_worked_out_by_hand() -> None:
    # sigmoid of ln 3 and 0 is 3/4 and 1/2; yes and no: mean of -ln 3/4 and -ln 1/2
    loss = binary_cross_entropy(torch.tensor([[3.0, 1]]).log(), torch.tensor([[1, 0]]))

    assert float(loss) == pytest.approx(-math.log(3 / 8) / 2)


@pytest.mark.parametrize("objective", [squared_error, cross_entropy, binary_cross_entropy])
def test_objectives_of_half_precision_are_computed_in_float32(objective: Callable[[Tensor, Tensor], Tensor]) -> None:
    source = torch.Generator().manual_seed(2)
    outputs = torch.randn(50, 3, generator=source).bfloat16()
    target = torch.randint(0, 2, (50,) if objective is cross_entropy else (50, 3), generator=source)
    target = target.bfloat16() if objective is squared_error else target

    loss = objective(outputs, target)

    assert loss.dtype == torch.float32
    assert float(loss) == float(objective(outputs.float(), target))


# --- Properties ------------------------------------------------------------------------------------------------------


class Batch(NamedTuple):
    logits: Tensor
    target: Tensor


@st.composite
def batches(draw: st.DrawFn) -> Batch:
    """Small frames in float64; few classes are drawn, so that absent ones are common."""
    frames, height, width = (draw(st.integers(1, limit)) for limit in (3, 3, 4))
    classes = draw(st.integers(2, 5))
    count = frames * height * width
    values = draw(st.lists(st.floats(-20, 20), min_size=count * classes, max_size=count * classes))
    pixels = draw(st.lists(st.integers(0, classes - 1), min_size=count, max_size=count))
    return Batch(
        torch.tensor(values, dtype=torch.float64).view(frames, classes, height, width),
        torch.tensor(pixels).view(frames, height, width),
    )


def brute_force_loss(batch: Batch, pool: Pool, smoothing: float) -> float:
    """The definition, pixel by pixel in plain Python."""
    count, classes = batch.logits.shape[:2]
    sums = [[[0.0, 0.0, 0.0] for _ in range(classes)] for _ in range(1 if pool == "batch" else count)]
    for frame in range(count):
        columns = batch.logits[frame].flatten(1).T.tolist()
        for column, truth in zip(columns, batch.target[frame].flatten().tolist(), strict=True):
            weights = [math.exp(value - max(column)) for value in column]
            for c, weight in enumerate(weights):
                probability = weight / sum(weights)
                counted = sums[0 if pool == "batch" else frame][c]
                counted[0] += probability * (c == truth)
                counted[1] += probability
                counted[2] += c == truth
    scores = [(2 * i + smoothing) / (p + t + smoothing) for frame_sums in sums for i, p, t in frame_sums]
    return 1 - sum(scores) / len(scores)


SMOOTHINGS = st.sampled_from([1e-3, 1.0, 30.0])


@settings(max_examples=50, deadline=None)
@given(batches(), st.sampled_from(POOLS), SMOOTHINGS)
def test_loss_is_what_plain_python_counts(batch: Batch, pool: Pool, smoothing: float) -> None:
    loss = float(DiceLoss(smoothing, pool)(*batch))

    assert loss == pytest.approx(brute_force_loss(batch, pool, smoothing), abs=1e-10)
    assert -1e-12 <= loss <= 1
