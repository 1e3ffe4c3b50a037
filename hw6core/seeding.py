"""Seeds and determinism. One number decides initial weights, order of the samples and augmentation."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Mapping
from hashlib import sha256

import numpy as np
import torch
from torch import Tensor


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch on every device.

    Raises:
        ValueError: the seed is not in [0, 2**32).

    >>> seed_everything(0)
    >>> first = torch.rand(3)
    >>> seed_everything(0)
    >>> torch.equal(torch.rand(3), first)
    True
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
    torch warns and goes on ("does not have a deterministic implementation"). New memory is not filled with NaN, as
    torch would do in that mode: nothing here reads what it has not written, and a GPU would have twice the kernels to
    start.

    >>> set_deterministic(True)
    >>> torch.are_deterministic_algorithms_enabled()
    True
    >>> set_deterministic(False)
    """
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what older cuBLAS asks for
    torch.use_deterministic_algorithms(deterministic, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = not deterministic
    torch.backends.cudnn.deterministic = deterministic


def make_generator(seed: int, device: torch.device) -> torch.Generator:
    """A random stream of its own on a device, so that other draws do not shift it.

    Nor are its numbers those that torch's own generator gives with this seed: augmentation and dropout, seeded alike,
    would otherwise be decided by the same draws.

    >>> first, again = (torch.rand(3, generator=make_generator(7, torch.device("cpu"))) for _ in range(2))
    >>> torch.equal(first, again)
    True
    """
    derived = int.from_bytes(sha256(f"hw6core {seed}".encode()).digest()[:4], "big")
    return torch.Generator(device).manual_seed(derived)


def random_state(generator: torch.Generator) -> tuple[dict[str, Tensor], str]:
    """Where every random stream stands, ``generator`` among them: tensors, and the rest as JSON."""
    tensors = {"generator": generator.get_state(), "torch": torch.get_rng_state()}
    if generator.device.type != "cpu":
        tensors["device"] = torch.get_device_module(generator.device).get_rng_state(generator.device)
    name, keys, *place = np.random.get_state(legacy=True)
    return tensors, json.dumps({"python": random.getstate(), "numpy": [name, np.asarray(keys).tolist(), *place]})


def restore_random_state(tensors: Mapping[str, Tensor], rest: str, generator: torch.Generator) -> None:
    """Put every stream back to where `random_state` found it.

    >>> generator = make_generator(0, torch.device("cpu"))
    >>> state = random_state(generator)
    >>> first = torch.rand(3, generator=generator)
    >>> restore_random_state(*state, generator)
    >>> torch.equal(torch.rand(3, generator=generator), first)
    True
    """
    generator.set_state(tensors["generator"])
    torch.set_rng_state(tensors["torch"])
    if generator.device.type != "cpu":
        torch.get_device_module(generator.device).set_rng_state(tensors["device"], generator.device)
    noted = json.loads(rest)
    np.random.set_state(tuple(noted["numpy"]))
    version, internal, gauss = noted["python"]
    random.setstate((version, tuple(internal), gauss))
