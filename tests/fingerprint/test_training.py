"""A flipped bit in a weight, an activation or a gradient is found at its step and layer."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import count
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmarks.fingerprint.comparison import first_difference
from benchmarks.fingerprint.record import Network, Place
from benchmarks.fingerprint.training import _digest, drawn, set_weights, train
from hw6core.losses import DiceLoss
from hw6core.models import UNet

STEPS = 3
BITS = (0, 11, 22, 23, 30, 31)  # of the mantissa, of the exponent, the sign
CPU = torch.device("cpu")


def small_network() -> nn.Module:
    """A network with every kind of layer of the U-Net and VGG16."""
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1, bias=False),
        nn.BatchNorm2d(4),
        nn.LeakyReLU(0.1, inplace=True),
        nn.MaxPool2d(2),
        nn.ConvTranspose2d(4, 4, 4, stride=2, padding=1),
        nn.ReLU(inplace=True),
        nn.Dropout(),
        nn.Conv2d(4, 8, 1),
    )


LAYERS = [name for name, module in small_network().named_children() if not isinstance(module, nn.Dropout)]
WEIGHTS = [name for name, _ in small_network().named_parameters()]


def trained(model: nn.Module, size: tuple[int, int] = (8, 8)) -> Network:
    return train(model, DiceLoss(), lambda step: drawn(2, size, step)[:2], 0.05, CPU, STEPS)


@cache
def sound() -> Network:
    return trained(small_network())


def flip(values: Tensor | None, bit: int) -> Tensor:
    """Flip one bit of the middle value, unseen by autograd."""
    assert values is not None
    flat = values.data.view(-1)
    flat[len(flat) // 2 :][:1].view(torch.int32).bitwise_xor_(1 << bit if bit < 31 else -(2**31))
    return values


def plant(model: nn.Module, kind: str, name: str, step: int, bit: int) -> Place:
    """Flip a bit at a step, before it is recorded; returns the place of the first difference."""
    calls = count(1)

    def at_step(change: Callable[..., object]) -> Callable[..., None]:
        def hook(*arguments: Any) -> None:
            if next(calls) == step:
                change(*arguments)

        return hook

    def flip_output(_: nn.Module, inputs: object, output: Tensor) -> None:
        if phase == "forward":
            flip(output, bit)
        else:
            output.register_hook(lambda gradient: flip(gradient.clone(), bit))

    phase = "backward" if kind.startswith("gradient") else "forward"
    if kind.endswith("activation"):
        model.get_submodule(name).register_forward_hook(at_step(flip_output))
        return Place(phase, name, "output")
    layer, _, tensor = name.rpartition(".")
    parameter = model.get_parameter(name)
    if phase == "forward":
        model.get_submodule(layer).register_forward_pre_hook(at_step(lambda *_: flip(parameter, bit)))
    else:
        parameter.register_post_accumulate_grad_hook(at_step(lambda *_: flip(parameter.grad, bit)))
    return Place(phase, layer, tensor)


KINDS = ("activation", "gradient of an activation", "weight", "gradient of a weight")
PLACES = [(kind, name) for kind in KINDS for name in (WEIGHTS if kind.endswith("weight") else LAYERS)]


@pytest.mark.parametrize(("number", "kind", "name"), [(number, *place) for number, place in enumerate(PLACES)])
def test_a_flipped_bit_is_found_where_it_flipped(number: int, kind: str, name: str) -> None:
    for step, bit in zip(range(1, STEPS + 1), BITS[number % 2 :: 2], strict=True):
        model = small_network()
        place = plant(model, kind, name, step, bit)
        found = first_difference("small", sound(), trained(model))
        assert found is not None
        assert (found.step, found.place, found.ulps) == (step, place, 2**bit)


UNET_PLACES = ("down1.0", "down3.4", "up2.weight", "join1.3.weight")


@pytest.mark.parametrize(("kind", "name"), [*zip(KINDS, UNET_PLACES, strict=True)])
def test_a_flipped_bit_of_the_unet_is_found_where_it_flipped(kind: str, name: str) -> None:
    model = UNet()
    place = plant(model, kind, name, 2, 0)
    found = first_difference("unet", sound_unet(), trained(model, (16, 16)))
    assert found is not None
    assert (found.step, found.place, found.ulps) == (2, place, 1)


@cache
def sound_unet() -> Network:
    return trained(UNet(), (16, 16))


def test_the_same_training_has_the_same_fingerprint_despite_dropout() -> None:
    """Otherwise a GPU, which has another generator, could never agree with a CPU."""
    assert any(isinstance(module, nn.Dropout) for module in small_network().modules())
    torch.manual_seed(1)
    assert trained(small_network()) == sound()


def test_the_initial_weights_are_the_same_bits_everywhere() -> None:
    """Literal values, and a digest of the U-Net's initial weights and data."""
    model = nn.Linear(3, 1)
    set_weights(model)
    assert [value.hex() for value in model.weight[0].tolist()] == [
        "0x1.5cf3e40000000p-1",
        "0x1.f3b8be0000000p-1",
        "-0x1.1c50cc0000000p+0",
    ]
    assert model.bias.item() == 0
    assert sound_unet().start == "5545a04005715512"


@pytest.mark.parametrize("size", [1, 7, 2**20, 2**20 + 129])
def test_a_digest_depends_on_every_bit_and_on_the_order_of_values(size: int) -> None:
    values = torch.arange(size, dtype=torch.float32) + 1
    digest = _digest(values)
    assert digest == _digest(values.clone())
    for bit in (0, 15, 31):
        assert _digest(flip(values.clone(), bit)) != digest
    if size > 1:
        assert _digest(values.flip(0)) != digest
        assert _digest(-values) != digest
