"""The suite's own errors, in addition to the library's, and the exit code of each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum

from hw6core.errors import DataError, HW6Error, UsageError


class ExitCode(IntEnum):
    """Exit codes of the commands; the README explains each."""

    PASSED = 0
    FAILED = 1
    USAGE = 2
    DATA = 3
    MACHINE = 4
    CANNOT_TELL = 5
    FAULT = 70  # EX_SOFTWARE of sysexits.h
    INTERRUPTED = 130


class InfrastructureError(HW6Error):
    """The machine failed, not the model: no device, out of memory, lost driver."""


class TimeLimitError(HW6Error):
    """A run exceeded its time limit."""


class UnexpectedError(HW6Error):
    """A bug in the suite, not a failure of the machine or the model."""


def exit_code(error: HW6Error) -> ExitCode:
    """The exit code of an error; a training that diverged or exceeded its limit counts as a failed gate."""
    codes = {
        UsageError: ExitCode.USAGE,
        DataError: ExitCode.DATA,
        InfrastructureError: ExitCode.MACHINE,
        UnexpectedError: ExitCode.FAULT,
    }
    return next((code for kind, code in codes.items() if isinstance(error, kind)), ExitCode.FAILED)


# Parts of the messages that torch and Python have for machine failures without an exception class of their own.
MACHINE_WORDS = (
    *("CUDA error", "CUDA driver", "cuDNN", "CUDNN", "cuBLAS", "CUBLAS"),
    *("HIP error", "miopen", "MIOpen", "level_zero"),  # AMD's and Intel's
    *("out of memory", "can't allocate memory", "can't start new thread"),
)


@contextmanager
def machine_failures() -> Iterator[None]:
    """Turn errors of the system, such as a full disk, into an InfrastructureError.

    Meant to surround a whole command: problems with the user's files raise errors of their own before they get here.
    """
    try:
        yield
    except (BrokenPipeError, InterruptedError):
        raise
    except (OSError, MemoryError, RuntimeError) as error:
        reason = (str(error).splitlines() or ["out of memory"])[0]
        if isinstance(error, RuntimeError) and not any(words in reason for words in MACHINE_WORDS):
            raise
        raise InfrastructureError(f"the machine failed: {reason}; fix that and run the same command again") from error
