"""Faults change what they claim and are undone; gross ones are found; existing trainings are not repeated."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks.detection import __main__ as command
from benchmarks.detection import trainings
from benchmarks.detection.__main__ import make
from benchmarks.detection.detectors import detect, difference
from benchmarks.detection.faults import FAULTS, Fault, Site, bits, lose_tile, round_to, sound, stick
from benchmarks.detection.judging import Truth, clean_trials, rows, truth
from benchmarks.detection.times import CLEAN, Slowness, found, slownesses
from benchmarks.detection.trainings import Run, run
from hw6core.training import Split

KINDS = {(fault.training, fault.name): fault for fault in FAULTS}  # the last of each kind is the strongest
BOTH = ("segmentation", "classification")


def of_kind(name: str, training: str = "classification") -> Fault:
    return KINDS[training, name]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two epochs instead of all, on a quarter of the samples."""

    def part(splits: Callable[[], trainings.Splits]) -> trainings.Splits:
        return {name: Split(each.inputs[::4], each.targets[::4]) for name, each in splits().items()}

    short = {
        name: replace(entry, schedule=replace(entry.schedule, epochs=2), splits=partial(part, entry.splits))
        for name, entry in trainings.TRAININGS.items()
    }
    monkeypatch.setattr(trainings, "TRAININGS", short)
    for scores in (trainings.trivial, trainings.floor):  # without their caches, which are for all samples
        monkeypatch.setattr(trainings, scores.__name__, scores.__wrapped__)


def test_there_are_more_than_forty_kinds() -> None:
    assert len({fault.name for fault in FAULTS}) + len({slow.name for slow in slownesses()}) == 45
    assert len({(fault.training, fault.name, fault.strength) for fault in FAULTS}) == len(FAULTS) == 106


@pytest.mark.usefixtures("brief")
def test_every_fault_changes_the_training_and_is_undone() -> None:
    """Not at every strength and seed: a flipped bit may hit what the next layer drops."""
    seeds = (4, 5, 6)
    clean = {(name, seed): run(sound(name), seed) for name in BOTH for seed in seeds}

    def changes(fault: Fault, seed: int) -> bool:
        faulty, whole = run(fault, seed), clean[fault.training, seed]
        return (faulty.metrics, faulty.curve, faulty.moved) != (whole.metrics, whole.curve, whole.moved)

    of_a_kind = {key: [fault for fault in reversed(FAULTS) if (fault.training, fault.name) == key] for key in KINDS}
    same = {
        name
        for (_, name), faults in of_a_kind.items()
        if not any(changes(fault, seed) for seed in seeds for fault in faults)
    }
    assert same == {"the last epoch is kept, not the best"}  # here the last of two epochs is the best
    assert {(name, 4): run(sound(name), 4) for name in BOTH}.items() <= clean.items()


def test_bits_change_as_requested() -> None:
    values = torch.tensor([[1.2345678, -3.0]])
    round_to(values, None, mantissa=7)
    assert values.tolist() == [[1.234375, -3.0]]
    stick(values, None, bit=22)
    assert values.tolist() == [[1.734375, -3.0]]
    strided = torch.zeros(2, 3, 4).transpose(0, 2)
    bits(strided)[:] = 0x3F800000
    assert strided.tolist() == torch.ones(4, 3, 2).tolist()


@pytest.mark.parametrize("shape", [(2, 9, 3, 4), (9, 9)])
def test_a_tile_is_of_positions_and_channels(shape: tuple[int, ...]) -> None:
    values = torch.ones(shape)
    lose_tile(values, Site(nn.Module(), torch.Generator(), steps=1), share=1.0, factor=0.0)
    assert int((values == 0).sum()) == 64


def made_up(seed: int, accuracy: float | None, **curve: list[float]) -> Run:
    metrics = {} if accuracy is None else {"accuracy": accuracy}
    return Run("classification", "", "", seed, metrics, curve, {})


def found_by(detector: str, accuracy: float | None, loss: float = 1.1) -> bool:
    old = [made_up(seed, 0.5 + seed % 3 / 1000, train_loss=[1 + seed / 100]) for seed in range(20)]
    new = [made_up(seed, accuracy, train_loss=[loss + seed / 1000]) for seed in range(3)]
    return detect(old, new).found_by[detector]


def test_gate_and_floor() -> None:
    assert [found_by("gate", accuracy) for accuracy in (0.11, 0.1, None)] == [False, True, True]
    assert [found_by("floor", accuracy) for accuracy in (0.9, 0.3, None)] == [False, True, False]


def test_curves_find_a_difference_unless_the_scores_are_no_worse() -> None:
    assert [found_by("curves", *pair) for pair in ((0.48, 1.5), (0.501, 1.5), (0.48, 1.1))] == [True, False, False]


def test_truth_is_a_drop_beyond_the_margin_and_its_error() -> None:
    clean = [made_up(seed, 0.90 + 0.002 * (seed % 2)) for seed in range(20)]
    drops = {
        value: truth([made_up(seed, value + 0.002 * (seed % 2)) for seed in range(10)], clean)[0]
        for value in (0.88, 0.8899, 0.899)
    }
    assert list(drops.values()) == [Truth.HARMFUL, Truth.UNCLEAR, Truth.HARMLESS]


@pytest.mark.usefixtures("brief")
def test_gross_faults_are_found_and_clean_sets_are_not(tmp_path: Path) -> None:
    gross = [of_kind("NaN is replaced by 0"), of_kind("one layer's gradient is lost")]
    runs = make(tmp_path, gross, faulty=3, clean=12)
    judged = list(rows(runs, gross))
    assert [(row.truth, row.found, row.fingerprint) for row in judged] == [(Truth.HARMFUL, 1, True)] * 2
    assert [trial.found for row in judged for trial in row.trials] == [True, True]
    assert [trial.found for trial in clean_trials(runs)] == [False] * 4


@pytest.mark.usefixtures("brief")
def test_existing_trainings_are_not_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fault = of_kind("bits of gradients flip at a rate")
    runs = make(tmp_path, [fault], faulty=1, clean=1)
    path = tmp_path / "runs.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[:-9])  # as an interruption leaves it
    trained: list[tuple[Fault, int]] = []

    def recorded(fault: Fault, seed: int) -> Run:
        trained.append((fault, seed))
        return run(fault, seed)

    monkeypatch.setattr(command, "run", recorded)
    assert make(tmp_path, [fault], faulty=1, clean=1) == runs  # the fault is reproducible
    assert trained == [(fault, 1000)]
    assert path.read_bytes() == whole


def test_the_fingerprint_finds_arithmetic_faults_but_not_the_order_of_the_data() -> None:
    assert difference(sound("classification")) == ""
    assert difference(of_kind("the same order in every epoch")) == ""
    found_at = difference(of_kind("a mantissa bit of outputs is stuck"))
    assert found_at.startswith("it first differs at step 1, layer 0, forward (output)")


def test_times_longer_by_half_are_found() -> None:
    gross: Slowness = next(slow for slow in slownesses() if slow.strength == "50%")
    assert found(gross, 0.05, trials=20) == 20
    assert found(CLEAN, 0.05, trials=100) <= 12
