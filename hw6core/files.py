"""Files that are there whole or not at all, and the lock on what one process at a time works on."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

_UNFINISHED = ".hw6-unfinished-"
_LOCK = ".lock"


def file_lock(path: Path) -> BaseFileLock:
    """A lock named by a file in a folder that is there.

    It is the system's: it ends with the process, however that ends. Where the file system knows no locks (Lustre
    without flock, NFS without lockd, some FUSE servers), the file itself stands for one (`filelock.SoftFileLock`); it
    outlives a process that was killed on another machine.

    Raises:
        OSError: the folder cannot be written.
    """
    if fcntl is None:
        return FileLock(path)
    with tempfile.TemporaryFile(dir=path.parent) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return SoftFileLock(path)
    return FileLock(path)


@contextmanager
def scratch_folder(parent: Path) -> Iterator[Path]:
    """A folder for what is unfinished, in ``parent``, which is made if it is missing; gone after the block.

    What a process that was killed left is removed by the next one that asks for such a folder in the same place.

    Raises:
        OSError: ``parent`` cannot be written.
    """
    parent.mkdir(parents=True, exist_ok=True)
    for lock in parent.glob(f"{_UNFINISHED}*/{_LOCK}"):  # a folder without one is being made
        with suppress(OSError, Timeout), file_lock(lock).acquire(blocking=False):
            shutil.rmtree(lock.parent, ignore_errors=True)
    with (
        tempfile.TemporaryDirectory(prefix=_UNFINISHED, dir=parent, ignore_cleanup_errors=True) as scratch,
        file_lock(Path(scratch) / _LOCK),
    ):
        yield Path(scratch)


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A name in a folder of its own beside ``path``; what the block writes there is flushed and takes its place.

    If the block raises, ``path`` stays as it was. (A folder, as safetensors writes into a file of its own choice before
    it renames it.)

    Raises:
        OSError: the folder cannot be written or the disk is full.
    """
    with scratch_folder(path.parent) as scratch:
        complete = scratch / path.name
        yield complete
        with complete.open("rb") as file:
            os.fsync(file.fileno())
        complete.replace(path)
