"""Mistakes that a person can mend: one clear line each, and the exit code that the command line ends with.

A message says what was found, what was expected and the command that mends it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal


def visible(text: str) -> str:
    """The text in one line that commands no terminal: a line break is a blank, an escape character its code, \\x1b.

    Names in an archive, a server's answer and the messages of other programs are written by strangers.
    """
    return "".join(letter if letter.isprintable() else _spelled(letter) for letter in text)


def _spelled(letter: str) -> str:
    return " " if letter.isspace() else letter.encode("unicode_escape").decode("ascii")


class SuiteError(Exception):
    """Base of every error that is shown as one line instead of a traceback; whatever it quotes becomes `visible`."""

    exit_code = 1

    def __init__(self, message: str = "") -> None:
        super().__init__(visible(message).strip())


class UsageError(SuiteError):
    """A command, option or configuration that cannot be carried out as asked."""

    exit_code = 2


class DataError(SuiteError):
    """Data or weights that are missing, damaged or not what they should be.

    Args:
        mend: what helps, if one of these does: to fetch the data, to fetch it in place of what is there, to draw it,
            to fetch VGG16's weights. The message then ends with a word for that, which a command can follow.
        root: the folder that the data is to be put into.
    """

    exit_code = 3

    def __init__(
        self,
        message: str = "",
        mend: Literal["fetch", "replace", "draw", "weights"] | None = None,
        root: Path = Path(),
    ) -> None:
        super().__init__(message)
        self.mend = mend
        self.root = root


class WeightsUnavailableError(DataError):
    """Pre-trained weights that cannot be had here, as opposed to weights that are damaged."""


class InfrastructureError(SuiteError):
    """The machine failed, not the model: no device, out of memory, driver lost."""

    exit_code = 4


class TrainingDivergedError(SuiteError):
    """The loss became infinite or not a number."""

    exit_code = 1


class TrainingStoppedError(Exception):
    """A training was asked to stop; its state is in the checkpoint, if it has one."""


class DamagedFileError(ValueError):
    """A file that is not what was written, or was written by something else."""


class TimeLimitError(SuiteError):
    """A run took longer than it may."""

    exit_code = 1


class UnexpectedError(SuiteError):
    """Nobody foresaw it: a fault of this program, not of the machine nor the model; EX_SOFTWARE of sysexits.h."""

    exit_code = 70


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
