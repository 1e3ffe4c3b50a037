"""Seeds. One number decides initial weights, order of the samples and augmentation."""

from __future__ import annotations

import random

import numpy as np
import torch


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch on every device.

    Raises:
        ValueError: the seed is not in [0, 2**32).
    """
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed is {seed}; expected 0 to {2**32 - 1}")
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def generator(seed: int, device: torch.device) -> torch.Generator:
    """A random stream of its own on a device, so that other draws do not shift it."""
    return torch.Generator(device).manual_seed(seed)
