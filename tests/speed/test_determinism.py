"""`make determinism`: how long it trains, and which differences it reports."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.results.records import write_record
from benchmarks.speed.determinism import brief, compare
from benchmarks.suite import SUITE
from tests.record_factory import make_history, make_record

COLUMNS = {"again": "in one process", "apart": "across processes", "captured": "CUDA graphs"}  # by folder


@pytest.mark.parametrize(
    ("name", "batch", "steps", "epochs"),
    [("seg-augmented", 10, 200, 10), ("seg-augmented", 10, 10, 2), ("vgg-new-task", 32, 200, 8)],
)
def test_the_number_of_steps_with_at_least_two_epochs(name: str, batch: int, steps: int, epochs: int) -> None:
    """225 frames in batches of 10 are 22 steps per epoch; 4 crops of each in batches of 32 are 28."""
    assert SUITE[name].work["quick"].batch_size == batch
    work = brief(SUITE[name], "quick", "real", 225, steps).work_on("quick", "real")
    assert (work.epochs, work.training_samples, work.patience) == (epochs, None, None)


@pytest.mark.parametrize("kind", ["synthetic", "real"])
def test_the_other_settings_are_the_suites(kind: str) -> None:
    for entry in SUITE.values():
        short, whole = (each.fingerprint("quick", kind) for each in (brief(entry, "quick", kind, 300, 10), entry))
        for fingerprint in (short, whole):
            for name in ("epochs", "training_samples", "patience"):
                del fingerprint["work"][name]
        assert short == whole


HISTORY = make_history("seg-baseline", epochs=1)["training"]
LEARNED = {"learned": {"training": "0123456789abcdef"}}
SAME: dict[str, Any] = {
    "timing": {"samples": 2000.0, "samples_per_s": 40.0},
    "details": LEARNED,
    "history": {"training": HISTORY},
}
CHANGES: dict[str, dict[str, Any]] = {
    "weights": {"details": {"learned": {"training": "0123456789abcdee"}}},
    "losses": {"history": {"training": [HISTORY[0] | {"train_loss": HISTORY[0]["train_loss"] * (1 + 2**-50)}]}},
    "metrics": {"metrics": {"course_dice": 0.9 * (1 + 2**-50)}},
    "clock": {
        "timing": {"samples": 2000.0, "samples_per_s": 20.0},
        "history": {"training": [HISTORY[0] | {"seconds": 9.0}]},
    },
    "capturing": {"details": LEARNED | {"not_recorded": "no capture"}},
}


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Four identical results of a run, and one in fast mode."""
    for name in ("first", *COLUMNS):
        write_record(tmp_path / name, make_record("seg-baseline", **SAME))
    write_record(tmp_path / "fast", make_record("seg-baseline", timing={"samples_per_s": 50.0}))
    return tmp_path


@pytest.mark.parametrize(
    ("folder", "changed", "finding"),
    [
        ("apart", "clock", "the same"),
        *((folder, what, f"DIFFERENT: {what}") for folder in COLUMNS for what in ("weights", "losses", "metrics")),
        ("captured", "capturing", "not captured: no capture"),
    ],
)
def test_a_single_bit_is_reported_and_times_are_not(folder: str, changed: str, finding: str, folders: Path) -> None:
    write_record(folders / folder, make_record("seg-baseline", **SAME | CHANGES[changed]))
    text, agreed = compare(folders, ["seg-baseline"], 0, folders=("first", *COLUMNS, "fast"))
    header, row = ([cell.strip() for cell in text.splitlines()[line].split("|")] for line in (0, 2))
    cells = dict(zip(header, row, strict=True))
    assert cells["configuration"] == "seg-baseline"
    expected = dict.fromkeys(COLUMNS, "the same") | {folder: finding}
    assert {name: cells[column] for name, column in COLUMNS.items()} == expected
    assert cells["time relative to fast"] == ("2.50x" if changed == "clock" else "1.25x")  # 50 samples/s to 20 or 40
    assert agreed is (finding == "the same")


@pytest.mark.parametrize(("allowed", "expected"), [((), False), (("vgg-frozen",), True)])
def test_a_run_without_weights_disagrees_unless_allowed(
    allowed: tuple[str, ...], expected: bool, folders: Path
) -> None:
    for name in ("first", "again", "apart", "fast"):
        write_record(folders / name, make_record("vgg-frozen", status="not run", message="no weights"))
    text, agreed = compare(folders, ["vgg-frozen", "seg-baseline"], 0, allowed)
    assert "not run: no weights" in text
    assert text.count("the same") == 2  # the other configuration is still compared
    assert agreed is expected
