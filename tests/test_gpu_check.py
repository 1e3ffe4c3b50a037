"""The one command for a GPU: what fails, hangs or differs is told, and the rest goes on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.gpu_check import Check
from benchmarks.options import read_options
from benchmarks.records import write_record
from tests.record_factory import make_record


@pytest.fixture
def check(tmp_path: Path) -> Check:
    return Check(read_options({"RESULTS": str(tmp_path), "DEVICE": "cpu", "PROFILE": "quick"}, {}))


def process(code: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", code])


def test_a_part_that_hangs_is_stopped_and_counts_as_failed(check: Check) -> None:
    assert check.finish([process("raise SystemExit(0)")], 30) == [0]
    assert not check.failed
    assert check.finish([process("raise SystemExit(4)"), process("import time; time.sleep(60)")], 2) == [4, None]
    assert check.failed


def test_the_suite_is_told_run_by_run(check: Check, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_record(tmp_path / "plain", make_record("vgg-scratch", timing={"share_of_attainable": 0.61}))
    write_record(tmp_path / "plain", make_record("colorization", status="error", message="lost"))
    monkeypatch.setattr(check, "start", lambda *_, **__: process("raise SystemExit(1)"))
    check.suite("plain", 30)
    text = (tmp_path / "GPU.md").read_text(encoding="utf-8")
    assert "exit code 1" in text
    assert "accuracy 0.93" in text
    assert "61%" in text
    assert "error" in text


def test_what_a_part_writes_is_told_and_a_part_that_fails_counts(check: Check, tmp_path: Path) -> None:
    path = tmp_path / "SOME.md"
    write = f"import pathlib; pathlib.Path({str(path)!r}).write_text('a table')"
    assert check.part([sys.executable, "-c", write], path) == ("exit code 0", "a table")
    assert not check.failed
    assert check.part([sys.executable, "-c", "raise SystemExit(1)"], tmp_path / "none") == ("exit code 1", "no table")
    assert check.failed
