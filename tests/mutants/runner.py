"""Applies one mutant at a time to a copy of the checkout and runs the tests that must fail."""

from __future__ import annotations

import ast
import compileall
import json
import os
import py_compile
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from tempfile import TemporaryDirectory
from typing import Literal, NamedTuple

from tabulate import tabulate

CHECKOUT = Path(__file__).parents[2]
PACKAGES = ("hw6core", "benchmarks")
# Imported once, before the forks: modules that most tests import and that import nothing of this project.
PRELOADED = (
    "torch",
    "torchvision",
    "torch.utils.data",
    "PIL.Image",
    "safetensors.torch",
    "tabulate",
    "monai.losses.dice",
    "monai.metrics.meandice",
)

Result = Literal["killed", "SURVIVED", "NOT CHECKED"]


@dataclass(frozen=True)
class Mutant:
    """An error that somebody might make.

    Attributes:
        name: what then goes wrong.
        place: the qualified name of a function, class, method, nested function or assignment in the packages:
            ``_Loop._is_better``. If the name is ambiguous, with its module: ``benchmarks.report.markdown:_rows``.
        old: a text that occurs there exactly once.
        new: its replacement.
        tests: files, or single tests in them, one of which must fail.
    """

    name: str
    place: str
    old: str
    new: str
    tests: tuple[str, ...]


@dataclass(frozen=True)
class Outcome:
    """The result of a mutant in a module; ``by``: the test that failed, or why the mutant was not checked."""

    mutant: Mutant
    module: str
    result: Result
    by: str


class _Definition(NamedTuple):
    module: str
    path: Path  # below the checkout
    first: int  # line, from 0
    end: int  # one past the last line


class Places:
    """Every definition in the packages of a checkout, by qualified name."""

    def __init__(self, checkout: Path) -> None:
        self._lines: dict[Path, list[str]] = {}
        self._found: dict[str, list[_Definition]] = {}
        for path in sorted(path for package in PACKAGES for path in (checkout / package).rglob("*.py")):
            text, below = path.read_text(encoding="utf-8"), path.relative_to(checkout)
            self._lines[below] = text.splitlines(keepends=True)
            module = ".".join(below.with_suffix("").parts).removesuffix(".__init__")
            for name, first, end in _definitions(ast.parse(text)):
                self._found.setdefault(name, []).append(_Definition(module, below, first, end))

    def module(self, mutant: Mutant) -> str:
        """The module of the mutant's place; "?" if it is not unique."""
        found = self._matching(mutant)
        return found[0].module if len(found) == 1 else "?"

    def replaced(self, mutant: Mutant) -> tuple[str, str]:
        """The text of the place without and with the error.

        Raises:
            ValueError: the place is not unique, the old text does not occur there exactly once, or nothing would
                change.
        """
        if mutant.old == mutant.new:
            raise ValueError(f"{mutant.name}: old and new text are the same")
        found = self._matching(mutant)
        if len(found) != 1:
            modules = ", ".join(definition.module for definition in found) or "no module"
            raise ValueError(f"{mutant.name}: {mutant.place} is defined in {modules}; expected one place")
        text = "".join(self._lines[found[0].path][found[0].first : found[0].end])
        if (count := text.count(mutant.old)) != 1:
            raise ValueError(f"{mutant.name}: {mutant.place} holds the old text {count} times; expected once")
        return text, text.replace(mutant.old, mutant.new)

    def changed(self, mutant: Mutant) -> tuple[Path, str]:
        """A file, relative to the checkout, and its whole text with the error; raises as `replaced` does."""
        _, text = self.replaced(mutant)
        (found,) = self._matching(mutant)
        lines = self._lines[found.path]
        return found.path, "".join([*lines[: found.first], text, *lines[found.end :]])

    def _matching(self, mutant: Mutant) -> list[_Definition]:
        module, _, name = mutant.place.rpartition(":")
        return [found for found in self._found.get(name, []) if module in ("", found.module)]


def _definitions(parent: ast.AST, outer: str = "") -> Iterator[tuple[str, int, int]]:
    """Qualified name and lines of every definition in a module, a class or a function, recursively."""
    for node in ast.iter_child_nodes(parent):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
                yield outer + node.name, first - 1, node.end_lineno or first
                yield from _definitions(node, f"{outer}{node.name}.")
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                if isinstance(parent, ast.Module | ast.ClassDef):
                    yield outer + name, node.lineno - 1, node.end_lineno or node.lineno
            case ast.If() | ast.Try() | ast.With():
                yield from _definitions(node, outer)


