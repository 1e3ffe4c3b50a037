"""Many runs in one process: none of them leaves anything behind."""

from __future__ import annotations

import gc
import io
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

from benchmarks.machine.monitor import peak_memory_bytes
from benchmarks.results.records import record_path
from benchmarks.runs.plan import Plan
from benchmarks.runs.progress import Display
from benchmarks.runs.runner import Runner
from benchmarks.suite import SUITE, Work
from hw6core.device import release_freed_memory
from tests.killed_suite import make_fast
from tests.own_process import alone

MIB = 2**20
WARM_UP, COUNTED, EVERY = 4, 16, 4


@dataclass(frozen=True)
class Held:
    """What the process holds on to."""

    memory: int
    files: int
    threads: int
    tensors: int


def held() -> Held:
    gc.collect()
    release_freed_memory()
    tensors = sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())
    return Held(_own_memory(), sum(1 for _ in Path("/dev/fd").iterdir()), threading.active_count(), tensors)


def _own_memory() -> int:
    """Bytes that are resident and belong to no file, whose pages come and go as the system likes."""
    with suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return 1024 * int(next(line.split()[1] for line in lines if line.startswith("RssAnon")))
    return peak_memory_bytes()


def repeat(work: Callable[[], None]) -> list[Held]:
    """What is held after some of the repetitions that follow the warm-up."""
    seen = []
    for number in range(1, WARM_UP + COUNTED + 1):
        work()
        if number > WARM_UP and number % EVERY == 0:  # looking at everything takes as long as a run
            seen.append(held())
    return seen


def growth(seen: list[Held]) -> int:
    """Bytes a run: from the first half to the second, each by its least, as the system's own share varies."""
    half = len(seen) // 2
    first, second = (min(entry.memory for entry in part) for part in (seen[:half], seen[half:]))
    return (second - first) // (half * EVERY)


def test_repeated_runs_hold_on_to_nothing(data: Path, tmp_path: Path) -> None:
    seen = alone(held_over_runs, data, tmp_path)
    for what in ("files", "threads", "tensors"):
        assert len({getattr(entry, what) for entry in seen}) == 1, (what, seen)
    assert growth(seen) < MIB // 2, seen


def held_over_runs(data: Path, folder: Path) -> list[Held]:
    short = replace(SUITE["seg-baseline"], work={"quick": Work(2, 8, 1e-4, (32, 40))})
    plan = Plan([short], "quick", (0,), data, "cpu", folder)

    def run() -> None:
        record_path(plan.results, "seg-baseline", 0).unlink(missing_ok=True)
        (record,) = Runner(plan, Display(io.StringIO())).run_all()
        assert record.status == "completed"

    with pytest.MonkeyPatch.context() as patch:
        make_fast(patch)
        return repeat(run)
