"""How far training moved each layer, to detect a layer that did not learn, which the scores may hide."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

_SAMPLES = 4096  # at most this many evenly spaced values of each tensor; a copy of all of VGG16 takes 540 MB


def sampled(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Evenly spaced values of each floating-point tensor of a state, copied to the CPU."""
    return {
        name: value.detach().flatten()[:: -(-value.numel() // _SAMPLES)].cpu().double()
        for name, value in state.items()
        if value.is_floating_point()
    }


def movement(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> dict[str, float]:
    """Relative distance between two `sampled` states, for the parameters and the running averages of each layer.

    >>> import torch
    >>> start = {"fc.weight": torch.tensor([3.0, 4.0]), "fc.bias": torch.zeros(1), "bn.running_mean": torch.ones(1)}
    >>> end = start | {"fc.weight": torch.tensor([3.0, 5.0])}
    >>> movement(sampled(start), sampled(end))
    {'fc': 0.2, 'bn averages': 0.0}
    """
    squares: dict[str, tuple[float, float]] = {}
    for name, start in before.items():
        layer, _, tensor = name.rpartition(".")
        what = f"{layer} averages" if tensor.startswith("running") else layer
        moved, size = squares.get(what, (0.0, 0.0))
        squares[what] = moved + float((after[name] - start).square().sum()), size + float(start.square().sum())
    return {what: (moved / (size or 1.0)) ** 0.5 for what, (moved, size) in squares.items()}
