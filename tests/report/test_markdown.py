"""The report states first what failed and why, marks what is not an acceptance result, and its numbers are right."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from matplotlib.colors import to_hex

from benchmarks.report.markdown import summary
from benchmarks.results.formatting import words
from benchmarks.results.gates import Asked, judge
from benchmarks.results.hardware import COUNTERS
from benchmarks.results.records import Record, Timing
from benchmarks.suite import SUITE, Configuration, at_working_size, select
from tests.drawings import drawn, report_lines
from tests.record_factory import make_history, make_record

STARTS = ("accuracy_from_scratch", "accuracy_from_pretrained")


def report(folder: Path, records: Sequence[Record], seeds: Sequence[int] = (0,), ids: Sequence[str] = ()) -> list[str]:
    return report_lines(folder, records, Asked(select(ids), seeds))


def whole_suite(seeds: Sequence[int] = (0,), but: Mapping[str, Record] | None = None) -> list[Record]:
    """A passing record of every configuration, except those in ``but``."""
    return [(but or {}).get(name, make_record(name, seed)) for name in SUITE for seed in seeds]


def gate_row(lines: Sequence[str], configuration: str, metric: str) -> str:
    """A row of the table of gates, whose first column is the verdict."""
    (row,) = [line for line in lines if re.match(rf"\| [a-z ]+ \| {configuration}, {words(metric)}\b", line)]
    return row


# ----------------------------------------------------------------------------------------------------------- verdict


def test_passed_comes_first(tmp_path: Path) -> None:
    lines = report(tmp_path, whole_suite(seeds=(0, 1, 2)), seeds=(0, 1, 2))

    assert lines[:3] == [
        "# Does it still train? Example GPU",
        "",
        f"**PASSED**: {len(SUITE)} of {len(SUITE)} configurations reached every gate.",
    ]
    assert not any(line.startswith(">") for line in lines)
    assert (
        "Profile **full** · real data · device Example GPU · precision bfloat16 · mode fast · seeds 0, 1, 2 · "
        "weights random, colorization (seg-pretrained), ImageNet (vgg-frozen), "
        "vgg-scratch against ImageNet (vgg-new-task)"
    ) in lines
    assert lines.index("## Gates") < lines.index("## What was measured") < lines.index("## Speed")


def test_failed_and_missing_runs_are_named_first_with_their_reasons(tmp_path: Path) -> None:
    bad = make_record("seg-baseline", metrics={"present_dice": 0.343})
    records = [record for record in whole_suite(but={"seg-baseline": bad}) if record.configuration != "vgg-frozen"]
    lines = report(tmp_path, records)

    assert lines[2:6] == [
        f"**FAILED**: {len(SUITE) - 2} of {len(SUITE)} configurations reached every gate. 1 was not run.",
        "",
        "- seg-baseline, seed 0: failed: present Dice is 0.343, expected > 0.5",
        "- vgg-frozen, seed 0: not run: there is no record of this run",
    ]
    row = gate_row(lines, "seg-baseline", "present_dice")
    assert row == (
        "| failed | seg-baseline, present Dice | 0.343 (n=1) | > 0.5 | 0.664 (nearest training frame's mask) "
        "| 0.343 | -0.321 not above floor | +0.000 not above constant |"
    )
    row = gate_row(lines, "vgg-frozen", "accuracy")
    assert row == "| not run | vgg-frozen, accuracy | - | > 0.6 | - | - | - | - |"


def test_run_allowed_not_to_run_is_still_not_called_passed(tmp_path: Path) -> None:
    records = [make_record("vgg-scratch")]
    judgement = judge(records, Asked(select(["vgg-scratch", "vgg-frozen"]), [0, 1], allow_not_run=["vgg-frozen"]))
    accepted = judge(records, Asked(select(["vgg-scratch", "vgg-frozen"]), [0], allow_not_run=["vgg-frozen"]))

    assert summary(accepted).splitlines() == [
        "PASSED, full profile on real data: not an acceptance result: 1 of 2 configurations reached every gate. 1 was "
        "not run.",
        "- vgg-frozen, seed 0: not run, as allowed: there is no record of this run",
        f"This is not an acceptance result: only 2 of {len(SUITE)} configurations were selected, vgg-frozen was not "
        "run and acceptance requires seeds 0, 1, 2. "
        "To get one, run make benchmark PROFILE=full with the real data on a machine with a GPU.",
    ]
    assert summary(judgement).splitlines()[1:-1] == [
        "- vgg-scratch, seed 1: not run: there is no record of this run",
        "- vgg-frozen, seeds 0, 1: not run, as allowed: there is no record of this run",
    ]


ALL_FILES = "list all: python -m benchmarks data verify"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"profile": "quick"}, "the quick profile trains less than the full one."),
        ({"data": {"kind": "synthetic"}}, "the data is synthetic."),
        ({"data": {"unpublished": {"count": 1, "first": ["endovis/mapping.json"]}}},
         f"1 data file differs from the published data (endovis/mapping.json; {ALL_FILES})."),
        ({"data": {"unpublished": {"count": 40, "first": ["a", "b`c\n", "c"]}}},
         f"40 data files differ from the published data (a, bc, c and 37 more; {ALL_FILES})."),
        ({"data": {"unpublished": None}}, "the records do not say whether the data is as published."),
        ({"weights": "stand-in"}, "stand-in weights replace ImageNet's."),
        ({"weights": "file my.pth (ba7816bf)"}, "the pre-trained weights are not torchvision's."),
    ],
)  # fmt: skip
def test_trial_is_never_an_acceptance_result(changes: dict[str, Any], reason: str) -> None:
    records = whole_suite(seeds=(0, 1, 2))[:-2]
    records += [make_record("vgg-new-task", seed, **changes) for seed in (1, 2)]  # the same files are counted once
    first, *_, last = summary(judge(records, Asked(select([]), [0, 1, 2]))).splitlines()
    profiles = "full / quick" if "profile" in changes else "full"
    kinds = "real / synthetic" if changes.get("data", {}).get("kind") else "real"
    assert first.startswith(f"PASSED, {profiles} profile on {kinds} data: not an acceptance result: 7 of 7")
    assert last == (
        f"This is not an acceptance result: {reason} "
        "To get one, run make benchmark PROFILE=full with the real data on a machine with a GPU."
    )


def test_another_working_size_is_not_an_acceptance_result() -> None:
    other = at_working_size(SUITE["seg-baseline"], (256, 320))
    record = make_record("seg-baseline", settings=other.fingerprint("full", "real"))
    text, judged_as_the_suite_s = (
        summary(judge([record], Asked(chosen, [0]))) for chosen in ([other], select(["seg-baseline"]))
    )
    assert text.startswith("PASSED, full profile on real data: not an acceptance result")
    assert "the working size 256x320 is not the suite's" in text
    assert "made at another working size; judge it with WORKING_SIZE=256x320" in judged_as_the_suite_s


def test_mixed_records_get_a_warning(tmp_path: Path) -> None:
    records = [make_record("vgg-scratch", seed) for seed in (0, 1)]
    records.append(make_record("vgg-scratch", 2, profile="quick", environment={"device_name": "CPU"}))
    lines = report(tmp_path, records, (0, 1, 2), ["vgg-scratch"])

    assert (
        "**The records differ:** profile is quick in vgg-scratch seed 2, full in vgg-scratch seed 0, vgg-scratch "
        "seed 1; device is CPU in vgg-scratch seed 2, Example GPU in vgg-scratch seed 0, vgg-scratch seed 1. "
        "Do not compare across them."
    ) in lines
    assert "| device name | Example GPU / CPU |" in lines
    assert not any(line.startswith("| driver ") for line in lines)  # None is left out


def test_records_that_were_not_selected_are_ignored(tmp_path: Path) -> None:
    records = [make_record("vgg-scratch"), make_record("vgg-scratch", 7), make_record("colorization", profile="quick")]
    lines = report(tmp_path, records, ids=["vgg-scratch"])

    assert [line for line in lines if line.startswith("> ")] == [
        f"> **This is not an acceptance result:** only 1 of {len(SUITE)} configurations were selected and "
        "acceptance requires seeds 0, 1, 2. "
        "To get one, run `make benchmark PROFILE=full` with the real data on a machine with a GPU."
    ]
    assert not any("colorization" in line or "seed 7" in line or "quick" in line for line in lines)


# ------------------------------------------------------------------------------------------------------------ tables


def test_a_class_that_is_neither_present_nor_predicted(tmp_path: Path) -> None:
    records = [
        make_record("seg-baseline", 0, details={"pooled_dice": [0.98, 0.7, 0.81, 0.85, 0.4, None, None, 0.62]}),
        make_record("seg-baseline", 1, details={"pooled_dice": [0.96, 0.8, 0.81, 0.85, None, None, None, 0.62]}),
    ]
    lines = report(tmp_path, records, (0, 1), ["seg-baseline"])

    assert "| Background Tissue | 50 | 0.970 |" in lines  # mean of 0.98 and 0.96
    assert "| Vessel Sealer | 2 | 0.400 |" in lines  # of the seed that has one
    assert "| Grasping Retractor | 0 | - |" in lines


# ----------------------------------------------------------------------------------------------------------- answers


@pytest.mark.parametrize(
    ("augmented", "pretrained", "expected"),
    [
        ([0.90], [0.92], [
            "| course Dice | +0.020 | +0.020 | - |",
            "- course Dice: +0.020. One seed cannot show whether this is more than noise.",
        ]),
        # Differences 0.02, 0.01, 0.03: mean 0.02, deviation 0.01, half width 4.303 * 0.01 / sqrt(3) = 0.02484.
        ([0.900, 0.910, 0.905], [0.920, 0.920, 0.935], [
            "| course Dice | +0.020 | +0.010 | +0.030 | +0.020 | -0.005 to +0.045 |",
            "- course Dice: +0.020 on average. No significant difference with 3 seeds: "
            "the 95% interval is -0.005 to +0.045.",
            "- present Dice: +0.060 on average. Pre-training helps: the 95% interval is +0.035 to +0.085.",
            "The interval is that of a paired t test over seeds.",
        ]),
        ([0.95, 0.95, 0.95], [0.91, 0.90, 0.92], [
            "- course Dice: -0.040 on average. Pre-training hurts: the 95% interval is -0.065 to -0.015.",
        ]),
        # The same deviation around 0.0246: the interval barely contains zero.
        ([0.9, 0.9, 0.9], [0.9146, 0.9246, 0.9346], [
            "| course Dice | +0.015 | +0.025 | +0.035 | +0.025 | -0.000 to +0.049 |",
        ]),
    ],
)  # fmt: skip
def test_the_gain_of_pretraining_is_reported_seed_by_seed(
    augmented: Sequence[float], pretrained: Sequence[float], expected: list[str], tmp_path: Path
) -> None:
    """Present Dice gains 0.04 more by pre-training than course Dice."""
    records = [
        make_record(name, seed, metrics={"course_dice": dice, "present_dice": dice - 0.1 + gain})
        for name, values, gain in (("seg-augmented", augmented, 0.0), ("seg-pretrained", pretrained, 0.04))
        for seed, dice in enumerate(values)
    ]
    lines = report(tmp_path, records, range(len(augmented)), ["seg-augmented", "seg-pretrained"])
    lines = lines[lines.index("**Does colorization pre-training help?**") :]
    assert [line for line in expected if line not in lines] == []
    assert any("t test" in line for line in lines) is (len(augmented) > 1)


def new_task_lines(
    folder: Path, scratch: Sequence[float], pretrained: Sequence[float], weights: str = "ImageNet"
) -> list[str]:
    weights = f"vgg-scratch against {weights}"
    records = [
        make_record("vgg-new-task", seed, metrics=dict(zip(STARTS, values, strict=True)), weights=weights)
        for seed, values in enumerate(zip(scratch, pretrained, strict=True))
    ]
    lines = report(folder, records, range(len(scratch)), ["vgg-new-task"])
    return lines[lines.index(f"### 2(c) {SUITE['vgg-new-task'].title}") :]


@pytest.mark.parametrize(
    ("scratch", "pretrained", "expected"),
    [
        # Margins 0.02, 0.03, 0.04: mean 0.03, deviation 0.01, half width 4.303 * 0.01 / sqrt(3) = 0.02484.
        ([0.87, 0.87, 0.87], [0.89, 0.90, 0.91],
         "**vgg-frozen (ImageNet)**, by 0.030 accuracy on average (seed 0: +0.020, seed 1: +0.030, seed 2: +0.040): "
         "pre-trained minus scratch, the 95% interval of a paired t test over seeds is +0.005 to +0.055."),
        ([0.89, 0.90, 0.91], [0.87, 0.87, 0.87],
         "**vgg-scratch**, by 0.030 accuracy on average (seed 0: +0.020, seed 1: +0.030, seed 2: +0.040): "
         "pre-trained minus scratch, the 95% interval of a paired t test over seeds is -0.055 to -0.005."),
    ],
)  # fmt: skip
def test_the_better_start_is_named_with_its_interval(
    scratch: Sequence[float], pretrained: Sequence[float], expected: str, tmp_path: Path
) -> None:
    lines = new_task_lines(tmp_path, scratch, pretrained)
    assert f"The better start is {expected}" in lines
    assert any(line.startswith("| nearest training part's labels | 0.850 | 0.850 | 0.850 |") for line in lines)


@pytest.mark.parametrize(
    ("scratch", "pretrained", "weights", "why"),
    [
        ([0.87] * 3, [0.89, 0.90, 0.91], "stand-in", "the pre-trained weights are not ImageNet's (stand-in)."),
        ([0.87] * 2, [0.89, 0.90], "ImageNet", "at least 3 seeds with scores for both starts are required, found 2."),
        # Margins 0.01, 0.02, 0.03: the half width is 0.02484.
        ([0.87] * 3, [0.88, 0.89, 0.90], "ImageNet",
         "no significant difference with 3 seeds: the 95% interval of a paired t test is -0.005 to +0.045."),
        # 0.85 is the floor.
        ([0.87, 0.85, 0.84], [0.89, 0.88, 0.86], "ImageNet",
         "a start failed (seeds 1, 2)."),
        ([0.8], [0.9], "stand-in",
         "the pre-trained weights are not ImageNet's (stand-in); a start failed (seed 0); "
         "at least 3 seeds with scores for both starts are required, found 1."),
    ],
)  # fmt: skip
def test_the_better_start_is_not_named_without_evidence(
    scratch: Sequence[float], pretrained: Sequence[float], weights: str, why: str, tmp_path: Path
) -> None:
    lines = new_task_lines(tmp_path, scratch, pretrained, weights)
    assert f"Not answered: {why}" in lines
    assert not any("better start is" in line for line in lines)
    assert any(line.startswith(f"| started from vgg-frozen ({weights}) |") for line in lines)


def test_a_start_is_not_called_better_without_a_lead_over_the_untrained_one(tmp_path: Path) -> None:
    control = {"floors": {"an untrained start": dict.fromkeys(STARTS[:2], 0.89)}}
    values = zip([0.87, 0.88, 0.89], [0.89, 0.90, 0.91], strict=True)
    records = [
        make_record("vgg-new-task", seed, metrics=dict(zip(STARTS, pair, strict=False)), **control)
        for seed, pair in enumerate(values)
    ]
    lines = report(tmp_path, records, range(3), ["vgg-new-task"])
    # Leads -0.02, -0.01, 0 and 0, 0.01, 0.02: the half width is 0.02484.
    undecided = "on average. No significant difference with 3 seeds: the 95% interval is"
    assert f"- vgg-scratch: -0.010 {undecided} -0.035 to +0.015." in lines
    assert f"- vgg-frozen (ImageNet): +0.010 {undecided} -0.015 to +0.035." in lines
    why = "vgg-frozen (ImageNet) is the better start, but not shown to be better than an untrained one"
    assert f"Not answered: {why}." in lines


def test_a_copy_of_the_new_task_is_judged_by_its_own_gates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in "Adding a configuration"; its starts are above its gates, but one is not better than the floor."""
    copy = replace(SUITE["vgg-new-task"], id="vgg-mine", question="2(d)")
    monkeypatch.setitem(cast(dict[str, Configuration], SUITE), copy.id, copy)
    changes = {"metrics": {STARTS[0]: 0.83}, "history": make_history("vgg-new-task"), "weights": "a against ImageNet"}
    records = [make_record(copy.id, seed, **changes) for seed in range(3)]
    lines = report(tmp_path, records, range(3), [copy.id])
    assert "Not answered: a start failed (seeds 0, 1, 2)." in lines


