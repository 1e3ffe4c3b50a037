"""Device settings for the training loop: precision, memory format, synchronization, reuse of freed memory."""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import Mapping
from typing import Literal, get_args

import torch
from torch import Tensor

Precision = Literal["float32", "tf32", "bfloat16", "float16"]
HALF: Mapping[str, torch.dtype] = {"bfloat16": torch.bfloat16, "float16": torch.float16}
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # from glibc's malloc.h
_LARGE = 12_000  # pixels of an image above which contiguous convolutions train faster without AVX-512


def synchronize(device: torch.device) -> None:
    """Wait for queued device work, so that the clock can be read."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def double(values: Tensor) -> Tensor:
    """Convert to float64, on the CPU if the device has no float64 (MPS)."""
    return (values.cpu() if values.device.type == "mps" else values).double()


def autocast(device: torch.device, precision: Precision) -> contextlib.AbstractContextManager[object]:
    """Autocast for mixed precision; disabled for float32 and tf32.

    Raises:
        ValueError: the precision is unknown.

    >>> with autocast(torch.device("cpu"), "bfloat16"):
    ...     (torch.ones(2, 2) @ torch.ones(2, 2)).dtype
    torch.bfloat16
    """
    if precision not in get_args(Precision):
        raise ValueError(f"precision={precision!r}; expected one of {', '.join(get_args(Precision))}")
    # Every weight is used once in a forward pass, so a cache would not help; a captured step must not use one.
    dtype = HALF.get(precision, torch.bfloat16)
    return torch.autocast(device.type, dtype, enabled=precision in HALF, cache_enabled=False)


def allow_tf32(allowed: bool) -> None:
    """Set, for the whole process, whether a GPU may round float32 factors to ten bits of mantissa."""
    # Setting the newer switches (fp32_precision) breaks code that reads these ones, such as torch's compiler.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed


def precisions(device: torch.device) -> list[Precision]:
    """The precisions that a device supports, fast or slow."""
    tf32: list[Precision] = ["tf32"] if device.type == "cuda" and torch.cuda.is_tf32_supported() else []
    scaled: list[Precision] = [] if device.type == "mps" else ["float16"]  # torch documents no gradient scaler for it
    return ["float32", *tf32, "bfloat16", *scaled]


def default_precision(device: torch.device) -> Precision:
    """bfloat16 where the hardware supports it natively (it halves the time of a U-Net step), float16 on GPUs whose
    tensor cores support only that (V100, T4: eight times the arithmetic), else float32.

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


def memory_format(device: torch.device, size: tuple[int, int]) -> torch.memory_format:
    """The memory format in which the convolutions of a network for images of (H, W) train fastest.

    channels_last; but contiguous for images larger than 96x120 on a CPU without AVX-512, where oneDNN takes up to 5
    times as long for the gradients of the weights in channels_last (the U-Net's step at 256x320: 1.6 times as long).

    >>> memory_format(torch.device("cuda"), (256, 320))
    torch.channels_last
    """
    if device.type == "cpu" and size[0] * size[1] > _LARGE and not torch.cpu.get_capabilities().get("avx512_f"):
        return torch.contiguous_format
    return torch.channels_last


def keep_freed_memory() -> None:
    """Make glibc reuse freed memory instead of returning it to the system; no effect without glibc.

    PyTorch frees the gradients and activations of a step and allocates the same sizes in the next one. Pages that were
    returned to the system must be cleared by the kernel each time: on two cores a VGG16 training step (batch 64, 32x32,
    bf16) took 1.02 s, and 0.63 s with the memory kept. `release_freed_memory` returns it.
    """
    if glibc := _glibc():
        glibc.mallopt(_M_MMAP_MAX, 0)
        glibc.mallopt(_M_TRIM_THRESHOLD, -1)  # never; a limit of 2 GiB cost the U-Net at 256x320 a fifth of its time


def release_freed_memory() -> None:
    """Return freed memory to the system."""
    if glibc := _glibc():
        glibc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    """glibc; None with another C library."""
    with contextlib.suppress(OSError):  # a statically linked Python
        libc = ctypes.CDLL(None) if sys.platform.startswith("linux") else None
        return libc if hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim") else None
    return None
