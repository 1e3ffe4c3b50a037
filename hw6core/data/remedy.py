"""Where a data set lies below the folder that somebody named, and errors about it that say what mends it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hw6core.errors import DataError
from hw6core.provenance import MARKER, SETS

_TITLES = {"endovis": "EndoVis data", "fashion_mnist": "Fashion-MNIST"}


def set_folder(root: str | Path, name: str) -> Path:
    """The folder of a data set: ``root`` itself, or the one in it that has the set's name.

    Raises:
        DataError: neither is; an archive that was unpacked one folder deeper is named.
    """
    root, mark = Path(root), SETS[name]
    for folder in (root, root / name):
        if (folder / mark).exists():
            return folder
    message = f"no {_TITLES[name]} in {root}: expected {name}/{mark} or {mark} there"
    marks = [place for other, its in SETS.items() for place in (f"{other}/{its}", its)]
    deeper = sorted(found for place in marks for found in root.glob(f"[!.]*/{place}"))
    if deeper and not any((root / other).exists() for other in SETS):  # else one set at least is in its place
        inner = shlex.quote(str(root / deeper[0].relative_to(root).parts[0]))
        raise DataError(f"{message}; it lies one folder deeper: name {inner} instead")
    raise DataError(f"{message}; get it", "fetch", root)


def damaged(message: str, path: Path) -> DataError:
    """Of a file or folder of a data set: drawn data is drawn again, all other is downloaded."""
    own = next((folder for folder in path.parents if any((folder / mark).exists() for mark in SETS.values())), None)
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