def test_a_configuration_of_a_new_kind_has_its_section_and_its_curves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = replace(SUITE["vgg-frozen"], id="mine", kind=cast(Any, "mine"))
    monkeypatch.setitem(cast(dict[str, Configuration], SUITE), "mine", mine)
    record = make_record("vgg-frozen")
    record.configuration = "mine"
    assert "| loss | - |" in report(tmp_path, [record], ids=["mine"])
    assert "curves-mine.png" in drawn(tmp_path, [record])


def test_questions_without_comparable_runs_are_not_answered(tmp_path: Path) -> None:
    records = [make_record("seg-augmented", profile="quick"), make_record("seg-pretrained")]
    records.append(make_record("vgg-new-task", status="error", message="lost"))
    lines = report(tmp_path, records)
    needed = "runs of seg-augmented and seg-pretrained with the same seed, profile and data."
    assert f"Not answered: requires {needed}" in lines
    assert "`vgg-new-task`: error. lost" in lines


# ----------------------------------------------------------------------------------------------------------- figures


def without_numbers(name: str, **changes: Any) -> Record:
    record = make_record(name, details={}, **changes)
    record.history, record.metrics, record.trivial, record.floors, record.timing = {}, {}, {}, {}, Timing()
    return record


@pytest.mark.parametrize(("accuracy", "passed"), [(0.7, False), (0.8, True)])
def test_a_run_that_does_not_beat_its_floor_is_drawn_as_failed(accuracy: float, passed: bool, tmp_path: Path) -> None:
    """Both are above the gate's 0.6; the floor is 0.756."""
    record = make_record("vgg-frozen", metrics={"accuracy": accuracy})
    (axes,) = drawn(tmp_path, [record])["overview.png"][0].axes
    (colour,) = axes.collections[-1].get_facecolor()  # type: ignore[misc]
    assert to_hex(colour).upper() == ("#0072B2" if passed else "#D55E00")


