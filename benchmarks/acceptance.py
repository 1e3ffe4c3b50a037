"""`make benchmark`: the gates as pytest tests, with the suite's exit codes even where pytest ends before any test."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

from benchmarks.errors import ExitCode
from benchmarks.exits import RUN_PACKAGES, check_installed, exit_code_of
from benchmarks.interruption import exit_process
from hw6core.errors import UsageError

if TYPE_CHECKING:
    from benchmarks.runs.plan import Plan

_GATES = "benchmarks/test_acceptance.py"


def main() -> int:
    """Return the suite's exit code; with FINGERPRINT=1 the fingerprint's, if the suite passed or only lacks runs.

    Raises:
        HW6Error: an option is not valid, or data or a device is missing.
        UsageError: pytest ran no session, as with ``PYTEST_ADDOPTS=--help``, or there are command line arguments.
    """
    if sys.argv[0] == __file__ and sys.argv[1:]:
        raise UsageError(f"unknown argument {sys.argv[1]}; options are variables: see python -m benchmarks run --help")
    check_installed(RUN_PACKAGES)
    import pytest

    from benchmarks.options import read_option, read_options

    plan = read_options({})
    if read_option("EVERY_GPU", {}):
        from benchmarks.every_gpu import run_on_every_gpu

        return run_on_every_gpu(plan, {})
    of_fingerprint = _fingerprint(plan) if read_option("FINGERPRINT", {}) else ExitCode.PASSED
    if of_fingerprint not in (ExitCode.PASSED, ExitCode.FAILED, ExitCode.CANNOT_TELL):
        return of_fingerprint

    class SessionPlugin:
        """Notices whether pytest starts a session; if so, `benchmarks/conftest.py` sets the exit code."""

        started = False

        @pytest.hookimpl(tryfirst=True)
        def pytest_sessionstart(self) -> None:
            self.started = True

    plugin = SessionPlugin()
    code = pytest.main([_GATES, "-q", "--no-header", "--no-summary", "-p", "no:cacheprovider"], plugins=[plugin])
    if not plugin.started:
        options = os.environ.get("PYTEST_ADDOPTS", "")
        raise UsageError(f"pytest measured nothing (its exit code is {int(code)}); check PYTEST_ADDOPTS={options!r}")
    if of_fingerprint == ExitCode.FAILED and code in (ExitCode.DATA, ExitCode.CANNOT_TELL):
        return of_fingerprint
    return int(code) or of_fingerprint


def _fingerprint(plan: Plan) -> int:
    """Make a fingerprint beside the results and return its exit code; in its own process, as it is deterministic."""
    variables = {"RESULTS": str(plan.results), "DEVICE": plan.device}
    command = [sys.executable, "-m", "benchmarks", "fingerprint"]
    return subprocess.run(command, env=os.environ | variables, check=False).returncode


if __name__ == "__main__":
    exit_process(exit_code_of(main))
