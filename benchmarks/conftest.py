"""`pytest benchmarks` runs what is missing, then asserts every gate. The options are the Makefile's variables.

The suite decides the exit code, whatever pytest's options are (CI systems often set PYTEST_ADDOPTS for all jobs): a
session that measured nothing never returns 0, and pytest's own codes 3, 4 and 5 are replaced by the suite's.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import pytest

from benchmarks.errors import ExitCode, machine_failures
from benchmarks.exits import explain, report_unexpected
from benchmarks.interruption import exit_process, interruptible
from benchmarks.options import read_options
from benchmarks.runs.plan import Plan

if TYPE_CHECKING:
    from benchmarks.results.records import Record

T = TypeVar("T")
_PLAN = pytest.StashKey[Plan]()
_GATES = pytest.StashKey[bool]()  # whether the gates are among the collected tests
_MEASURED = pytest.StashKey[bool]()
_ENDED = pytest.StashKey[int]()  # the exit code if an error ended the session early
_SUMMARY = pytest.StashKey[str]()
_LISTING = {"--collect-only", "--collectonly", "--co"}


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Disable pytest-xdist: each of its processes would run the whole suite; WORKERS runs it in parallel."""
    if hasattr(config.option, "numprocesses"):
        config.option.numprocesses = 0


def pytest_sessionstart(session: pytest.Session) -> None:
    session.config.stash[_PLAN] = _run_or_exit(session.config, lambda: read_options({}))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make one test for each gate of each selected configuration."""
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
    """The records of the whole plan; missing runs are carried out now. Progress is shown despite pytest's capture."""

    def execute() -> list[Record]:
        from benchmarks.engines.engine import execute_plan
        from benchmarks.runs.progress import Display

        display = Display()
        display.log("")
        return execute_plan(plan, display)

    capture = pytestconfig.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        records = _run_or_exit(pytestconfig, execute)
    pytestconfig.stash[_MEASURED] = True
    return records


def _run_or_exit(config: pytest.Config, work: Callable[[], T]) -> T:
    """Return what ``work`` returns; an error ends the session with the suite's exit code."""
    try:
        with machine_failures(), interruptible():
            return work()
    except (Exception, KeyboardInterrupt) as error:
        code, line = explain(error)
    print(line, file=sys.stderr)
    if code == ExitCode.INTERRUPTED:
        exit_process(code)
    config.stash[_ENDED] = code
    config.pluginmanager.unregister(name="terminalreporter")  # it would print the line again, as an exception
    pytest.exit(line, returncode=code)


def pytest_keyboard_interrupt(excinfo: pytest.ExceptionInfo[BaseException]) -> None:
    """Handle Ctrl-C before or after the runs."""
    if excinfo.errisinstance(KeyboardInterrupt):
        exit_process(ExitCode.INTERRUPTED)


def pytest_internalerror(excinfo: pytest.ExceptionInfo[BaseException]) -> None:
    print(f"error: {report_unexpected(excinfo.value)}", file=sys.stderr)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write the report and set the exit code by its judgement: a session that skipped everything has not passed."""
    stash = session.config.stash
    if _ENDED in stash:
        session.exitstatus = stash[_ENDED]
    elif session.exitstatus == pytest.ExitCode.INTERNAL_ERROR:
        session.exitstatus = ExitCode.FAULT
    elif stash.get(_MEASURED, False):
        session.exitstatus = _run_or_exit(session.config, lambda: _write_report(session))
    elif (stash.get(_GATES, False) or session.exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED) and not (
        _LISTING & set(session.config.invocation_params.args)
    ):
        stash[_SUMMARY] = "error: nothing was trained and no gate was judged; check pytest's options (PYTEST_ADDOPTS)"
        session.exitstatus = ExitCode.USAGE


def _write_report(session: pytest.Session) -> int:
    from benchmarks.report.exports import append_step_summary
    from benchmarks.report.markdown import report_on, summary

    report = report_on(session.config.stash[_PLAN])
    append_step_summary(report.text)
    session.config.stash[_SUMMARY] = f"{summary(report.judgement)}\nreport: {report.path}, with report.html beside it"
    return report.judgement.exit_code


def pytest_unconfigure(config: pytest.Config) -> None:
    """Print the verdict last. Not in pytest's terminal summary: some versions omit that with `--no-summary`."""
    if _SUMMARY in config.stash:
        reporter = config.pluginmanager.getplugin("terminalreporter")
        reporter.write_sep("=", "verdict")
        reporter.write_line(config.stash[_SUMMARY])