def test_a_run_that_cannot_be_judged_has_no_result_in_the_overview(tmp_path: Path) -> None:
    """Its score is above gate and floor, but it was made with other settings."""
    records = [make_record("vgg-scratch", settings={"work": {"epochs": 1}}), make_record("vgg-frozen")]
    (axes,) = drawn(tmp_path, records)["overview.png"][0].axes
    assert [(text.get_text(), text.get_position()[1]) for text in axes.texts] == [("no result", 0)]


@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04 cut short"])
def test_missing_or_damaged_samples_skip_one_figure(tmp_path: Path, content: bytes | None) -> None:
    record = make_record("seg-baseline")
    path = tmp_path / str(record.details.samples)
    if content is not None:
        path.parent.mkdir()
        path.write_bytes(content)
    assert list(drawn(tmp_path, [record])) == ["overview.png", "times.png", "curves-seg-baseline.png", "classes.png"]


def test_a_diverged_run_has_the_figures_that_its_record_allows(tmp_path: Path) -> None:
    history = make_history("seg-baseline", epochs=2)
    history["training"][1]["validation_loss"] = None  # type: ignore[assignment]  # JSON has no NaN
    record = make_record("seg-baseline", status="error", message="diverged", metrics={"present_dice": None})
    record.history = dict(history)
    bare = without_numbers("vgg-scratch", status="not run", message="no weights")
    assert list(drawn(tmp_path, [record, bare])) == ["curves-seg-baseline.png"]


