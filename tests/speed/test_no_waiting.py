"""In which steps waiting is an error; tests/test_dry_gpu.py checks that no step of the suite waits."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from benchmarks.speed.no_waiting import cases, train_without_waiting

NETWORKS = (nn.Conv2d(3, 8, 1), nn.Conv2d(3, 3, 1), nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10)))


@pytest.mark.parametrize("number", range(3))
def test_waiting_is_an_error_after_the_second_step_of_an_epoch(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    _, _, task, samples = [*cases(torch.device("cpu"))][number]
    modes: list[str] = []
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", modes.append)
    train_without_waiting(NETWORKS[number], task, samples)
    epoch = ["default", "error", "error", "error", "default"]
    assert modes == [*epoch, *epoch, "default"]
