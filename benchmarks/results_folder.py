"""What must be true of a results folder before hours are spent on what is to be written there."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from filelock import FileLock, Timeout

from benchmarks.plan import Plan
from hw6core.errors import InfrastructureError, UsageError

_LOCK = ".lock"
# Of VGG16: two checkpoints with optimizer and best weights (one is written before the other is deleted), a stand-in,
# and the weights of every seed. Of a U-Net: 10 MB of weights a run, two checkpoints of 40.
_VGG_CHECKPOINTS_GB, _VGG_WEIGHTS_GB = 4.3, 0.55
_UNET_CHECKPOINTS_GB, _UNET_WEIGHTS_GB = 0.2, 0.01


@contextmanager
def claimed(plan: Plan) -> Iterator[None]:
    """The folder is this process's alone until the end of the block; the lock of a process that was killed is no lock.

    Raises:
        UsageError: another process is at work in it.
        InfrastructureError: it cannot be written, or the disk has too little room for the runs.
    """
    results = plan.results
    _check(plan)
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


def _check(plan: Plan) -> None:
    results = plan.results
    try:
        results.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=results) as file:
            file.write(b"a disk that is full takes a file's name, but none of its content")
    except OSError as error:
        raise InfrastructureError(
            f"{results} cannot be written ({error.strerror}); make room or name another folder: RESULTS=FOLDER"
        ) from error
    needed_gb = _needed_gb(plan)
    free_gb = shutil.disk_usage(results).free / 1e9
    if free_gb < needed_gb:
        raise InfrastructureError(
            f"{free_gb:.1f} GB are free in {results}, and the runs need {needed_gb:.1f}; "
            "make room or name another folder: RESULTS=FOLDER"
        )


def _needed_gb(plan: Plan) -> float:
    runs = plan.runs
    garments = sum(entry.kind in ("scratch", "frozen", "new-task") for entry, _ in runs)
    scratch = sum(entry.kind == "scratch" for entry, _ in runs)
    at_once = 0 if plan.cluster else plan.workers  # a cluster's checkpoints lie on its nodes
    checkpoints_gb = min(garments, at_once) * _VGG_CHECKPOINTS_GB + min(len(runs), at_once) * _UNET_CHECKPOINTS_GB
    weights_gb = (scratch + (garments > scratch)) * _VGG_WEIGHTS_GB + (len(runs) - garments) * _UNET_WEIGHTS_GB
    return checkpoints_gb + weights_gb
