"""Errors about a data folder that say what mends it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

from hw6core.errors import DataError
from hw6core.provenance import MARKER, SETS

_SET_MARKS = ("mapping.json", "FashionMNIST")
_DEEPER = ("endovis/mapping.json", "fashion_mnist/FashionMNIST", "mapping.json")


def missing(message: str, root: Path) -> DataError:
    """Of data that is not in ``root``, which is to hold both sets.

    An archive that was unpacked one folder deeper is there already.
    """
    found = chain.from_iterable(root.glob(f"*/{place}") for place in _DEEPER)
    here = any((root / name).exists() for name in SETS)  # the other set at least
    if not here and (deeper := next(found, None)):
        folder = shlex.quote(str(root / deeper.relative_to(root).parts[0]))
        return DataError(f"{message}; it lies one folder deeper: name {folder} instead")
    return DataError(f"{message}; get it", "fetch", root)


def damaged(message: str, path: Path) -> DataError:
    """Of a file or folder of a data set: drawn data is drawn again, all other is downloaded."""
    own = next((folder for folder in path.parents if any((folder / mark).exists() for mark in _SET_MARKS)), None)
    folder = own or path.parent
    root = (folder if folder.name else folder.resolve()).parent if own else folder  # "." does not tell its parent
    if (folder / MARKER).is_file():
        return DataError(f"{message}; delete {shlex.quote(str(root))} and draw it again", "draw", root)
    return DataError(f"{message}; get it again", "replace", root)


@contextmanager
def unreadable_is_missing() -> Iterator[None]:
    """Around the loading of data: a folder or file that this user may not read is as good as missing.

    Raises:
        DataError: instead of a PermissionError.
    """
    try:
        yield
    except PermissionError as error:
        raise DataError(f"this user may not read {error.filename}; its owner may allow it: chmod -R a+rX") from error
