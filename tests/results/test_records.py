"""Records on disk: whole or not at all, and refused when they are not what they claim to be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.results.records import checksum, read_record, read_records, record_path, write_record
from hw6core.errors import DataError
from tests.record_factory import make_record


def test_a_record_comes_back_as_it_was_written(tmp_path: Path) -> None:
    record = make_record("seg-augmented", 2)
    path = write_record(tmp_path, record)
    assert path == tmp_path / "records" / "seg-augmented-seed2.json"
    assert read_record(path) == record
    assert read_records(tmp_path) == [record]


def test_the_keys_are_those_that_other_programs_read(tmp_path: Path) -> None:
    content = json.loads(write_record(tmp_path, make_record("colorization")).read_text(encoding="utf-8"))
    fixed = "schema_version configuration profile seed status metrics trivial gates history timing environment data"
    assert set(fixed.split()) <= set(content)
    assert content["schema_version"] == 1


def test_a_score_that_is_not_a_number_becomes_null(tmp_path: Path) -> None:
    path = write_record(tmp_path, make_record("vgg-frozen", metrics={"accuracy": float("nan")}))
    assert json.loads(path.read_text(encoding="utf-8"))["metrics"] == {"accuracy": None}


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
        ({"schema_version": 99}, "has schema version 99; expected 1"),
        ({"surprise": 1}, "the record must not contain {'surprise'} properties"),
        ({"metrics": [0.9]}, "metrics must be object"),
        ({"seed": 7}, "is the record of vgg-frozen seed 7; its name says otherwise"),
    ],
)
def test_a_record_edited_by_hand_is_refused(tmp_path: Path, change: dict[str, Any], sentence: str) -> None:
    path = write_record(tmp_path, make_record("vgg-frozen"))
    content = json.loads(path.read_text(encoding="utf-8")) | change
    path.write_text(json.dumps(content | {"checksum": checksum(content)}), encoding="utf-8")
    with pytest.raises(DataError, match=sentence):
        read_record(path)


def test_one_digit_that_is_another_is_noticed_and_another_layout_is_not(tmp_path: Path) -> None:
    path = write_record(tmp_path, make_record("vgg-frozen", metrics={"accuracy": 0.31415}))
    text = path.read_text(encoding="utf-8")
    path.write_text(json.dumps(json.loads(text), sort_keys=True), encoding="utf-8")
    assert read_record(path).metrics == {"accuracy": 0.31415}
    path.write_text(text.replace("0.31415", "0.91415"), encoding="utf-8")
    with pytest.raises(DataError, match=r"was changed after it was written: its checksum does not fit; delete it and"):
        read_record(path)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "\0\0"])
def test_a_damaged_record_is_refused(tmp_path: Path, text: str) -> None:
    path = record_path(tmp_path, "vgg-frozen", 0)
    path.parent.mkdir()
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match="delete it and run again"):
        read_record(path)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999"])
def test_a_number_that_is_none_is_refused(tmp_path: Path, number: str) -> None:
    """Python's parser takes them all, and infinity is above every bound."""
    path = write_record(tmp_path, make_record("vgg-frozen", metrics={"accuracy": 0.31415}))
    text = path.read_text(encoding="utf-8")
    assert text.count("0.31415") == 1
    path.write_text(text.replace("0.31415", number), encoding="utf-8")
    with pytest.raises(DataError, match=rf"is not a readable record \({number} is no number"):
        read_record(path)


def test_one_damaged_record_is_not_passed_over(tmp_path: Path) -> None:
    write_record(tmp_path, make_record("seg-baseline"))
    record_path(tmp_path, "vgg-frozen", 0).write_text("{", encoding="utf-8")
    with pytest.raises(DataError, match=r"vgg-frozen-seed0\.json is not a readable record"):
        read_records(tmp_path)


def test_all_records_are_read_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name, seed in (("vgg-frozen", 0), ("seg-baseline", 11), ("seg-baseline", 2)):
        write_record(tmp_path, make_record(name, seed))
    found = [(record.configuration, record.seed) for record in read_records(tmp_path)]
    assert found == [("seg-baseline", 11), ("seg-baseline", 2), ("vgg-frozen", 0)]


def test_a_folder_without_records_says_how_to_make_them(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="make them: python -m benchmarks run"):
        read_records(tmp_path)
