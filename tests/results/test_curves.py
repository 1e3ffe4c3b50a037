"""Comparison of learning curves with a reference's: messages, verdicts and false alarms."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import binom

from benchmarks.report.exports import junit
from benchmarks.report.markdown import summary
from benchmarks.results.curves import Deviation, deviations, learning_curve
from benchmarks.results.gates import Asked, judge
from benchmarks.results.records import Record, write_record
from benchmarks.results.references import Reference, make_reference, read_reference
from benchmarks.results.statistics import ERROR, permutation_p
from benchmarks.suite import SUITE
from tests.drawings import report_lines
from tests.record_factory import make_record
from tests.results.test_references import reference_of

SCRATCH = SUITE["vgg-scratch"]
Curves = dict[int, Mapping[str, float]]


def test_permutation_p_values_worked_by_hand() -> None:
    old = np.array([[1.0, 5.0], [2.0, 5.0], [3.0, 5.0]])
    assert permutation_p(old, np.array([[9.0, 5.0]])).tolist() == [0.25, 1.0]  # the farthest of four; no difference
    # Two of twenty are as far apart, and nothing hides it: not even equal values with another mean.
    old, new = np.array([[1.0, 0.1], [2.0, 0.1], [1.5, 0.1]]), np.array([[11.0, 0.1], [12.0, 0.1], [11.5, 0.1]])
    assert permutation_p(old, new).tolist() == [0.1, 1.0]
    # Three of the ten ways to choose two of five have the largest difference: the last two in both quantities, the
    # first two in the first, the second and third in the second.
    old, new = np.array([[1.0, 3.0], [2.0, 1.0], [3.0, 2.0]]), np.array([[4.0, 5.0], [5.0, 4.0]])
    assert permutation_p(old, new).tolist() == [0.3, 0.3]


def test_many_permutations_are_sampled() -> None:
    rng = np.random.default_rng(0)
    old, new = rng.normal(size=(30, 5)), rng.normal(size=(10, 5))
    assert permutation_p(old, new + 4).max() == pytest.approx(1 / 10_001)
    assert permutation_p(old, new).min() > 0.01


def test_runs_that_do_not_differ_are_hardly_ever_called_different() -> None:
    """Forty correlated quantities with the tails of Student's t with three degrees, and one outlier in ten runs."""
    rng, found = np.random.default_rng(0), 0
    for _ in range(200):
        runs = np.cumsum(rng.standard_t(3, (23, 40)), axis=1) + 30 * (rng.random((23, 1)) < 0.1)
        found += permutation_p(runs[:20], runs[20:]).min() <= ERROR
    assert found <= binom.isf(0.001, 200, ERROR)


def test_three_runs_that_differ_by_four_deviations_in_one_of_forty_quantities_are_found() -> None:
    rng, found = np.random.default_rng(0), 0
    for _ in range(50):
        runs = np.cumsum(rng.normal(size=(23, 40)), axis=1)
        runs[20:, 10] += 4 * 11**0.5  # a walk of eleven steps has that deviation
        found += permutation_p(runs[:20], runs[20:]).min() <= ERROR
    assert found >= 45


def run(seed: int, *losses: float, **changes: Any) -> Record:
    epochs = [
        {"epoch": number, "learning_rate": 1e-3, "seconds": 9.0, "train_loss": loss, "accuracy": 0.9}
        for number, loss in enumerate(losses, 1)
    ]
    return make_record("vgg-scratch", seed, history={"training": epochs}, **changes)


def test_a_learning_curve_has_losses_scores_and_movement() -> None:
    assert learning_curve(run(0, 1.23456789, 0.5)) == {
        "training/train_loss/1": 1.23457,
        "training/accuracy/1": 0.9,
        "training/train_loss/2": 0.5,
        "training/accuracy/2": 0.9,
        "training/movement/head": 0.5,
    }


def test_a_layer_that_did_not_learn_is_named() -> None:
    stuck = {"movement": {"from_scratch": {"features.0": 0.0, "head": 0.5}}}
    old = {
        seed: learning_curve(
            run(seed, 0.5, details={"movement": {"from_scratch": {"features.0": 0.2 + seed / 100, "head": 0.5}}})
        )
        for seed in range(20)
    }
    new = {seed: learning_curve(run(seed, 0.5, details=stuck)) for seed in range(100, 103)}
    (only,), _ = deviations({"vgg-scratch": (old, new)})
    assert str(only).startswith("how far training moved features.0 from scratch is 0 ± 0 (n=3), the reference's 0.295")
    alone = Deviation("vgg-frozen", "training/movement/", [21.0], [13.0])  # the trained part is one layer
    assert str(alone) == "how far training moved the last layer is 13 (n=1), the reference's 21 (n=1)"


def side(count: int, first: int, *middles: float) -> Curves:
    return {
        seed: learning_curve(run(seed, *(middle + 0.01 * (seed * 7 % 5) for middle in middles)))
        for seed in range(first, first + count)
    }


