"""Upgrades: the order of the runs, the looks and the verdicts."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.__main__ import main
from tests.upgrade.stand_in import make_python

RESULTS = Path("results/upgrade")


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("ONLY", "PROFILE", "DATA", "DEVICE", "RESULTS", "SEEDS", "UNCLEAR", "MOST_SEEDS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"GITHUB_STEP_SUMMARY": "summary.md", "ENGINE": "ray", "EVERY_GPU": "1"}.items():
        monkeypatch.setenv(name, value)


def upgraded(*arguments: str) -> tuple[int, list[str]]:
    """Exit code of an upgrade from A to B, and the lines of its report."""
    return main(["upgrade", "A", "B", *arguments]), (RESULTS / "UPGRADE.md").read_text().splitlines()


def test_both_sides_take_turns_until_it_is_clear_that_nothing_is_worse(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("A", "B"):
        make_python(Path(name))
    code, lines = upgraded()
    summary = "uality no worse, time no worse, memory no worse, energy no worse"
    assert code == 0
    assert (RESULTS / "order").read_text().split() == ["old0", "new0", "new1", "old1", "old2", "new2"]
    assert lines[:3] == ["# Upgrade from `A` to `B`", "", f"**Q{summary}**, after 3 of at most 10 seeds."]
    assert lines[4] == "**NO WORSE**; 6 no worse."
    assert f"- 3 seeds per side: q{summary}" in lines
    assert any("over all rows of the table and all 8 looks" in line for line in lines)
    assert lines[-1].split() == ["|", "torch", "|", "A", "|", "B", "|"]
    assert f"3 seeds per side: q{summary}" in capsys.readouterr().out
    assert Path("summary.md").read_text().splitlines() == lines
    # Records of later seeds from an earlier call do not count at a look before these seeds.
    make_python(Path("worse"), drop=0.5)
    shutil.copy("worse/records/seg-baseline-seed3.json", RESULTS / "new" / "records")
    assert upgraded() == (0, lines)


@pytest.mark.parametrize(
    ("noise", "new", "options", "code", "summary"),
    [
        (0.001, {"drop": 0.025}, [], 1, "Quality worse, time no worse, memory no worse, energy no worse**, after 3 of"),
        (0.001, {"time": 1.3, "memory": 0.5}, [], 1, "Quality no worse, time worse, memory no worse, energy no worse"),
        (0.001, {"energy": 1.3}, [], 1, "Quality no worse, time no worse, memory no worse, energy worse**, after 3 of"),
        (0.001, {"memory": 1.3}, ["--quality-only"], 0, "Quality no worse**, after 3 of at most 10 seeds."),
        (0.02, {}, ["--seeds", "4"], 5, "Quality cannot tell, time no worse, memory no worse"),
        (0.02, {}, ["--seeds", "3", "--unclear", "pass"], 0, "Quality cannot tell, "),
    ],
)
def test_exit_code_and_verdict(
    noise: float, new: dict[str, float], options: list[str], code: int, summary: str
) -> None:
    make_python(Path("A"), noise=noise)
    make_python(Path("B"), noise=noise, **new)  # type: ignore[arg-type]
    found, lines = upgraded(*options)
    assert found == code
    assert lines[2].startswith(f"**{summary}")
    assert len([line for line in lines if line.startswith("- ") and "seeds per side" in line]) == 1 + ("4" in options)


@pytest.mark.parametrize(
    ("old", "options", "code", "message"),
    [
        ("A", {"code": 4, "says": "error: no device"}, 4, "the new side, B, failed (exit code 4): no device; see "),
        ("A", {"code": 139, "says": "core dumped"}, 4, "the new side, B, failed (exit code 139): core dumped; "),
        ("A", {"torch": "numpy"}, 2, "the new side, B, has no torch; install it: {here}/B/bin/python -m pip install "),
        ("nowhere", {}, 2, "OLD is 'nowhere'; expected a folder with bin/python, a Python interpreter, docker:"),
        ("/bin/true", {}, 2, "the old side, /bin/true, cannot run the suite: it prints nothing"),
        ("docker:lost", {}, 2, "OLD is 'docker:lost': No such image: lost; pull it: docker pull lost"),
        ("podman:x", {}, 2, "OLD is 'podman:x', but podman is not on the PATH; install it"),
    ],
)  # fmt: skip
def test_a_side_that_cannot_run_is_reported_with_the_reason(
    old: str, options: dict[str, Any], code: int, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    make_python(Path("A"))
    make_python(Path("B"), **options)
    make_engine(tmp_path / "path" / "docker")
    monkeypatch.setenv("PATH", f"{tmp_path / 'path'}:/usr/bin:/bin")
    assert main(["upgrade", old, "B"]) == code
    assert capsys.readouterr().err.startswith(f"error: {message.format(here=tmp_path)}")


def test_the_reason_of_a_silent_crash_is_no_line_of_an_earlier_run(capsys: pytest.CaptureFixture[str]) -> None:
    make_python(Path("A"), says="7 gates passed")
    make_python(Path("B"), code=139)
    assert main(["upgrade", "A", "A"]) == 0
    assert main(["upgrade", "A", "B"]) == 4
    assert "B, failed (exit code 139); see " in capsys.readouterr().err


def make_engine(path: Path) -> None:
    """Make a fake docker that logs its arguments and runs the command with the image's python on this machine."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(
        f"""#!{sys.executable} -S
import json, os, sys
if sys.argv[1:3] == ["image", "inspect"]:
    sys.exit("No such image: lost" if sys.argv[-1] == "lost" else print(f"sha256:{{sys.argv[-1][-1]}}b2c3"))
with open("{path}.calls", "a") as file:
    file.write(json.dumps(sys.argv[1:]) + "\\n")
print("==========\\n== CUDA ==\\n==========", flush=True)  # as the entrypoint of NVIDIA's images does
start = sys.argv.index("python3")
given = [sys.argv[index + 1] for index, word in enumerate(sys.argv[:start]) if word == "--env"]
variables = dict(word.split("=", 1) for word in ["PATH=/usr/bin:/bin", *given])
os.execve(f"{{sys.argv[start - 1]}}/bin/python", sys.argv[start:], variables)
"""
    )
    path.chmod(0o755)


