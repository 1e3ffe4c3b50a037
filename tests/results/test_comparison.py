"""Two result sets side by side: what became worse is found and fails; what cannot be compared is refused."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks.__main__ import main
from benchmarks.results.comparison import Change, Comparison, Row, compare
from benchmarks.results.records import Data, Record, write_record
from benchmarks.suite import SUITE
from hw6core.errors import DataError, UsageError
from tests.record_factory import METRICS, make_record

NAN_LOSS = "the training loss of epoch 3 is nan"
CERTAIN = "more than 3 times the tolerance"
LOST: dict[str, Any] = {"status": "error", "message": NAN_LOSS}


@pytest.fixture(autouse=True)
def no_step_summary(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CI machine the tests must not write to the page of their own job."""
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)


def baseline(seed: int = 0, **changes: Any) -> Record:
    return make_record("seg-baseline", seed, **changes)


def written(folder: Path, records: Sequence[Record]) -> Path:
    for record in records:
        write_record(folder, record)
    return folder


def compared(folder: Path, old: Sequence[Record], new: Sequence[Record], **options: Any) -> Comparison:
    return compare(written(folder / "old", old), written(folder / "new", new), **options)


def seeds_with(metric: str, values: Sequence[float]) -> list[Record]:
    return [baseline(seed, metrics={metric: value}) for seed, value in enumerate(values)]


def row_of(comparison: Comparison, name: str) -> Row:
    (row,) = [row for row in comparison.rows if row.name == name]
    return row


def lines_of(comparison: Comparison) -> list[str]:
    """Its text; runs of spaces are one."""
    return [re.sub(" +", " ", line) for line in comparison.markdown().splitlines()]


# ------------------------------------------------------------------------------------------------------------ verdict


def test_a_result_set_compared_with_itself_has_no_regression(tmp_path: Path) -> None:
    folder = written(tmp_path, [make_record(name, seed) for name in SUITE for seed in (0, 1, 2)])
    comparison = compare(folder, folder)

    count = sum(len(entry.gates) + 2 for entry in SUITE.values())  # each gate, the training's time and the total
    assert [row.change for row in comparison.rows] == [Change.SAME] * count
    assert comparison.regressions == []
    lines = lines_of(comparison)
    assert lines[2] == f"**NO REGRESSION**; 0 better, 0 unclear, {count} the same."
    assert lines[-1] == "No difference."
    assert main(["compare", str(folder), str(folder)]) == 0


