"""`make benchmark`: the gates as tests of pytest, and the suite's exit codes where pytest ends before any test."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

from benchmarks.errors import ExitCode
from benchmarks.exits import RUN_PACKAGES, check_installed, exit_code_of
from benchmarks.interruption import leave
from hw6core.errors import UsageError

if TYPE_CHECKING:
    from benchmarks.runs.plan import Plan

_GATES = "benchmarks/test_acceptance.py"


def main() -> int:
    """The suite's exit code; where that is 0, the fingerprint's, if one was asked for.

    Raises:
        HW6Error: what was asked for cannot be done; told before pytest would wrap it.
        UsageError: pytest trained and judged nothing, as after ``PYTEST_ADDOPTS=--help``; it has said why.
    """
    check_installed(RUN_PACKAGES)
    import pytest

    from benchmarks.options import read_option, read_options

    plan = read_options({})
    if read_option("EVERY_GPU", {}):
        from benchmarks.every_gpu import run_on_every_gpu

        return run_on_every_gpu(plan, {})
    told = _fingerprint(plan) if read_option("FINGERPRINT", {}) else ExitCode.PASSED
    if told not in (ExitCode.PASSED, ExitCode.FAILED, ExitCode.CANNOT_TELL):
        return told

    class Began:
        """Whether there is a session: how one ends, `benchmarks/conftest.py` says."""

        yes = False

        @pytest.hookimpl(tryfirst=True)
        def pytest_sessionstart(self) -> None:
            self.yes = True

    began = Began()
    code = pytest.main([_GATES, "-q", "--no-header", "--no-summary", "-p", "no:cacheprovider"], plugins=[began])
    if not began.yes:
        options = os.environ.get("PYTEST_ADDOPTS", "")
        raise UsageError(f"pytest measured nothing (its exit code is {int(code)}); look at PYTEST_ADDOPTS={options!r}")
    return int(code) or told


def _fingerprint(plan: Plan) -> int:
    """The exit code of a fingerprint beside the results, made in a process of its own: its mode is not the runs'."""
    variables = {"RESULTS": str(plan.results), "DEVICE": plan.device}
    command = [sys.executable, "-m", "benchmarks", "fingerprint"]
    return subprocess.run(command, env=os.environ | variables, check=False).returncode


if __name__ == "__main__":
    leave(exit_code_of(main))
