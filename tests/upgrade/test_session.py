"""Old against new: turns, looks, answers, and how often these may be wrong."""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
from collections import Counter
from pathlib import Path
from random import Random

import numpy as np
import pytest

from benchmarks.__main__ import main
from benchmarks.results.records import write_record
from benchmarks.results.statistics import ERROR, TIME_ERROR, Change, changes, evidence
from benchmarks.suite import Margin
from tests.results.test_statistics import at_most, by_seed
from tests.upgrade.stand_in import made_up, make_python


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("ONLY", "PROFILE", "DATA", "DEVICE", "RESULTS", "SEEDS", "UNCLEAR", "MOST_SEEDS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "summary.md")


def asked(new: dict[str, float], *arguments: str, old: dict[str, float] | None = None) -> tuple[int, list[str]]:
    """Exit code of an upgrade, and the lines of its report."""
    for name, effect in (("A", old or {}), ("B", new)):
        if not Path(name).exists():
            make_python(Path(name), effect)
    code = main(["upgrade", "A", "B", *arguments])
    return code, [re.sub(" +", " ", line) for line in Path("results/upgrade/UPGRADE.md").read_text().splitlines()]


def test_both_sides_take_turns_until_it_is_clear_that_nothing_is_worse(capsys: pytest.CaptureFixture[str]) -> None:
    code, lines = asked({})
    assert code == 0
    assert Path("results/upgrade/order").read_text().split() == ["old0", "new0", "new1", "old1", "old2", "new2"]
    assert lines[0] == "# Upgrade from `A` to `B`"
    answer = "quality no worse, time no worse, memory no worse"
    assert lines[2] == f"**{answer.capitalize()}**, after 3 of at most 10 seeds."
    assert lines[4] == "**NO WORSE**; 5 no worse."
    assert f"| 3 | {answer} | 5 | 0 | 0 | 0 |" in lines
    assert any("over all rows of the table and all 8 looks" in line for line in lines)
    said = capsys.readouterr().out
    assert f"3 seeds a side: {answer}" in said
    assert Path("summary.md").read_text() == Path("results/upgrade/UPGRADE.md").read_text()
    # Records of further seeds, as an earlier call may have left, change nothing at a look that comes before them.
    write_record(Path("results/upgrade/new"), made_up(3, {"drop": 0.5}, Random(0)))
    assert asked({}) == (0, lines)


@pytest.mark.parametrize(
    ("new", "options", "code", "answer"),
    [
        ({"drop": 0.025}, [], 1, "Quality worse, time no worse, memory no worse"),
        ({"time": 1.3, "memory": 0.5}, [], 1, "Quality no worse, time worse, memory no worse"),
        ({"time": 1.3, "memory": 1.3}, ["--quality-only"], 0, "Quality no worse"),
    ],
)
def test_an_answer_that_is_clear_ends_it_after_three_seeds(
    new: dict[str, float], options: list[str], code: int, answer: str
) -> None:
    found, lines = asked(new, *options)
    assert (found, lines[2]) == (code, f"**{answer}**, after 3 of at most 10 seeds.")


def test_what_stays_unclear_ends_with_5_after_all_seeds() -> None:
    noisy = {"noise": 0.02}
    code, lines = asked(noisy, "--seeds", "4", old=noisy)
    assert code == 5
    assert lines[2] == "**Quality cannot tell, time no worse, memory no worse**, after 4 of at most 4 seeds."
    assert len([line for line in lines if re.match(r"\| [34] \|", line)]) == 2
    assert asked(noisy, "--seeds", "3", "--unclear", "pass")[0] == 0
    assert main(["upgrade", "A", "B", "--seeds", "2"]) == 2


@pytest.mark.parametrize(
    ("code", "line"),
    [
        (4, "error: no CUDA device is visible"),
        (2, "error: rich is not installed; install: B/bin/python -m pip install rich"),
        (3, "error: no data folder"),
        (70, "error: unexpected KeyError"),
        (139, "Segmentation fault"),
    ],
)
def test_a_side_that_cannot_run_is_named_with_its_last_line(
    code: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    make_python(Path("A"), {})
    make_python(Path("B"), {"code": code}, line)
    assert main(["upgrade", "A", "B"]) == (4 if code == 139 else code)
    said = f"error: the new side, B, cannot run (exit code {code}): {line.removeprefix('error: ')}; more: "
    assert capsys.readouterr().err.startswith(said)


@pytest.mark.parametrize(
    ("old", "said"),
    [
        ("nowhere", "OLD is 'nowhere', no environment; expected a folder with bin/python, a python, docker:IMAGE"),
        ("/bin/true", "the old side, /bin/true, cannot tell what it holds: it is no python"),
        ("bare", "the old side, bare, has no torch; install: {here}/bare/bin/python -m pip install torch torchvision"),
        ("docker:lost", "OLD is 'docker:lost': No such image: lost; get it: docker pull lost"),
        ("podman:x", "OLD is 'podman:x', and there is no podman on the PATH; install it"),
    ],
)
def test_what_is_no_side_is_told_before_anything_is_trained(
    old: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_python(Path("B"), {})
    make_python(Path("bare"), {}, torch="")
    make_engine(tmp_path / "path" / "docker", "lost")
    monkeypatch.setenv("PATH", f"{tmp_path / 'path'}:/usr/bin:/bin")
    assert main(["upgrade", old, "B"]) == 2
    assert capsys.readouterr().err.startswith(f"error: {said.format(here=tmp_path)}")
    assert not Path("results/upgrade").exists()


def make_engine(path: Path, lost: str = "") -> None:
    """A docker that notes its arguments and runs the command of an image with that image's python on this machine."""
    path.parent.mkdir()
    path.write_text(
        f"""#!{sys.executable} -S
import json, os, sys
from pathlib import Path
if sys.argv[1:3] == ["image", "inspect"]:
    sys.exit("No such image: lost" if sys.argv[-1] == {lost!r} else print(f"sha256:{{sys.argv[-1]}}"))
with open({str(path.parent / "calls")!r}, "a") as file:
    file.write(json.dumps(sys.argv[1:]) + "\\n")
place = sys.argv.index("python3")
told = [sys.argv[at + 1] for at, word in enumerate(sys.argv[:place]) if word == "--env"]
told += ["PATH=/usr/bin:/bin"]
os.execve(f"{{sys.argv[place - 1]}}/bin/python", sys.argv[place:], dict(word.split("=", 1) for word in told))
"""
    )
    path.chmod(0o755)


def test_two_images_take_turns_in_containers_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_engine(tmp_path / "path" / "docker")
    make_engine(tmp_path / "other" / "podman")
    monkeypatch.setenv("PATH", f"{tmp_path / 'path'}:{tmp_path / 'other'}:{os.environ['PATH']}")
    monkeypatch.setenv("LIMIT", "30")
    for name in ("A", "B"):
        make_python(tmp_path / name, {})
    code = main(["upgrade", f"docker:{tmp_path}/A", f"podman:{tmp_path}/B", "--device", "cpu", "--data", "synthetic"])
    assert code == 0
    assert len(Path("results/upgrade/order").read_text().split()) == 6
    calls = [json.loads(line) for line in (tmp_path / "path" / "calls").read_text().splitlines()]
    call, checkout = shlex.join(calls[-1]), Path(main.__code__.co_filename).parents[1]
    assert call.endswith(f" {tmp_path}/A python3 -m benchmarks run")
    for words in (
        "run --rm --network none --read-only --tmpfs /tmp --shm-size 1g",
        f"--user {os.getuid()}:{os.getgid()} --workdir {tmp_path}",
        f"--volume {checkout}:{checkout}:ro",
        f"--volume {tmp_path}/.cache:{tmp_path}/.cache ",
        f"--volume {tmp_path}/results/upgrade/old:{tmp_path}/results/upgrade/old ",
        f"--env PYTHONPATH={checkout}",
        f"--env BENCHMARK_IMAGE=sha256:{tmp_path}/A",
        "--env DEVICE=cpu",
        "--env DATA=synthetic",
        "--env LIMIT=30",
        "--env SEEDS=2",
    ):
        assert words in call
    other = (tmp_path / "other" / "calls").read_text()
    assert '"--userns", "keep-id"' in other
    assert '"--userns"' not in json.dumps(calls)
    assert "--gpus" not in call


# ------------------------------------------------------------------------------------------------------------- errors


MOST, LOOKS = 10, 8  # looks after the third to the tenth pair


def sessions(
    count: int, error: float, spread: float, drop: float = 0.0, drift: float = 0.0
) -> list[tuple[Change, int]]:
    """Answer and number of seeds of simulated upgrades of two numbers with a margin of 1; each at this total error.

    The machine slows down by ``drift`` from the first run of a session to the last.
    """
    generator, found = np.random.default_rng(7), []
    place = np.arange(2 * MOST).reshape(MOST, 2)
    place[1::2] = place[1::2, ::-1]  # old new, new old
    for _ in range(count):
        values = generator.normal(0.0, spread, (2, MOST, 2)) - drift * place / (2 * MOST)
        values[:, :, 1] -= drop
        for seeds in range(3, MOST + 1):
            shown = values[:, :seeds].tolist()
            pairs = [[by_seed([pair[side] for pair in number]) for side in (0, 1)] for number in shown]
            verdicts = changes([evidence(old, new, Margin(1.0)) for old, new in pairs], error / LOOKS)
            if Change.WORSE in verdicts or Change.CANNOT_TELL not in verdicts:
                break
        answer = next((word for word in (Change.WORSE, Change.CANNOT_TELL) if word in verdicts), Change.NO_WORSE)
        found.append((answer, seeds))
    return found


@pytest.mark.parametrize("error", [ERROR, TIME_ERROR])
@pytest.mark.parametrize(("spread", "drift"), [(0.7, 0.0), (0.7, 3.0)])
def test_over_all_looks_nothing_is_falsely_called_worse_more_often_than_promised(
    error: float, spread: float, drift: float
) -> None:
    worse = Counter(answer for answer, _ in sessions(500, error, spread, drift=drift))[Change.WORSE]
    assert at_most(worse, 500, error)


def test_looks_at_undivided_errors_would_not_keep_the_promise() -> None:
    worse = Counter(answer for answer, _ in sessions(500, LOOKS * TIME_ERROR, 3.0))[Change.WORSE]
    assert not at_most(worse, 500, TIME_ERROR)


def test_a_drop_of_the_margin_passes_no_more_often_than_promised() -> None:
    passed = Counter(answer for answer, _ in sessions(500, TIME_ERROR, 0.3, drop=1.0))[Change.NO_WORSE]
    assert at_most(passed, 500, TIME_ERROR)


@pytest.mark.parametrize(
    ("spread", "drop", "answer", "share", "seeds"),
    [
        (0.1, 0.0, Change.NO_WORSE, 1.0, 3.5),
        (0.25, 0.0, Change.NO_WORSE, 1.0, 5.0),
        (0.5, 0.0, Change.NO_WORSE, 0.5, 9.5),
        (0.25, 2.0, Change.WORSE, 1.0, 3.5),
        (0.5, 2.0, Change.WORSE, 0.99, 5.5),
    ],
)
def test_a_clear_answer_takes_few_seeds(spread: float, drop: float, answer: Change, share: float, seeds: float) -> None:
    found = sessions(200, ERROR, spread, drop)
    assert np.mean([word is answer for word, _ in found]) >= share
    assert np.mean([count for _, count in found]) <= seeds
