"""The mutants can be applied, and their runner separates survivors from kills. The check itself: `make mutants`."""

from __future__ import annotations

import ast
import subprocess
from pathlib import Path
from textwrap import dedent

import pytest

from tests.mutants.__main__ import main
from tests.mutants.runner import CHECKOUT, Mutant, Places, check
from tests.mutants.table import MUTANTS, read_table


def test_every_mutant_can_be_applied_and_none_is_listed_twice() -> None:
    places = Places(CHECKOUT)
    tests = {
        path.relative_to(CHECKOUT).as_posix(): path.read_text(encoding="utf-8")
        for path in CHECKOUT.glob("tests/**/test_*.py")
    }
    changes = set()
    for mutant in MUTANTS:
        # Compared as code, without comments and layout, to find the same change under two names.
        before, after = (ast.dump(ast.parse(dedent(text))) for text in places.replaced(mutant))
        assert before != after, mutant.name
        changes |= {after, places.changed(mutant)}
        for test in mutant.tests:
            name, _, function = test.partition("::")
            assert not function or f"def {function.partition('[')[0]}(" in tests[name], test
            assert name in tests, test
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)
    assert len(changes) == 2 * len(MUTANTS)


def test_a_table_is_read() -> None:
    table = """\
tests/test_a.py
tests/test_b.py::test_limit
limit
    no limit: return «min(→»value«, 9)→»
    nothing is limited:
        def limit(value):⏎
            «value = min(value, 9)⏎
            →»return
LIMIT
    another limit: «9→10»

tests/test_c.py
range
    no start: «start→0»
"""
    tests = ("tests/test_a.py", "tests/test_b.py::test_limit")
    body = "def limit(value):\n    value = min(value, 9)\n    return"
    assert list(read_table(table)) == [
        Mutant("no limit", "limit", "return min(value, 9)", "return value", tests),
        Mutant("nothing is limited", "limit", body, "def limit(value):\n    return", tests),
        Mutant("another limit", "LIMIT", "9", "10", tests),
        Mutant("no start", "range", "start", "0", ("tests/test_c.py",)),
    ]


TOY = """\
LIMIT = 9

def within(value):
    return 0 <= value <= 9

class Range:
    def within(self, value):
        def lower():
            return 0 <= value
        return lower() and value <= 9
"""


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    """A checkout of two modules and two tests, which check an upper limit but no lower one."""
    for folder in ("hw6core", "benchmarks"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "limits.py").write_text(TOY if folder == "hw6core" else "def twice():\n    return 0\n")
    (tmp_path / "benchmarks" / "other.py").write_text("def twice():\n    return 0\n", encoding="utf-8")
    (tmp_path / "test_limits.py").write_text(
        "from hw6core.limits import within\n\ndef test_upper():\n    assert within(9) and not within(10)\n",
        encoding="utf-8",
    )
    (tmp_path / "test_wrong.py").write_text("def test_wrong():\n    assert False\n", encoding="utf-8")
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    return tmp_path


def toy_mutant(name: str, old: str, new: str, tests: str = "test_limits.py", place: str = "within") -> Mutant:
    return Mutant(name, place, old, new, (tests,))


def test_the_runner_separates_kills_survivors_and_mutants_that_were_not_checked(toy: Path) -> None:
    mutants = [
        toy_mutant("no upper limit", "<= 9", "<= 99"),
        toy_mutant("no lower limit", "0 <=", "-9 <="),
        toy_mutant("nonsense", "def within", "def beyond"),
        toy_mutant("out of date", "value < 9", "value"),
        toy_mutant("wrong before", "0 <=", "1 <=", "test_wrong.py"),
    ]
    before = {path: path.read_bytes() for path in toy.rglob("*.py")}
    outcomes = check(mutants, toy, preloaded=("tabulate",))

    assert [(outcome.mutant, outcome.result, outcome.by) for outcome in outcomes] == [
        (mutants[0], "killed", "test_limits.py::test_upper"),
        (mutants[1], "SURVIVED", ""),
        (mutants[2], "NOT CHECKED", "exit code 2"),  # the test file cannot be imported
        (mutants[3], "NOT CHECKED", "out of date: within holds the old text 0 times; expected once"),
        (mutants[4], "NOT CHECKED", "the tests fail unchanged (exit code 1): test_wrong.py::test_wrong"),
    ]
    assert {path: path.read_bytes() for path in toy.rglob("*.py")} == before


def test_words_of_no_mutant_are_an_error(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Without any mutant, pytest would get no file, and run all tests."""
    monkeypatch.setattr("sys.argv", ["mutants", "nonsense"])
    with pytest.raises(SystemExit):
        main()
    assert capsys.readouterr().err.endswith("error: no mutant has any of these words: nonsense\n")


@pytest.mark.parametrize(
    ("place", "old", "new", "why"),
    [
        ("within", "value", "values", "within holds the old text 2 times; expected once"),
        ("within", "gone", "", "within holds the old text 0 times; expected once"),
        ("within", "<= 9", "<= 9", "old and new text are the same"),
        ("twice", "0", "1", "twice is defined in benchmarks.limits, benchmarks.other; expected one place"),
        ("beyond", "0", "1", "beyond is defined in no module; expected one place"),
        ("benchmarks.limits:within", "0", "1", "benchmarks.limits:within is defined in no module; expected one place"),
    ],
)
def test_a_place_or_text_must_occur_exactly_once(place: str, old: str, new: str, why: str, toy: Path) -> None:
    with pytest.raises(ValueError, match=f"^limits: {why}$"):
        Places(toy).changed(toy_mutant("limits", old, new, place=place))
