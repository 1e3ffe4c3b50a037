"""The table of mutants cannot rot, and its runner tells a survivor from a kill. The check itself: `make mutants`."""

from __future__ import annotations

import ast
import subprocess
from pathlib import Path

import pytest

from tests.mutants.runner import CHECKOUT, Mutant, Outcome, check, report
from tests.mutants.table import MUTANTS


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_an_error_can_still_be_put_in(mutant: Mutant) -> None:
    changed = mutant.applied((CHECKOUT / mutant.file).read_text(encoding="utf-8"))
    compile(changed, mutant.file, "exec")
    for test in mutant.tests:
        name, _, function = test.partition("::")
        text = (CHECKOUT / name).read_text(encoding="utf-8")
        assert not function or f"def {function}(" in text


def test_no_error_stands_there_twice() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)
    # The same change under two names would count twice: compared as code, without comments and layout.
    changes = {(mutant.file, ast.dump(ast.parse(changed_text(mutant)))) for mutant in MUTANTS}
    assert len(changes) == len(MUTANTS)
    for mutant in MUTANTS:
        text = (CHECKOUT / mutant.file).read_text(encoding="utf-8")
        assert ast.dump(ast.parse(text)) != ast.dump(ast.parse(mutant.applied(text))), mutant.name


def changed_text(mutant: Mutant) -> str:
    return mutant.applied((CHECKOUT / mutant.file).read_text(encoding="utf-8"))


# ------------------------------------------------------------------------------------------------------------- runner


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    """A checkout of one function and two tests: of an upper limit, and none of the lower one."""
    (tmp_path / "limits.py").write_text("def within(value):\n    return 0 <= value <= 9\n", encoding="utf-8")
    (tmp_path / "test_limits.py").write_text(
        "from limits import within\n\ndef test_upper():\n    assert within(9) and not within(10)\n", encoding="utf-8"
    )
    (tmp_path / "test_wrong.py").write_text("def test_wrong():\n    assert False\n", encoding="utf-8")
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    return tmp_path


def toy_mutant(name: str, old: str, new: str, tests: str = "test_limits.py") -> Mutant:
    return Mutant(name, "limits.py", old, new, (tests,))


def test_the_runner_tells_a_survivor_from_a_kill_and_from_what_proves_nothing(toy: Path) -> None:
    mutants = [
        toy_mutant("no upper limit", "<= 9", "<= 99"),
        toy_mutant("no lower limit", "0 <=", "-9 <="),
        toy_mutant("nonsense", "def within", "def beyond"),
        toy_mutant("out of date", "value < 9", "value"),
    ]
    before = {path: path.read_bytes() for path in toy.glob("*.py")}
    outcomes = check(mutants, toy, jobs=2)

    assert [(outcome.mutant, outcome.result, outcome.by) for outcome in outcomes] == [
        (mutants[0], "killed", "test_limits.py::test_upper"),
        (mutants[1], "SURVIVED", ""),
        (mutants[2], "NOT CHECKED", "exit code 2"),  # the test file cannot be imported: no test was asked
        (mutants[3], "NOT CHECKED", "out of date: limits.py holds the old text 0 times; expected once"),
    ]
    assert {path: path.read_bytes() for path in toy.glob("*.py")} == before


def test_tests_that_fail_unchanged_prove_nothing(toy: Path) -> None:
    mutants = [toy_mutant("no upper limit", "<= 9", "<= 99"), toy_mutant("wrong", "0 <=", "1 <=", "test_wrong.py")]
    outcomes = check(mutants, toy)
    assert {outcome.result for outcome in outcomes} == {"NOT CHECKED"}
    assert "test_wrong.py::test_wrong" in outcomes[0].by


@pytest.mark.parametrize(("old", "new"), [("value", "values"), ("<= 9", "<= 9"), ("gone", "")])
def test_a_text_that_does_not_stand_there_once_is_refused(old: str, new: str, toy: Path) -> None:
    with pytest.raises(
        ValueError, match=r"limits: (limits\.py holds the old text [02] times|old and new text are the same)"
    ):
        toy_mutant("limits", old, new).applied((toy / "limits.py").read_text(encoding="utf-8"))


def test_the_report_counts_and_shows_survivors_first() -> None:
    mutant = toy_mutant("no upper limit", "<= 9", "<= 99")
    lines = report([Outcome(mutant, "killed", "test_a"), Outcome(mutant, "SURVIVED", "")]).splitlines()
    assert ["SURVIVED" in lines[2], "killed" in lines[3]] == [True, True]
    assert lines[-1] == "1 of 2 mutants killed, 1 survived, 0 not checked"
