"""Records on disk: written atomically, and refused if they are damaged or invalid."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from benchmarks.results.records import Record, checksum, read_record, read_records, record_path, write_record
from benchmarks.suite import SUITE
from hw6core.errors import DataError
from tests.record_factory import make_record

KEPT = sorted((Path(__file__).parent / "records").glob("*.json"))
GATE = {"metric": "accuracy", "direction": "above", "threshold": 0.6, "share_of_trivial": None}


@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.stem)
def test_records_of_earlier_versions_are_read_and_written_unchanged(path: Path, tmp_path: Path) -> None:
    record = read_record(path)
    assert record.environment.torch
    assert record.details.started_from is not None
    written = write_record(tmp_path, record)
    assert json.loads(written.read_text(encoding="utf-8")) == json.loads(path.read_text(encoding="utf-8"))
    before = written.read_bytes()
    assert write_record(tmp_path, read_record(written)).read_bytes() == before  # other records have its digest


@pytest.mark.parametrize("name", SUITE)
def test_a_record_comes_back_as_it_was_written(name: str, tmp_path: Path) -> None:
    machine = {"started_at": "2026-01-31T12:00:00+00:00", "start": {"load_average": 0.5}, "end": {"gpu_mhz": None}}
    environment = {"machine": machine, "versions": {"numpy": "2.0"}, "git_changed_files": 0}
    record = make_record(name, 2, environment=environment)
    path = write_record(tmp_path, record)
    assert path == tmp_path / "records" / f"{name}-seed2.json"
    assert read_record(path) == record
    assert read_records(tmp_path) == [record]


def test_the_keys_are_those_that_other_programs_read(tmp_path: Path) -> None:
    content = json.loads(write_record(tmp_path, make_record("colorization")).read_text(encoding="utf-8"))
    fixed = "schema_version configuration profile seed status metrics trivial gates history timing environment data"
    assert set(fixed.split()) <= set(content)
    assert content["schema_version"] == 1
    schema = msgspec.json.schema(Record)
    assert set(schema["$defs"]["Record"]["properties"]) == set(content)


def test_a_score_that_is_not_a_number_becomes_null(tmp_path: Path) -> None:
    path = write_record(tmp_path, make_record("vgg-frozen", metrics={"accuracy": float("nan")}))
    assert json.loads(path.read_text(encoding="utf-8"))["metrics"]["accuracy"] is None


def test_a_loss_as_large_as_float32_allows_can_be_read_again(tmp_path: Path) -> None:
    """As after a bit flip in a weight, on the machine that the record is to accuse."""
    record = make_record("seg-baseline", metrics={"present_dice": 0.1})
    record.history = {"training": [{"train_loss": 3.4e38, "validation_loss": 3.1e20}]}
    assert read_record(write_record(tmp_path, record)).history == record.history


def test_an_interrupted_write_leaves_the_old_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_record(tmp_path, make_record("vgg-frozen"))
    before = path.read_bytes()

    def full_disk(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("hw6core.files.os.fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_record(tmp_path, make_record("vgg-frozen", metrics={"accuracy": 0.1}))
    assert path.read_bytes() == before
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"schema_version": 2}, "has schema version 2; expected 1"),
        ({"surprise": 1}, "Object contains unknown field `surprise`"),
        ({"configuration": "../../etc"}, "Expected `str` matching regex ... - at `$.configuration`"),
        ({"seed": 7}, "is the record of vgg-frozen seed 7, which does not match its name"),
        ({"status": "running"}, "Invalid enum value 'running' - at `$.status`"),
        ({"metrics": {"accuracy": "0.9"}}, "Expected `int | float | null`, got `str` - at `$.metrics[...]`"),
        ({"gates": [GATE | {"direction": "over"}]}, "Invalid enum value 'over' - at `$.gates[0].direction`"),
        ({"environment": {"machine": {"end": {"cpu_mhz": float("nan")}}}}, "Expected `float` >= -1e+100 - at"),
        *(({"metrics": {"accuracy": float(text)}}, "Expected `float` ... - at `$.metrics[...]`")
          for text in ("nan", "inf", "-inf")),  # Python's JSON parser accepts them all
        ({"details": {"confusion_matrix": [[1, 2], [3]]}}, "a row and a column for each class - at `$.details`"),
        ({"details": {"confusion_matrix": [[1]], "class_names": ["a", "b"]}}, "a row and a column for each class"),
        ({"details": {"samples": "../../private.npz"}}, "matching regex ... - at `$.details.samples`"),
    ],
    ids=str,
)  # fmt: skip
def test_an_invalid_record_is_refused_with_the_place(change: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    path = write_record(tmp_path, make_record("vgg-frozen"))
    content = json.loads(path.read_text(encoding="utf-8")) | change
    path.write_text(json.dumps(content | {"checksum": checksum(content)}), encoding="utf-8")
    with pytest.raises(DataError) as caught:
        read_record(path)
    assert str(caught.value).startswith(str(path))
    assert all(part in str(caught.value) for part in sentence.split("..."))
    assert str(caught.value).endswith("; delete it and run again")


def test_the_checksum_detects_a_changed_digit_and_ignores_the_layout(tmp_path: Path) -> None:
    path = write_record(tmp_path, make_record("vgg-frozen", metrics={"accuracy": 0.31415}))
    text = path.read_text(encoding="utf-8")
    path.write_text(json.dumps(json.loads(text), sort_keys=True), encoding="utf-8")
    assert read_record(path).metrics["accuracy"] == 0.31415
    path.write_text(text.replace("0.31415", "0.91415"), encoding="utf-8")
    with pytest.raises(DataError, match=r"was changed after it was written: its checksum does not match; delete"):
        read_record(path)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "\0\0"])
def test_a_damaged_record_is_refused(tmp_path: Path, text: str) -> None:
    path = record_path(tmp_path, "vgg-frozen", 0)
    path.parent.mkdir()
    write_record(tmp_path, make_record("seg-baseline"))
    path.write_text(text, encoding="utf-8")
    for read in (lambda: read_record(path), lambda: read_records(tmp_path)):
        with pytest.raises(DataError, match=r"vgg-frozen-seed0\.json .*delete it and run again"):
            read()


def test_all_records_are_read_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name, seed in (("vgg-frozen", 0), ("seg-baseline", 11), ("seg-baseline", 2)):
        write_record(tmp_path, make_record(name, seed))
    found = [(record.configuration, record.seed) for record in read_records(tmp_path)]
    assert found == [("seg-baseline", 11), ("seg-baseline", 2), ("vgg-frozen", 0)]
