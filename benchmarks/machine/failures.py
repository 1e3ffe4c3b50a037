"""Classifies the errors of a run: out of memory, the machine, the compiler."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from benchmarks.errors import MACHINE_WORDS

# Messages without an exception class: of the host, CUDA, HIP or MPS, cuBLAS and cuDNN; the last one is of cuDNN, which
# skips every engine whose workspace does not fit.
_OUT_OF_MEMORY = ("can't allocate memory", "out of memory", "STATUS_ALLOC_FAILED", "unable to find an engine")


@contextmanager
def nondeterministic_operations() -> Iterator[set[str]]:
    """Collect the names of operations that torch warns about in deterministic mode; other warnings are still shown."""
    names: set[str] = set()
    if not torch.are_deterministic_algorithms_enabled():
        yield names
        return
    with warnings.catch_warnings():
        show = warnings.showwarning

        def collect(message: Warning | str, *where: Any, **more: Any) -> None:
            if "deterministic" in str(message):
                names.add(str(message).split()[0])
            else:
                show(message, *where, **more)

        warnings.filterwarnings("always", message=".*deterministic.*")
        warnings.showwarning = collect
        yield names


def machine_failed(error: Exception) -> bool:
    """Whether the machine (memory, disk, driver) caused the error, not the program."""
    return isinstance(error, OSError) or is_out_of_memory(error) or any(words in str(error) for words in MACHINE_WORDS)


def is_out_of_memory(error: Exception) -> bool:
    """Whether the GPU or the host is out of memory."""
    known = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return known or any(words in str(error) for words in _OUT_OF_MEMORY)


def compiler_failed(error: Exception) -> str | None:
    """Why torch.compile failed, in one line; None for any other error."""
    if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
        return None
    return " ".join(str(error).partition("\n\n")[0].split())[:300]


def first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0]
