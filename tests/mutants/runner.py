"""Puts one error at a time into a copy of the checkout and runs the tests that must notice it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from tempfile import TemporaryDirectory
from typing import Literal

from tabulate import tabulate

CHECKOUT = Path(__file__).parents[2]
_SECONDS = 900  # of one call of pytest; all tests together, on the unchanged code, take a fifth of it

Result = Literal["killed", "SURVIVED", "NOT CHECKED"]


@dataclass(frozen=True)
class Mutant:
    """An error that somebody might make.

    Attributes:
        name: what the suite then does wrong.
        file: below the checkout.
        old: a text that stands there exactly once.
        new: what takes its place.
        tests: files, or single tests in them, one of which must fail.
    """

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]

    def applied(self, text: str) -> str:
        """The file's text with the error in it.

        Raises:
            ValueError: the old text does not stand there exactly once, or nothing would change.
        """
        if self.old == self.new:
            raise ValueError(f"{self.name}: old and new text are the same")
        if (count := text.count(self.old)) != 1:
            raise ValueError(f"{self.name}: {self.file} holds the old text {count} times; expected once")
        return text.replace(self.old, self.new)


@dataclass(frozen=True)
class Outcome:
    """What became of a mutant; ``by`` names the test that failed, or says why nothing was found out."""

    mutant: Mutant
    result: Result
    by: str


def check(
    mutants: Sequence[Mutant],
    checkout: Path = CHECKOUT,
    jobs: int = 1,
    show: Callable[[str], None] = lambda line: None,
) -> list[Outcome]:
    """Run the tests of every mutant in copies of the checkout, which itself stays as it is.

    All tests must pass before: else nothing is found out about any mutant.
    """
    with TemporaryDirectory(prefix="mutants-") as folder:
        copies: SimpleQueue[Path] = SimpleQueue()
        for number in range(jobs):
            copies.put(_copy(checkout, Path(folder) / str(number)))
        unchanged = _unchanged(mutants, copies, show)
        if unchanged is not None:
            return [Outcome(mutant, "NOT CHECKED", unchanged) for mutant in mutants]

        def one(mutant: Mutant) -> Outcome:
            copy = copies.get()
            try:
                outcome = _outcome(mutant, copy)
            finally:
                copies.put(copy)
            show(f"{outcome.result:11}  {mutant.file}: {mutant.name}")
            return outcome

        with ThreadPoolExecutor(jobs) as pool:
            return list(pool.map(one, mutants))


def report(outcomes: Sequence[Outcome]) -> str:
    """A table, worst first, and the numbers."""
    order = ("SURVIVED", "NOT CHECKED", "killed")
    rows = [
        (outcome.mutant.file, outcome.mutant.name, outcome.result, outcome.by)
        for result in order
        for outcome in outcomes
        if outcome.result == result
    ]
    counts = {result: sum(outcome.result == result for outcome in outcomes) for result in order}
    text = tabulate(rows, ("file", "error put in", "result", "by"), disable_numparse=True)
    return (
        f"{text}\n\n{counts['killed']} of {len(outcomes)} mutants killed, {counts['SURVIVED']} survived, "
        f"{counts['NOT CHECKED']} not checked"
    )


def _copy(checkout: Path, target: Path) -> Path:
    """What git tracks or would track: no environment, no results, no stale bytecode."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=True).stdout.split("\0")
    for name in names:
        if name and (checkout / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(checkout / name, target / name)
    return target


def _unchanged(mutants: Sequence[Mutant], copies: SimpleQueue[Path], show: Callable[[str], None]) -> str | None:
    """None if the tests pass without any error put in, else why they do not."""
    tests = list(dict.fromkeys(test for mutant in mutants for test in mutant.tests))
    copy = copies.get()
    code, failed = _pytest(tests, copy)
    copies.put(copy)
    if code == 0:
        show(f"unchanged, the tests pass; {len(mutants)} mutants")
        return None
    return f"the tests fail unchanged (exit code {code}): {failed}"


def _outcome(mutant: Mutant, copy: Path) -> Outcome:
    path = copy / mutant.file
    original = path.read_text(encoding="utf-8")
    try:
        path.write_text(mutant.applied(original), encoding="utf-8")
        code, failed = _pytest(mutant.tests, copy)
    except ValueError as error:
        return Outcome(mutant, "NOT CHECKED", str(error))
    finally:
        path.write_text(original, encoding="utf-8")
    if code == 0:
        return Outcome(mutant, "SURVIVED", "")
    # 1: a test failed. Others say that none ran: a mutant that cannot even be imported proves nothing.
    return Outcome(mutant, "killed" if code == 1 else "NOT CHECKED", failed if code == 1 else f"exit code {code}")


def _pytest(tests: Sequence[str], copy: Path) -> tuple[int, str]:
    """Exit code, and the first test that failed. Bytecode is not kept: it could be that of the mutant before."""
    environment = {key: value for key, value in os.environ.items() if key not in ("HW6_DATA", "PYTEST_ADDOPTS")}
    environment |= {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    environment.setdefault("OMP_NUM_THREADS", "1")
    command = [sys.executable, "-m", "pytest", "-x", "-q", "--tb=no", "-p", "no:cacheprovider", *tests]
    try:
        done = subprocess.run(
            command, cwd=copy, env=environment, capture_output=True, text=True, check=False, timeout=_SECONDS
        )
    except subprocess.TimeoutExpired:
        return 124, f"no end after {_SECONDS} s"
    found = re.search(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
    return done.returncode, found[1].removeprefix("tests/") if found else "no test is named"
