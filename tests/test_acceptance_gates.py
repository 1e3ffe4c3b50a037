"""The acceptance tests on records with a known verdict: the exit code of `make benchmark` is that of the gates."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks import acceptance
from benchmarks.__main__ import main
from benchmarks.errors import InfrastructureError
from benchmarks.exits import exit_code_of
from benchmarks.results.records import Record
from tests import finished_runs
from tests.record_factory import make_record, write_records

CHECKOUT = Path(__file__).parent.parent
VARIABLES = {"PROFILE": "quick", "DATA": "synthetic", "DEVICE": "cpu", "SEEDS": "0 1", "ALLOW_NOT_RUN": "vgg-frozen"}


def quick(name: str, seed: int, **changes: Any) -> Record:
    return make_record(name, seed, profile="quick", data={"kind": "synthetic"}, **changes)


def two_seeds(name: str, **changes: Any) -> list[Record]:
    """Two records, with changes to the second."""
    return [quick(name, 0), quick(name, 1, **changes)]


GOOD = two_seeds("seg-baseline")
# Records, exit code, and the message of a gate's test, which (unlike the summary) has the constant predictor's value.
CASES: dict[str, tuple[list[Record], int, str]] = {
    "all passed": (GOOD, 0, "2 passed"),
    "one seed of one gate failed": (
        two_seeds("seg-baseline", metrics={"present_dice": 0.343}),
        1,
        "seed 1: failed: present Dice is 0.343, expected > 0.5; constant answer 0.343; floor 0.664 "
        "(nearest training frame's mask); record ",
    ),
    "the machine failed": (
        two_seeds("seg-baseline", status="error", message="out of memory", details={"infrastructure": True}),
        4,
        "seed 1: error: out of memory; constant answer",
    ),
    "the suite has a fault": (
        two_seeds("seg-baseline", status="error", message="unexpected KeyError", details={"unexpected": True}),
        70,
        "seed 1: error: unexpected KeyError; constant answer",
    ),
    "a seed has no record": (GOOD[:1], 1, "seed 1: not run: there is no record of this run; constant answer"),
    "a record of another profile": (
        [GOOD[0], make_record("seg-baseline", 1)],
        1,
        "seed 1: error: the record was made under the profile 'full', expected 'quick'; constant answer",
    ),
    "nothing ran, as allowed": (
        [quick("vgg-frozen", seed, status="not run", message="no weights") for seed in (0, 1)],
        1,
        "1 skipped",
    ),
}


Judge = Callable[..., tuple[int, str]]


@pytest.fixture
def judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Judge:
    """Runs the suite on finished records instead of trainings, and returns its exit code and output."""

    def run(records: Sequence[Record], way: Callable[[], int], **variables: str) -> tuple[int, str]:
        finished_runs.install(monkeypatch)
        monkeypatch.chdir(CHECKOUT)
        write_records(tmp_path, records)
        asked = {"RESULTS": str(tmp_path), "ONLY": records[0].configuration}
        for name, value in (VARIABLES | asked | variables).items():
            monkeypatch.setenv(name, value)
        code = int(way())
        output = capsys.readouterr()
        return code, output.out + output.err

    return run


def pytest_on_the_gates() -> int:
    return pytest.main(["benchmarks/test_acceptance.py", "-q", "-p", "no:cacheprovider"])


def make_benchmark() -> int:
    return exit_code_of(acceptance.main)


@pytest.mark.parametrize(("records", "exit_code", "message"), CASES.values(), ids=CASES.keys())
def test_the_acceptance_tests_end_as_the_gates_say(
    records: list[Record], exit_code: int, message: str, judged: Judge
) -> None:
    code, output = judged(records, pytest_on_the_gates)
    assert code == exit_code, output
    assert message in output
    passed = "\nPASSED, quick profile on synthetic data: not an acceptance result: "
    assert ("\nFAILED: " if exit_code else passed) in output


def test_invalid_options_are_rejected(judged: Judge) -> None:
    code, output = judged(GOOD, pytest_on_the_gates, DATA="nowhere")
    assert code == 3
    assert "error: no data folder nowhere" in output


def test_an_error_before_the_gates_is_one_line_not_an_exception_of_pytest(
    judged: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: object) -> list[Record]:
        raise InfrastructureError("r has 0.1 GB of free space")

    monkeypatch.setattr(finished_runs.FinishedRunner, "run_all", full)
    code, output = judged(GOOD, make_benchmark)
    assert (code, output.splitlines()[-1]) == (4, "error: r has 0.1 GB of free space")
    assert output.count("free space") == 1


def test_pytest_options_of_a_ci_system_do_not_change_the_verdict(judged: Judge) -> None:
    records, exit_code, _ = CASES["one seed of one gate failed"]
    code, output = judged(records, make_benchmark, PYTEST_ADDOPTS="-n 2 -x -k course_dice")
    assert code == exit_code, output
    assert "\nFAILED: 0 of 1 configurations" in output


def test_asking_for_help_does_not_start_hours_of_training() -> None:
    command = [sys.executable, "-m", "benchmarks.acceptance", "--help"]
    ended = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=60, check=False)
    expected = "error: unknown argument --help; options are variables: see python -m benchmarks run --help\n"
    assert (ended.returncode, ended.stderr) == (2, expected)


@pytest.mark.parametrize("options", ["--collect-only", "--setup-plan", "-k nothing", "--help", "--no-such-option"])
def test_what_measures_nothing_has_not_passed(options: str, judged: Judge) -> None:
    code, output = judged(GOOD, make_benchmark, PYTEST_ADDOPTS=options)
    assert code == 2, output
    assert "PYTEST_ADDOPTS" in output


@pytest.mark.parametrize(
    ("case", "of_run", "of_shard"),
    [
        ("all passed", 0, 0),
        ("one seed of one gate failed", 1, 1),
        ("the machine failed", 4, 4),
        ("a record of another profile", 1, 1),
        ("nothing ran, as allowed", 1, 0),  # the other shards decide; see `report --merge`
    ],
)
def test_run_and_its_shards_end_as_the_gates_say(case: str, of_run: int, of_shard: int, judged: Judge) -> None:
    assert judged(CASES[case][0], lambda: main(["run", "--quiet"]))[0] == of_run
    assert judged(CASES[case][0], lambda: main(["run", "--quiet", "--shard", "1/1"]))[0] == of_shard
