"""No step may read a value from the device. Tested without a GPU on meta tensors, which have no values."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from benchmarks.speed.no_waiting import cases, train_without_waiting
from hw6core.training import Task

NAMES = ["U-Net, segmentation", "U-Net, colorization", "VGG16"]
META = torch.device("meta")


def step(model: nn.Module, task: Task, inputs: Tensor, targets: Tensor) -> Tensor:
    batch, answers = task.training_batch(inputs[:4], targets[:4], torch.Generator())
    loss = task.loss(model(batch), answers)
    loss.backward()
    return loss


@pytest.mark.parametrize("name", NAMES)
def test_a_step_runs_on_meta_tensors(name: str) -> None:
    with META:
        model, task, samples = {case[0]: case[1:] for case in cases(META)}[name]
    loss = step(model.to(META), task, samples.inputs, samples.targets)
    assert loss.shape == ()
    assert all(weight.grad is not None for weight in model.parameters())


def test_a_step_that_reads_a_value_fails_on_meta_tensors() -> None:
    """Shows that the test above can fail."""
    _, model, task, samples = next(cases(META))
    loss = task.loss

    def reading(outputs: Tensor, targets: Tensor) -> Tensor:
        value = loss(outputs, targets)
        return value if value.item() > 0 else -value

    task.loss = reading  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="meta"):
        step(model.to(META), task, samples.inputs, samples.targets)


def test_waiting_is_an_error_from_the_second_step_to_the_end_of_an_epoch() -> None:
    _, _, task, samples = next(cases(torch.device("cpu")))
    modes: list[str] = []
    train_without_waiting(nn.Conv2d(3, 8, 1), task, samples, modes.append)
    epoch = ["default", "error", "error", "error", "default"]
    assert modes == [*epoch, *epoch, "default"]
