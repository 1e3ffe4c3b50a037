"""Seeds and determinism. One number decides the initial weights, the order of the samples and the augmentation."""

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
    """Choose between speed and bitwise reproducibility, for the whole process; call it before CUDA is used.

    Fast: cuDNN benchmarks its algorithms and takes the fastest; the order of sums may change.
    Deterministic: the same seed on the same machine gives the same bits. torch only warns about an operation that
    "does not have a deterministic implementation". Uninitialised memory is not filled with NaN, torch's default in this
    mode: nothing here reads such memory, and filling it doubles the number of kernel launches.

    >>> set_deterministic(True)
    >>> torch.are_deterministic_algorithms_enabled()
    True
    >>> set_deterministic(False)
    """
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # required by older cuBLAS
    torch.use_deterministic_algorithms(deterministic, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = not deterministic
    torch.backends.cudnn.deterministic = deterministic


def make_generator(seed: int, device: torch.device) -> torch.Generator:
    """A separate random generator on a device, independent of other draws.

    Its numbers differ from those of torch's default generator with the same seed; otherwise augmentation and dropout
    would use the same draws.

    >>> first, again = (torch.rand(3, generator=make_generator(7, torch.device("cpu"))) for _ in range(2))
    >>> torch.equal(first, again)
    True
    """
    derived = int.from_bytes(sha256(f"hw6core {seed}".encode()).digest()[:4], "big")
    return torch.Generator(device).manual_seed(derived)


def random_state(generator: torch.Generator) -> tuple[dict[str, Tensor], str]:
    """The state of all random generators, including ``generator``: tensors, and the rest as JSON."""
    tensors = {"generator": generator.get_state(), "torch": torch.get_rng_state()}
    if generator.device.type != "cpu":
        tensors["device"] = torch.get_device_module(generator.device).get_rng_state(generator.device)
    name, keys, *place = np.random.get_state(legacy=True)
    return tensors, json.dumps({"python": random.getstate(), "numpy": [name, np.asarray(keys).tolist(), *place]})


def restore_random_state(tensors: Mapping[str, Tensor], rest: str, generator: torch.Generator) -> None:
    """Restore the state that `random_state` returned.

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
    state = json.loads(rest)
    np.random.set_state(tuple(state["numpy"]))
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
