"""The commands in README and docs work, and their statements about the suite are correct."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.__main__ import main
from benchmarks.engines.shards import write_shard_file
from benchmarks.fingerprint.record import VERSION, Fingerprint, write_fingerprint
from benchmarks.results.records import write_record
from benchmarks.runs.plan import Shard, part
from benchmarks.suite import SUITE
from tests.finished_runs import no_figures
from tests.record_factory import make_record
from tests.upgrade.stand_in import make_python

CHECKOUT = Path(__file__).parent.parent
PAGES = {path: path.read_text(encoding="utf-8") for path in (CHECKOUT / "README.md", *(CHECKOUT / "docs").glob("*.md"))}
README = PAGES[CHECKOUT / "README.md"]
TEXT = "\n".join(PAGES.values())
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", TEXT, flags=re.DOTALL | re.MULTILINE)
LINES = [line.split("#")[0].strip() for language, block in BLOCKS if not language for line in block.splitlines()]
COMMANDS = list(dict.fromkeys(LINES))


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results that the examples refer to."""
    folder = tmp_path_factory.mktemp("results")
    for number in (1, 2):
        runs = part(list(SUITE.values()), (0, 1, 2), Shard(number, 2))
        write_shard_file(folder / f"shard-{number}", Shard(number, 2), "full", runs)
        for entry, seed in runs:
            write_record(folder / f"shard-{number}", make_record(entry.id, seed))
    for name in set(re.findall(r"results/(h100|last-week|a100|quick-synthetic)", TEXT)):
        for configuration in SUITE:
            for seed in (0, 1, 2):
                write_record(folder / name, make_record(configuration, seed))
    for name in ("node1", "node2", "node3"):
        write_record(folder / "nodes" / name, make_record("seg-baseline", environment={"node": name}))
        write_fingerprint(folder / "fleet" / f"{name}.json", Fingerprint(VERSION, "", {}, {}))
    return folder


@pytest.fixture
def folder(results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a copy of these results."""
    shutil.copytree(results, tmp_path / "results")
    for name in (".venv", ".newest"):
        make_python(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("benchmarks.report.markdown.write_figures", no_figures)
    monkeypatch.setattr("benchmarks.results.references.REFERENCES", tmp_path / "references")
    return tmp_path


@pytest.mark.parametrize("command", [command for command in COMMANDS if command.startswith("python -m benchmarks ")])
def test_examples_of_the_command_line_work(command: str, folder: Path) -> None:
    assert main(shlex.split(command)[3:]) == 0


@pytest.mark.parametrize("command", [command for command in COMMANDS if re.match(r"(\w+=\S+ )*make ", command)])
def test_examples_of_make_are_valid(command: str) -> None:
    arguments = shlex.split(command)
    arguments.insert(arguments.index("make") + 1, "--dry-run")
    answer = subprocess.run(["env", *arguments], cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    assert "python" in answer.stdout or "docker" in answer.stdout


def test_no_example_is_left_out() -> None:
    kinds = r"(python -m benchmarks |(\w+=\S+ )*make )"
    assert len(COMMANDS) >= 10
    assert [command for command in COMMANDS if not re.match(kinds, command)] == []


def test_the_table_has_the_gates_of_the_assignment() -> None:
    rows = dict(re.findall(r"^\| `([\w-]+)` \| (\d\([a-d]\) \|.*)$", README, flags=re.MULTILINE))
    assert len(rows) == 7
    for name, row in rows.items():
        assert row.startswith(f"{SUITE[name].question} |")
        for gate in SUITE[name].gates:
            relative = "half of" if gate.share_of_trivial == 0.5 else "beat the constant"
            assert (f"{gate.threshold:.2f}".rstrip("0") if gate.threshold else relative) in row


def test_every_file_that_a_report_writes_is_explained(folder: Path) -> None:
    main(["report", "--results", "results/h100"])
    written = {path.name for path in (folder / "results" / "h100").iterdir()} - {"records", "figures"}
    assert {name for name in written if f"`{name}`" not in PAGES[CHECKOUT / "docs" / "results.md"]} == set()
    assert {"RESULTS.md", "report.html", "junit.xml", "metrics.txt", "benchmark.json"} == written


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pictures_and_files_that_are_named_exist(page: Path) -> None:
    named = [page.parent / link for link in re.findall(r"\]\(([^)#:]+)\)", PAGES[page])]
    named += [CHECKOUT / name for name in re.findall(r"`((?:benchmarks|hw6core)/[\w./]+\.\w+)`", PAGES[page])]
    assert [path for path in named if not path.exists()] == []


def test_the_readme_is_short_and_the_index_has_every_page() -> None:
    assert len(README.split()) <= 1200
    index = PAGES[CHECKOUT / "docs" / "README.md"]
    names = {page.name for page in PAGES if page.parent.name == "docs"}
    assert {name for name in names if f"({name})" not in index} == {"README.md"}


MINE = """
_MINE = replace(
    _SEG_BASELINE,
    id="seg-mine",
    question="1(e)",
    title="the baseline with a little weight decay",
    requires=("colorization",),
    gates=(Gate("present_dice", "above", 0.55),),
)

SUITE: Mapping"""
TRAINED = """
from benchmarks.runs.plan import Plan
from benchmarks.suite import select, with_requirements
from tests.killed_suite import make_fast
from tests.short_runs import run, shortened


def test_it_trains(data, tmp_path, monkeypatch):
    make_fast(monkeypatch)
    chosen = [shortened(entry, 1) for entry in with_requirements(select(["seg-mine"]))]
    records, output = run(Plan(chosen, "quick", (0,), data, "cpu", tmp_path))
    assert [(r.configuration, r.status) for r in records] == [("colorization", "completed"), ("seg-mine", "completed")]
    assert "seg-mine seed 0: failed, present Dice 0." in output
"""
# The tests that count or name configurations; `make test` after the five steps runs all tests.
COUNTING = """
test_mine.py test_suite.py results/test_gates.py test_options.py
test_readme.py::test_the_table_has_the_gates_of_the_assignment
results/test_comparison.py::test_a_result_set_is_no_worse_than_itself_even_with_one_seed
report/test_markdown.py::test_passed_comes_first
report/test_markdown.py::test_failed_and_missing_runs_are_named_first_with_their_reasons
speed/test_gpu_check.py::test_the_suite_is_reported_run_by_run
"""


def test_a_new_configuration_takes_an_entry_in_the_suite_and_nothing_else(tmp_path: Path) -> None:
    """Follows the five steps in a copy: the configuration trains, and the tests pass."""
    for name in ("benchmarks", "hw6core", "tests"):
        shutil.copytree(CHECKOUT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("README.md", "Makefile", "pyproject.toml"):
        shutil.copy(CHECKOUT / name, tmp_path)
    suite = tmp_path / "benchmarks" / "suite.py"
    text = suite.read_text(encoding="utf-8").replace("\nSUITE: Mapping", MINE, 1)
    suite.write_text(text.replace("        _VGG_NEW_TASK,\n", "        _VGG_NEW_TASK,\n        _MINE,\n", 1), "utf-8")
    (tmp_path / "tests" / "test_mine.py").write_text(TRAINED, encoding="utf-8")
    tests = (f"tests/{name}" for name in COUNTING.split())
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    answer = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stdout + answer.stderr