@pytest.mark.parametrize(
    ("name", "old", "new", "sentence"),
    [
        # 0.07 less, three tolerances are 0.06.
        ("seg-baseline", {}, {"metrics": {"present_dice": 0.78}},
         f"seg-baseline: present_dice 0.850 (n=1) is now 0.780 (n=1), {CERTAIN}"),
        ("seg-baseline", {}, {"timing": {"training_s": 735.0}},
         f"seg-baseline: training_s 4 min 05 s (n=1) is now 12 min 15 s (n=1), {CERTAIN}"),
        ("seg-baseline", {"timing": {"samples_per_s": 800.0}}, {"timing": {"samples_per_s": 200.0}},
         f"seg-baseline: samples_per_s 800.0/s (n=1) is now 200.0/s (n=1), {CERTAIN}"),
        # 80% more, three tolerances are 75%.
        ("seg-baseline", {"timing": {"seconds_to_gate": 100.0}}, {"timing": {"seconds_to_gate": 180.0}},
         f"seg-baseline: seconds_to_gate 1 min 40 s (n=1) is now 3 min 00 s (n=1), {CERTAIN}"),
        ("colorization", {}, {"metrics": {"validation_mse": 0.00095}},
         f"colorization: validation_mse 0.00071 (n=1) is now 0.00095 (n=1), {CERTAIN}"),
        # Too little to count, were there no gate between.
        ("seg-baseline", {"metrics": {"present_dice": 0.505}}, {"metrics": {"present_dice": 0.495}},
         "seg-baseline seed 0: passed before and does not now: present_dice is 0.495, expected > 0.5 (bound 0.5)"),
        ("seg-baseline", {}, {"metrics": {"present_dice": None}},
         "seg-baseline seed 0: passed before and does not now: "
         "the record has no present_dice of the run or of the trivial predictor"),
        # Failed already: a second gate is lost, a score became no number.
        ("seg-augmented", {"metrics": {"course_dice": 0.605, "present_dice": 0.55}},
         {"metrics": {"course_dice": 0.595, "present_dice": 0.55}},
         "seg-augmented seed 0: passed before and does not now: course_dice is 0.595, expected > 0.6 (bound 0.6)"),
        ("seg-baseline", {"metrics": {"present_dice": 0.45}}, {"metrics": {"present_dice": None}},
         "seg-baseline seed 0: passed before and does not now: "
         "the record has no present_dice of the run or of the trivial predictor"),
        ("seg-baseline", {}, LOST, f"seg-baseline seed 0: error, {NAN_LOSS}"),
        ("vgg-frozen", {}, {"status": "not run", "message": "no ImageNet weights", "weights": ""},
         "vgg-frozen seed 0: not run, no ImageNet weights"),
    ],
)  # fmt: skip
def test_what_became_worse_is_said_in_a_sentence_and_ends_with_1(
    name: str,
    old: dict[str, Any],
    new: dict[str, Any],
    sentence: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folders = tmp_path / "old", tmp_path / "new"
    for folder, changes in zip(folders, (old, new), strict=True):
        written(folder, [make_record(name, **changes)])
    assert compare(*folders).regressions == [sentence]
    assert main(["compare", *map(str, folders)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].startswith("**1 REGRESSION**; ")
    assert f"- {sentence}" in lines


def test_many_better_numbers_do_not_hide_one_that_is_worse(tmp_path: Path) -> None:
    better = [
        make_record(name, metrics={"validation_mse": 0.0001} if name == "colorization" else dict.fromkeys(scores, 0.99))
        for name, scores in METRICS.items()
        if name != "vgg-scratch"
    ]
    worse = make_record("vgg-scratch", metrics={"accuracy": 0.86})
    comparison = compared(tmp_path, [make_record(name) for name in SUITE], [*better, worse])

    assert [row.change for row in comparison.rows].count(Change.BETTER) == 10
    assert lines_of(comparison)[2] == "**1 REGRESSION**; 10 better, 0 unclear, 14 the same."


BETTER = {"metrics": {"present_dice": 0.95}}
BOTH = [make_record(name, seed) for name in ("seg-baseline", "vgg-scratch") for seed in (0, 1)]


@pytest.mark.parametrize(
    ("old", "new", "regressions"),
    [
        ([baseline(seed) for seed in range(3)], [baseline(0, **BETTER), baseline(1, **BETTER), baseline(2, **LOST)],
         [f"seg-baseline seed 2: error, {NAN_LOSS}"]),
        ([baseline(), baseline(1, **LOST)], [baseline(), baseline(1, **LOST)], []),
        ([baseline()], [baseline(), baseline(1, **LOST)], [f"seg-baseline seed 1: error, {NAN_LOSS}"]),
        # A run that the system killed leaves no record at all.
        (BOTH, BOTH[:-1], ["vgg-scratch seed 1: there is no record of this run any more"]),
        # A nightly run with one seed is compared with last month's three.
        ([baseline(seed) for seed in range(3)], [baseline(1)], []),
    ],
    ids=["lost one of three", "failed on both sides", "a new seed fails", "no record of one", "fewer seeds"],
)  # fmt: skip
def test_a_run_that_is_lost_is_a_regression(
    old: Sequence[Record], new: Sequence[Record], regressions: list[str], tmp_path: Path
) -> None:
    assert compared(tmp_path, old, new).regressions == regressions


def test_a_gate_that_is_never_reached_in_training_any_more_is_not_passed_over(tmp_path: Path) -> None:
    old, new = baseline(timing={"seconds_to_gate": 45.0}), baseline(timing={"seconds_to_gate": None})
    comparison = compared(tmp_path / "lost", [old], [new])
    assert comparison.notes == ["seg-baseline: seconds_to_gate was 45 s (n=1); the new side has none"]
    assert f"- {comparison.notes[0]}" in lines_of(comparison)
    won = compared(tmp_path / "won", [new], [old])
    assert won.notes == ["seg-baseline: seconds_to_gate is now 45 s (n=1); the old side has none"]


# -------------------------------------------------------------------------------------------------------------- noise


@pytest.mark.parametrize(
    ("old", "new", "change"),
    [
        # One run on a side: its noise is unknown, so only three tolerances of 0.02 count.
        ([0.85], [0.835], "same"),
        ([0.85], [0.80], "unclear"),
        ([0.85], [0.90], "unclear"),
        ([0.85], [0.78], "worse"),
        ([0.85], [0.92], "better"),
        # Three seeds of deviation 0.05: the half width is 2.776 * sqrt(2 * 0.0025 / 3) = 0.113, more than the 0.03.
        ([0.80, 0.85, 0.90], [0.77, 0.82, 0.87], "unclear"),
        # Deviation 0.001: the half width is 0.0023.
        ([0.849, 0.850, 0.851], [0.819, 0.820, 0.821], "worse"),
        ([0.849, 0.850, 0.851], [0.879, 0.880, 0.881], "better"),
        # Beyond the noise, and yet too small to matter.
        ([0.849, 0.850, 0.851], [0.839, 0.840, 0.841], "same"),
        # Within the noise, and yet too large: 0.07 is more than three tolerances.
        ([0.80, 0.85, 0.90], [0.73, 0.78, 0.83], "worse"),
    ],
)
def test_a_score_changes_only_beyond_tolerance_and_noise(
    old: list[float], new: list[float], change: str, tmp_path: Path
) -> None:
    comparison = compared(tmp_path, seeds_with("present_dice", old), seeds_with("present_dice", new))
    assert row_of(comparison, "present_dice").change == change
    assert bool(comparison.regressions) == (change == "worse")


@pytest.mark.parametrize(
    ("configuration", "kind", "name", "old", "new", "change"),
    [
        ("seg-baseline", "timing", "training_s", 245.0, 120.0, "better"),
        ("seg-baseline", "timing", "training_s", 245.0, 250.0, "same"),
        ("seg-baseline", "timing", "training_s", 245.0, 300.0, "unclear"),
        ("seg-baseline", "timing", "samples_per_s", 800.0, 2400.0, "better"),
        ("seg-baseline", "timing", "samples_per_s", 800.0, 250.0, "worse"),
        ("seg-baseline", "timing", "seconds_to_gate", 100.0, 120.0, "same"),
        ("seg-baseline", "timing", "seconds_to_gate", 100.0, 140.0, "unclear"),
        ("seg-baseline", "timing", "seconds_to_gate", 100.0, 20.0, "better"),
        ("seg-baseline", "timing", "total_s", 260.0, 780.0, "worse"),
        ("colorization", "metrics", "validation_mse", 0.00071, 0.0004, "better"),
        ("colorization", "metrics", "validation_mse", 0.00071, 0.00065, "same"),
        ("colorization", "metrics", "validation_mse", 0.00071, 0.00085, "unclear"),
        ("colorization", "metrics", "validation_mse", 0.00071, 0.001, "worse"),
    ],
)
def test_less_time_less_error_and_a_higher_rate_are_better(
    configuration: str, kind: str, name: str, old: float, new: float, change: str, tmp_path: Path
) -> None:
    before, after = (make_record(configuration, 0, **{kind: {name: value}}) for value in (old, new))
    assert row_of(compared(tmp_path, [before], [after]), name).change == change


@pytest.mark.parametrize(
    ("kind", "name", "old", "new", "expected"),
    [
        ("metrics", "present_dice", [0.85], [0.80], "0.850 (n=1) | 0.800 (n=1) | -0.050 | - | unclear"),
        # 2.776 * sqrt(2 * 0.001^2 / 3) = 0.00227 on either side of -0.030.
        ("metrics", "present_dice", [0.849, 0.850, 0.851], [0.819, 0.820, 0.821],
         "0.850 ± 0.001 (n=3) | 0.820 ± 0.001 (n=3) | -0.030 | -0.032 to -0.028 | worse"),
        # Mean 41, deviation sqrt(2); 9 more are 21.95%. Squared error 2 / 2 + 0, one degree of freedom: 12.706.
        ("timing", "training_s", [40, 42], [50, 50],
         "41 s ± 1.4 s (n=2) | 50 s ± 0.0 s (n=2) | +9.0 s (+22%) | -3.7 s to +22 s | unclear"),
        ("timing", "training_s", [50, 50], [40, 42],
         "50 s ± 0.0 s (n=2) | 41 s ± 1.4 s (n=2) | -9.0 s (-18%) | -22 s to +3.7 s | unclear"),
        # What rounds to nothing has no minus.
        ("metrics", "present_dice", [0.85], [0.84999], "0.850 (n=1) | 0.850 (n=1) | +0.000 | - | same"),
        ("timing", "samples_per_s", [800.0], [799.99], "800.0/s (n=1) | 800.0/s (n=1) | +0.0/s (+0%) | - | same"),
    ],
)  # fmt: skip
def test_a_row_shows_means_deviations_difference_and_interval(
    kind: str, name: str, old: Sequence[float], new: Sequence[float], expected: str, tmp_path: Path
) -> None:
    before, after = (
        [baseline(seed, **{kind: {name: value}}) for seed, value in enumerate(side)] for side in (old, new)
    )
    lines = lines_of(compared(tmp_path, before, after))
    assert f"| seg-baseline | {name} | {expected} |" in lines
    one_run = any(line.endswith("One run on a side shows no noise: only the latter holds there.") for line in lines)
    assert one_run is (len(old) == 1)


def test_what_is_beyond_the_noise_says_so(tmp_path: Path) -> None:
    old, new = (seeds_with("present_dice", [middle, middle + 0.001]) for middle in (0.85, 0.82))
    assert compared(tmp_path, old, new).regressions == [
        "seg-baseline: present_dice 0.851 ± 0.001 (n=2) is now 0.821 ± 0.001 (n=2), beyond the noise of the seeds"
    ]


def test_times_do_not_count_when_quality_alone_is_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = written(tmp_path / "old", [baseline()]), written(tmp_path / "new", [baseline(timing={"total_s": 2600})])
    assert main(["compare", *map(str, folders)]) == 1
    capsys.readouterr()
    assert main(["compare", *map(str, folders), "--quality-only"]) == 0
    text = capsys.readouterr().out
    assert "**NO REGRESSION**; 0 better, 0 unclear, 2 the same." in text
    assert "total_s" not in text


# ----------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ({"data": {"fingerprint": "ba7816bf"}}, {"data": {"fingerprint": "cb00753f"}},
         "data differ, fingerprint 'ba7816bf' against 'cb00753f': not comparable"),
        ({}, {"data": {"kind": "synthetic"}, "settings": baseline().settings},
         "data differ, kind 'real' against 'synthetic': not comparable"),
        ({}, {"profile": "quick"}, "profile differs, 'full' against 'quick': not comparable"),
        ({}, {"weights": "file my.pth (ba7816bf)"},
         "weights differ, 'random' against 'file my.pth (ba7816bf)': not comparable"),
        ({"settings": {"work": {"epochs": 120, "batch_size": 10}}},
         {"settings": {"work": {"epochs": 120, "batch_size": 5}}},
         "settings differ, work batch_size 10 against 5: not comparable"),
        ({}, {"gates": baseline().gates[:1]}, "gates differ, 2 against 1: not comparable"),
        ({}, {"gates": make_record("seg-augmented").gates}, "gates differ, threshold 0.5 against 0.6: not comparable"),
    ],
)  # fmt: skip
def test_records_about_different_things_are_refused_with_2(
    old: dict[str, Any], new: dict[str, Any], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = written(tmp_path / "old", [baseline(**old)]), written(tmp_path / "new", [baseline(**new)])
    assert main(["compare", *map(str, folders)]) == 2
    told = capsys.readouterr()
    assert (told.out, told.err) == ("", f"error: seg-baseline: {sentence}\n")


def test_one_seed_that_differs_from_the_rest_of_its_side_is_refused(tmp_path: Path) -> None:
    mixed = [baseline(), baseline(1, data={"fingerprint": "0" * 16})]
    with pytest.raises(UsageError, match="data differ"):
        compared(tmp_path / "data", mixed, mixed)
    failed = make_record("vgg-frozen", 0, status="error", message="lost", weights="")  # the first run knew none
    old, new = [failed, make_record("vgg-frozen", 1)], [make_record("vgg-frozen", 1, weights="stand-in")]
    with pytest.raises(UsageError, match="weights differ"):
        compared(tmp_path / "weights", old, new)


def test_a_run_that_failed_early_knows_neither_weights_nor_data_and_is_no_contradiction(tmp_path: Path) -> None:
    failed = make_record("vgg-frozen", 1, status="error", message="lost", weights="")
    failed.data = Data()
    old = [make_record("vgg-frozen", seed) for seed in (0, 1)]
    assert compared(tmp_path, old, [old[0], failed]).regressions == ["vgg-frozen seed 1: error, lost"]


@pytest.mark.parametrize("turned", [False, True])
def test_a_configuration_that_one_side_lacks_is_refused_unless_it_is_left_out(turned: bool, tmp_path: Path) -> None:
    more = written(tmp_path / "more", [baseline(), make_record("vgg-scratch")])
    less = written(tmp_path / "less", [baseline()])
    old, new = (less, more) if turned else (more, less)
    with pytest.raises(UsageError, match=re.escape(f"{more} has a record of vgg-scratch, {less} has none; ")):
        compare(old, new)
    assert compare(old, new, ["seg-baseline"]).regressions == []
    with pytest.raises(DataError, match=re.escape(f"{less} has no record of vgg-scratch")):
        compare(old, new, ["vgg-scratch"])


def test_a_configuration_of_another_version_of_the_suite_is_refused(tmp_path: Path) -> None:
    stranger = baseline()
    stranger.configuration = "unet-3d"
    with pytest.raises(UsageError, match="has a record of unet-3d, which this version of the suite does not know"):
        compared(tmp_path, [baseline(), stranger], [baseline()])


def test_nothing_completed_on_both_sides_is_no_comparison(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no run was completed both in .*: nothing can be compared"):
        compared(tmp_path, [baseline(**LOST)], [baseline(**LOST)])


# --------------------------------------------------------------------------------------------------------------- text


def test_differences_of_the_environment_are_listed_and_what_is_equal_is_not(tmp_path: Path) -> None:
    new = baseline(environment={"torch": "2.12.1", "driver": "590.1", "machine": {"started_at": "2026-01-01"}})
    lines = lines_of(compared(tmp_path, [baseline()], [new]))
    assert lines[lines.index("## Environment") + 2 :] == [
        *(
            "| what | old | new |",
            "|--------|--------|--------|",
            "| torch | 2.12.0 | 2.12.1 |",
            "| driver | - | 590.1 |",
        )
    ]


def test_the_text_says_what_it_is_about(tmp_path: Path) -> None:
    """A comparison of quick or synthetic results never looks like one of acceptance results."""
    changes: dict[str, Any] = {"profile": "quick", "data": {"kind": "synthetic"}, "weights": "stand-in"}
    new = [make_record("vgg-frozen", **changes), make_record("vgg-scratch", status="not run", **changes)]
    old = [make_record("vgg-frozen", 1, **changes), *new]
    lines = lines_of(compared(tmp_path, old, new))
    assert "Profile **quick** · synthetic data · device Example GPU · weights stand-in" in lines
    assert f"Old: `{tmp_path}/old`, seeds 0, 1. New: `{tmp_path}/new`, seed 0." in lines
    assert "- vgg-scratch: neither side has a completed run" in lines