def check(
    mutants: Sequence[Mutant],
    checkout: Path = CHECKOUT,
    jobs: int = 1,
    show: Callable[[str], None] = lambda line: None,
    preloaded: Sequence[str] = PRELOADED,
) -> list[Outcome]:
    """Run the tests of every mutant in copies of the checkout.

    A mutant whose tests fail on the unchanged code is not checked.
    """
    places = Places(checkout)
    with TemporaryDirectory(prefix="mutants-") as folder, ExitStack() as stack:
        testers: SimpleQueue[_Tester] = SimpleQueue()
        for number in range(jobs):
            testers.put(stack.enter_context(_Tester(checkout, Path(folder) / str(number), preloaded)))
        tests = list(dict.fromkeys(test for mutant in mutants for test in mutant.tests))
        first = testers.get()
        code, failed = first.run(tests)
        testers.put(first)
        show(f"unchanged, {len(failed)} tests fail (exit code {code}); {len(mutants)} mutants")

        def one(mutant: Mutant) -> Outcome:
            wrong = [name for name in failed if any(_belongs(name, test) for test in mutant.tests)]
            result: Result = "NOT CHECKED"
            by = f"the tests fail unchanged (exit code {code}): {wrong[0] if wrong else failed}"
            if not wrong and code in (0, 1):
                tester = testers.get()
                try:
                    result, by = _result(mutant, places, tester)
                finally:
                    testers.put(tester)
            outcome = Outcome(mutant, places.module(mutant), result, by)
            show(f"{outcome.result:11}  {outcome.module}: {mutant.name}")
            return outcome

        with ThreadPoolExecutor(jobs) as pool:
            return list(pool.map(one, mutants))


def _belongs(failed: str, test: str) -> bool:
    return failed == test or failed.startswith((f"{test}::", f"{test}["))


def report(outcomes: Sequence[Outcome]) -> str:
    """A table of the results by module, and a line for every mutant that was not killed."""
    results: tuple[Result, ...] = ("killed", "SURVIVED", "NOT CHECKED")

    def row(label: str, of: Sequence[Outcome]) -> tuple[str | int, ...]:
        return (label, *(sum(outcome.result == result for outcome in of) for result in results))

    modules = sorted({outcome.module for outcome in outcomes})
    rows = [row(module, [outcome for outcome in outcomes if outcome.module == module]) for module in modules]
    text = tabulate([*rows, row("all", outcomes)], ("module", "killed", "survived", "not checked"))
    left = [outcome for outcome in outcomes if outcome.result != "killed"]
    for outcome in sorted(left, key=lambda outcome: results.index(outcome.result)):
        why = outcome.by or "no test notices it"
        text += f"\n{outcome.result}  {outcome.module}, {outcome.mutant.place}: {outcome.mutant.name}: {why}"
    return text


def _copy(checkout: Path, target: Path) -> None:
    """Copy the files that git tracks or would track: no environment, results or bytecode."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=True).stdout.split("\0")
    for name in names:
        if name and (checkout / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(checkout / name, target / name)
    # Bytecode is validated by hash, so that none of an earlier mutant is used.
    for package in (*PACKAGES, "tests"):
        compileall.compile_dir(target / package, quiet=2, invalidation_mode=py_compile.PycInvalidationMode.CHECKED_HASH)


class _Tester:
    """A copy of the checkout, and a process that runs tests in it (see `tests.mutants.forks`)."""

    def __init__(self, checkout: Path, copy: Path, preloaded: Sequence[str]) -> None:
        self.copy = copy
        _copy(checkout, copy)
        environment = {key: value for key, value in os.environ.items() if key not in ("HW6_DATA", "PYTEST_ADDOPTS")}
        environment |= {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
        environment.setdefault("OMP_NUM_THREADS", "1")
        command = [sys.executable, "-P", str(Path(__file__).with_name("forks.py")), *preloaded]
        self._process = subprocess.Popen(
            command, cwd=copy, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __enter__(self) -> _Tester:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()  # closing its input ends it

    def run(self, tests: Sequence[str], *options: str) -> tuple[int, list[str]]:
        """pytest's exit code, and the tests that failed."""
        questions, answers = self._process.stdin, self._process.stdout
        assert questions is not None
        assert answers is not None
        print(json.dumps([*options, *tests]), file=questions, flush=True)
        answer = answers.readline()
        if not answer:
            raise RuntimeError("the process that runs the tests has ended")
        code, failed = json.loads(answer)
        return code, failed


def _result(mutant: Mutant, places: Places, tester: _Tester) -> tuple[Result, str]:
    try:
        below, text = places.changed(mutant)
    except ValueError as error:
        return "NOT CHECKED", str(error)
    path = tester.copy / below
    original = path.read_text(encoding="utf-8")
    try:
        path.write_text(text, encoding="utf-8")
        code, failed = tester.run(mutant.tests, "-x")
    finally:
        path.write_text(original, encoding="utf-8")
    if code == 0:
        return "SURVIVED", ""
    if code == 1:
        return "killed", failed[0].removeprefix("tests/") if failed else "no test is named"
    return "NOT CHECKED", f"exit code {code}"  # no test ran, for instance because the mutant cannot be imported
