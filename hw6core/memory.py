"""How the process holds on to memory on the CPU."""

from __future__ import annotations

import ctypes
import sys

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
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # musl has none
        return False
    return bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, _LARGEST_INT))
