"""Mistakes that a person can mend: one clear line each, of what was found and what was expected."""

from __future__ import annotations

from pathlib import Path
from typing import Literal


def visible(text: str) -> str:
    """The text in one line that commands no terminal: a line break is a blank, an escape character its code, \\x1b.

    Names in an archive, a server's answer and the messages of other programs are written by strangers.
    """
    in_line = (" " if letter.isspace() else letter for letter in text)
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in in_line)


class HW6Error(Exception):
    """Base of every error that is shown as one line instead of a traceback; whatever it quotes becomes `visible`."""

    def __init__(self, message: str = "") -> None:
        super().__init__(visible(message).strip())


class UsageError(HW6Error):
    """A command, option or configuration that cannot be carried out as asked."""


class DataError(HW6Error):
    """Data or weights that are missing, damaged or not what they should be.

    Args:
        mend: what helps, if one of these does: to fetch the data, to fetch it in place of what is there, to draw it,
            to fetch VGG16's weights. The message then ends with a word for that, which a command can follow.
        root: the folder that the data is to be put into.
    """

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


class TrainingDivergedError(HW6Error):
    """The loss became infinite or not a number."""


class TrainingStoppedError(Exception):
    """A training was asked to stop; its state is in the checkpoint, if it has one."""


class DamagedFileError(ValueError):
    """A file that is not what was written, or was written by something else."""
