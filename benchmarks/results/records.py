"""The record that a run leaves behind: plain JSON, written whole or not at all, read without torch."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, Never

from fastjsonschema import JsonSchemaValueException
from fastjsonschema import compile as compile_schema

from hw6core.errors import DataError
from hw6core.files import replacing

SCHEMA = Path(__file__).with_name("record.schema.json")
SCHEMA_VERSION = 1
_MEND = "delete it and run again"
# The parts that a run's time falls into, in order: keys of ``timing``, and their names for people. None holds another.
TIME_PARTS = {
    "data_s": "data",
    "base_weights_s": "weights",
    "warmup_s": "warm-up",
    "training_s": "training",
    "evaluation_s": "evaluation",
}
Status = Literal["completed", "error", "not run"]
History = list[dict[str, float]]


@dataclass
class Record:
    """Everything that judging and reporting need to know about one configuration trained with one seed.

    Attributes:
        status: "completed", "error" or "not run"; ``message`` says why it is not the first.
        metrics: final scores by name: test scores, or validation scores where there is no test split.
        trivial: what the best constant answer scores, by the same names.
        gates: the gates as they stood when the run was made; judging reads those of the suite and compares.
        history: for each curve, its epochs (see `hw6core.train.Training`).
        timing: seconds (``*_s``), ``epochs`` trained, ``best_epoch``, ``samples_per_s``, ``*_to_gate``.
        environment: machine, versions, device, precision.
        data: ``kind`` ("real" or "synthetic"), ``fingerprint`` of the files read, sample counts; of real data
            ``unpublished``: how many files are not as published, and the ``first`` of them.
        weights: what the run started from, for instance "random", "ImageNet", "stand-in".
        settings: the configuration's numbers under this profile.
        details: what the report shows beyond the metrics, for instance Dice per class.
    """

    configuration: str
    profile: str
    seed: int
    status: Status
    message: str = ""
    metrics: dict[str, float | None] = field(default_factory=dict)
    trivial: dict[str, float] = field(default_factory=dict)
    gates: list[dict[str, Any]] = field(default_factory=list)
    history: dict[str, History] = field(default_factory=dict)
    timing: dict[str, float | None] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    weights: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION


def record_path(results: Path, configuration: str, seed: int) -> Path:
    """Where the record of a run lies in a results folder."""
    return results / "records" / f"{configuration}-seed{seed}.json"


def write_record(results: Path, record: Record) -> Path:
    """Write a record under its name once it is complete.

    Raises:
        OSError: the folder cannot be written.
    """
    path = record_path(results, record.configuration, record.seed)
    content = json.loads(json.dumps(_without_nan(asdict(record)), allow_nan=False))
    write_atomically(path, json.dumps(content | {"checksum": checksum(content)}, indent=1) + "\n")
    return path


def checksum(content: Mapping[str, Any]) -> str:
    """Of a record's JSON without its checksum, however it is laid out: against accidents, not against forgers."""
    rest = {name: value for name, value in content.items() if name != "checksum"}
    return sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()[:16]


def read_record(path: Path) -> Record:
    """Read a record.

    Raises:
        DataError: it cannot be read, is damaged, or is of another schema version.
    """
    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text, parse_constant=_refuse, parse_float=_finite, parse_int=_exact)
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} is not a readable record ({error}); {_MEND}") from error
    if not isinstance(content, dict):
        raise DataError(f"{path} holds JSON of the type {type(content).__name__}; expected a record; {_MEND}")
    if content.get("schema_version") != SCHEMA_VERSION:
        found = content.get("schema_version")
        raise DataError(f"{path} has schema version {found}; expected {SCHEMA_VERSION}; {_MEND}")
    try:
        _validator()(content)
    except JsonSchemaValueException as error:
        reason = error.message.removeprefix("data.").replace("data ", "the record ", 1)
        raise DataError(f"{path}: {reason}; {_MEND}") from error
    if content.pop("checksum") != checksum(content):
        raise DataError(f"{path} was changed after it was written: its checksum does not fit; {_MEND}")
    record = Record(**content)
    if not _is_square(record.details):
        raise DataError(f"{path}: details.confusion_matrix must have a row and a column for each class; {_MEND}")
    if record_path(Path(), record.configuration, record.seed).name != path.name:
        owner = f"{record.configuration} seed {record.seed}"
        raise DataError(f"{path} is the record of {owner}; its name says otherwise; {_MEND}")
    return record


def _is_square(details: Mapping[str, Any]) -> bool:
    """Whether the confusion matrix, if there is one, has a row and a column for each class: no schema can say that."""
    matrix = details.get("confusion_matrix")
    if matrix is None:
        return True
    classes = len(details.get("class_names", matrix))
    return classes > 0 and {len(row) for row in (matrix, *matrix)} == {classes}


@cache
def _validator() -> Callable[[object], object]:
    """Compiled from the schema; raises on what that does not describe."""
    validator: Callable[[object], object] = compile_schema(json.loads(SCHEMA.read_text(encoding="utf-8")))
    return validator


def record_files(results: Path) -> list[Path]:
    """The records of a results folder, by name; hidden files, such as macOS leaves beside each, are none."""
    return sorted(path for path in (results / "records").glob("*.json") if not path.name.startswith("."))


def check_records(results: Path, replaced: Collection[str]) -> None:
    """Read the records that a report of this folder will find beside those that are about to be made.

    Args:
        replaced: names of the latter's files.

    Raises:
        DataError: one cannot be read.
    """
    for path in record_files(results):
        if path.name not in replaced:
            read_record(path)


def read_records(results: Path) -> list[Record]:
    """All records of a results folder, in the order of their names.

    Raises:
        DataError: there is no such folder, or a record cannot be read.
    """
    return list(iterate_records(results))


def iterate_records(results: Path) -> Iterator[Record]:
    """The same one by one: who needs the first alone does not read a thousand."""
    folder = results / "records"
    if not folder.is_dir():
        raise DataError(f"no records in {results}; expected {folder}; make them: python -m benchmarks run")
    yield from map(read_record, record_files(results))


def write_atomically(path: Path, text: str) -> None:
    """Write a text file so that its name only ever shows a complete one."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _refuse(constant: str) -> Never:
    raise ValueError(f"{constant} is no number that can be computed with")


def _finite(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _refuse(text)


def _exact(text: str) -> int:
    return int(text) if len(text) < 20 else _refuse(f"{text[:20]}...")


def _without_nan(value: Any) -> Any:
    """JSON has no NaN: such a number becomes null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _without_nan(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(entry) for entry in value]
    return value
