"""Errors that a user can fix: one line each, with what was found and what was expected."""

from __future__ import annotations

from pathlib import Path
from typing import Literal


def visible(text: str) -> str:
    """Text as one printable line: white space becomes a blank, a control character its escape sequence (\\x1b).

    File names in archives, server responses and messages of other programs are untrusted.
    """
    line = (" " if letter.isspace() else letter for letter in text)
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in line)


class HW6Error(Exception):
    """Base of the errors that are reported as one line, without a traceback; the message is made `visible`."""

    def __init__(self, message: str = "") -> None:
        super().__init__(visible(message).strip())


class UsageError(HW6Error):
    """A command, option or configuration that cannot be carried out as asked."""


class DataError(HW6Error):
    """Data or weights that are missing, damaged or not as expected.

    Args:
        remedy: the fix, if it is one of these: download the data, download and replace it, draw it, download VGG16's
            weights. The message then ends with the name of the fix, and the command line appends the command.
        root: the folder for the data.
    """

    def __init__(
        self,
        message: str = "",
        remedy: Literal["fetch", "replace", "draw", "weights"] | None = None,
        root: Path = Path(),
    ) -> None:
        super().__init__(message)
        self.remedy = remedy
        self.root = root


class WeightsUnavailableError(DataError):
    """Pre-trained weights that are not available, as opposed to damaged ones."""


class TrainingDivergedError(HW6Error):
    """The loss became infinite or not a number."""


class TrainingStoppedError(Exception):
    """A training stopped on request; its state is in the checkpoint, if it has one."""


class DamagedFileError(ValueError):
    """A file whose content changed after it was written, or that another program wrote."""
