"""`make determinism`: how much it trains, and what it calls the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.results.records import write_record
from benchmarks.speed.determinism import brief, compare
from benchmarks.suite import SUITE
from tests.record_factory import make_history, make_record

LEARNED = {"learned": {"training": "0123456789abcdef"}}


@pytest.mark.parametrize(
    ("name", "samples", "steps", "expected"),
    [
        # Batches of 10: 22 steps an epoch, so ten epochs are 220 steps.
        ("seg-augmented", 225, 200, (10, None)),
        ("seg-augmented", 225, 10, (2, None)),  # two epochs at least
    ],
)
def test_about_so_many_steps(name: str, samples: int, steps: int, expected: tuple[int, int | None]) -> None:
    assert SUITE[name].work["quick"].batch_size == 10
    work = brief(SUITE[name], "quick", samples, steps).work_on("quick", "synthetic")
    assert (work.epochs, work.training_samples, work.patience) == (*expected, None)


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Three results of the same run, and one of the fast mode."""
    for name in ("first", "again", "apart"):
        timing = {"samples": 2000.0, "samples_per_s": 40.0}
        write_record(tmp_path / name, make_record("seg-baseline", timing=timing, details=LEARNED))
    write_record(tmp_path / "fast", make_record("seg-baseline", timing={"samples_per_s": 50.0}))
    return tmp_path


def test_equal_bits_are_the_same_whatever_the_clock_says(folders: Path) -> None:
    timing = {"samples": 2000.0, "samples_per_s": 20.0, "training_s": 1.0}
    record = make_record("seg-baseline", timing=timing, details=LEARNED)
    record.history = {"training": [entry | {"seconds": 9.0} for entry in make_history("seg-baseline")["training"]]}
    write_record(folders / "apart", record)
    text, agreed = compare(folders, [(SUITE["seg-baseline"], 0)])
    assert agreed
    assert text.splitlines()[2].split("|")[1].strip() == "seg-baseline"
    assert text.count("the same") == 2
    assert "2.50x" in text  # 20 samples/s, and 50 in the fast mode


@pytest.mark.parametrize("folder", ["again", "apart"])
@pytest.mark.parametrize("what", ["weights", "losses", "metrics"])
def test_one_bit_is_told(folder: str, what: str, folders: Path) -> None:
    record = make_record("seg-baseline", details=LEARNED)
    if what == "weights":
        record.details.learned = {"training": "0123456789abcdee"}
    elif what == "losses":
        history = make_history("seg-baseline")
        history["training"][3]["train_loss"] *= 1 + 2**-50
        record.history = dict(history)
    else:
        record.metrics["course_dice"] = (record.metrics["course_dice"] or 0) * (1 + 2**-50)
    write_record(folders / folder, record)
    text, agreed = compare(folders, [(SUITE["seg-baseline"], 0)])
    assert not agreed
    assert f"DIFFERENT: {what}" in text


@pytest.mark.parametrize(
    ("bits", "details", "expected"),
    [
        (LEARNED, {}, "the same"),
        ({"learned": {"training": "0123456789abcdee"}}, {}, "DIFFERENT: weights"),
        (LEARNED, {"not_recorded": "no capture"}, "not recorded: no capture"),
    ],
)
def test_recorded_steps_must_give_the_same_bits_as_well(
    bits: dict[str, object], details: dict[str, object], expected: str, folders: Path
) -> None:
    write_record(folders / "recorded", make_record("seg-baseline", details=bits | details))
    names = ("first", "again", "apart", "fast", "recorded")
    text, agreed = compare(folders, [(SUITE["seg-baseline"], 0)], folders=names)
    header, row = (text.splitlines()[line].split("|") for line in (0, 2))
    assert dict(zip(map(str.strip, header), map(str.strip, row), strict=True))["recorded steps"] == expected
    assert agreed is (expected == "the same")


@pytest.mark.parametrize(("allowed", "expected"), [((), False), (("vgg-frozen",), True)])
def test_a_run_without_weights_counts_unless_it_may_be_missing(
    allowed: tuple[str, ...], expected: bool, folders: Path
) -> None:
    for name in ("first", "again", "apart", "fast"):
        write_record(folders / name, make_record("vgg-frozen", status="not run", message="no weights"))
    runs = [(SUITE["vgg-frozen"], 0), (SUITE["seg-baseline"], 0)]
    text, agreed = compare(folders, runs, allowed)
    assert "not run: no weights" in text
    assert text.count("the same") == 2  # the other one is compared all the same
    assert agreed is expected
