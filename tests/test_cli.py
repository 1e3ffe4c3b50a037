"""The command line as a person meets it: exit codes and single lines."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.__main__ import main
from benchmarks.results.records import write_record
from benchmarks.suite import SUITE
from tests.finished_runs import no_figures
from tests.record_factory import make_record

CHECKOUT = Path(__file__).parent.parent
ROWS = sum(len(entry.gates) + 2 for entry in SUITE.values())  # of a comparison: each gate and two times


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("PROFILE", "DATA", "SEEDS", "DEVICE", "ONLY", "RESULTS", "VGG16_WEIGHTS", "ALLOW_NOT_RUN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    monkeypatch.setenv("DEVICE", "cpu")


def results_of_a_good_suite(folder: Path) -> Path:
    for name in SUITE:
        write_record(folder, make_record(name))
    return folder


def test_list_shows_every_configuration_with_its_gates(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in SUITE)
    assert "course_dice > 0.6, present_dice > 0.6" in text


def test_judge_accepts_a_good_suite(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = results_of_a_good_suite(tmp_path / "results")
    assert main(["judge", "--results", str(results), "--seeds", "0"]) == 0
    assert "PASSED" in capsys.readouterr().out


def test_judge_refuses_a_lowered_metric(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = results_of_a_good_suite(tmp_path / "results")
    write_record(results, make_record("seg-augmented", metrics={"present_dice": 0.59}))
    assert main(["judge", "--results", str(results)]) == 1
    text = capsys.readouterr().out
    assert "FAILED" in text
    assert "present Dice is 0.59, expected > 0.6" in text


def test_judge_misses_a_seed(tmp_path: Path) -> None:
    results = results_of_a_good_suite(tmp_path / "results")
    assert main(["judge", "--results", str(results), "--seeds", "0 1"]) == 1


def test_report_writes_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("benchmarks.report.markdown.write_figures", no_figures)
    results = results_of_a_good_suite(tmp_path / "results")
    assert main(["report", "--results", str(results)]) == 0
    assert capsys.readouterr().out.strip() == str(results / "RESULTS.md")
    assert "seg-pretrained" in (results / "RESULTS.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "exit_code", "sentence"),
    [
        (["judge", "--results", "nowhere"], 3, "error: no records in nowhere"),
        (["run", "unet"], 2, "error: unknown configuration 'unet'; known: seg-baseline"),
        (["run", "--profile", "full"], 3, "error: the full profile needs the real data in data/"),
        (["run", "--data", "nowhere"], 3, "error: no data folder nowhere; get it: python -m benchmarks data fetch"),
        (["run", "--device", "tpu", "--data", "."], 2, "error: unknown device 'tpu'"),
        (["run", "--data", "."], 3, "error: no EndoVis data in .: expected endovis/mapping.json"),
        (["data", "verify", "--root", "nowhere"], 3, "error: "),
    ],
)
def test_a_mistake_gets_one_line_and_an_exit_code(
    arguments: list[str], exit_code: int, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == exit_code
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith(sentence)


def test_ctrl_c_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(results: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("benchmarks.results.records.read_records", interrupt)
    assert main(["judge"]) == 130
    assert "finished epochs are kept" in capsys.readouterr().err


def test_sigterm_while_data_is_drawn_ends_as_in_a_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def told(root: Path) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        pytest.fail("it went on")

    monkeypatch.setattr("benchmarks.engines.engine.synthesize", told)
    handler = signal.getsignal(signal.SIGTERM)
    assert main(["run", "--data", "synthetic", "--device", "cpu", "--results", str(tmp_path)]) == 130
    assert "interrupted" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) == handler


def test_synthesize_draws_the_real_layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[Path, int]] = []
    monkeypatch.setattr("hw6core.data.synthetic.synthesize", lambda root, seed: calls.append((root, seed)))
    assert main(["data", "synthesize", "--root", "drawn", "--seed", "3"]) == 0
    assert calls == [(Path("drawn"), 3)]


# ------------------------------------------------------------------------------------------------------------ compare


@pytest.mark.parametrize(
    ("new", "options", "exit_code", "line"),
    [
        ({}, [], 0, f"**NO WORSE**; {ROWS} no worse."),
        ({"timing": {"training_s": 735.0}}, [], 5, f"**CANNOT TELL**; {ROWS - 1} no worse, 1 cannot tell."),
        ({"timing": {"training_s": 735.0}}, ["--unclear", "pass"], 0,
         f"**CANNOT TELL**; {ROWS - 1} no worse, 1 cannot tell."),
        ({"metrics": {"accuracy": 0.5}}, [], 1, f"**1 REGRESSION**; {ROWS - 1} no worse, 1 cannot tell."),
    ],
)  # fmt: skip
def test_compare_ends_with_1_if_something_is_worse_and_with_5_if_one_seed_cannot_tell(
    new: dict[str, Any],
    options: list[str],
    exit_code: int,
    line: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folders = [str(results_of_a_good_suite(tmp_path / name)) for name in ("old", "new")]
    write_record(tmp_path / "new", make_record("vgg-scratch", **new))
    assert main(["compare", *folders, *options]) == exit_code
    assert capsys.readouterr().out.splitlines()[2] == line


@pytest.mark.parametrize(
    ("arguments", "exit_code", "sentence"),
    [
        (["old", "quick"], 2, "error: seg-baseline: profile differs, 'full' against 'quick': not comparable"),
        (["old", "less"], 2, "error: less has a record of colorization, old has none"),
        (["old", "old", "--only", "unet"], 2, "error: unknown configuration 'unet'; known: seg-baseline"),
        (["old", "old", "--only", "vgg-frozen"], 3, "error: old has no record of vgg-frozen"),
        (["old", "nowhere"], 3, "error: no records in nowhere"),
        (["nowhere", "old"], 3, "error: no records in nowhere"),
        (["empty", "empty"], 3, "error: no run was completed both in empty and in empty: nothing can be compared"),
    ],
)
def test_compare_refuses_what_cannot_be_compared(
    arguments: list[str], exit_code: int, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_record(tmp_path / "old", make_record("seg-baseline"))
    write_record(tmp_path / "quick", make_record("seg-baseline", profile="quick"))
    write_record(tmp_path / "less", make_record("colorization"))
    (tmp_path / "empty" / "records").mkdir(parents=True)
    assert main(["compare", *arguments]) == exit_code
    output = capsys.readouterr()
    (line,) = output.err.strip().splitlines()
    assert line.startswith(sentence)
    assert output.out == ""


def test_compare_takes_the_new_results_from_the_variable_without_data_or_torch(tmp_path: Path) -> None:
    """As on the machine that only collects results: no GPU there, no data, and `run` never ran."""
    results_of_a_good_suite(tmp_path / "old")
    results_of_a_good_suite(tmp_path / "new")
    write_record(tmp_path / "new", make_record("vgg-scratch", metrics={"accuracy": 0.7}))
    code = "import sys; from benchmarks.__main__ import main; print(main(['compare', 'old']), 'torch' in sys.modules)"
    environment = {key: value for key, value in os.environ.items() if key != "DEVICE"}
    environment |= {"RESULTS": "new", "PROFILE": "full", "PYTHONPATH": str(CHECKOUT)}
    answer = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert (answer.stdout.splitlines()[-1], answer.stderr) == ("1 False", "")


def test_compare_without_a_new_folder_says_which_one_it_looked_for(capsys: pytest.CaptureFixture[str]) -> None:
    write_record(Path("old"), make_record("vgg-scratch"))
    assert main(["compare", "old"]) == 3
    assert capsys.readouterr().err.startswith("error: no records in results/quick-synthetic")


def test_compare_shows_its_text_on_the_page_of_the_job(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "summary.md")
    write_record(Path("old"), make_record("vgg-scratch"))
    assert main(["compare", "old", "old"]) == 0
    assert Path("summary.md").read_text(encoding="utf-8") == capsys.readouterr().out


def test_a_page_that_cannot_be_written_changes_no_verdict(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a container the variable is often there and its file is not; exit code 1 would read as a regression."""
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "not/mounted/summary.md")
    write_record(Path("old"), make_record("vgg-scratch"))
    assert main(["compare", "old", "old"]) == 0
    output = capsys.readouterr()
    assert "**NO WORSE**" in output.out
    assert "not/mounted/summary.md" in output.err
