"""A suite that is killed, for tests/runs/test_faults.py."""

from __future__ import annotations

import io
import math
import os
import signal
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from benchmarks.report import markdown as report
from benchmarks.results.gates import Asked
from benchmarks.runs import runner
from benchmarks.runs.plan import Plan
from benchmarks.runs.progress import Display
from benchmarks.runs.runner import Runner
from benchmarks.suite import SUITE
from benchmarks.workloads import run as workloads
from hw6core.checkpoint import Checkpoint
from tests.short_runs import SOME_CEILING, SOME_COST, shortened
from tests.watching import shrink_networks

NAMES = ("colorization", "seg-pretrained")


def plan(data: Path, results: Path) -> Plan:
    """A plan of two runs, of which the second starts from the first."""
    return Plan(
        [shortened(SUITE[name], epochs=3) for name in NAMES], "quick", (0,), data, "cpu", results, deterministic=True
    )


def make_fast(patch: pytest.MonkeyPatch) -> None:
    """Use small networks, and skip measuring the limits, counting costs and listing the installed packages."""
    shrink_networks(patch)
    for name in ("_packages_digest", "_git"):
        patch.setattr(f"benchmarks.machine.environment.{name}", lambda *_: None)
    patch.setattr(runner, "measure_ceiling", lambda device, precision: SOME_CEILING)
    patch.setattr(workloads, "step_cost", lambda *_, **__: SOME_COST)


def kill_in(point: str, count: int) -> None:
    """Kill this process at the count-th call of a function."""
    module, _, name = point.partition(":")
    place = import_module(module)
    original = getattr(place, name)
    left = [count]

    def deadly(*arguments: Any, **more: Any) -> Any:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*arguments, **more)

    setattr(place, name, deadly)


def execute(data: Path, results: Path, point: str, count: int) -> None:
    """Make the records and the report; die, as by `kill -9`, at the ``count``-th call of ``point`` ("module:name")."""
    patch = pytest.MonkeyPatch()
    make_fast(patch)
    patch.setattr(workloads, "Checkpoint", partial(Checkpoint, share=math.inf))
    kill_in(point, count)
    todo = plan(data, results)
    Runner(todo, Display(io.StringIO())).run_all()
    report.write_report(todo.results, Asked(todo.configurations, [0]))