def test_a_first_seed_without_scores_is_left_out_of_the_figures(tmp_path: Path) -> None:
    lost = without_numbers("colorization", status="error", message="out of memory")
    assert "curves-colorization.png" in drawn(tmp_path, [lost, make_record("colorization", 1)])


def test_records_with_missing_numbers_are_reported(tmp_path: Path) -> None:
    """A score that is not a number, such as the IoU of a test split without instruments, is null in JSON."""
    records = [make_record(name, seed) for name in SUITE for seed in range(4)]
    for record in records:
        if record.seed == 0:
            record.metrics = dict.fromkeys(record.metrics)
        elif record.seed == 1:
            record.trivial = {}
        elif record.seed == 2:
            record.timing = Timing()
        else:
            record.history = {
                curve: [dict.fromkeys(entry) for entry in epochs] for curve, epochs in record.history.items()
            }
    lines = report(tmp_path, records, seeds=(0, 1, 2, 3))
    assert lines[2].startswith("**FAILED**: 0 of 7")
    assert "| error |" in gate_row(lines, "seg-baseline", "course_dice")


def test_hardware_errors_are_reported_in_one_line(tmp_path: Path) -> None:
    def text(*hardware: dict[str, Any]) -> str:
        machines = [{"peak_memory_gib": 1.0, "hardware": each} for each in hardware]
        runs = [make_record("seg-baseline", seed, environment={"machine": of}) for seed, of in enumerate(machines)]
        return "\n".join(report(tmp_path, runs, range(len(runs)), ["seg-baseline"]))

    assert "\nNo hardware errors.\n" in text({"xids": [], "ecc_corrected": 0, "throttled_s": {"power": 9.0}})
    assert "\nHardware counters: not available on this device.\n" in text({"not_told": list(COUNTERS)})
    bad = text({"xids": [31], "not_told": ["nvlink_errors"]}, {"ecc_corrected": 4, "throttled_s": {"thermal": 52.0}})
    assert "errors in seg-baseline seed 0, seg-baseline seed 1; not available on this device: NVLink errors.\n" in bad
    assert "; Xid 31: 1; ECC corrected: 4; throttled by thermal seconds: 52 |" in bad
    assert "**Throttled:** seg-baseline seed 1 (throttled by heat for 20% of its time): do not compare" in bad


