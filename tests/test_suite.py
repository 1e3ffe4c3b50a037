"""The seven configurations: names, gates and dependencies as the assignment and the design state them."""

from __future__ import annotations

import subprocess
import sys

import pytest

from benchmarks.suite import PROFILES, SUITE, Gate, select, with_requirements
from hw6core.errors import UsageError


def test_the_gates_are_those_of_the_assignment() -> None:
    gates = {name: [f"{gate.metric} {gate}" for gate in entry.gates] for name, entry in SUITE.items()}
    assert gates == {
        "seg-baseline": ["course_dice > 0.5", "present_dice > 0.5"],
        "seg-augmented": ["course_dice > 0.6", "present_dice > 0.6"],
        "colorization": ["validation_mse < 0.5 x trivial"],
        "seg-pretrained": ["course_dice > 0.6", "present_dice > 0.6"],
        "vgg-scratch": ["accuracy > 0.85"],
        "vgg-frozen": ["accuracy > 0.6"],
        "vgg-new-task": ["accuracy_from_scratch > trivial", "accuracy_from_pretrained > trivial"],
    }


def test_every_configuration_has_work_in_both_profiles() -> None:
    assert all(set(entry.work) == set(PROFILES) for entry in SUITE.values())


def test_augmented_and_pretrained_differ_from_the_baseline_in_nothing_else() -> None:
    baseline, augmented, pretrained = (SUITE[f"seg-{name}"] for name in ("baseline", "augmented", "pretrained"))
    assert baseline.work == augmented.work == pretrained.work
    assert baseline.settings == augmented.settings == pretrained.settings
    assert augmented.augmentation == pretrained.augmentation
    assert baseline.augmentation is None


def test_requirements_come_first_and_are_added_when_one_is_picked() -> None:
    assert [entry.id for entry in with_requirements(select(["seg-pretrained"]))] == ["colorization", "seg-pretrained"]
    assert [entry.id for entry in with_requirements(select([]))] == list(SUITE)


def test_unknown_configuration_is_named_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match=r"unknown configuration 'seg-basline'; known: seg-baseline, seg-augmented"):
        select(["seg-basline"])


@pytest.mark.parametrize(
    ("gate", "value", "passes"),
    [
        (Gate("dice", "above", 0.5), 0.5001, True),
        (Gate("dice", "above", 0.5), 0.5, False),  # strictly above
        (Gate("dice", "above", 0.5), float("nan"), False),
        (Gate("mse", "below", share_of_trivial=0.5), 0.0499, True),  # the trivial predictor has 0.1
        (Gate("mse", "below", share_of_trivial=0.5), 0.05, False),
        (Gate("mse", "below", share_of_trivial=0.5), float("nan"), False),
    ],
)
def test_gate_compares_strictly(gate: Gate, value: float, passes: bool) -> None:
    assert gate.passes(value, {"dice": 0.3, "mse": 0.1}) is passes


def test_judging_does_not_load_torch() -> None:
    code = "import sys, benchmarks.gates, benchmarks.records, benchmarks.suite; print('torch' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout == "False\n"
