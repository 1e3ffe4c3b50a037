"""What must be true of a results folder before hours are spent on what is to be written there."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from benchmarks.suite import Configuration
from hw6core.errors import InfrastructureError, UsageError

_LOCK = ".lock"
# Two checkpoints of VGG16 with its optimizer and best weights (one is written before the other is deleted), a
# stand-in, and the weights of a seed; of a U-Net 10 MB of weights and 40 MB of checkpoint.
_VGG_GB, _UNET_GB = 6.0, 0.2


@contextmanager
def claimed(results: Path, configurations: Sequence[Configuration]) -> Iterator[None]:
    """The folder is this process's alone until the end of the block; the lock of a process that was killed is no lock.

    Raises:
        UsageError: another process is at work in it.
        InfrastructureError: it cannot be written, or the disk has too little room for the configurations.
    """
    _check(results, configurations)
    lock = FileLock(results / _LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise UsageError(
            f"another suite is at work in {results}; wait until it is done, or name another folder: RESULTS=FOLDER"
        ) from error
    try:
        yield
    finally:
        lock.release()


def _check(results: Path, configurations: Sequence[Configuration]) -> None:
    try:
        results.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=results) as file:
            file.write(b"a disk that is full takes a file's name, but none of its content")
    except OSError as error:
        raise InfrastructureError(
            f"{results} cannot be written ({error.strerror}); make room or name another folder: RESULTS=FOLDER"
        ) from error
    needed_gb = max((_needed_gb(configuration) for configuration in configurations), default=0.0)
    free_gb = shutil.disk_usage(results).free / 1e9
    if free_gb < needed_gb:
        raise InfrastructureError(
            f"{free_gb:.1f} GB are free in {results}, and the runs need {needed_gb:.1f}; "
            "make room or name another folder: RESULTS=FOLDER"
        )


def _needed_gb(configuration: Configuration) -> float:
    return _UNET_GB if configuration.kind in ("segmentation", "colorization") else _VGG_GB
