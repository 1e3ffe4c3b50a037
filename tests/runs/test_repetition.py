"""Many runs in one process: none leaks memory, files or threads."""

from __future__ import annotations

import gc
import threading
from pathlib import Path

import pytest
import torch

from benchmarks.results.records import record_path
from benchmarks.runs.plan import Plan
from benchmarks.suite import SUITE
from tests.killed_suite import make_fast
from tests.own_process import alone
from tests.short_runs import run, shortened


def test_repeated_runs_leak_nothing(data: Path, tmp_path: Path) -> None:
    held = alone(held_after_runs, data, tmp_path)
    assert held[1:] == held[:1] * 3


def held_after_runs(data: Path, folder: Path) -> list[tuple[int, int, int, int]]:
    """Numbers of open files, threads, tensors and their bytes after each of six runs, without the first two."""
    plan = Plan([shortened(SUITE["seg-baseline"])], "quick", (0,), data, "cpu", folder)
    held = []
    with pytest.MonkeyPatch.context() as patch:
        make_fast(patch)
        for _ in range(6):
            record_path(plan.results, "seg-baseline", 0).unlink(missing_ok=True)
            (record,), _ = run(plan)
            assert record.status == "completed"
            gc.collect()
            tensors = [thing for thing in gc.get_objects() if issubclass(type(thing), torch.Tensor)]
            bytes_held = sum(tensor.nbytes for tensor in tensors)
            files = sum(1 for _ in Path("/dev/fd").iterdir())
            held.append((files, threading.active_count(), len(tensors), bytes_held))
            del tensors
    return held[2:]
