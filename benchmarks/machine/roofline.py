"""What this device can do at most, and what a training step needs at least: how close to the limit a run came.

The limits are measured at the start (a matrix product, a copy), not read from a data sheet, which a throttled or
shared device does not reach. The needs of a step are counted by running it on tensors without data. Which limit is
nearer tells whether arithmetic or memory decides (the roofline of Williams et al. 2009).
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from hw6core.device import HALF, Precision, synchronize

_ROUNDS = 10
# Side of the matrices, and bytes copied, far beyond any cache: of a device that tells how much of its memory is free,
# and of any other.
_LARGE, _SMALL = (8192, 2**31), (1536, 2**28)
# Adam reads weight, gradient and two moments, and writes the weight and the moments: 7 floats. Forward and backward
# read the weight, backward writes the gradient: 3 more.
_BYTES_PER_WEIGHT = 10 * 4


@dataclass(frozen=True)
class Ceiling:
    """The most that a device does in a second.

    Attributes:
        flops_per_s: floating-point operations in a product of large matrices, in the precision of the runs.
        bytes_per_s: read and written by a copy.
    """

    flops_per_s: float
    bytes_per_s: float


@dataclass(frozen=True)
class StepCost:
    """The least that a step needs.

    Attributes:
        flops: of all convolutions and matrix products, forward and backward.
        bytes: what must go through memory once: weights, gradients and moments of Adam, the batch, and the activations
            that are kept for the backward pass, written and read. What a cache could hold is counted all the same.
        samples: in the batch.
    """

    flops: int
    bytes: int
    samples: int

    def arithmetic_s(self, ceiling: Ceiling) -> float:
        """Seconds of a step in which nothing but arithmetic took time."""
        return self.flops / ceiling.flops_per_s

    def memory_s(self, ceiling: Ceiling) -> float:
        """Seconds of a step in which nothing but memory traffic took time."""
        return self.bytes / ceiling.bytes_per_s


def measure_ceiling(device: torch.device, precision: Precision) -> Ceiling:
    """Measure both limits; a second or two. The best of a few rounds: a limit is not an average.

    What it took of a GPU's memory (at most a quarter of what is free) is given back.
    """
    module = torch.get_device_module(device)
    side, copied = _LARGE if hasattr(module, "mem_get_info") else _SMALL
    if hasattr(module, "mem_get_info"):
        copied = min(copied, module.mem_get_info(device)[0] // 8)
        side = min(side, math.isqrt(copied // 4) // 256 * 256)
    dtype = HALF.get(precision, torch.float32)
    found = Ceiling(2 * side**3 / _multiply_s(side, dtype, device), 2 * copied / _copy_s(copied, device))
    if hasattr(module, "empty_cache"):
        module.empty_cache()
    return found


def _multiply_s(side: int, dtype: torch.dtype, device: torch.device) -> float:
    # Not ones: on those a GPU draws less power, and its clock stays higher than any training will see it.
    first, second = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    product = torch.empty_like(first)
    return _fastest(lambda: torch.mm(first, second, out=product), device)


def _copy_s(count: int, device: torch.device) -> float:
    source = torch.ones(count, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return _fastest(lambda: target.copy_(source), device)


def _fastest(work: Callable[[], object], device: torch.device) -> float:
    work()
    times = []
    for _ in range(_ROUNDS):
        synchronize(device)
        start = time.perf_counter()
        work()
        synchronize(device)
        times.append(time.perf_counter() - start)
    return min(times)


def step_cost(
    model: nn.Module, sample: tuple[int, ...], batch_size: int, precision: Precision, *, training: bool = True
) -> StepCost:
    """Count one step of a batch without computing it; the model is left as it is.

    Args:
        sample: shape of one input of the network.
        precision: of the network; under bfloat16 and float16 kept activations take half the bytes.
        training: forward, backward and Adam; otherwise the forward pass alone.
    """
    twin = copy.deepcopy(model).to("meta").train(training)
    inputs = torch.empty(batch_size, *sample, device="meta")
    weights = {parameter.untyped_storage()._cdata for parameter in twin.parameters()}
    kept: dict[int, Tensor] = {}  # by storage: two operations may keep the same activation

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()._cdata
        if storage not in weights:
            kept.setdefault(storage, tensor)
        return tensor

    counter = FlopCounterMode(display=False)
    with counter, saved_tensors_hooks(keep, lambda tensor: tensor), nullcontext() if training else torch.no_grad():
        outputs = twin(inputs)
        if training:
            outputs.sum().backward()
    width = 2 if precision in HALF else 4
    activations = sum(tensor.numel() * (width if tensor.is_floating_point() else 8) for tensor in kept.values())
    learning = sum(p.numel() for p in twin.parameters() if p.requires_grad and training)
    read_alone = sum(p.numel() for p in twin.parameters()) - learning
    moved = learning * _BYTES_PER_WEIGHT + read_alone * 4 + 2 * activations + inputs.numel() * 4
    return StepCost(counter.get_total_flops(), moved, batch_size)
