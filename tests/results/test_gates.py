"""Good records pass and bad ones fail."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from msgspec import UNSET

from benchmarks.results.formatting import words
from benchmarks.results.gates import Asked, Finding, Verdict, combined, judge, judge_run
from benchmarks.results.records import Record
from benchmarks.suite import SUITE
from tests.record_factory import LOW_FLOOR, make_record

BASELINE = SUITE["seg-baseline"]


def verdicts(record: Record | None, configuration: str = "seg-baseline") -> list[Verdict]:
    return [finding.verdict for finding in judge_run(record, SUITE[configuration], 0)]


@pytest.mark.parametrize("name", SUITE)
def test_a_good_record_passes(name: str) -> None:
    assert set(verdicts(make_record(name), name)) == {Verdict.PASSED}


@pytest.mark.parametrize(
    ("name", "metrics"),
    [
        ("seg-baseline", {"course_dice": 0.5, "present_dice": 0.5}),  # a bound is not enough
        ("seg-augmented", {"course_dice": 0.55, "present_dice": 0.59}),
        ("seg-pretrained", {"course_dice": 0.6, "present_dice": 0.3}),
        ("colorization", {"validation_mse": 0.0014}),  # half of the constant answer's 0.0028
        ("vgg-scratch", {"accuracy": 0.85}),
        ("vgg-frozen", {"accuracy": 0.59}),
        ("vgg-new-task", {"accuracy_from_scratch": 0.824, "accuracy_from_pretrained": 0.8}),
    ],
)
def test_a_record_below_its_thresholds_fails(name: str, metrics: dict[str, float]) -> None:
    assert set(verdicts(make_record(name, metrics=metrics, **LOW_FLOOR), name)) == {Verdict.FAILED}


@pytest.mark.parametrize("name", ["seg-baseline", "seg-augmented", "seg-pretrained"])
def test_an_all_background_answer_passes_course_dice_and_still_fails(name: str) -> None:
    record = make_record(name, metrics={"course_dice": 0.762, "present_dice": 0.343}, **LOW_FLOOR)
    assert verdicts(record, name) == [Verdict.PASSED, Verdict.FAILED]
    assert not judge([record], Asked([SUITE[name]], [0])).accepted


def test_not_run_is_tolerated_only_where_it_was_allowed_by_name() -> None:
    missing = make_record("vgg-frozen", status="not run", message="no ImageNet weights")
    records, configurations = [make_record("seg-baseline"), missing], [BASELINE, SUITE["vgg-frozen"]]
    assert not judge(records, Asked(configurations, [0])).accepted
    tolerated = judge(records, Asked(configurations, [0], allow_not_run=["vgg-frozen"]))
    assert tolerated.accepted
    assert [finding.verdict for finding in tolerated.of("vgg-frozen", SUITE["vgg-frozen"].gates[0])] == ["not run"]
    failed = make_record("vgg-frozen", metrics={"accuracy": 0.2})
    assert not judge([records[0], failed], Asked(configurations, [0], allow_not_run=["vgg-frozen"])).accepted


def test_a_suite_of_which_nothing_ran_is_never_accepted() -> None:
    assert not judge([], Asked([BASELINE], [0], allow_not_run=["seg-baseline"])).accepted
    assert not judge([], Asked([], [0])).accepted


MACHINE = {"status": "error", "message": "CUDA out of memory", "details": {"infrastructure": True}}
FAULT = {"status": "error", "message": "unexpected KeyError", "details": {"unexpected": True}}
NO_WEIGHTS = {"status": "not run", "message": "no weights", "details": {"weights_missing": True}}
NO_WEIGHTS_BUT_ERROR = NO_WEIGHTS | {"status": "error"}
DIVERGED = {"status": "error", "message": "the training loss of epoch 3 is nan"}
MISSED = {"metrics": {"accuracy": 0.2}}
# For a completed run a machine failure does not count.
MISSED_ON_A_MACHINE = MISSED | {"details": {"infrastructure": True}}


@pytest.mark.parametrize(
    ("scratch", "frozen", "code"),
    [
        ({}, {}, 0), (MACHINE, {}, 4), (MISSED, {}, 1), (DIVERGED, {}, 1), (MACHINE, MISSED, 1), (MACHINE, DIVERGED, 1),
        # Missing weights are missing data.
        (NO_WEIGHTS, {}, 3), (NO_WEIGHTS, MACHINE, 4), (NO_WEIGHTS, MISSED, 1), (NO_WEIGHTS, DIVERGED, 1),
        (NO_WEIGHTS_BUT_ERROR, {}, 1), (NO_WEIGHTS, None, 1),  # the other one has no record
        # A fault of the suite is not a missed gate, and another machine would not help.
        (FAULT, {}, 70), (FAULT, MACHINE, 70), (FAULT, MISSED, 1), (FAULT, DIVERGED, 1),
        (MISSED_ON_A_MACHINE, {}, 1), (None, None, 1),
    ],
)  # fmt: skip
def test_the_exit_code_separates_the_machine_from_the_training(
    scratch: dict[str, Any] | None, frozen: dict[str, Any] | None, code: int
) -> None:
    runs = {"vgg-scratch": scratch, "vgg-frozen": frozen}
    records = [make_record(name, **changes) for name, changes in runs.items() if changes is not None]
    assert judge(records, Asked([SUITE[name] for name in runs], [0])).exit_code == code


@pytest.mark.parametrize(
    "edit",
    [{"threshold": 0.1}, {"metric": "pixel_accuracy"}, {"direction": "below"}, {"share_of_trivial": 0.1}],
    ids=str,
)
def test_a_record_made_under_one_edited_gate_is_an_error_for_all(edit: dict[str, Any]) -> None:
    first, second = make_record("seg-baseline").gates
    assert set(verdicts(make_record("seg-baseline", gates=(first, replace(second, **edit))))) == {Verdict.ERROR}
    assert set(verdicts(make_record("seg-baseline", gates=(second, first)))) == {Verdict.ERROR}


def test_a_finding_has_all_values_of_its_gate() -> None:
    gate = SUITE["colorization"].gates[0]
    passed, failed, broken = (
        judge_run(make_record("colorization", 3, **changes), SUITE["colorization"], 3)[0]
        for changes in ({}, {"metrics": {"validation_mse": 0.003}}, {"status": "error", "metrics": {}})
    )
    # Half of the constant answer's 0.0028 is 0.0014.
    assert passed == Finding(
        "colorization",
        3,
        gate,
        Verdict.PASSED,
        value=0.00071,
        trivial=0.0028,
        bound=0.0014,
        reason="validation MSE is 0.00071, expected < 0.5 x constant (0.0014)",
        floor=0.00202,
        floor_name="colour for each grey level",
    )
    reason = "validation MSE is 0.003, expected < 0.5 x constant (0.0014)"
    assert failed == replace(passed, verdict=Verdict.FAILED, value=0.003, reason=reason)
    assert broken.reason == "the run has the status 'error'"
    assert (broken.verdict, broken.bound) == (Verdict.ERROR, None)


# Scores of answers without training on the real data.
LOOK_UPS: list[tuple[str, dict[str, float], str]] = [
    *(
        (name, {"course_dice": 0.869, "present_dice": 0.664}, "nearest training frame's mask")
        for name in ("seg-baseline", "seg-augmented", "seg-pretrained")
    ),
    ("vgg-scratch", {"accuracy": 0.8532}, "5 nearest neighbours"),
    ("vgg-frozen", {"accuracy": 0.756}, "untrained VGG16's features"),
    ("vgg-new-task", dict.fromkeys(("accuracy_from_scratch", "accuracy_from_pretrained"), 0.85),
     "nearest training part's labels"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "scores", "floor"), LOOK_UPS)
def test_a_look_up_passes_the_gates_and_is_refused(name: str, scores: dict[str, float], floor: str) -> None:
    findings = judge_run(make_record(name, metrics=scores), SUITE[name], 0)
    assert len(findings) == len(scores)
    for finding in findings:
        value, bound = scores[finding.gate.metric], finding.bound
        assert finding.gate.passes(value, {finding.gate.metric: finding.trivial or 0.0})
        assert (finding.verdict, finding.floor, finding.floor_name) == (Verdict.FAILED, value, floor)
        assert finding.reason == (
            f"{words(finding.gate.metric)} is {value:.4g}, above the gate's {bound:.4g}, {NOT_BETTER} {value:.4g} "
            f"({floor})"
        )
    better = {metric: value + 1e-6 for metric, value in scores.items()}
    assert set(verdicts(make_record(name, metrics=better), name)) == {Verdict.PASSED}


NOT_BETTER = "but not better than the floor"


@pytest.mark.parametrize(
    ("name", "value", "floors", "reason"),
    [
        ("colorization", 0.0010, {"colour for each grey level": 0.0011},
         "validation MSE is 0.001, expected < 0.5 x constant (0.0014)"),
        ("colorization", 0.0011, {"colour for each grey level": 0.0011},
         f"validation MSE is 0.0011, below the gate's 0.0014, {NOT_BETTER} 0.0011 (colour for each grey level)"),
        # The best of several floors counts, whatever their order.
        ("vgg-frozen", 0.65, {"nearest class mean": 0.7, "untrained VGG16's features": 0.6},
         f"accuracy is 0.65, above the gate's 0.6, {NOT_BETTER} 0.7 (nearest class mean)"),
        ("vgg-frozen", 0.65, {"nearest class mean": 0.6, "untrained VGG16's features": 0.7},
         f"accuracy is 0.65, above the gate's 0.6, {NOT_BETTER} 0.7 (untrained VGG16's features)"),
    ],
)  # fmt: skip
def test_the_best_floor_counts_by_the_gates_direction(
    name: str, value: float, floors: dict[str, float], reason: str
) -> None:
    metric = SUITE[name].gates[0].metric
    record = make_record(name, metrics={metric: value}, floors={key: {metric: of} for key, of in floors.items()})
    (finding,) = judge_run(record, SUITE[name], 0)
    assert (finding.verdict == "failed", finding.reason) == (NOT_BETTER in reason, reason)


@pytest.mark.parametrize(
    ("starts", "controls", "failed"),
    [
        ([0.86], [0.99], False),  # one seed shows nothing
        ([0.86, 0.87, 0.86], [0.87, 0.875, 0.865], False),  # three trainings on the real data looked like this
        ([0.86] * 3, [0.869] * 3, False),  # less than the margin, without any noise
        ([0.86, 0.87, 0.88, 0.87, 0.86], [0.92, 0.94, 0.93, 0.93, 0.92], True),
    ],
)
def test_a_start_fails_if_several_seeds_show_that_it_is_worse_than_an_untrained_one(
    starts: list[float], controls: list[float], failed: bool
) -> None:
    name, metrics = "vgg-new-task", ("accuracy_from_scratch", "accuracy_from_pretrained")
    records = [
        make_record(name, seed, metrics=dict(zip(metrics, (start, 0.95), strict=True)),
                    floors={"an untrained start": dict.fromkeys(metrics, control)})
        for seed, (start, control) in enumerate(zip(starts, controls, strict=True))
    ]  # fmt: skip
    judgement = judge([*records, make_record("seg-baseline")], Asked([SUITE[name], BASELINE], range(len(starts))))
    scratch, pretrained = SUITE[name].gates
    found = judgement.of(name, scratch)
    assert {finding.verdict for finding in found} == {Verdict.FAILED if failed else Verdict.PASSED}
    assert {finding.verdict for finding in judgement.of(name, pretrained)} == {Verdict.PASSED}
    if failed:
        reached = "accuracy from scratch 0.868 ± 0.008 (n=5)"
        reason = f"{reached} is more than 0.010 below 0.928 ± 0.008 (n=5) of an untrained start"
        assert {finding.reason for finding in found} == {reason}


@pytest.mark.parametrize("name", SUITE)
def test_a_record_without_one_of_the_floors_is_an_error(name: str) -> None:
    scores = make_record(name).floors or {}
    for floor in SUITE[name].floors:
        others = {key: value for key, value in scores.items() if key != floor}
        for lacking in (others, others | {floor: {}}, others | {floor: dict.fromkeys(scores[floor], float("nan"))}):
            record = make_record(name)
            record.floors = lacking
            for finding in judge_run(record, SUITE[name], 0):
                metric = finding.gate.metric
                assert finding.verdict is Verdict.ERROR
                assert finding.reason == f"the record has no {metric} of the floor {floor!r}; run it again"
    older = make_record(name)
    older.floors = UNSET
    assert set(verdicts(older, name)) == {Verdict.ERROR}


def test_equal_gates_of_two_configurations_are_not_mixed_up() -> None:
    names = ["seg-augmented", "seg-pretrained"]
    records = [make_record("seg-augmented"), make_record("seg-pretrained", metrics={"course_dice": 0.5})]
    judgement = judge(records, Asked([SUITE[name] for name in names], [0]))
    gates = [SUITE[name].gates[0] for name in names]
    assert gates[0] == gates[1]
    assert [[finding.value for finding in judgement.of(name, gates[0])] for name in names] == [[0.91], [0.5]]


def test_a_run_on_drawn_data_does_not_replace_one_on_real_data() -> None:
    """Quick runs train 14 epochs on drawn data and 40 on real data."""
    drawn = make_record("seg-baseline", profile="quick", data={"kind": "synthetic"})
    assert set(verdicts(drawn)) == {Verdict.PASSED}
    drawn.data.kind = "real"
    assert set(verdicts(drawn)) == {Verdict.ERROR}


@pytest.mark.parametrize("bad", [0, 1, 2])
def test_good_seeds_do_not_make_up_for_a_bad_or_missing_one(bad: int) -> None:
    scores = {seed: 0.49 if seed == bad else 0.99 for seed in (0, 1, 2)}
    records = [make_record("vgg-scratch", seed, metrics={"accuracy": score}) for seed, score in scores.items()]
    for found in (records, [record for record in records if record.seed != bad]):
        judgement = judge(found, Asked([SUITE["vgg-scratch"]], [0, 1, 2]))
        assert [finding.seed for finding in judgement.objections] == [bad]
        assert judgement.exit_code == 1


NO_SCORE = "the record has no accuracy of the run or of the constant answer"


@pytest.mark.parametrize(
    ("changes", "verdict", "reason"),
    [
        ({"status": "not run", "message": "no ImageNet weights"}, "not run", "no ImageNet weights"),
        ({"status": "not run", "message": ""}, "not run", ""),
        ({"status": "error", "message": "the loss is nan"}, "error", "the loss is nan"),
        ({"status": "running"}, "error", "the run has the status 'running'"),
        ({"profile": "quick"}, "error", "the record was made under the profile 'quick', expected 'full'"),
        ({"settings": {"work": {"epochs": 1}}}, "error",
         "the record was made with other settings than the suite's; run it again"),
        ({"gates": ()}, "error", "the record was made under other gates than the suite's; run it again"),
        ({"trivial": {"accuracy": None}}, "error", NO_SCORE),
        ({"trivial": {"accuracy": float("nan")}}, "error", NO_SCORE),
        ({"metrics": {"accuracy": None}}, "error", NO_SCORE),
        ({"metrics": {"accuracy": float("nan")}}, "error", NO_SCORE),
        ({"metrics": {"accuracy": float("inf")}}, "error", NO_SCORE),
    ],
)  # fmt: skip
def test_a_record_that_cannot_be_judged_says_why(changes: dict[str, Any], verdict: str, reason: str) -> None:
    (finding,) = judge_run(make_record("vgg-frozen", **changes), SUITE["vgg-frozen"], 0, "full")
    assert (finding.verdict, finding.reason) == (verdict, reason)


@pytest.mark.parametrize(
    ("verdicts_given", "expected"),
    [
        (["passed", "passed"], Verdict.PASSED),
        (["passed", "not run"], Verdict.NOT_RUN),
        (["not run", "failed"], Verdict.FAILED),
        (["failed", "error"], Verdict.ERROR),
        ([], Verdict.NOT_RUN),
    ],
)
def test_the_verdict_over_several_is_the_worst(verdicts_given: list[str], expected: Verdict) -> None:
    good = judge_run(make_record("seg-baseline"), BASELINE, 0)[0]
    assert combined([replace(good, verdict=Verdict(verdict)) for verdict in verdicts_given]) is expected
