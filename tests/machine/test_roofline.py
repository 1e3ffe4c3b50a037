"""The cost of a step, compared with counts by hand, and the limits, measured on a machine of known speed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from benchmarks.machine.roofline import Ceiling, StepCost, measure_ceiling, step_cost
from hw6core.device import Precision
from hw6core.models import UNet, vgg16


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_cost_of_a_small_network(precision: Precision) -> None:
    layers = nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.Sigmoid(), nn.MaxPool2d(2), nn.Flatten()
    network = nn.Sequential(*layers, nn.Linear(48, 5, bias=False), nn.Linear(5, 7, bias=False))
    network[5].requires_grad_(False)
    cost = step_cost(network, (3, 6, 8), 2, precision)
    # Two images. Convolution: 27 products for each of 4 x 48 numbers, and as many for the gradient of its weights; that
    # of the image is not needed. First layer: 48 x 5, three times. The frozen one: 5 x 7 and the gradient of its input.
    assert cost.flops == 2 * 2 * (2 * 27 * 192 + 3 * 240 + 2 * 35)
    # Ten floats for each of 108 + 240 trained weights, one for each of 35 frozen ones; the images; and, written and
    # read, the saved tensors: images, sigmoid, the indices of the maxima (int64), and the input of the first layer.
    kept = 2 * (144 + 192 + 48) * (2 if precision == "bfloat16" else 4) + 2 * 48 * 8
    assert cost.bytes == 348 * 40 + 35 * 4 + 2 * 144 * 4 + 2 * kept
    assert cost.samples == 2


def test_inference_is_one_pass_that_reads_the_weights_once() -> None:
    cost = step_cost(nn.Linear(30, 20, bias=False), (30,), 5, "float32", training=False)
    assert (cost.flops, cost.bytes) == (6_000, 600 * 4 + 150 * 4)


def test_the_networks_have_their_known_cost() -> None:
    assert step_cost(UNet(8), (3, 256, 320), 1, "float32").flops / 1e9 == pytest.approx(78.2, abs=0.1)
    with torch.device("meta"):
        assert step_cost(vgg16(10), (3, 32, 32), 1, "float32").flops / 1e9 == pytest.approx(2.6, abs=0.1)


def test_counting_does_not_change_the_model() -> None:
    model = UNet(3)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    step_cost(model, (3, 16, 16), 2, "float32")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert model.training


def test_each_limit_has_its_time() -> None:
    cost, ceiling = StepCost(flops=600, bytes=100, samples=10), Ceiling(flops_per_s=100.0, bytes_per_s=50.0)
    assert (cost.arithmetic_s(ceiling), cost.memory_s(ceiling)) == (6.0, 2.0)


class KnownMachine(TorchFunctionMode):
    """Simulates a machine of known speed: products and copies advance its clock, without computing anything.

    The first of each is slow, the third has full speed, all others are a tenth slower.
    """

    FLOPS_PER_S: Mapping[torch.dtype, float] = {torch.float32: 5e9, torch.bfloat16: 2e10}
    BYTES_PER_S = 3e8

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.calls = {"mm": 0, "copy_": 0}

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        name = getattr(func, "__name__", "")
        if name not in self.calls:
            return func(*args, **(kwargs or {}))
        self.calls[name] += 1
        first: Tensor = args[0]
        if name == "mm":
            assert len(first[0].unique()) > 100  # a product of ones needs less power than any training
            seconds = 2 * first.shape[0] * first.shape[1] * args[1].shape[1] / self.FLOPS_PER_S[first.dtype]
        else:
            seconds = (first.nbytes + args[1].nbytes) / self.BYTES_PER_S
        self.now += seconds * {1: 50.0, 3: 1.0}.get(self.calls[name], 1.1)
        return first


@pytest.mark.parametrize(("precision", "flops_per_s"), [("float32", 5e9), ("bfloat16", 2e10)])
def test_limits_are_measured_at_full_speed(
    precision: Precision, flops_per_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    with KnownMachine() as machine:
        monkeypatch.setattr("time.perf_counter", lambda: machine.now)
        found = measure_ceiling(torch.device("cpu"), precision)
    assert [found.flops_per_s, found.bytes_per_s] == pytest.approx([flops_per_s, 3e8])
