"""The acceptance tests on records whose verdict is known: `make benchmark` ends as the gates say."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks.__main__ import main
from benchmarks.results.records import Record, write_record
from tests import finished_runs
from tests.record_factory import make_record

CHECKOUT = Path(__file__).parent.parent
VARIABLES = {"PROFILE": "quick", "DATA": "synthetic", "DEVICE": "cpu", "SEEDS": "0 1", "ALLOW_NOT_RUN": "vgg-frozen"}


def quick(name: str, seed: int, **changes: Any) -> Record:
    return make_record(name, seed, profile="quick", data={"kind": "synthetic"}, **changes)


def two_seeds(name: str, **changes: Any) -> list[Record]:
    """Changes are those of the second seed."""
    return [quick(name, 0), quick(name, 1, **changes)]


GOOD = two_seeds("seg-baseline")
# Records, the exit code, and what the test of a gate says; the verdict after the tests does not name the trivial one.
CASES: dict[str, tuple[list[Record], int, str]] = {
    "all passed": (GOOD, 0, "2 passed"),
    "one seed of one gate failed": (
        two_seeds("seg-baseline", metrics={"present_dice": 0.343}),
        1,
        "seed 1: failed: present_dice is 0.343, expected > 0.5 (bound 0.5); trivial predictor 0.343",
    ),
    "the machine failed": (
        two_seeds("seg-baseline", status="error", message="out of memory", details={"infrastructure": True}),
        4,
        "seed 1: error: out of memory; trivial predictor",
    ),
    "the suite has a fault": (
        two_seeds("seg-baseline", status="error", message="unexpected KeyError", details={"unexpected": True}),
        70,
        "seed 1: error: unexpected KeyError; trivial predictor",
    ),
    "a seed has no record": (GOOD[:1], 1, "seed 1: not run: there is no record of this run; trivial predictor"),
    "a record of another profile": (
        [GOOD[0], make_record("seg-baseline", 1)],
        1,
        "seed 1: error: the record was made under the profile 'full', expected 'quick'; trivial predictor",
    ),
    "nothing ran, as allowed": (
        [quick("vgg-frozen", seed, status="not run", message="no weights") for seed in (0, 1)],
        1,
        "1 skipped",
    ),
}


def variables(records: Sequence[Record], results: Path) -> dict[str, str]:
    for record in records:
        write_record(results, record)
    return VARIABLES | {"RESULTS": str(results), "ONLY": records[0].configuration}


@pytest.mark.parametrize(("records", "exit_code", "sentence"), CASES.values(), ids=CASES.keys())
def test_the_acceptance_tests_end_as_the_gates_say(
    records: list[Record], exit_code: int, sentence: str, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "pytest", "benchmarks/test_acceptance.py", "-q", "-p", "no:cacheprovider"]
    environment = {key: value for key, value in os.environ.items() if key != "GITHUB_STEP_SUMMARY"}
    answer = subprocess.run(
        [*command, "-p", "tests.finished_runs"],
        cwd=CHECKOUT,
        env=environment | variables(records, tmp_path),
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == exit_code, answer.stdout + answer.stderr
    assert sentence in answer.stdout
    assert ("\nPASSED: " if exit_code == 0 else "\nFAILED: ") in answer.stdout


@pytest.mark.parametrize("options", ["-n 2", "-x -k course_dice"])
def test_options_for_all_tests_of_a_ci_change_no_verdict(options: str, tmp_path: Path) -> None:
    records, exit_code, _ = CASES["one seed of one gate failed"]
    answer = make_benchmark(variables(records, tmp_path), f"{options} -p tests.finished_runs")
    assert answer.returncode == exit_code, answer.stdout + answer.stderr
    assert "\nFAILED: 0 of 1 configurations" in answer.stdout


@pytest.mark.parametrize("options", ["--collect-only", "--setup-plan", "-k nothing", "--help", "--no-such-option"])
def test_what_measures_nothing_has_not_passed(options: str, tmp_path: Path) -> None:
    answer = make_benchmark(variables(GOOD, tmp_path), f"{options} -p tests.finished_runs")
    assert answer.returncode == 2, answer.stdout + answer.stderr
    assert "PYTEST_ADDOPTS" in answer.stdout + answer.stderr


def make_benchmark(variables: dict[str, str], options: str) -> subprocess.CompletedProcess[str]:
    """What the target does, with options for every pytest."""
    environment = {key: value for key, value in os.environ.items() if key != "GITHUB_STEP_SUMMARY"}
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.acceptance"],
        cwd=CHECKOUT,
        env=environment | variables | {"PYTEST_ADDOPTS": options},
        capture_output=True,
        text=True,
        check=False,
    )


def ran(records: Sequence[Record], results: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    finished_runs.install(monkeypatch)
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    for name, value in variables(records, results).items():
        monkeypatch.setenv(name, value)
    return main(["run", "--quiet", *arguments])


@pytest.mark.parametrize(("records", "exit_code", "sentence"), CASES.values(), ids=CASES.keys())
def test_run_ends_as_the_gates_say(
    records: list[Record], exit_code: int, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ran(records, tmp_path, monkeypatch) == exit_code


@pytest.mark.parametrize(
    ("case", "exit_code"),
    [
        ("all passed", 0),
        ("one seed of one gate failed", 1),
        ("the machine failed", 4),
        ("a record of another profile", 1),
        ("nothing ran, as allowed", 0),  # the other parts decide; see `report --merge`
    ],
)
def test_a_shard_ends_as_the_gates_of_its_runs_say(
    case: str, exit_code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ran(CASES[case][0], tmp_path, monkeypatch, "--shard", "1/1") == exit_code
