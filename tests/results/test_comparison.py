"""Comparison of two result sets: verdicts, exit codes, refusals and the text."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks.__main__ import main
from benchmarks.results.comparison import Comparison, compare
from benchmarks.results.formatting import visible_text, words
from benchmarks.results.records import Data, Record
from benchmarks.results.references import Row
from benchmarks.results.statistics import Change
from benchmarks.suite import SUITE, Margin, at_working_size
from hw6core.errors import DataError, UsageError
from tests.record_factory import LOW_FLOOR, make_history, make_record, write_records
from tests.results.test_references import reference_of

NAN_LOSS = "the training loss of epoch 3 is nan"
LOST: dict[str, Any] = {"status": "error", "message": NAN_LOSS}


RESIZED = at_working_size(SUITE["seg-baseline"], (256, 320)).fingerprint("full", "real")


def baseline(seed: int = 0, **changes: Any) -> Record:
    return make_record("seg-baseline", seed, **changes)


def compared(folder: Path, old: Sequence[Record], new: Sequence[Record], **options: Any) -> Comparison:
    return compare(write_records(folder / "old", old), write_records(folder / "new", new), **options)


def seeds_with(metric: str, values: Sequence[float]) -> list[Record]:
    return [baseline(seed, metrics={metric: value}) for seed, value in enumerate(values)]


def row_of(comparison: Comparison, name: str) -> Row:
    (row,) = [row for row in comparison.rows if row.name == name]
    return row


def lines_of(comparison: Comparison) -> list[str]:
    """The lines of its text with single spaces."""
    return [re.sub(" +", " ", line) for line in comparison.markdown().splitlines()]


def compare_command(folders: Sequence[Path], capsys: pytest.CaptureFixture[str], *options: str) -> tuple[int, str]:
    return main(["compare", *map(str, folders), *options]), capsys.readouterr().out


# ------------------------------------------------------------------------------------------------------------ verdict


def test_a_result_set_is_no_worse_than_itself_even_with_one_seed(tmp_path: Path) -> None:
    """Runs that repeat every epoch to the last digit are no worse, although one run shows no noise."""
    count = sum(len(entry.gates) + 2 for entry in SUITE.values())  # each gate, the training's time and the total
    for seeds in ((0,), (0, 1, 2)):
        folder = write_records(
            tmp_path / str(len(seeds)), [make_record(name, seed) for name in SUITE for seed in seeds]
        )
        comparison = compare(folder, folder)
        assert [row.change for row in comparison.rows] == [Change.NO_WORSE] * count
        assert comparison.regressions == []
        lines = lines_of(comparison)
        assert lines[2] == f"**NO WORSE**; {count} no worse."
        assert lines[-1] == "No difference."
        assert comparison.exit_code() == 0


@pytest.mark.parametrize(
    ("name", "old", "new", "sentence"),
    [
        # A small difference, but the gate lies in between.
        ("seg-baseline", {"metrics": {"present_dice": 0.505}} | LOW_FLOOR,
         {"metrics": {"present_dice": 0.495}} | LOW_FLOOR,
         "seg-baseline seed 0: worse verdict than before: present Dice is 0.495, expected > 0.5"),
        # Failed before: now a second gate is lost, or a score is no longer a number.
        ("seg-augmented", {"metrics": {"course_dice": 0.605, "present_dice": 0.55}} | LOW_FLOOR,
         {"metrics": {"course_dice": 0.595, "present_dice": 0.55}} | LOW_FLOOR,
         "seg-augmented seed 0: worse verdict than before: course Dice is 0.595, expected > 0.6"),
        ("seg-baseline", {"metrics": {"present_dice": 0.45}}, {"metrics": {"present_dice": None}},
         "seg-baseline seed 0: worse verdict than before: "
         "the record has no present Dice of the run or of the constant answer"),
        ("seg-baseline", {"settings": RESIZED}, {"settings": RESIZED, "metrics": {"course_dice": 0.3}},
         "seg-baseline seed 0: worse verdict than before: course Dice is 0.3, expected > 0.5"),
        ("vgg-frozen", {}, {"status": "not run", "message": "no ImageNet weights", "weights": ""},
         "vgg-frozen seed 0: not run, no ImageNet weights"),
    ],
)  # fmt: skip
def test_a_lost_gate_or_run_is_reported_and_ends_with_1(
    name: str,
    old: dict[str, Any],
    new: dict[str, Any],
    sentence: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    sides = [[make_record(name, **changes)] for changes in (old, new)]
    code, text = compare_command(list(map(write_records, (tmp_path / "old", tmp_path / "new"), sides)), capsys)
    assert code == 1
    assert text.splitlines()[2].startswith("**1 REGRESSION**; ")
    assert f"\n- {sentence}\n" in text


STEADY = (-0.001, 0.0, 0.001)  # relative to the mean: hardly any noise


@pytest.mark.parametrize(
    ("configuration", "kind", "name", "old", "new", "change"),
    [
        ("seg-baseline", "metrics", "present_dice", 0.85, 0.82, "worse"),
        ("colorization", "metrics", "validation_mse", 0.71, 0.90, "worse"),
        ("colorization", "metrics", "validation_mse", 0.71, 0.40, "better"),
        ("seg-baseline", "timing", "training_s", 245.0, 735.0, "worse"),
        ("seg-baseline", "timing", "total_s", 260.0, 120.0, "better"),
        ("seg-baseline", "timing", "samples_per_s", 800.0, 200.0, "worse"),
        ("seg-baseline", "timing", "samples_per_s", 800.0, 2400.0, "better"),
        ("seg-baseline", "timing", "seconds_to_gate", 100.0, 120.0, "no worse"),
        ("seg-baseline", "timing", "seconds_to_gate", 100.0, 180.0, "worse"),
        ("seg-baseline", "machine", "peak_device_memory_gib", 4.0, 4.1, "no worse"),
        ("seg-baseline", "machine", "peak_device_memory_gib", 4.0, 4.4, "worse"),
        ("seg-baseline", "machine", "energy_j", 5000.0, 9000.0, "worse"),
    ],
)
def test_less_time_less_error_and_a_higher_score_are_better(
    configuration: str, kind: str, name: str, old: float, new: float, change: str, tmp_path: Path
) -> None:
    def records(mean: float) -> list[Record]:
        numbers = [{name: mean * (1 + noise)} for noise in STEADY]
        changed = [{"environment": {"machine": entry}} if kind == "machine" else {kind: entry} for entry in numbers]
        return [make_record(configuration, seed, **entry) for seed, entry in enumerate(changed)]

    comparison = compared(tmp_path, records(old), records(new))
    row = row_of(comparison, name)
    assert row.change == change
    assert len(comparison.regressions) == comparison.exit_code() == (change == "worse")
    assert all(text.startswith(f"{configuration}: {words(name)} ") for text in comparison.regressions)


def test_many_better_numbers_do_not_hide_one_that_is_worse(tmp_path: Path) -> None:
    def side(better: float, scratch: float) -> list[Record]:
        scores = {name: {gate.metric: better for gate in SUITE[name].gates} for name in SUITE}
        scores |= {"colorization": {"validation_mse": 0.001 * (1 - better)}, "vgg-scratch": {"accuracy": scratch}}
        return [
            make_record(name, seed, metrics={metric: value * (1 + noise) for metric, value in scores[name].items()})
            for name in SUITE
            for seed, noise in enumerate(STEADY)
        ]

    comparison = compared(tmp_path, side(0.90, 0.93), side(0.98, 0.87))
    assert [row.change for row in comparison.rows].count(Change.BETTER) == 10
    assert comparison.regressions == [
        "vgg-scratch: accuracy 0.930 ± 0.001 (n=3) is now 0.870 ± 0.001 (n=3), beyond the noise of the seeds"
    ]
    assert lines_of(comparison)[2] == "**1 REGRESSION**; 14 no worse, 1 worse, 10 better."


def test_too_few_runs_end_with_5_and_suggest_how_many_more(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def compare_codes(old: Sequence[float], new: Sequence[float], *options: str) -> tuple[int, str]:
        folders = [write_records(tmp_path / str(dice), seeds_with("present_dice", dice)) for dice in (old, new)]
        return compare_command(folders, capsys, "--quality-only", *options)

    code, text = compare_codes([0.85], [0.80])
    assert (code, text.splitlines()[2]) == (5, "**CANNOT TELL**; 1 no worse, 1 cannot tell.")
    assert "One run per side shows no noise: run three or more seeds, the same on both sides." in text
    code, text = compare_codes([0.84, 0.85, 0.86], [0.83, 0.86, 0.85])
    assert code == 5
    advice = r"^If nothing changed, [0-9]+ more seeds per side would show it for quality, each row in 80% of cases[.]$"
    assert re.search(advice, text, re.M)
    code, text = compare_codes([0.85, 0.75, 0.95, 0.70], [0.70, 0.95, 0.75, 0.85])
    assert code == 5
    assert "\n100 more seeds per side would not be enough for seg-baseline present Dice.\n" in text
    assert compare_codes([0.85], [0.80], "--unclear", "pass")[0] == 0
    assert compare_codes([0.85], [0.80], "--unclear", "fail")[0] == 5


def test_the_same_score_of_another_training_does_not_show_that_nothing_changed(tmp_path: Path) -> None:
    other = baseline(history=make_history("seg-baseline", seed=1))
    change = {row.name: row.change for row in compared(tmp_path, [baseline()], [other]).rows}
    assert change["present_dice"] == "cannot tell"
    assert change["training_s"] == "no worse"  # equal to the last digit


def test_a_matching_reference_adds_to_the_estimate_of_the_noise(tmp_path: Path) -> None:
    folders = [write_records(tmp_path / str(value), seeds_with("present_dice", [value])) for value in (0.85, 0.75)]
    many = tmp_path / "many"
    reference = reference_of(many, seeds_with("present_dice", [0.84, 0.85, 0.86] * 7))
    alone = compare(folders[0], folders[1])
    helped = compare(folders[0], folders[1], references=[reference])
    assert [row_of(comparison, "present_dice").change for comparison in (alone, helped)] == ["cannot tell", "worse"]
    assert row_of(helped, "present_dice").evidence.spread.degrees == 20
    # Runs that are both on a side and in the reference count once.
    again = compare(many, folders[1], references=[reference])
    assert row_of(again, "present_dice").evidence.spread.degrees == 20
    assert row_of(helped, "training_s").evidence.spread.degrees == 0  # times depend on the device


BOTH = [make_record(name, seed) for name in ("seg-baseline", "vgg-scratch") for seed in (0, 1)]
FROZEN = [make_record("vgg-frozen", seed) for seed in (0, 1)]
NO_WEIGHTS = [
    make_record("vgg-frozen", seed, status="not run", message="no ImageNet weights", weights="") for seed in range(3)
]


@pytest.mark.parametrize(
    ("old", "new", "regressions"),
    [
        ([baseline(seed) for seed in range(3)], [baseline(0), baseline(1), baseline(2, **LOST)],
         [f"seg-baseline seed 2: error, {NAN_LOSS}"]),
        ([baseline(), baseline(1, **LOST)], [baseline(), baseline(1, **LOST)], []),
        ([baseline()], [baseline(), baseline(1, **LOST)], [f"seg-baseline seed 1: error, {NAN_LOSS}"]),
        # A run that the system killed leaves no record at all.
        (BOTH, BOTH[:-1], ["vgg-scratch seed 1: the record of this run is missing"]),
        # A nightly run with one seed is compared with last month's three.
        ([baseline(seed) for seed in range(3)], [baseline(1)], []),
        # A run that failed early knows neither its weights nor its data.
        (FROZEN, [FROZEN[0], make_record("vgg-frozen", 1, weights="", data=Data(), **LOST)],
         [f"vgg-frozen seed 1: error, {NAN_LOSS}"]),
        # A new seed of what neither side could run.
        ([baseline(), *NO_WEIGHTS[:1]], [baseline(), *NO_WEIGHTS], []),
    ],
    ids=["lost one of three", "failed on both sides", "a new seed fails", "no record of one", "fewer seeds",
         "failed early", "never run"],
)  # fmt: skip
def test_a_run_that_is_lost_is_a_regression(
    old: Sequence[Record], new: Sequence[Record], regressions: list[str], tmp_path: Path
) -> None:
    assert compared(tmp_path, old, new).regressions == regressions


def test_a_missing_time_to_gate_is_noted(tmp_path: Path) -> None:
    old, new = baseline(timing={"seconds_to_gate": 45.0}), baseline(timing={"seconds_to_gate": None})
    comparison = compared(tmp_path / "lost", [old], [new])
    assert comparison.notes == ["seg-baseline: time to gate was 45 s (n=1); the new side has none"]
    assert f"- {comparison.notes[0]}" in lines_of(comparison)
    won = compared(tmp_path / "won", [new], [old])
    assert won.notes == ["seg-baseline: time to gate is now 45 s (n=1); the old side has none"]
    late = [baseline(seed, timing={"seconds_to_gate": None if seed else 30.0}) for seed in range(3)]
    some = compared(tmp_path / "some", [baseline(seed, timing=old.timing) for seed in range(3)], late)
    assert some.notes == ["seg-baseline, new: seeds 1, 2 never passed the gates on validation"]


@pytest.mark.parametrize(
    ("kind", "name", "old", "new", "expected"),
    [
        ("metrics", "present_dice", [0.85], [0.80], "0.850 (n=1) | 0.800 (n=1) | -0.050 | 0.020 | cannot tell | -"),
        ("timing", "training_s", [40, 42], [50, 50],
         "41 s ± 1.4 s (n=2) | 50 s ± 0.0 s (n=2) | +9.0 s (+22%) | 10% | worse | "),
        ("timing", "training_s", [50, 50], [40, 42],
         "50 s ± 0.0 s (n=2) | 41 s ± 1.4 s (n=2) | -9.0 s (-18%) | 10% | no worse | "),
        # A difference that rounds to zero has no minus.
        ("metrics", "present_dice", [0.85], [0.84999], "0.850 (n=1) | 0.850 (n=1) | +0.000 | 0.020 | cannot tell | -"),
        ("timing", "samples_per_s", [800.0], [799.99],
         "800.0/s (n=1) | 800.0/s (n=1) | +0.0/s (+0%) | 10% | cannot tell | -"),
    ],
)  # fmt: skip
def test_a_row_shows_means_deviations_difference_margin_and_verdict(
    kind: str, name: str, old: Sequence[float], new: Sequence[float], expected: str, tmp_path: Path
) -> None:
    before, after = (
        [baseline(seed, **{kind: {name: value}}) for seed, value in enumerate(side)] for side in (old, new)
    )
    lines = lines_of(compared(tmp_path, before, after))
    assert [line for line in lines if line.startswith(f"| seg-baseline | {words(name)} | {expected}")]


def test_a_counter_that_stays_at_zero_is_ignored(tmp_path: Path) -> None:
    still = [baseline(environment={"machine": {"energy_j": 0.0}})]
    assert "energy_j" not in {row.name for row in compared(tmp_path, still, still).rows}


def test_the_times_of_a_throttled_run_are_ignored_with_a_note(tmp_path: Path) -> None:
    cool = {"peak_memory_gib": 2.0}
    old = [baseline(seed, environment={"machine": cool}) for seed in range(3)]
    hot = cool | {"hardware": {"throttled_s": {"thermal": 26.0}}}
    comparison = compared(tmp_path, old, [old[0], baseline(1, environment={"machine": hot}), old[2]])
    assert [*row_of(comparison, "training_s").new] == [0, 2]
    assert [*row_of(comparison, "course_dice").new] == [*row_of(comparison, "peak_memory_gib").new] == [0, 1, 2]
    note = "- seg-baseline seed 1, new: throttled by heat for 10% of its time; its times are ignored"
    assert note in lines_of(comparison)


def test_a_visible_drop_of_more_than_everything_has_no_digits() -> None:
    time, rate = Margin(0.1, relative=True, more_is_better=False), Margin(0.1, relative=True)
    drops = (math.log(1.5), 24.1, 1e4)
    assert [visible_text("total_s", time, drop) for drop in drops] == ["50%", "> 100%", "> 100%"]
    assert visible_text("samples_per_s", rate, math.log(2)) == "50%"


def test_the_total_time_energy_and_memory_of_a_resumed_run_are_ignored_with_a_note(tmp_path: Path) -> None:
    machine = {"machine": {"energy_j": 500.0, "peak_memory_gib": 2.0}}
    old, new = (
        [baseline(seed, environment=machine, timing={"interruptions": resumed}) for seed in range(3)]
        for resumed in (1.0, 0.0)
    )
    comparison = compared(tmp_path, [old[0], new[1], new[2]], new)
    assert [[*row_of(comparison, name).old] for name in ("total_s", "energy_j", "peak_memory_gib")] == [[1, 2]] * 3
    assert [*row_of(comparison, "training_s").old] == [0, 1, 2]
    note = "- seg-baseline seed 0, old: resumed; its total time, energy and memory are ignored"
    assert note in lines_of(comparison)


def test_quality_only_ignores_times(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, new = (
        write_records(tmp_path / str(total), [baseline(seed, timing={"total_s": total + seed}) for seed in range(3)])
        for total in (260, 2600)
    )
    assert compare_command((old, new), capsys)[0] == 1
    code, text = compare_command((old, new), capsys, "--quality-only")
    assert code == 0
    assert "**NO WORSE**; 2 no worse." in text
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
def test_records_that_are_not_comparable_are_refused_with_2(
    old: dict[str, Any], new: dict[str, Any], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = write_records(tmp_path / "old", [baseline(**old)]), write_records(tmp_path / "new", [baseline(**new)])
    assert main(["compare", *map(str, folders)]) == 2
    assert capsys.readouterr() == ("", f"error: seg-baseline: {sentence}\n")


def test_one_seed_that_differs_from_the_rest_of_its_side_is_refused(tmp_path: Path) -> None:
    mixed = [baseline(), baseline(1, data={"fingerprint": "0" * 16})]
    with pytest.raises(UsageError, match="data differ"):
        compared(tmp_path / "data", mixed, mixed)
    failed = make_record("vgg-frozen", 0, status="error", message="lost", weights="")  # the first run knew none
    old, new = [failed, make_record("vgg-frozen", 1)], [make_record("vgg-frozen", 1, weights="stand-in")]
    with pytest.raises(UsageError, match="weights differ"):
        compared(tmp_path / "weights", old, new)


@pytest.mark.parametrize("turned", [False, True])
def test_a_configuration_on_one_side_only_is_refused_unless_it_is_not_selected(turned: bool, tmp_path: Path) -> None:
    more = write_records(tmp_path / "more", [baseline(), make_record("vgg-scratch")])
    less = write_records(tmp_path / "less", [baseline()])
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


def test_sides_without_a_completed_run_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no run was completed both in .*: nothing can be compared"):
        compared(tmp_path, [baseline(**LOST)], [baseline(**LOST)])


# --------------------------------------------------------------------------------------------------------------- text


def test_only_differences_of_the_environments_are_listed(tmp_path: Path) -> None:
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


def test_the_text_names_profile_data_device_and_weights(tmp_path: Path) -> None:
    """So that quick or synthetic results are never taken for acceptance results."""
    changes: dict[str, Any] = {"profile": "quick", "data": {"kind": "synthetic"}, "weights": "stand-in"}
    new = [make_record("vgg-frozen", **changes), make_record("vgg-scratch", status="not run", **changes)]
    old = [make_record("vgg-frozen", 1, **changes), *new]
    lines = lines_of(compared(tmp_path, old, new))
    assert "Profile **quick** · synthetic data · device Example GPU · weights stand-in" in lines
    assert f"Old: `{tmp_path}/old`, seeds 0, 1. New: `{tmp_path}/new`, seed 0." in lines
    assert "- vgg-scratch: neither side has a completed run" in lines
