"""How a run's time is spent; all numbers are different."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace

from benchmarks.runs.timing import timing
from benchmarks.suite import SUITE, Gate
from hw6core.training import Training

NEW_TASK = SUITE["vgg-new-task"].gates
TRIVIAL = {"accuracy_from_scratch": 0.5, "accuracy_from_pretrained": 0.9}


def training(accuracies: list[float], number: int) -> Training:
    history = [{"epoch": e, "accuracy": a, "seconds": 10.0 * number * e} for e, a in enumerate(accuracies, 1)]
    return Training(history, len(history), {}, 100.0 * number, 1000.0 * number, 10_000.0 * number, 50 * number, number)


def timing_of(
    trainings: dict[str, Training], seconds: dict[str, float], gates: Sequence[Gate] = NEW_TASK
) -> dict[str, float | None]:
    run = SimpleNamespace(trainings=trainings, seconds=seconds, arithmetic_s=330.0, memory_s=165.0)
    return timing(run, gates, TRIVIAL)  # type: ignore[arg-type]


def test_every_number_of_two_trainings() -> None:
    parts = {"data_s": 1.5, "warmup_s": 3.5, "evaluation_s": 4.5, "floors_s": 5.5}
    curves = {"from_scratch": training([0.4, 0.6], 1), "from_pretrained": training([0.85, 0.9, 0.95], 2)}
    assert timing_of(curves, parts | {"features_s": 300.0}) == {
        "data_s": 1.5,
        "interruptions": 3.0,
        "warmup_s": 303.5,
        "training_s": 3300.0,
        "evaluation_s": 30_004.5,
        "epochs": 3,
        "best_epoch": None,  # each curve has its own
        "samples": 150.0,
        "samples_per_s": 150 / 3300,
        "least_training_s": 330.0,
        "share_of_attainable": 0.1,
        "epochs_to_gate": 3,
        "seconds_to_gate": 300.0 + 20.0 + 60.0,
        "floors_s": 5.5,
    }


def test_one_training_has_a_best_epoch_and_missing_parts_have_no_time() -> None:
    found = timing_of({"from_scratch": training([0.4, 0.45], 1)}, {})
    assert (found["best_epoch"], found["data_s"]) == (2, 0.0)
    assert (found["epochs_to_gate"], found["seconds_to_gate"]) == (None, None)


def test_time_to_gate_needs_every_curve_to_reach_its_own() -> None:
    curves = {"from_scratch": training([0.95], 1), "from_pretrained": training([0.85, 0.89], 2)}
    found = timing_of(curves, {})
    assert (found["epochs_to_gate"], found["seconds_to_gate"]) == (None, None)


def test_a_control_need_not_reach_a_gate() -> None:
    curves = {"from_scratch": training([0.6], 1), "from_pretrained": training([1], 4)}
    curves["untrained"] = training([0.1, 0.1], 2)
    assert timing_of(curves, {})["seconds_to_gate"] == 10.0 + 40.0


def test_each_start_of_the_new_task_has_its_own_bound_and_every_gate_counts() -> None:
    curves = {f"from_{start}": training([0.45, 0.9, 0.95], 1) for start in ("scratch", "pretrained")}
    assert timing_of(curves, {})["seconds_to_gate"] == 20.0 + 30.0  # 0.9 is not above 0.9
    segmented = training([0.0] * 4, 1)
    dice = [(0.7, 0.4), (0.4, 0.7), (0.55, 0.51), (0.9, 0.9)]
    for entry, (course, present) in zip(segmented.history, dice, strict=True):
        entry |= {"course_dice": course, "present_dice": present}
    assert timing_of({"training": segmented}, {}, SUITE["seg-baseline"].gates)["epochs_to_gate"] == 3
