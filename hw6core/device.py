"""What the training loop asks of a device: precision, waiting, and memory that is kept from step to step."""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import Callable, Mapping
from typing import Literal

import torch
from torch import Tensor

Precision = Literal["float32", "tf32", "bfloat16", "float16"]
HALF: Mapping[str, torch.dtype] = {"bfloat16": torch.bfloat16, "float16": torch.float16}
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # names of glibc's malloc.h
_LARGEST_INT = 2**31 - 1


def synchronize(device: torch.device) -> None:
    """Let queued device work finish, so that the clock can be read."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def double(values: Tensor) -> Tensor:
    """In float64, on the CPU where the device has no such numbers (Apple's)."""
    return (values.cpu() if values.device.type == "mps" else values).double()


def autocast(device: torch.device, precision: Precision) -> contextlib.AbstractContextManager[object]:
    """Mixed precision for a device, or nothing for float32 and tf32.

    >>> with autocast(torch.device("cpu"), "bfloat16"):
    ...     (torch.ones(2, 2) @ torch.ones(2, 2)).dtype
    torch.bfloat16
    """
    # Every weight is used once in a forward pass: there is nothing to cache, and a captured step must not.
    dtype = HALF.get(precision, torch.bfloat16)
    return torch.autocast(device.type, dtype, enabled=precision in HALF, cache_enabled=False)


def allow_tf32(allowed: bool) -> None:
    """Whether a GPU may round float32 factors to ten bits of mantissa, for the whole process."""
    # The newer switches (fp32_precision) make code fail that asks for these, such as torch's compiler.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed


def precisions(device: torch.device) -> list[Precision]:
    """What a device can train in, at whatever speed."""
    tf32: list[Precision] = ["tf32"] if device.type == "cuda" and torch.cuda.is_tf32_supported() else []
    scaled: list[Precision] = [] if device.type == "mps" else ["float16"]  # torch documents no gradient scaler for it
    return ["float32", *tf32, "bfloat16", *scaled]


def default_precision(device: torch.device) -> Precision:
    """bfloat16 where the hardware multiplies it natively (there it halves the time of a U-Net step), float16 on GPUs
    that have tensor cores for that alone (V100, T4: eight times the arithmetic), else float32.

    >>> default_precision(torch.device("cpu")) in ("float32", "bfloat16")
    True
    """
    if device.type != "cpu":
        module = torch.get_device_module(device)
        if hasattr(module, "is_bf16_supported") and module.is_bf16_supported(including_emulation=False):
            return "bfloat16"
        return "float16" if device.type == "cuda" and torch.cuda.get_device_capability(device) >= (7, 0) else "float32"
    features = torch.cpu.get_capabilities()
    return "bfloat16" if features.get("avx512_bf16") or features.get("amx_tile") else "float32"


def keep_freed_memory() -> bool:
    """Tell glibc to reuse freed memory instead of returning it to the system at once.

    PyTorch frees every gradient and activation of a step and asks for the same sizes in the next one. Returned to the
    system each time, they come back as fresh pages that the kernel must clear: on two cores a VGG16 training step
    (batch 64, 32x32, bf16) took 1.02 s, and 0.63 s with the memory kept.

    Returns:
        Whether the C library took it; False on anything but glibc, where nothing changes.
    """
    mallopt = _libc_function("mallopt")
    return mallopt is not None and bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, _LARGEST_INT))


def release_freed_memory() -> bool:
    """Return to the system what was freed and kept; whether the C library did."""
    malloc_trim = _libc_function("malloc_trim")
    return malloc_trim is not None and bool(malloc_trim(0))


def _libc_function(name: str) -> Callable[..., int] | None:
    """A function of glibc; None elsewhere."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        function: Callable[..., int] = getattr(ctypes.CDLL(None), name)
    except (OSError, AttributeError):  # musl has none
        return None
    return function