def test_two_images_take_turns_in_containers_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for engine, name in (("docker", "A"), ("podman", "B")):
        make_engine(tmp_path / "path" / engine)
        make_python(tmp_path / name)
    monkeypatch.setenv("PATH", f"{tmp_path / 'path'}:{os.environ['PATH']}")
    monkeypatch.setenv("LIMIT", "30")
    monkeypatch.delenv("TORCH_HOME", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))  # torch's weights are below it
    (tmp_path / "caches" / "torch").mkdir(parents=True)
    assert main(["upgrade", f"docker:{tmp_path}/A", f"podman:{tmp_path}/B", "--device", "cpu"]) == 0
    assert len((RESULTS / "order").read_text().split()) == 6
    calls = [Path("path", f"{engine}.calls").read_text().splitlines()[-1] for engine in ("docker", "podman")]
    docker, podman = (f"{shlex.join(json.loads(call))} " for call in calls)
    checkout = Path(main.__code__.co_filename).parents[1]
    assert docker.endswith(f" {tmp_path}/A python3 -m benchmarks run ")
    for words in (
        "run --rm --network none --read-only --tmpfs /tmp --shm-size 1g --user {user} --workdir {here}",
        "--volume {checkout}:{checkout}:ro --volume {here}/caches/torch:{here}/caches/torch:ro",
        "--volume {here}/.cache:{here}/.cache --volume {here}/results/upgrade/old:{here}/results/upgrade/old",
        *("--env PYTHONPATH={checkout}", "--env BENCHMARK_IMAGE=sha256:Ab2c3", "--env LIMIT=30", "--env SEEDS=2"),
    ):
        user = f"{os.getuid()}:{os.getgid()}"
        assert f"{words.format(checkout=checkout, here=tmp_path, user=user)} " in docker
    assert "--userns keep-id" in podman
    assert "--userns" not in docker
