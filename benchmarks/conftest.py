"""`pytest benchmarks` runs what is missing, then asserts every gate. The options are the Makefile's variables."""

from __future__ import annotations

import sys
from typing import Never

import pytest

from benchmarks.engine import carry_out_plan
from benchmarks.exports import append_step_summary
from benchmarks.options import Options, read_options
from benchmarks.plan import make_plan
from benchmarks.progress import Display
from benchmarks.records import Record
from benchmarks.report import report_on
from benchmarks.words import INTERRUPTED
from hw6core.errors import SuiteError, machine_failures
from hw6core.interruption import INTERRUPTED_CODE, interruptible, leave

_OPTIONS = pytest.StashKey[Options]()
_MEASURED = pytest.StashKey[bool]()
_SUMMARY = pytest.StashKey[str]()


def pytest_configure(config: pytest.Config) -> None:
    try:
        config.stash[_OPTIONS] = read_options({})
    except SuiteError as error:
        pytest.exit(f"error: {error}", returncode=error.exit_code)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test for each gate of each configuration that was asked for."""
    if "gate" in metafunc.fixturenames:
        pairs = [
            pytest.param(configuration, gate, id=f"{configuration.id}-{gate.metric}")
            for configuration in metafunc.config.stash[_OPTIONS].only
            for gate in configuration.gates
        ]
        metafunc.parametrize(("configuration", "gate"), pairs)


@pytest.fixture(scope="session")
def options(pytestconfig: pytest.Config) -> Options:
    return pytestconfig.stash[_OPTIONS]


@pytest.fixture(scope="session")
def records(options: Options, pytestconfig: pytest.Config) -> list[Record]:
    """The records of the whole plan, made now if they are missing; progress is shown past pytest's capture."""
    capture = pytestconfig.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        display = Display()
        display.say("")
        try:
            with machine_failures(), interruptible():
                records = carry_out_plan(make_plan(options, display), display)
        except SuiteError as error:
            pytest.exit(f"error: {error}", returncode=error.exit_code)
        except KeyboardInterrupt:
            _leave()
    pytestconfig.stash[_MEASURED] = True
    return records


def _leave() -> Never:
    print(f"\n{INTERRUPTED}", file=sys.stderr)
    leave(INTERRUPTED_CODE)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write the report. The judgement decides: a session in which all was skipped, by ALLOW_NOT_RUN, has not passed."""
    if not session.config.stash.get(_MEASURED, False):
        return
    try:
        with machine_failures(), interruptible():
            report = report_on(session.config.stash[_OPTIONS])
    except SuiteError as error:
        pytest.exit(f"error: {error}", returncode=error.exit_code)
    except KeyboardInterrupt:
        _leave()
    append_step_summary(report.text)
    session.config.stash[_SUMMARY] = f"{report.summary}\nreport: {report.path}, report.html beside it"
    if session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        session.exitstatus = report.judgement.exit_code


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """The verdict last, where a person looks first."""
    if _SUMMARY in config.stash:
        terminalreporter.write_sep("=", "verdict")
        terminalreporter.write_line(config.stash[_SUMMARY])
