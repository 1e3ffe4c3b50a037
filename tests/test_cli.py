"""The command line: exit codes and one-line messages."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from benchmarks.__main__ import main
from benchmarks.results.records import write_record
from benchmarks.suite import SUITE
from tests.record_factory import make_record


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DEVICE", "cpu")


def test_list_shows_every_configuration_with_its_gates(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in SUITE)
    assert "gates   course Dice > 0.6, present Dice > 0.6\n    floors  nearest training frame's mask\n" in text


def test_the_help_of_a_command_names_its_own_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    """Other than `run`, upgrade writes to results/upgrade and does not accept "cannot tell" in the quick profile."""
    with pytest.raises(SystemExit):
        main(["upgrade", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "--results RESULTS folder; default: results/upgrade --unclear UNCLEAR fail (default) or pass" in text


def test_judge_and_report_take_in_every_recorded_seed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = tmp_path / "results"
    for seed in range(5):
        low = {"metrics": {"present_dice": 0.3}} if seed > 2 else {}
        write_record(results, make_record("seg-baseline", seed=seed, **low))
    command = ["--results", str(results), "seg-baseline"]
    assert main(["judge", *command]) == 1
    assert "seg-baseline, seeds 3, 4: " in capsys.readouterr().out
    assert main(["report", *command]) == 0
    assert "seg-baseline, seeds 3, 4: " in (results / "RESULTS.md").read_text(encoding="utf-8")
    assert main(["judge", *command, "--seeds", "0 1 2"]) == 0


def test_judge_without_a_folder_takes_in_every_recorded_seed_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for seed in range(2):
        changes = {"profile": "quick", "data": {"kind": "synthetic"}, "metrics": {"present_dice": 0.9 - 0.6 * seed}}
        write_record(Path("results/quick-synthetic"), make_record("seg-baseline", seed, **changes))
    command = ["--profile", "quick", "--data", "synthetic", "--device", "cpu", "seg-baseline"]
    assert main(["judge", *command]) == 1
    assert "seg-baseline, seed 1: failed" in capsys.readouterr().out
    assert main(["report", *command]) == 0
    assert "seg-baseline, seed 1: failed" in Path("results/quick-synthetic/RESULTS.md").read_text(encoding="utf-8")


def test_sigterm_while_data_is_drawn_ends_as_in_a_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(root: Path) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        pytest.fail("it continued")

    monkeypatch.setattr("benchmarks.engines.engine.synthesize", interrupt)
    handler = signal.getsignal(signal.SIGTERM)
    assert main(["run", "--data", "synthetic", "--device", "cpu", "--results", str(tmp_path)]) == 130
    assert "interrupted" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) == handler


def test_compare_takes_the_new_results_from_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    write_record(Path("old"), make_record("vgg-scratch"))
    write_record(Path("new"), make_record("vgg-scratch", metrics={"accuracy": 0.7}))
    monkeypatch.setenv("RESULTS", "new")
    assert main(["compare", "old"]) == 1


def test_compare_writes_a_step_summary(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """In containers the variable is often set but the file missing: exit code 1 would look like a regression."""
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "summary.md")
    write_record(Path("old"), make_record("vgg-scratch"))
    assert main(["compare", "old", "old"]) == 0
    text = capsys.readouterr().out
    assert "**NO WORSE**" in text
    assert Path("summary.md").read_text(encoding="utf-8") == text
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "not/mounted/summary.md")
    assert main(["compare", "old", "old"]) == 0
    assert "not/mounted/summary.md" in capsys.readouterr().err
