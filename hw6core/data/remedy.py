"""The command that mends a data folder, for the end of an error message."""

from __future__ import annotations

import shlex
from pathlib import Path

from hw6core.provenance import MARKER

_SET_MARKS = ("mapping.json", "FashionMNIST")


def get(root: Path) -> str:
    """What gets data that is not there into ``root``, which is to hold both sets."""
    return f"get it: python -m benchmarks data fetch --root {_quoted(root)}"


def get_again(damaged: Path) -> str:
    """What replaces a file or folder of a data set: drawn data is drawn again, all other is downloaded."""
    own = next((folder for folder in damaged.parents if any((folder / mark).exists() for mark in _SET_MARKS)), None)
    folder = own or damaged.parent
    root = (folder if folder.name else folder.resolve()).parent if own else folder  # "." does not tell its parent
    if (folder / MARKER).is_file():
        return f"delete {_quoted(root)} and draw it again: python -m benchmarks data synthesize --root {_quoted(root)}"
    return f"get it again: python -m benchmarks data fetch --root {_quoted(root)} --force"


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))
