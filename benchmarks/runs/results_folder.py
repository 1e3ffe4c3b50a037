"""Checks of a results folder before hours of training: locked, writable, with enough free space."""

from __future__ import annotations

import shlex
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from filelock import SoftFileLock, Timeout

from benchmarks.errors import InfrastructureError
from benchmarks.runs.plan import Plan
from benchmarks.workloads.run import checkpoints_folder, weights_path
from hw6core.errors import UsageError, visible
from hw6core.files import file_lock

_LOCK = ".lock"
# Of a run's two checkpoints, with optimizer and best weights (one is written before the other is deleted), and of its
# weights: runs that train all of VGG16, and others.
_VGG_GB = {"scratch": (4.3, 0.55), "stand-in": (4.3, 0.55), "new-task": (4.3, 0.0)}
_OTHERS_GB = (0.2, 0.01)


@contextmanager
def locked(plan: Plan, warn: Callable[[str], object] = lambda _: None) -> Iterator[None]:
    """Check the results folder and lock it until the end of the block; see `hw6core.files.file_lock`.

    ``warn`` is called if the file system does not support locks.

    Raises:
        UsageError: the folder is in use by another process.
        InfrastructureError: it cannot be written, or has too little free space for the runs.
    """
    results = plan.results
    _check_space(plan)
    path = results / _LOCK
    lock = file_lock(path)
    if isinstance(lock, SoftFileLock):
        warn(f"warning: the file system of {results} does not support locks; using the file {path} as a lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise UsageError(
            f"{results} is in use by {_holder(path)}; wait until it is done, or use another folder: RESULTS=FOLDER"
            + (f"; if it no longer runs: rm {shlex.quote(str(path))}" if isinstance(lock, SoftFileLock) else "")
        ) from error
    try:
        yield
    finally:
        lock.release()


def _holder(path: Path) -> str:
    """Who wrote a lock file (process, machine and since when), as far as it can be read."""
    with suppress(OSError):  # released meanwhile
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        since = datetime.fromtimestamp(path.stat().st_mtime).astimezone().isoformat(" ", "minutes")
        if len(lines) >= 2:
            return f"process {visible(lines[0])} on {visible(lines[1])} (since {since})"
    return "another process"


def _check_space(plan: Plan) -> None:
    results = plan.results
    try:
        results.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=results) as file:
            file.write(b"creating a file succeeds on a full disk, but writing to it does not")
    except OSError as error:
        raise InfrastructureError(
            f"{results} cannot be written ({error.strerror}); free up space or use another folder: RESULTS=FOLDER"
        ) from error
    needed_gb, disk = _needed_gb(plan), shutil.disk_usage(results)
    free_gb = disk.free / 1e9
    if disk.total and free_gb < needed_gb:  # some file systems report 0 of 0
        raise InfrastructureError(
            f"{results} has {free_gb:.1f} GB of free space, but the runs need {needed_gb:.1f} GB; "
            "free up space or use another folder: RESULTS=FOLDER"
        )


def _needed_gb(plan: Plan) -> float:
    """What the runs will write, beyond the files of an earlier call, which they reuse or replace."""
    space_gb = [_VGG_GB.get(entry.kind, _OTHERS_GB) for entry, _ in plan.runs]
    at_once = 0 if plan.cluster else plan.workers  # a cluster's checkpoints are on its nodes
    checkpoints_gb = sum(sorted((checkpoints for checkpoints, _ in space_gb), reverse=True)[:at_once])
    written = 0
    for entry, seed in plan.runs:
        checkpoints = checkpoints_folder(plan.results, entry.id, seed).glob("*")
        for file in (weights_path(plan.results, entry.id, seed), *checkpoints):
            with suppress(OSError):  # not there, or deleted meanwhile
                written += file.stat().st_size
    return max(checkpoints_gb + sum(weights for _, weights in space_gb) - written / 1e9, 0.0)