def test_runs_that_did_not_go_as_planned_get_a_warning(tmp_path: Path) -> None:
    undisturbed = report(tmp_path, whole_suite())
    warnings = ("**Out of memory", "**No CUDA graphs", "**Interrupted", "**This suite is untested")
    assert not [line for line in undisturbed if line.startswith(warnings)]
    changed = {
        "vgg-scratch": make_record("vgg-scratch", details={"gradient_accumulation": 4}),
        "colorization": make_record("colorization", timing={"interruptions": 2.0}),
        "seg-baseline": make_record("seg-baseline", timing={"interruptions": 0.0}),
        "vgg-frozen": make_record("vgg-frozen", details={"not_recorded": "CUDA error"}),
        "seg-augmented": make_record("seg-augmented", environment={"device": "mps"}),
        "seg-pretrained": make_record("seg-pretrained", environment={"device": "cuda", "cuda": "ROCm 7.1"}),
    }
    text = "\n".join(report(tmp_path, whole_suite(but=changed)))
    assert "**Out of memory:** vgg-scratch seed 0 split each batch" in text
    assert "**No CUDA graphs:** vgg-frozen seed 0 launched each kernel separately" in text
    assert "**Interrupted:** colorization seed 0 resumed in another process" in text
    assert "**This suite is untested on ROCm or mps:** a failure may be the suite's fault" in text
