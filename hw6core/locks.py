"""Folders that one process at a time works in."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]


@contextmanager
def locked(folder: Path, *, wait: bool) -> Iterator[bool]:
    """Hold a folder for the length of the block.

    The lock is the system's and lies on the folder itself: it ends with the process, however that ends, so that none
    is ever left over, and no file tells of it. It binds those who ask for it; others may write all the same.

    Args:
        folder: exists.
        wait: until nobody else holds it.

    Yields:
        Whether it is held now: not if somebody else holds it, nor where the file system knows no locks.

    Raises:
        OSError: the folder is not there or may not be read.
    """
    if fcntl is None:
        yield False
        return
    handle = os.open(folder, os.O_RDONLY)
    held = False
    try:
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            held = True
        yield held
    finally:
        os.close(handle)  # releases it


def knows_locks(folder: Path) -> bool:
    """Whether a file in it can be locked: some file systems refuse every one."""
    with tempfile.TemporaryFile(dir=folder) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
    return True