def test_the_first_quantity_that_differs_is_named() -> None:
    found, left_out = deviations({"vgg-scratch": (side(20, 0, 1.0, 0.5, 0.25), side(3, 100, 1.0, 0.6, 0.35))})
    (only,) = found
    assert (only.configuration, only.quantity, left_out) == ("vgg-scratch", "training/train_loss/2", "")
    assert str(only) == "train loss of epoch 2 is 0.62 ± 0.02 (n=3), the reference's 0.52 ± 0.015 (n=20)"
    assert deviations({"vgg-scratch": (side(20, 0, 1.0, 0.5), side(3, 100, 1.0, 0.5))}) == ([], "")


def test_only_seeds_with_all_configurations_are_compared() -> None:
    """Seeds that one of the configurations lacks are left out, on either side."""
    same = side(20, 0, 1.0), side(3, 100, 1.0)
    other = side(20, 1, 1.0), side(4, 99, 2.0)
    (only,), _ = deviations({"seg-baseline": same, "vgg-scratch": other})
    assert (only.configuration, len(only.old), len(only.new)) == ("vgg-scratch", 19, 3)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (20, 1, "too few seeds with all configurations (1 new, 20 old); 1 more would be enough"),
        (5, 1, "too few seeds with all configurations (1 new, 5 old); 4 more would be enough"),
        (3, 3, "too few seeds with all configurations (3 new, 3 old); 6 more would be enough"),
        (5, 0, "too few seeds with all configurations (0 new, 5 old); 5 more would be enough"),
    ],
)
def test_too_few_seeds_are_reported(old: int, new: int, message: str) -> None:
    assert deviations({"vgg-scratch": (side(old, 0, 1.0), side(new, 100, 9.0))}) == ([], message)


@pytest.fixture
def reference(tmp_path: Path) -> Reference:
    """Twenty runs: accuracy 0.93 ± 0.0046, losses that fall from 1 to 0.5."""
    accuracies = [0.93 + (seed % 5 - 2) * 0.003 + (seed % 2 - 0.5) * 0.003 for seed in range(20)]
    records = [
        run(seed, 1.0 + seed * 7 % 5 / 100, 0.5 + seed * 3 % 7 / 100, metrics={"accuracy": accuracy})
        for seed, accuracy in enumerate(accuracies)
    ]
    return reference_of(tmp_path / "many", records)


def new_runs(accuracies: Sequence[float], loss: float) -> list[Record]:
    return [
        run(seed, 1.02 + (seed - 100) / 100, loss + (seed - 100) / 100, metrics={"accuracy": accuracy})
        for seed, accuracy in enumerate(accuracies, 100)
    ]


NO_WORSE, UNCLEAR = [0.931, 0.929, 0.930], [0.925, 0.924, 0.926]
MESSAGE = (
    "- vgg-scratch: learning curves differ from the reference's: train loss of epoch 2 is 0.81 ± 0.01 (n=3), "
    "the reference's 0.5295 ± 0.021 (n=20)"
)


@pytest.mark.parametrize(
    ("accuracies", "loss", "code", "message"),
    [
        (UNCLEAR, 0.52, 0, None),
        (NO_WORSE, 0.52, 0, None),
        (UNCLEAR, 0.80, 1, MESSAGE),
        (NO_WORSE, 0.80, 0, f"{MESSAGE}; its scores are no worse"),
    ],
)
def test_runs_with_other_learning_curves_fail_unless_their_scores_are_no_worse(
    accuracies: list[float], loss: float, code: int, message: str | None, reference: Reference, tmp_path: Path
) -> None:
    records = new_runs(accuracies, loss)
    seeds = [record.seed for record in records]
    judgement = judge(records, Asked([SCRATCH], seeds, unclear_passes=True), [reference])
    assert judgement.exit_code == code
    lines = [line for line in summary(judgement).splitlines() if "learning curves" in line]
    assert lines == ([message] if message else [])
    assert ('<failure type="learning curves differ"' in junit(judgement)) == (code == 1)
    page = report_lines(tmp_path / "new", records, Asked([SCRATCH], seeds), [reference])
    differ = "Learning curves differ from the reference's in vgg-scratch."
    assert (differ if message else "No difference from the reference's learning curves was found.") in page


def test_runs_in_the_reference_are_not_compared_with_themselves(reference: Reference, tmp_path: Path) -> None:
    records = [run(seed, 9.0, 9.0 + seed) for seed in range(3)]
    alone = reference_of(tmp_path / "alone", records)
    assert judge(records, Asked([SCRATCH], [0, 1, 2]), [alone]).curves_left_out == (
        "too few seeds with all configurations (3 new, 0 old)"
    )


def test_a_reference_without_curves_gets_them_when_runs_are_added(tmp_path: Path) -> None:
    for seed in range(3):
        write_record(tmp_path / str(seed), run(seed, 1.0 + seed))
    path, _ = make_reference([tmp_path / "0", tmp_path / "1"], tmp_path / "some.json")
    content = json.loads(path.read_text())
    del content["populations"]["vgg-scratch"]["curves"]
    path.write_text(json.dumps(content))
    judgement = judge([run(9, 1.0)], Asked([SCRATCH], [9]), [read_reference(path)])
    assert judgement.curves_left_out == "the reference has none"
    make_reference([tmp_path / "1", tmp_path / "2"], path)
    found = read_reference(path).populations["vgg-scratch"].learning_curves()
    assert {seed: curve["training/train_loss/1"] for seed, curve in found.items()} == {1: 2.0, 2: 3.0}
