"""A flipped bit in a weight, an activation or a gradient is found at its step and layer."""

from __future__ import annotations

from functools import cache
from itertools import count

import pytest
import torch
from torch import Tensor, nn

from benchmarks.fingerprint.comparison import Difference, first_difference
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


PLACES = [
    Place(phase, layer, tensor)
    for phase in ("forward", "backward")
    for layer, module in small_network().named_children()
    for tensor in ("output", *(name for name, _ in module.named_parameters()))
    if not isinstance(module, nn.Dropout)
]


def trained(model: nn.Module, size: tuple[int, int] = (8, 8)) -> Network:
    return train(model, DiceLoss(), lambda step: drawn(2, size, step)[:2], 0.05, CPU, STEPS)


@cache
def sound() -> Network:
    return trained(small_network())


def flip(values: Tensor, bit: int) -> None:
    """Flip one bit of the middle value, unseen by autograd."""
    flat = values.data.view(-1)
    flat[len(flat) // 2 :][:1].view(torch.int32).bitwise_xor_(1 << bit if bit < 31 else -(2**31))


def plant(model: nn.Module, place: Place, step: int, bit: int) -> None:
    """Flip a bit of the tensor at a place in one step, before it is recorded."""
    layer, calls = model.get_submodule(place.layer), count(1)

    def flip_at_step(values: Tensor | None) -> None:
        if next(calls) == step:
            assert values is not None
            flip(values, bit)

    def flip_gradient(gradient: Tensor) -> Tensor:
        flip_at_step(changed := gradient.clone())
        return changed

    def flip_output(_: nn.Module, inputs: object, output: Tensor) -> None:
        if place.phase == "forward":
            flip_at_step(output)
        else:
            output.register_hook(flip_gradient)

    if place.tensor == "output":
        layer.register_forward_hook(flip_output)
        return
    parameter = layer.get_parameter(place.tensor)
    if place.phase == "forward":
        layer.register_forward_pre_hook(lambda *_: flip_at_step(parameter))
    else:
        parameter.register_post_accumulate_grad_hook(lambda _: flip_at_step(parameter.grad))


@pytest.mark.parametrize(("number", "place"), list(enumerate(PLACES)))
def test_a_flipped_bit_is_found_where_it_flipped(number: int, place: Place) -> None:
    for step, bit in zip(range(1, STEPS + 1), BITS[number % 2 :: 2], strict=True):
        model = small_network()
        plant(model, place, step, bit)
        assert first_difference("small", sound(), trained(model)) == Difference("small", step, place, 2**bit)


UNET_PLACES = ("forward down1.0 output", "backward down3.4 output", "forward up2 weight", "backward join1.3 weight")


@pytest.mark.parametrize("words", UNET_PLACES)
def test_a_flipped_bit_of_the_unet_is_found_where_it_flipped(words: str) -> None:
    model, place = UNet(), Place(*words.split())
    plant(model, place, 2, 0)
    assert first_difference("unet", sound_unet(), trained(model, (16, 16))) == Difference("unet", 2, place, 1)


@cache
def sound_unet() -> Network:
    return trained(UNet(), (16, 16))


def test_the_same_training_has_the_same_fingerprint_despite_dropout() -> None:
    """Otherwise a GPU, which has another generator, could never agree with a CPU."""
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
        changed = values.clone()
        flip(changed, bit)
        assert _digest(changed) != digest
    if size > 1:
        assert digest not in (_digest(values.flip(0)), _digest(-values))
