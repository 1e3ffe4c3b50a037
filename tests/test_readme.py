"""What the README tells people to type works, and what it says of the suite is so."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from benchmarks.__main__ import main
from benchmarks.records import write_record
from benchmarks.shards import Shard, note_shard, part
from benchmarks.suite import SUITE
from tests.record_factory import make_record

CHECKOUT = Path(__file__).parent.parent
README = (CHECKOUT / "README.md").read_text(encoding="utf-8")
COMMANDS = [
    line.split("#")[0].strip()
    for block in re.findall(r"^```\n(.*?)^```$", README, flags=re.DOTALL | re.MULTILINE)
    for line in block.splitlines()
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with the results that the examples name."""
    monkeypatch.chdir(tmp_path)
    for variable in ("PROFILE", "DATA", "SEEDS", "DEVICE", "ONLY", "RESULTS", "VGG16_WEIGHTS", "ALLOW_NOT_RUN"):
        monkeypatch.delenv(variable, raising=False)
    for number in (1, 2):
        runs = part(list(SUITE.values()), (0, 1, 2), Shard(number, 2))
        note_shard(tmp_path / f"results/shard-{number}", Shard(number, 2), "full", runs)
        for entry, seed in runs:
            write_record(tmp_path / f"results/shard-{number}", make_record(entry.id, seed))
    for name in re.findall(r"results/(?:h100|last-week|a100)", README):
        for configuration in SUITE:
            for seed in (0, 1, 2):
                write_record(tmp_path / name, make_record(configuration, seed))
    return tmp_path


@pytest.mark.parametrize("command", [command for command in COMMANDS if command.startswith("python -m benchmarks ")])
def test_examples_of_the_command_line_do_what_they_say(command: str, folder: Path) -> None:
    assert main(shlex.split(command)[3:]) == 0


@pytest.mark.parametrize("command", [command for command in COMMANDS if re.match(r"(\w+=\S+ )*make ", command)])
def test_examples_of_make_are_understood(command: str) -> None:
    arguments = shlex.split(command)
    arguments.insert(arguments.index("make") + 1, "--dry-run")
    answer = subprocess.run(
        ["env", *arguments], cwd=CHECKOUT, env=os.environ, capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stderr
    assert "python" in answer.stdout or "docker" in answer.stdout


def test_no_example_is_left_out() -> None:
    kinds = r"(python -m benchmarks |(\w+=\S+ )*make )"
    assert len(COMMANDS) >= 10
    assert [command for command in COMMANDS if not re.match(kinds, command)] == []


def test_every_configuration_stands_in_the_table_with_its_gates() -> None:
    for configuration in SUITE.values():
        (row,) = [
            line
            for line in README.splitlines()
            if line.startswith(f"| `{configuration.id}` | {configuration.question} |")
        ]
        for gate in configuration.gates:
            told = (
                f"{gate.threshold:.2f}".rstrip("0")
                if gate.threshold
                else "half of"
                if gate.share_of_trivial == 0.5
                else "beat the trivial"
            )
            assert told in row


def test_every_file_that_a_report_writes_is_explained(folder: Path) -> None:
    main(["report", "--results", "results/h100"])
    written = {path.name for path in (folder / "results" / "h100").iterdir()} - {"records", "figures"}
    assert {name for name in written if f"`{name}`" not in README} == set()
    assert {"RESULTS.md", "report.html", "junit.xml", "metrics.txt", "benchmark.json"} == written


def test_pictures_and_files_that_are_named_exist() -> None:
    named = re.findall(r"\]\(([^)#:]+)\)", README) + re.findall(r"`((?:benchmarks|hw6core)/[\w./]+\.\w+)`", README)
    assert named
    assert [name for name in named if not (CHECKOUT / name).exists()] == []
