"""`make gpu-check`: failures, hangs and differences are reported, and the other parts still run."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks.options import read_options
from benchmarks.results.records import write_record
from benchmarks.speed.gpu_check import Check
from benchmarks.suite import SUITE
from tests.record_factory import make_record

HANGS = "import time; time.sleep(600)"


def make_check(folder: Path, limit_s: float = 60.0, **options: str) -> Check:
    return Check(read_options({"RESULTS": str(folder), "DEVICE": "cpu", "PROFILE": "quick", **options}), limit_s)


@pytest.fixture
def check(tmp_path: Path) -> Check:
    return make_check(tmp_path)


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file whose content ``python -m module`` runs."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path / "module.py"


def test_a_successful_part(check: Check, module: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Variables for another mode are not passed on, and the results of an earlier call are deleted."""
    for name in ("CUDA_GRAPHS", "DETERMINISTIC"):
        monkeypatch.setenv(name, "1")
    names = "CUDA_GRAPHS", "DETERMINISTIC", "DEVICE", "SEEDS"
    module.write_text(f"import os; print([os.environ[name] for name in {names}])", encoding="utf-8")
    (tmp_path / "name").mkdir()
    (tmp_path / "name" / "OLD.md").touch()
    assert check.run("name", "module") == []
    assert not check.failed
    assert (tmp_path / "name" / "output.txt").read_text(encoding="utf-8") == "['0', '0', 'cpu', '0']\n"
    assert not (tmp_path / "name" / "OLD.md").exists()


def test_a_part_that_fails_reports_its_output(check: Check, module: Path) -> None:
    module.write_text("raise SystemExit('no such thing')", encoding="utf-8")
    end, output = check.run("name", "module")
    assert end == "**exit code 1**"
    assert "no such thing" in output
    assert check.failed


def test_a_part_that_hangs_is_stopped_with_all_that_it_started(tmp_path: Path, module: Path) -> None:
    check = make_check(tmp_path, 4.0)
    child = f"import os, subprocess, sys; print(subprocess.Popen([sys.executable, '-c', {HANGS!r}]).pid, flush=True)"
    module.write_text(f"{child}\n{HANGS}", encoding="utf-8")
    end, output = check.run("name", "module")
    assert "time limit" in end
    assert check.failed
    child_pid = int(output.split()[1])
    deadline = time.monotonic() + 20
    while is_running(child_pid):
        assert time.monotonic() < deadline, "the process that the part started is still running"
        time.sleep(0.05)
    assert check.run("other", "module") == ["**not measured**: no time left; raise the limit, MINUTES"]


def is_running(pid: int) -> bool:
    """Whether the process exists and is not a zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_the_suite_is_reported_run_by_run(check: Check, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    timing = {"share_of_attainable": 0.61, "total_s": 40.0, "warmup_s": 8.0}
    write_record(tmp_path / "plain", make_record("vgg-scratch", timing=timing))
    write_record(tmp_path / "plain", make_record("colorization", status="error", message="lost"))
    monkeypatch.setattr(check, "run", lambda *_, **__: ["**exit code 1**"])
    check.part("The suite", check.suite)
    text = (tmp_path / "GPU.md").read_text(encoding="utf-8")
    assert all(part in text for part in ("exit code 1", "accuracy 0.93", "61%", "error: lost")), text
    assert f"1 of {len(SUITE)} runs completed, 32 s without warm-up and start-up (not all of the suite)" in text


@pytest.mark.parametrize(("together_s", "verdict"), [(59.0, "reached"), (61.0, "missed")])
def test_the_suite_is_compared_with_its_goal(together_s: float, verdict: str, check: Check, tmp_path: Path) -> None:
    for configuration in check.chosen:
        timing = {"total_s": together_s / len(check.chosen) + 1.0, "warmup_s": 1.0}
        write_record(tmp_path / "plain", make_record(configuration.id, timing=timing))
    assert f"goal 1 min 00 s: {verdict}" in check._runs("plain")[0]


def test_runs_that_others_require_are_counted(tmp_path: Path) -> None:
    check = make_check(tmp_path, ONLY="seg-pretrained")
    for name in ("colorization", "seg-pretrained"):
        write_record(tmp_path / "plain", make_record(name))
    assert check._runs("plain")[0].startswith("2 of 2 runs completed")


@pytest.mark.parametrize(
    ("captured", "objection"),
    [
        ({}, "losses and verdicts agree"),
        ({"details": {"not_recorded": "no capture"}}, "seg-baseline was not captured (no capture)"),
        ({"metrics": {"course_dice": 0.1}}, "seg-baseline has another verdict"),
        ({"history": {"training": [{"epoch": 1.0, "train_loss": 0.1}]}}, "seg-baseline has another loss"),
        ({"status": "error"}, "seg-baseline is missing"),
    ],
)
def test_captured_steps_are_compared_with_eager_ones(
    captured: dict[str, Any], objection: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = make_check(tmp_path, ONLY="seg-baseline vgg-frozen", ALLOW_NOT_RUN="vgg-frozen")  # which has no record
    variables: dict[str, str] = {}
    monkeypatch.setattr(check, "run", lambda *_, **more: variables.update(more) or [])
    write_record(tmp_path / "plain", make_record("seg-baseline", timing={"training_s": 30.0}))
    write_record(tmp_path / "graphs", make_record("seg-baseline", timing={"training_s": 20.0}, **captured))
    paragraphs = check.graphs()
    assert variables == {"CUDA_GRAPHS": "1"}
    assert objection in paragraphs[-1]
    assert ("1.50x" in paragraphs[-2]) is ("status" not in captured)
    assert check.failed is bool(captured)


def test_concurrent_seeds_against_one_alone(check: Check, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "run", lambda *_, **__: [])
    assert check.at_once() == ["**not measured**: runs are missing"]
    alone = {"machine": {"started_at": "2026-01-01T00:00:00+00:00"}}
    write_record(tmp_path / "plain", make_record("seg-baseline", timing={"total_s": 10.0}, environment=alone))
    for seed, start in enumerate(("00:00", "00:01", "00:03")):  # the last ends 15 s after the first start
        machine = {"machine": {"started_at": f"2026-01-01T01:{start}+00:00"}}
        record = make_record("seg-baseline", seed=seed, timing={"total_s": 12.0}, environment=machine)
        write_record(tmp_path / "workers", record)
    (paragraph,) = check.at_once()
    assert "2.00x" in paragraph  # three times 10 s compared with 15 s
