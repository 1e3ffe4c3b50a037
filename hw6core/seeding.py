"""Seeds and determinism. One number decides initial weights, order of the samples and augmentation."""

from __future__ import annotations

import os
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


def set_deterministic(deterministic: bool) -> None:
    """Choose between speed and bitwise repeatability, for the whole process; to be called before CUDA is used.

    Fast: cuDNN tries its algorithms and takes the fastest; sums may be added up in another order every time.
    Deterministic: the same seed on the same machine gives the same bits. Where an operation has no deterministic form
    torch warns and goes on ("does not have a deterministic implementation").
    """
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what older cuBLAS asks for
    torch.use_deterministic_algorithms(deterministic, warn_only=True)
    torch.backends.cudnn.benchmark = not deterministic
    torch.backends.cudnn.deterministic = deterministic


def generator(seed: int, device: torch.device) -> torch.Generator:
    """A random stream of its own on a device, so that other draws do not shift it."""
    return torch.Generator(device).manual_seed(seed)
