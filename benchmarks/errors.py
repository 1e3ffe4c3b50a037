"""Errors of the suite beside the library's, and the exit code that each ends a command with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum

from hw6core.errors import DataError, HW6Error, UsageError


class ExitCode(IntEnum):
    """How a command ends; README explains each."""

    PASSED = 0
    FAILED = 1
    USAGE = 2
    DATA = 3
    MACHINE = 4
    CANNOT_TELL = 5
    FAULT = 70  # EX_SOFTWARE of sysexits.h
    INTERRUPTED = 130


class InfrastructureError(HW6Error):
    """The machine failed, not the model: no device, out of memory, driver lost."""


class TimeLimitError(HW6Error):
    """A run took longer than it may."""


class UnexpectedError(HW6Error):
    """Nobody foresaw it: a fault of this program, not of the machine nor the model."""


def exit_code(error: HW6Error) -> ExitCode:
    """That of its kind; of a training that diverged or took too long that of a gate that was missed."""
    codes = {
        UsageError: ExitCode.USAGE,
        DataError: ExitCode.DATA,
        InfrastructureError: ExitCode.MACHINE,
        UnexpectedError: ExitCode.FAULT,
    }
    return next((code for kind, code in codes.items() if isinstance(error, kind)), ExitCode.FAILED)


# What torch and Python say of a machine that fails, in errors of no class of their own.
MACHINE_WORDS = (
    "CUDA error",
    "CUDA driver",
    "cuDNN",
    "cuBLAS",
    "CUBLAS",
    "CUDNN",
    "out of memory",
    "can't allocate memory",
    "can't start new thread",
)


@contextmanager
def machine_failures() -> Iterator[None]:
    """Make what the system refuses, such as space on a full disk, an InfrastructureError.

    Around a whole command: what is wrong with a person's files has been told by then, as an error of its own.
    """
    try:
        yield
    except (BrokenPipeError, InterruptedError):
        raise
    except (OSError, MemoryError, RuntimeError) as error:
        reason = (str(error).splitlines() or ["out of memory"])[0]
        if isinstance(error, RuntimeError) and not any(words in reason for words in MACHINE_WORDS):
            raise
        raise InfrastructureError(f"the machine failed: {reason}; mend it and give the same command again") from error
