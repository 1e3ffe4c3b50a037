"""How the process holds on to memory on the CPU."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # names of glibc's malloc.h
_LARGEST_INT = 2**31 - 1


def keep_freed_memory() -> bool:
    """Tell glibc to reuse freed memory instead of returning it to the system at once.

    PyTorch frees every gradient and activation of a step and asks for the same sizes in the next one. Returned to the
    system each time, they come back as fresh pages that the kernel must clear: on two cores a VGG16 training step
    (batch 64, 32x32, bf16) took 1.02 s, and 0.63 s with the memory kept.

    Returns:
        Whether the C library took it; False on anything but glibc, where nothing changes.
    """
    mallopt = _of_libc("mallopt")
    return mallopt is not None and bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, _LARGEST_INT))


def release_freed_memory() -> bool:
    """Return to the system what was freed and kept; whether the C library did."""
    malloc_trim = _of_libc("malloc_trim")
    return malloc_trim is not None and bool(malloc_trim(0))


def _of_libc(name: str) -> Callable[..., int] | None:
    """A function of glibc; None elsewhere."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        function: Callable[..., int] = getattr(ctypes.CDLL(None), name)
    except (OSError, AttributeError):  # musl has none
        return None
    return function
