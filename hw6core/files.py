"""Atomic writes, scratch folders and file locks."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

_UNFINISHED = ".hw6-unfinished-"
_LOCK = ".lock"


def file_lock(path: Path) -> BaseFileLock:
    """A lock on a file in an existing folder.

    The operating system releases it when the process ends. On file systems without locks (Lustre without flock, NFS
    without lockd, some FUSE servers) the existence of the file is the lock (`filelock.SoftFileLock`), which remains if
    a process is killed on another machine.

    Raises:
        OSError: the folder is not writable.
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
    """A temporary folder in ``parent``, which is created if missing; removed after the block.

    Also removes the scratch folders in ``parent`` that killed processes left behind.

    Raises:
        OSError: ``parent`` is not writable.
    """
    parent.mkdir(parents=True, exist_ok=True)
    for lock in parent.glob(f"{_UNFINISHED}*/{_LOCK}"):  # a folder without a lock is being created
        with suppress(OSError, Timeout), file_lock(lock).acquire(blocking=False):
            shutil.rmtree(lock.parent, ignore_errors=True)
    with ExitStack() as stack:
        while True:
            folder = tempfile.TemporaryDirectory(prefix=_UNFINISHED, dir=parent, ignore_cleanup_errors=True)
            scratch = Path(stack.enter_context(folder))
            try:
                stack.enter_context(file_lock(scratch / _LOCK))
                break
            except FileNotFoundError:
                if scratch.exists():  # otherwise another process removed it as left behind, before it was locked
                    raise
        yield scratch


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path; the file that the block writes there is flushed and replaces ``path``.

    If the block raises, ``path`` is unchanged. The temporary path is in a folder of its own, because safetensors
    writes a second file beside it.

    Raises:
        OSError: the folder is not writable or the disk is full.
    """
    with scratch_folder(path.parent) as scratch:
        complete = scratch / path.name
        try:
            yield complete
            with complete.open("r+b") as file:
                os.fsync(file.fileno())
            complete.replace(path)
        except OSError as error:
            if error.errno is not None and error.filename is None:
                error.filename = str(path)  # the message of a failed write names no file
            raise
