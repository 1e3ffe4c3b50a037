"""The schema describes every record, and an independent validator agrees with ours on what is none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator

from benchmarks.results.records import SCHEMA, read_record, write_record
from benchmarks.suite import PROFILES, SUITE
from hw6core.errors import DataError
from tests.record_factory import make_record

SCHEMA_CONTENT: dict[str, Any] = json.loads(SCHEMA.read_text(encoding="utf-8"))
VALIDATOR = Draft7Validator(SCHEMA_CONTENT)
GATE = {"metric": "accuracy", "direction": "above", "threshold": 0.6, "share_of_trivial": None}


def content_of(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf-8")))


def test_the_schema_is_one() -> None:
    Draft7Validator.check_schema(SCHEMA_CONTENT)


def test_the_schema_knows_the_profiles_of_the_suite() -> None:
    assert SCHEMA_CONTENT["properties"]["profile"]["enum"] == list(PROFILES)


@pytest.mark.parametrize("status", ["completed", "error", "not run"])
@pytest.mark.parametrize("name", SUITE)
def test_every_record_is_valid(name: str, status: str, tmp_path: Path) -> None:
    record = make_record(name, 2, status=status, message="" if status == "completed" else "lost")
    assert list(VALIDATOR.iter_errors(content_of(write_record(tmp_path, record)))) == []


def test_what_a_run_measures_is_valid(tmp_path: Path) -> None:
    machine = {"started_at": "2026-01-31T12:00:00+00:00", "start": {"load_average": 0.5}, "end": {"gpu_mhz": None}}
    record = make_record(
        "seg-baseline",
        metrics={"present_dice": float("nan")},  # null on disk
        timing={"seconds_to_gate": None, "samples_per_s": 811.5},
        environment={"machine": machine, "versions": {"numpy": "2.0"}, "git_changed_files": 0},
        data={"fingerprint": "ba7816bf", "samples": {"train": 300, "validation": 50, "test": 50}},
        details={"best_epochs": {"training": 36}, "samples": "samples/seg-baseline-seed0.npz", "started_from": {}},
    )
    path = write_record(tmp_path, record)
    assert list(VALIDATOR.iter_errors(content_of(path))) == []
    assert read_record(path).environment["machine"] == machine


@pytest.mark.parametrize(
    "change",
    [
        {"schema_version": 2},
        {"schema_version": "1"},
        {"schema_version": True},
        {"surprise": 1},
        {"configuration": "../../etc"},
        {"configuration": "VGG"},
        {"configuration": None},
        {"profile": None},
        {"profile": "turbo"},
        {"seed": -1},
        {"seed": "0"},
        {"seed": 0.5},
        {"seed": True},
        {"status": "running"},
        {"message": None},
        {"metrics": None},
        {"metrics": [0.9]},
        {"metrics": {"accuracy": "0.9"}},
        {"metrics": {"accuracy": True}},
        {"metrics": {"accuracy": [0.9]}},
        {"trivial": {"accuracy": "0.1"}},
        {"gates": {}},
        {"gates": ["accuracy > 0.6"]},
        {"gates": [{key: value for key, value in GATE.items() if key != "threshold"}]},
        {"gates": [GATE | {"direction": "over"}]},
        {"gates": [GATE | {"threshold": "0.6"}]},
        {"gates": [GATE | {"waived": True}]},
        {"history": {"training": {}}},
        {"history": {"training": [{"train_loss": 0.5}]}},
        {"history": {"training": [{"epoch": 0}]}},
        {"history": {"training": [{"epoch": 1, "train_loss": "nan"}]}},
        {"timing": {"total_s": "260"}},
        {"environment": {"device_name": 7}},
        {"environment": {"machine": "fast"}},
        {"environment": {"machine": {"start": []}}},
        {"data": {"kind": "imagined"}},
        {"data": {"fingerprint": 7}},
        {"data": {"samples": {"train": -1}}},
        {"data": {"samples": {"train": 0.5}}},
        {"weights": None},
        {"settings": []},
        {"details": {"class_names": [1]}},
        {"details": {"pooled_dice": ["0.9"]}},
        {"details": {"support_frames": [None]}},
        {"details": {"confusion_matrix": [[0.5]]}},
        {"details": {"best_epochs": {"training": 0}}},
        {"details": {"samples": "../../private.npz"}},
        {"details": {"samples": "/samples/x.npz"}},
    ],
    ids=str,
)
def test_both_validators_refuse_what_is_no_record(change: dict[str, Any], tmp_path: Path) -> None:
    path = write_record(tmp_path, make_record("vgg-frozen"))
    content = content_of(path) | change
    assert not VALIDATOR.is_valid(content)
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(DataError, match=rf"(?s){path.name}.*{next(iter(change)).replace('_', '.')}.*delete it and run"):
        read_record(path)


@pytest.mark.parametrize("name", sorted(SCHEMA_CONTENT["required"]))
def test_both_validators_miss_a_key_that_is_left_out(name: str, tmp_path: Path) -> None:
    path = write_record(tmp_path, make_record("vgg-frozen"))
    content = content_of(path)
    del content[name]
    assert not VALIDATOR.is_valid(content)
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(DataError, match="delete it and run again"):
        read_record(path)
