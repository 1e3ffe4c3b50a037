"""The record that a run leaves behind: plain JSON, written whole or not at all, read without torch.

Its JSON Schema: `python -m benchmarks.results.records`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from statistics import mean
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType, field

from benchmarks.suite import CONTROL, STAND_IN, SUITE, Configuration, Gate, Profile
from hw6core.errors import DataError
from hw6core.files import atomic_write

SCHEMA_VERSION = 1
_FIX = "delete it and run again"
# The parts of a run's time, in order and without overlap: fields of `Timing`, and their names in reports.
TIME_PARTS = {"data_s": "data", "warmup_s": "warm-up", "training_s": "training", "evaluation_s": "evaluation"}

# Finite and not absurdly large: a loss in float32 reaches 3e38 on a faulty machine. An integer stays one, so that a
# record that is read and written again has the same bytes.
_LARGEST, _LARGEST_FLOAT = 10**18, 1e100
Number = Annotated[int, Meta(ge=-_LARGEST, le=_LARGEST)] | Annotated[float, Meta(ge=-_LARGEST_FLOAT, le=_LARGEST_FLOAT)]
Count = Annotated[int, Meta(ge=0, le=_LARGEST)]
Status = Literal["completed", "error", "not run"]
History = Sequence[Mapping[str, Number | None]]  # one entry per epoch


class Timing(Struct):
    """Seconds (``*_s``) of a run's parts, and how much it trained; None if unknown.

    ``floors_s`` is not part of ``total_s``: floors are computed once for all runs on the same data.
    ``base_weights_s`` is in older records only: training a stand-in is now a run of its own.
    """

    data_s: Number | None = None
    base_weights_s: Number | None = None
    interruptions: Number | None = None
    warmup_s: Number | None = None
    training_s: Number | None = None
    evaluation_s: Number | None = None
    epochs: Number | None = None
    best_epoch: Number | None = None
    samples: Number | None = None
    samples_per_s: Number | None = None
    least_training_s: Number | None = None
    share_of_attainable: Number | None = None
    epochs_to_gate: Number | None = None
    seconds_to_gate: Number | None = None
    total_s: Number | None = None
    floors_s: Number | UnsetType | None = UNSET


class Hardware(Struct):
    """The GPU of a run, and by how much its error counters rose during the run (NVML's, see `monitor.Meter`).

    Attributes:
        index: on its node.
        xids: the driver's error events, by NVIDIA's numbers.
        remapped_rows: memory rows taken out of use, including those for which there was no spare row.
        nvlink_errors: of all links together.
        throttled_s: seconds for which "power", "thermal" or "reliability" reduced the clock.
        not_told: the counters above that this device or driver does not provide; they are None.
    """

    uuid: str | None = None
    serial: str | None = None
    index: Count | None = None
    xids: list[Count] | None = None
    ecc_corrected: Count | None = None
    ecc_uncorrected: Count | None = None
    remapped_rows: Count | None = None
    pcie_replays: Count | None = None
    nvlink_errors: Count | None = None
    throttled_s: dict[str, Number] | None = None
    not_told: list[str] = []


class Machine(Struct):
    """The state of the machine at the start and end of a run, and peaks in between."""

    started_at: str | None = None
    start: dict[str, Number | str | None] = {}
    end: dict[str, Number | str | None] = {}
    peak_memory_gib: Number | None = None
    peak_device_memory_gib: Number | None = None
    energy_j: Number | None = None
    hardware: Hardware | None = None  # of a GPU


class Environment(Struct):
    """See `benchmarks.machine.environment.environment`; ``ceiling``: the device's limits, as measured."""

    node: str | None = None
    device: str | None = None
    device_name: str | None = None
    device_memory_gib: Number | None = None
    precision: str | None = None
    mode: str | None = None
    threads: Count | None = None
    cpu: str | None = None
    cpu_cores: Count | None = None
    cpu_quota: Number | None = None
    python: str | None = None
    torch: str | None = None
    torchvision: str | None = None
    cuda: str | None = None
    cudnn: Count | None = None
    driver: str | None = None
    gpu_uuid: str | None = None
    system: str | None = None
    container: str | None = None
    image: str | None = None
    versions: dict[str, str] | None = None
    packages: str | None = None
    git_commit: str | None = None
    git_changed_files: Count | None = None
    source: str | None = None
    ceiling: dict[str, Number] | None = None
    machine: Machine = field(default_factory=Machine)


# Hardware and software of a run; the state of the machine during the run is separate.
ENVIRONMENT = tuple(name for name in Environment.__struct_fields__ if name != "machine")


class Unpublished(Struct):
    """The number of data files that are not as published, and the names of the first ones."""

    count: Count
    first: list[str]


class Data(Struct, omit_defaults=True):
    """The data of a run: a digest of its files and the number of samples per split; ``unpublished``: of real data.

    ``drawn``: the version and seed of drawn data, whose files differ slightly between kinds of processors.
    """

    kind: Literal["real", "synthetic"] | None = None
    fingerprint: str | None = None
    samples: dict[str, Count] | None = None
    drawn: str | None = None
    unpublished: Unpublished | None = None


class Details(Struct, omit_defaults=True):
    """What the report shows beyond the metrics, and what decides whether a record can be reused.

    Attributes:
        infrastructure, weights_missing, unexpected: why there is no result: the machine failed, the initial weights
            were missing, the suite has a fault.
        pooled_dice: for each class, over all pixels of the test split; None: neither present nor predicted.
        samples: the file with pictures, relative to the results folder.
        best_epochs: of each curve.
        not_recorded: why no CUDA graph was captured although it was requested (named so in older records).
        gradient_accumulation: the number of parts of a batch that did not fit into memory.
        weights_digest: of the weights that the run saved; None if it saved none.
        learned: in deterministic mode, a digest of the best weights of each curve.
        movement: of each curve, the distance of its best weights from its initial ones, relative to the latter, per
            layer.
        started_from: a digest of the record of each run that this one started from.
    """

    infrastructure: bool = False
    weights_missing: bool = False
    unexpected: bool = False
    class_names: list[str] | None = None
    pooled_dice: list[Number | None] | None = None
    support_frames: list[Count] | None = None
    frame_present_dice: list[Number | None] | None = None
    confusion_matrix: list[list[Count]] | None = None
    samples: Annotated[str, Meta(pattern=r"^samples/[a-z0-9-]+[.]npz$")] | None = None
    weights_digest: str | UnsetType | None = UNSET
    learned: dict[str, str] | None = None
    movement: dict[str, dict[str, Number]] | None = None
    not_recorded: str | None = None
    gradient_accumulation: Count | None = None
    best_epochs: dict[str, Count] | None = None
    limited_by: str | None = None
    nondeterministic_operations: list[str] | None = None
    started_from: dict[str, str] | None = None

    def __post_init__(self) -> None:
        matrix = self.confusion_matrix
        if matrix is not None and {len(row) for row in (self.class_names or matrix, *matrix)} != {len(matrix)}:
            raise ValueError("confusion_matrix must have a row and a column for each class")


class Record(Struct, forbid_unknown_fields=True):
    """Everything that judging and reporting need to know about one configuration trained with one seed.

    Attributes:
        status: "completed", "error" or "not run"; ``message`` is the reason for the last two.
        metrics: final scores by name: test scores, or validation scores if there is no test split.
        trivial: the scores of the best constant answer, by the same names.
        floors: the scores of answers without training, by floor and metric; older records have none.
        gates: the suite's gates at the time of the run; a record with other gates than the current ones is refused.
        history: the epochs of each curve (see `hw6core.training.Training`).
        weights: the initial weights, for instance "random", "ImageNet", "stand-in".
        settings: the configuration's numbers under this profile.
        checksum: of everything else, set when the record is written.
    """

    configuration: Annotated[str, Meta(pattern="^[a-z0-9][a-z0-9-]*$")]
    profile: Profile
    seed: Count
    status: Status
    message: str = ""
    metrics: dict[str, Number | None] = {}
    trivial: dict[str, Number] = {}
    floors: dict[str, dict[str, Number]] | UnsetType = UNSET
    gates: tuple[Gate, ...] = ()
    history: dict[str, History] = {}
    timing: Timing = field(default_factory=Timing)
    environment: Environment = field(default_factory=Environment)
    data: Data = field(default_factory=Data)
    weights: str = ""
    settings: dict[str, Any] = {}
    details: Details = field(default_factory=Details)
    schema_version: int = SCHEMA_VERSION
    checksum: str = ""


def record_path(results: Path, configuration: str, seed: int) -> Path:
    """The path of a run's record in a results folder; a stand-in's is no result and is kept beside its weights."""
    return results / ("weights" if configuration == STAND_IN.id else "records") / f"{configuration}-seed{seed}.json"


def write_record(results: Path, record: Record) -> Path:
    """Set a record's checksum and write the record atomically.

    Raises:
        OSError: the folder cannot be written.
    """
    path = record_path(results, record.configuration, record.seed)
    # JSON has no NaN: it becomes null.
    content = json.loads(json.dumps(msgspec.to_builtins(record)), parse_constant=lambda constant: None)
    # Records of earlier versions have neither and must keep their bytes.
    for part, name in ((content["environment"], "node"), (content["environment"]["machine"], "hardware")):
        if part[name] is None:
            del part[name]
    record.checksum = checksum(content)
    write_atomically(path, json.dumps(content | {"checksum": record.checksum}, indent=1) + "\n")
    return path


def checksum(content: Mapping[str, Any]) -> str:
    """The checksum of a record's JSON, whatever its layout; it detects accidents, not forgery."""
    rest = {name: value for name, value in content.items() if name != "checksum"}
    return sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()[:16]


def read_record(path: Path) -> Record:
    """Read a record.

    Raises:
        DataError: it cannot be read, is damaged, or has another schema version.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} is not a readable record ({error}); {_FIX}") from error
    if not isinstance(content, dict):
        raise DataError(f"{path} contains JSON of the type {type(content).__name__}; expected a record; {_FIX}")
    if content.get("schema_version") != SCHEMA_VERSION:
        found = content.get("schema_version")
        raise DataError(f"{path} has schema version {found}; expected {SCHEMA_VERSION}; {_FIX}")
    try:
        record = msgspec.convert(content, Record)
    except msgspec.ValidationError as error:
        raise DataError(f"{path}: {error}; {_FIX}") from error
    if record.checksum != checksum(content):
        raise DataError(f"{path} was changed after it was written: its checksum does not match; {_FIX}")
    if record_path(Path(), record.configuration, record.seed).name != path.name:
        owner = f"{record.configuration} seed {record.seed}"
        raise DataError(f"{path} is the record of {owner}, which does not match its name; {_FIX}")
    return record


def record_files(results: Path) -> list[Path]:
    """The records of a results folder, by name; hidden files, such as those of macOS, are ignored."""
    return sorted(path for path in (results / "records").glob("*.json") if not path.name.startswith("."))


def read_records(results: Path) -> list[Record]:
    """All records of a results folder, in the order of their names.

    Raises:
        DataError: there is no such folder, or a record cannot be read.
    """
    folder = results / "records"
    if not folder.is_dir():
        raise DataError(f"no records in {results}; expected {folder}; make them: python -m benchmarks run")
    return [read_record(path) for path in record_files(results)]


def by_configuration(records: Iterable[Record]) -> dict[str, list[Record]]:
    """The records of each configuration that has any, in the suite's order."""
    found: dict[str, list[Record]] = {name: [] for name in SUITE}
    for record in records:
        found.get(record.configuration, []).append(record)
    return {name: runs for name, runs in found.items() if runs}


def best_floor(record: Record, configuration: Configuration, gate: Gate) -> tuple[float | None, str]:
    """The best floor that each run must beat, by the gate's direction, and its name; (None, "") without any."""
    known = ((name, floor_score(record, name, gate)) for name in configuration.floors if name != CONTROL)
    scores: dict[str, float] = {name: score for name, score in known if score is not None}
    better = max if gate.direction == "above" else min
    best = better(scores, key=lambda name: scores[name], default="")
    return scores.get(best), best


def floor_score(record: Record, name: str, gate: Gate) -> float | None:
    """The score of a floor by its name; None if the record has none that is finite."""
    value = (record.floors or {}).get(name, {}).get(gate.metric)
    return value if value is not None and math.isfinite(value) else None


def mean_time(runs: Iterable[Record], part: str) -> float | None:
    """The mean of a field of `Timing` over the runs that have it."""
    values = [value for run in runs if (value := getattr(run.timing, part)) is not None]
    return mean(values) if values else None


def write_atomically(path: Path, text: str) -> None:
    """Write a text file so that its path never holds a partial one."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    print(json.dumps(msgspec.json.schema(Record), indent=1))
