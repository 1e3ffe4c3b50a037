"""Make a fingerprint: 50 deterministic float32 steps of the U-Net with the Dice loss and of VGG16, TF32 off.

Data and initial weights are the same bits everywhere: they come from integers of NumPy's PCG64, which is the same in
all versions, by operations whose rounding IEEE 754 defines. Neither network has a random layer (VGG16's dropout is
off), so any later difference was made by the computation.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache, partial
from hashlib import sha256

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.fingerprint.record import DIGITS, STEPS, VERSION, Fingerprint, Network, Place
from benchmarks.machine.environment import environment
from hw6core.device import allow_tf32, double, keep_freed_memory
from hw6core.losses import DiceLoss, cross_entropy
from hw6core.models import UNet, vgg16
from hw6core.schedule import Schedule, make_optimizer
from hw6core.seeding import set_deterministic
from hw6core.steps import Loss, TrainingStep

Batches = Callable[[int], tuple[Tensor, Tensor]]  # step -> inputs and targets
_SEED = 17
_ROWS, _WIDTH = 2**20, 128
_CLASSES = 8


def make_fingerprint(device: torch.device) -> Fingerprint:
    """Train both networks on a device; switches the whole process to deterministic mode."""
    set_deterministic(True)
    allow_tf32(False)
    keep_freed_memory()
    found = environment(device, "float32", "deterministic")
    found["cpu_capability"] = torch.backends.cpu.get_cpu_capability()
    # These variables select kernels and so change bits.
    kernels = ("ONEDNN_MAX_CPU_ISA", "ONEDNN_DEFAULT_FPMATH_MODE", "MKL_ENABLE_INSTRUCTIONS", "MKL_CBWR")
    found["kernels"] = {name: os.environ[name] for name in kernels if name in os.environ}
    networks = {"unet": train_unet(device), "vgg16": train_vgg16(device)}
    return Fingerprint(VERSION, datetime.now(UTC).isoformat(timespec="seconds"), found, networks)


def train_unet(device: torch.device, steps: int = 50, model: UNet | None = None) -> Network:
    """Train the U-Net with the Dice loss on two frames of 48x64 per step; ``model``: a U-Net with hooks."""
    return train(model or UNet(_CLASSES), DiceLoss(), lambda step: drawn(2, (48, 64), step)[:2], 0.05, device, steps)


def train_vgg16(device: torch.device) -> Network:
    """Train VGG16 with cross-entropy on four images of 32x32 per step."""
    with torch.device("meta"):  # saves drawing random weights
        model = vgg16(_CLASSES)
    model = model.to_empty(device="cpu")
    return train(model, cross_entropy, lambda step: drawn(4, (32, 32), step)[::2], 1e-5, device, 50)


def train(model: nn.Module, loss: Loss, batches: Batches, lr: float, device: torch.device, steps: int) -> Network:
    """Set a network's weights, train it with Nesterov momentum, and record what every layer computes.

    Args:
        model: on the CPU; its own hooks run before a tensor is recorded and may change it.
        batches: called with the step, from 0.

    >>> batch = torch.ones(1, 2), torch.zeros(1, dtype=torch.int64)
    >>> model = nn.Sequential(nn.Linear(2, 1))
    >>> found = train(model, cross_entropy, lambda step: batch, 0.1, torch.device("cpu"), steps=2)
    >>> [place.tensor for place in found.places]
    ['weight', 'bias', 'output', 'output', 'output', 'bias', 'weight']
    """
    set_weights(model)
    digests = map(_digest, (*model.parameters(), *(part for step in range(steps) for part in batches(step))))
    start = sha256("".join(digests).encode()).hexdigest()[:DIGITS]
    model.to(device).train()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.eval()
    recorder = _Recorder(model)
    optimizer = make_optimizer(model, Schedule(1, 1, lr, "sgd"))
    step = TrainingStep(model, loss, optimizer)
    for number in range(steps):
        recorder.end_step(step(*(part.to(device) for part in batches(number))))
    return recorder.network(start)


@torch.no_grad()
def set_weights(model: nn.Module) -> None:
    """Kaiming-uniform weights (He et al. 2015), biases of 0, batch norm at 1 and 0; on the CPU."""
    for number, (name, parameter) in enumerate(model.named_parameters()):
        if parameter.ndim > 1:
            whole = _integers(number, parameter.numel(), bits=24)  # exact in float32, like all but the last operation
            parameter.copy_(torch.from_numpy(whole.view("<i4")).view_as(parameter))
            bound = math.sqrt(6 * parameter.shape[0] / parameter.numel())
            parameter.mul_(2**-23).sub_(1).mul_(float(np.float32(bound)))
        else:
            parameter.fill_(float(name.endswith("weight")))


def _integers(stream: int, count: int, bits: int) -> npt.NDArray[np.uint32]:
    """Random integers of ``bits`` bits from a numbered stream."""
    raw = np.random.PCG64((_SEED, stream)).random_raw((count + 1) // 2).astype("<u8")
    return raw.view("<u4")[:count] >> np.uint32(32 - bits)


@cache
def drawn(count: int, size: tuple[int, int], step: int) -> tuple[Tensor, Tensor, Tensor]:
    """Noise frames, each with a rectangle in the colour of its class: (N, 3, H, W), masks (N, H, W), labels (N,)."""
    height, width = size
    noise = _integers(1000 + step, count * 3 * height * width, bits=6).reshape(count, 3, height, width)
    images, masks = noise.astype(np.float32), np.zeros((count, height, width), np.int64)
    labels, tops, lefts = (column.astype(np.int64) for column in _integers(2000 + step, 3 * count, 16).reshape(3, -1))
    labels %= _CLASSES
    for image, mask, label, top, left in zip(images, masks, labels, tops, lefts, strict=True):
        top, left = top % (height // 2), left % (width // 2)
        place = slice(top, top + height // 2), slice(left, left + width // 2)
        image[:, *place] += np.array([37, 91, 151], np.float32).reshape(3, 1, 1) * label % 192
        mask[place] = label
    return torch.from_numpy((images - 64) / 64), torch.from_numpy(masks), torch.from_numpy(labels)


class _Recorder:
    """Records a digest of every tensor of every step by hooks of the network, and norms at the end of `STEPS`.

    Parameters are recorded when their layer runs, so a change between two steps shows at that layer.
    """

    def __init__(self, model: nn.Module) -> None:
        self._names = {module: name for name, module in model.named_modules() if not any(module.children())}
        self._digests: list[dict[Place, str]] = [{}]  # the last entry is that of the current step
        self._norms: dict[tuple[Place, int], float] = {}
        self._loss: list[float | None] = []
        self._gradient_norm: list[float | None] = []
        self._squares: list[Tensor] = []
        for module, name in self._names.items():
            if not isinstance(module, nn.Dropout):
                module.register_forward_hook(self._ran)
            for key, parameter in module.named_parameters(recurse=False):
                parameter.register_post_accumulate_grad_hook(partial(self._gradient, name, key))

    def _ran(self, module: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> None:
        self._parameters(module)
        name = self._names[module]
        self._note(Place("forward", name, "output"), output)
        output.register_hook(partial(self._note, Place("backward", name, "output")))

    def _parameters(self, module: nn.Module) -> None:
        for key, parameter in module.named_parameters(recurse=False):
            self._note(Place("forward", self._names[module], key), parameter, since=1)

    def _gradient(self, name: str, key: str, parameter: Tensor) -> None:
        assert parameter.grad is not None
        self._squares.append(_norm(parameter.grad).square())
        self._note(Place("backward", name, key), parameter.grad)

    def _note(self, place: Place, values: Tensor, since: int = 0) -> None:
        """Record values that were computed ``since`` steps ago."""
        self._digests[-1][place] = _digest(values)
        if (step := len(self._digests) - since) in STEPS:
            self._norms[place, step] = float(_norm(values))

    def end_step(self, loss: Tensor) -> None:
        self._note(Place("forward", "loss", "output"), loss)
        self._loss.append(_finite(float(loss)))
        self._gradient_norm.append(_finite(float(torch.stack(self._squares).sum().sqrt())))
        self._squares.clear()
        self._digests.append({})

    def network(self, start: str) -> Network:
        """The recorded training, with the weights after the last step.

        Gradients are sorted by layer, because autograd's order is not defined.
        """
        for module in self._names:
            self._parameters(module)
        first = self._digests[0]
        forward = [place for place in first if place.phase == "forward"]
        backward = [place._replace(phase="backward") for place in reversed(forward)]
        places = forward + [place for place in backward if place in first]
        return Network(
            start,
            places,
            self._loss,
            self._gradient_norm,
            ["".join(step.get(place, " " * DIGITS) for place in places) for step in self._digests],
            # Nine digits are enough for sizes; digests decide equality.
            [[_finite(float(f"{self._norms.get((place, step), math.nan):.9g}")) for step in STEPS] for place in places],
        )


@cache
def _factors(device: torch.device) -> Tensor:
    """Random odd factors, one per row, so that the hash changes if two rows swap places."""
    drawn = np.random.PCG64(_SEED).random_raw(_ROWS).astype("<u8") | np.uint64(1)
    return torch.from_numpy(drawn.view("<i8")).to(device)


def _rows(values: Tensor) -> Tensor:
    """A tensor as a table of at most 2**20 rows: single values, or 128 per row for large tensors."""
    flat = values.detach().contiguous().view(-1)
    width = 1 if flat.numel() <= _ROWS else _WIDTH
    rest = -flat.numel() % width
    return (F.pad(flat, (0, rest)) if rest else flat).view(-1, width)


def _digest(values: Tensor) -> str:
    """A hash of the bits and the sum of the bit patterns, by integer sums, which do not depend on the order.

    A float's bit pattern increases by one from one magnitude to the next larger one. So the difference of two sums is
    the sum of the differences of a tensor's values in units in the last place.
    """
    rows = _rows(values).view(torch.int32).sum(1, dtype=torch.int32)
    hashed, total = (rows * _factors(rows.device)[: len(rows)]).sum(), rows.sum()
    return f"{int(hashed) >> 32 & 0xFFFFFFFF:08x}{int(total) & 0xFFFFFFFF:08x}"


def _norm(values: Tensor) -> Tensor:
    """The Euclidean norm: float32 within a row, float64 across rows."""
    found: Tensor = torch.linalg.vector_norm(double(torch.linalg.vector_norm(_rows(values), dim=1)))
    return found


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
