"""What a step needs is counted by hand here; what the device can do is only checked for sense."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from benchmarks.ceiling import Ceiling, StepCost, measure_ceiling, step_cost
from hw6core.models import UNet, vgg16


def test_the_cost_of_a_linear_layer() -> None:
    layer = nn.Linear(30, 20, bias=False)
    cost = step_cost(layer, (30,), 5, "float32")
    # Forward and the gradient of the weights, 2 * 5 * 30 * 20 each; nobody needs the gradient of the input.
    assert cost.flops == 2 * 6_000
    # 600 weights at 10 floats; the input, read once and kept for the backward pass, written and read.
    assert cost.bytes == 600 * 40 + 150 * 4 + 2 * 150 * 4
    assert cost.samples == 5


def test_a_frozen_layer_is_read_and_has_no_moments() -> None:
    layer = nn.Linear(30, 20, bias=False)
    cost = step_cost(layer, (30,), 5, "float32", training=False)
    assert (cost.flops, cost.bytes) == (6_000, 600 * 4 + 150 * 4)


def test_half_precision_keeps_half_the_activations() -> None:
    network = nn.Sequential(nn.Linear(30, 20, bias=False), nn.Sigmoid())
    full, half = (step_cost(network, (30,), 5, precision) for precision in ("float32", "bfloat16"))
    assert full.bytes - half.bytes == 2 * (150 + 100) * 2  # the input and the answer of the sigmoid


def test_the_networks_need_what_is_known_of_them() -> None:
    assert step_cost(UNet(8), (3, 256, 320), 1, "float32").flops / 1e9 == pytest.approx(78.2, abs=0.1)
    assert step_cost(vgg16(10), (3, 32, 32), 1, "float32").flops / 1e9 == pytest.approx(2.6, abs=0.1)


def test_counting_leaves_the_model_as_it_is() -> None:
    model = UNet(3)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    step_cost(model, (3, 16, 16), 2, "float32")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_nearer_limit_decides() -> None:
    cost, ceiling = StepCost(flops=600, bytes=100, samples=10), Ceiling(flops_per_s=100.0, bytes_per_s=50.0)
    assert (cost.arithmetic_s(ceiling), cost.memory_s(ceiling)) == (6.0, 2.0)


def test_the_limits_of_this_machine_are_measured() -> None:
    ceiling = measure_ceiling(torch.device("cpu"), "float32")
    assert ceiling.flops_per_s > 1e8
    assert ceiling.bytes_per_s > 1e7
