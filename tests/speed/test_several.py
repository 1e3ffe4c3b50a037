"""Networks that are trained as one learn what they learn one after the other."""

from __future__ import annotations

import copy

import pytest
import torch

from benchmarks.speed.several import Work, in_turn, stacked
from hw6core.losses import DiceLoss
from hw6core.models import UNet


def test_networks_stacked_into_one_learn_what_they_learn_in_turn() -> None:
    torch.manual_seed(0)
    models = [UNet(3) for _ in range(2)]
    work = Work(torch.rand(2, 3, 16, 24), torch.randint(0, 3, (2, 16, 24)), DiceLoss(1.0, "batch"), "float32", steps=4)
    expected = in_turn(copy.deepcopy(models), work)
    assert expected[0] != expected[1]
    assert stacked(copy.deepcopy(models), work) == pytest.approx(expected, rel=1e-3)
    once = Work(work.inputs, work.targets, work.loss, "float32", steps=1)
    assert in_turn(models, once) != pytest.approx(expected, rel=1e-3)  # four steps did change them
