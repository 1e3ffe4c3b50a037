"""Files that are there whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hw6core.locks import locked

_UNFINISHED = ".hw6-unfinished-"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A name in a folder of its own beside ``path``; what the block writes there is flushed and takes its place.

    If the block raises, ``path`` stays as it was. What a process that was killed left is removed by the next one that
    writes into the same folder. (A folder, as safetensors writes into a file of its own choice before it renames it.)

    Raises:
        OSError: the folder cannot be written or the disk is full.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_unfinished(path.parent)
    with (
        tempfile.TemporaryDirectory(prefix=_UNFINISHED, dir=path.parent, ignore_cleanup_errors=True) as scratch,
        locked(Path(scratch), wait=False),
    ):
        complete = Path(scratch) / path.name
        yield complete
        _flush(complete)
        complete.replace(path)


def _flush(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _remove_unfinished(folder: Path) -> None:
    """What killed processes left. Whoever is still writing holds the lock; where there are no locks, nobody knows."""
    for scratch in folder.glob(f"{_UNFINISHED}*"):
        with suppress(OSError), locked(scratch, wait=False) as abandoned:
            if abandoned:
                shutil.rmtree(scratch, ignore_errors=True)
