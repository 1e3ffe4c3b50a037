"""`pytest benchmarks` runs what is missing, then asserts every gate. The options are the Makefile's variables.

However pytest is asked to go about it (PYTEST_ADDOPTS is often set for all jobs of a CI), the suite decides the exit
code: nothing that was measured is never 0, and what pytest calls 3, 4 or 5 is none of the suite's codes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import pytest

from benchmarks.errors import ExitCode, machine_failures
from benchmarks.exits import ending, unexpected
from benchmarks.interruption import INTERRUPTED_CODE, interruptible, leave
from benchmarks.options import read_options
from benchmarks.runs.plan import Plan

if TYPE_CHECKING:
    from benchmarks.results.records import Record

T = TypeVar("T")
_PLAN = pytest.StashKey[Plan]()
_GATES = pytest.StashKey[bool]()  # whether they are among the tests that were found
_MEASURED = pytest.StashKey[bool]()
_ENDED = pytest.StashKey[int]()  # the exit code of what ended the session early
_SUMMARY = pytest.StashKey[str]()
_LISTING = {"--collect-only", "--collectonly", "--co"}


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """One process: several of pytest-xdist's would each carry out the suite. WORKERS trains several runs at once."""
    if hasattr(config.option, "numprocesses"):
        config.option.numprocesses = 0


def pytest_sessionstart(session: pytest.Session) -> None:
    session.config.stash[_PLAN] = _done(session.config, lambda: read_options({}))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test for each gate of each configuration that was asked for."""
    if "gate" in metafunc.fixturenames:
        metafunc.config.stash[_GATES] = True
        pairs = [
            pytest.param(configuration, gate, id=f"{configuration.id}-{gate.metric}")
            for configuration in metafunc.config.stash[_PLAN].selected
            for gate in configuration.gates
        ]
        metafunc.parametrize(("configuration", "gate"), pairs)


@pytest.fixture(scope="session")
def plan(pytestconfig: pytest.Config) -> Plan:
    return pytestconfig.stash[_PLAN]


@pytest.fixture(scope="session")
def records(plan: Plan, pytestconfig: pytest.Config) -> list[Record]:
    """The records of the whole plan, made now if they are missing; progress is shown past pytest's capture."""
    capture = pytestconfig.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        records = _done(pytestconfig, lambda: _execute(plan))
    pytestconfig.stash[_MEASURED] = True
    return records


def _execute(plan: Plan) -> list[Record]:
    from benchmarks.engines.engine import execute_plan
    from benchmarks.runs.progress import Display

    display = Display()
    display.say("")
    return execute_plan(plan, display)


def _done(config: pytest.Config, work: Callable[[], T]) -> T:
    """What the work returns; what prevents it ends the session, with the suite's exit code."""
    try:
        with machine_failures(), interruptible():
            return work()
    except (Exception, KeyboardInterrupt) as error:
        code, line = ending(error)
    if code == INTERRUPTED_CODE:
        print(line, file=sys.stderr)
        leave(code)
    config.stash[_ENDED] = code
    pytest.exit(line, returncode=code)


def pytest_keyboard_interrupt(excinfo: pytest.ExceptionInfo[BaseException]) -> None:
    """Ctrl-C before or after the runs."""
    if excinfo.errisinstance(KeyboardInterrupt):
        leave(INTERRUPTED_CODE)


def pytest_internalerror(excinfo: pytest.ExceptionInfo[BaseException]) -> None:
    print(f"error: {unexpected(excinfo.value)}", file=sys.stderr)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write the report. The judgement decides: a session in which all was skipped, by ALLOW_NOT_RUN, has not passed."""
    stash = session.config.stash
    if _ENDED in stash:
        session.exitstatus = stash[_ENDED]
    elif session.exitstatus == pytest.ExitCode.INTERNAL_ERROR:
        session.exitstatus = ExitCode.FAULT
    elif stash.get(_MEASURED, False):
        session.exitstatus = _done(session.config, lambda: _judged(session))
    elif (stash.get(_GATES, False) or session.exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED) and not (
        _LISTING & set(session.config.invocation_params.args)
    ):
        stash[_SUMMARY] = (
            "error: nothing was trained, no gate was judged; look at the options of pytest (PYTEST_ADDOPTS)"
        )
        session.exitstatus = ExitCode.USAGE


def _judged(session: pytest.Session) -> int:
    from benchmarks.report.exports import append_step_summary
    from benchmarks.report.markdown import report_on

    report = report_on(session.config.stash[_PLAN])
    append_step_summary(report.text)
    session.config.stash[_SUMMARY] = f"{report.summary}\nreport: {report.path}, report.html beside it"
    return report.judgement.exit_code


def pytest_unconfigure(config: pytest.Config) -> None:
    """The verdict last, where a person looks first; `--no-summary` leaves out pytest's own in some versions of it."""
    if _SUMMARY in config.stash:
        reporter = config.pluginmanager.getplugin("terminalreporter")
        reporter.write_sep("=", "verdict")
        reporter.write_line(config.stash[_SUMMARY])
