"""Finds a data set below a folder, and builds errors about it with the command that fixes them."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hw6core.errors import DataError
from hw6core.provenance import MARKER, SETS

_TITLES = {"endovis": "EndoVis data", "fashion_mnist": "Fashion-MNIST"}


def set_folder(root: str | Path, name: str) -> Path:
    """The folder of a data set: ``root`` itself, or its subfolder with the name of the data set.

    Raises:
        DataError: neither holds it; suggests a subfolder if the data is one level deeper.
    """
    root, mark = Path(root), SETS[name]
    for folder in (root, root / name):
        if (folder / mark).exists():
            return folder
    message = f"no {_TITLES[name]} in {root}: expected {name}/{mark} or {mark} there"
    marks = [place for other, its in SETS.items() for place in (f"{other}/{its}", its)]
    deeper = sorted(found for place in marks for found in root.glob(f"[!.]*/{place}"))
    if deeper and not any((root / other).exists() for other in SETS):  # otherwise `root` holds the other data set
        inner = shlex.quote(str(root / deeper[0].relative_to(root).parts[0]))
        raise DataError(f"{message}; it is one folder deeper: use {inner} instead")
    raise DataError(f"{message}; download it", "fetch", root)


def damaged(message: str, path: Path) -> DataError:
    """An error about a file or folder of a data set, to be fixed by drawing drawn data or downloading other data."""
    marked = (folder for folder in path.parents if any((folder / mark).exists() for mark in SETS.values()))
    own = next(marked, path.parent)
    root = parent(own)
    if (own / MARKER).is_file():
        return DataError(f"{message}; delete {shlex.quote(str(own))} and draw it again", "draw", root)
    return DataError(f"{message}; download it again", "replace", root)


def parent(folder: Path) -> Path:
    """The folder above, also for "." and ".."."""
    return Path(os.path.normpath(folder / ".."))


@contextmanager
def unreadable_is_missing() -> Iterator[None]:
    """Raise a PermissionError in the block as a DataError."""
    try:
        yield
    except PermissionError as error:
        raise DataError(f"no permission to read {error.filename}; its owner can run: chmod -R a+rX") from error
