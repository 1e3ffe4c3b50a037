"""The soft Dice loss by hand and against MONAI; the other losses by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import pytest
import torch
from monai.losses.dice import DiceLoss as MonaiDiceLoss
from torch import Tensor, nn
from torch.nn import functional as F

from hw6core.losses import DiceLoss, binary_cross_entropy, cross_entropy, squared_error

Pool = Literal["frame", "batch"]
POOLS: tuple[Pool, ...] = ("frame", "batch")


def random_batch() -> tuple[Tensor, Tensor]:
    """Three frames of 5x6 pixels in float64; the last of four classes is absent."""
    source = torch.Generator().manual_seed(7)
    logits = torch.randn(3, 4, 5, 6, dtype=torch.float64, generator=source)
    return logits, torch.randint(0, 3, (3, 5, 6), generator=source)


def certain(answer: Tensor, num_classes: int) -> Tensor:
    """Logits whose softmax is 1 for the given classes and 0 elsewhere."""
    return 1000.0 * F.one_hot(answer, num_classes).permute(0, 3, 1, 2)


UNDECIDED, FIRST, BOTH = torch.zeros(2, 2, 1, 2), [[[0, 0]]], [[[0, 0]], [[1, 1]]]


@pytest.mark.parametrize(
    ("logits", "target", "settings", "scores"),
    [
        # Two pixels, both of class 0; every probability 1/2.
        # class 0: both 1, predicted 1, target 2: (2*1 + 1) / (1 + 2 + 1); class 1: 0, 1, 0: (2*0 + 1) / (1 + 0 + 1)
        (UNDECIDED[:1], FIRST, {}, (3 / 4, 1 / 2)),
        # class 0: (2*1 + 10) / (1 + 2 + 10); class 1: (0 + 10) / (1 + 0 + 10)
        (UNDECIDED[:1], FIRST, {"smoothing": 10}, (12 / 13, 10 / 11)),
        # And a frame with both pixels of class 1, with the same scores. Pooled, for either class: both 1, predicted 2,
        # target 2: (2*1 + 1) / (2 + 2 + 1).
        (UNDECIDED, BOTH, {}, (3 / 4, 1 / 2)),
        (UNDECIDED, BOTH, {"pool": "frame"}, (3 / 4, 1 / 2)),
        (UNDECIDED, BOTH, {"pool": "batch"}, (3 / 5, 3 / 5)),
        # Target 0 0 1 1, answer 0 1 1 1, no class 2: (2*1 + 1) / (1 + 2 + 1), (2*2 + 1) / (3 + 2 + 1), 1/1.
        (certain(torch.tensor([[[0, 1, 1, 1]]]), 3), [[[0, 0, 1, 1]]], {}, (3 / 4, 5 / 6, 1)),
        (certain(torch.tensor([[[0, 1, 1, 1]]]), 3), [[[0, 0, 1, 1]]], {"absent": "ignore"}, (3 / 4, 5 / 6)),
        # Two of four pixels are given to class 2, which is absent: classes 0 and 1 lose one of two each,
        # (2*1 + 1) / (1 + 2 + 1).
        (certain(torch.tensor([[[0, 2, 1, 2]]]), 3), [[[0, 0, 1, 1]]], {"absent": "ignore"}, (3 / 4, 3 / 4)),
        # The first frame has class 0 alone, the second class 1 alone; the batch has both.
        (UNDECIDED, BOTH, {"absent": "ignore"}, (3 / 4,)),
        (UNDECIDED, BOTH, {"absent": "ignore", "pool": "batch"}, (3 / 5, 3 / 5)),
    ],
)
def test_dice_loss_worked_out_by_hand(
    logits: Tensor, target: list[list[list[int]]], settings: dict[str, Any], scores: tuple[float, ...]
) -> None:
    loss = DiceLoss(**settings)(logits, torch.tensor(target))
    assert float(loss) == pytest.approx(1 - sum(scores) / len(scores))


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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0,), "smoothing is 0; expected more than 0"),
        ((1, "mean"), "pool='mean'; expected 'frame' or 'batch'"),
        ((1, "frame", "zero"), "absent='zero'; expected 'course' or 'ignore'"),
    ],
)
def test_arguments_out_of_range_are_an_error(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DiceLoss(*arguments)


@pytest.mark.parametrize(
    ("objective", "outputs", "target", "loss"),
    [
        # differences 1, 0, -2, 3
        (squared_error, [[1.0, 2], [3, 4]], torch.tensor([[0, 2], [5, 1]]).bfloat16(), (1 + 0 + 4 + 9) / 4),
        # softmax of (1, 0) is (e, 1) / (e + 1); labels 0, 0 and 1
        (cross_entropy, [[1.0, 0]] * 3, torch.tensor([0, 0, 1]), math.log(math.e + 1) - 2 / 3),
        # sigmoid of 1 and 0 is e / (e + 1) and 1/2; yes and no
        (binary_cross_entropy, [[1.0, 0]], torch.tensor([[1, 0]]), (math.log(math.e + 1) - 1 + math.log(2)) / 2),
    ],
)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_other_losses_worked_out_by_hand_also_of_half_precision(
    objective: Callable[[Tensor, Tensor], Tensor], outputs: Any, target: Tensor, loss: float, dtype: torch.dtype
) -> None:
    found = objective(torch.tensor(outputs, dtype=dtype), target)
    assert found.dtype == torch.float32
    assert float(found) == pytest.approx(loss)
