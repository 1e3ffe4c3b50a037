"""The limits of a device and the minimum cost of a training step, to compute how close to the limit a run comes.

The limits are measured before the runs (a matrix product, a copy), because a throttled or shared device does not reach
its data sheet. The cost of a step is counted on meta tensors. The nearer limit decides whether a step is bound by
arithmetic or by memory (the roofline model of Williams et al. 2009).
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
# Side of the matrices and bytes copied, larger than any cache: for devices that report their free memory, and others.
_LARGE, _SMALL = (8192, 2**31), (1536, 2**28)
# Adam reads weight, gradient and two moments, and writes the weight and the moments: 7 floats. Forward and backward
# read the weight, backward writes the gradient: 3 more.
_BYTES_PER_WEIGHT = 10 * 4


@dataclass(frozen=True)
class Ceiling:
    """The measured limits of a device."""

    flops_per_s: float  # floating-point operations of a product of large matrices, in the runs' precision
    bytes_per_s: float  # read and written by a copy


@dataclass(frozen=True)
class StepCost:
    """The minimum cost of a step.

    Attributes:
        flops: of all convolutions and matrix products, forward and backward.
        bytes: memory traffic without caches: weights, gradients and moments of Adam, the batch, and the activations
            that are saved for the backward pass, written and read once.
        samples: in the batch.
    """

    flops: int
    bytes: int
    samples: int

    def arithmetic_s(self, ceiling: Ceiling) -> float:
        """Seconds of a step if only arithmetic took time."""
        return self.flops / ceiling.flops_per_s

    def memory_s(self, ceiling: Ceiling) -> float:
        """Seconds of a step if only memory traffic took time."""
        return self.bytes / ceiling.bytes_per_s


def measure_ceiling(device: torch.device, precision: Precision) -> Ceiling:
    """Measure both limits, each as the best of a few rounds; takes a second or two.

    It uses at most a quarter of a GPU's free memory, and releases it.
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
    # Not ones: with them a GPU draws less power, and its clock stays higher than in any training.
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
    """Count the cost of one step without computing it; the model is not changed.

    Args:
        sample: shape of one input of the network.
        precision: of the network; with bfloat16 and float16, saved activations take half the bytes.
        training: whether to count forward, backward and Adam, or only the forward pass.
    """
    twin = copy.deepcopy(model).to("meta").train(training)
    inputs = torch.empty(batch_size, *sample, device="meta")
    weights = {parameter.untyped_storage()._cdata for parameter in twin.parameters()}
    kept: dict[int, Tensor] = {}  # by storage: two operations may save the same activation

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
