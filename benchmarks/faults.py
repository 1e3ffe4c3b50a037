"""What went wrong in a run, and whose fault it was."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from hw6core.errors import MACHINE_WORDS

_CAPTURE_ERRORS = range(900, 909)  # cudaErrorStreamCaptureUnsupported and those after it


@contextmanager
def nondeterministic_operations() -> Iterator[set[str]]:
    """Collects the names of operations that torch warns of in deterministic mode; other warnings are shown as ever."""
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
    """Whether an error is the machine's (memory, disk, driver), not the program's."""
    return isinstance(error, OSError) or is_out_of_memory(error) or any(words in str(error) for words in MACHINE_WORDS)


def is_out_of_memory(error: Exception) -> bool:
    """The GPU's memory, or this machine's: of the latter torch knows no class of its own."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


def what_failed(error: torch.AcceleratorError) -> str:
    """The device, or the recording of a step: after that too nothing else can run in this process."""
    code = getattr(error, "error_code", None)
    return "the step could not be recorded" if code in _CAPTURE_ERRORS else "the device failed"


def first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0]
