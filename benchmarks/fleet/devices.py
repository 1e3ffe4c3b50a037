"""Records and fingerprints of any number of results folders, grouped by device."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import msgspec

from benchmarks.engines.node import LOG
from benchmarks.fingerprint.comparison import CAUSES
from benchmarks.fingerprint.record import KEPT, LATEST, VERSION, Fingerprint, read_fingerprint
from benchmarks.results.gates import Finding, judge_run
from benchmarks.results.records import Details, Hardware, Record, read_record, record_files
from benchmarks.suite import Configuration
from hw6core.errors import DataError, visible

PHASES = ("alone", "together")  # folders of `run --every-gpu`


class Run(NamedTuple):
    """A record without its history, and the findings of its gates; ``phase``: one of `PHASES`, or empty."""

    phase: str
    record: Record
    findings: Sequence[Finding]


@dataclass
class Device:
    """A GPU of a node; for the CPU a node, or one of its results folders if there are several.

    Attributes:
        fingerprints: of this version, by a digest of what a comparison reads; equal ones are the same object.
        last_log_line: of a process that left no record.
    """

    node: str
    name: str
    uuid: str = ""
    runs: list[Run] = field(default_factory=list)
    fingerprints: dict[str, Fingerprint] = field(default_factory=dict)
    last_log_line: str = ""

    @property
    def hardware(self) -> list[Hardware]:
        """What NVML reported in each run."""
        return [entry for run in self.runs if (entry := run.record.environment.machine.hardware)]

    @property
    def xids(self) -> Counter[int]:
        """The driver's error events."""
        return Counter(xid for entry in self.hardware for xid in entry.xids or ())

    @property
    def index(self) -> int | None:
        return next((entry.index for entry in self.hardware if entry.index is not None), None)

    def count(self, name: str) -> float | None:
        """The sum of an error counter over all runs, or the share of time with throttling; None if unknown."""
        if name != "throttled_share":
            counts = [count for entry in self.hardware if (count := getattr(entry, name)) is not None]
            return sum(counts) if counts else None
        times = [times for entry in self.hardware if (times := entry.throttled_s) is not None]
        seconds = sum((run.record.timing.total_s or 0.0) + (run.record.timing.floors_s or 0.0) for run in self.runs)
        # Without "power": many GPUs are limited by it whenever they are busy.
        throttled_s = sum(found.get(reason, 0.0) for found in times for reason in ("thermal", "reliability"))
        return throttled_s / seconds if times and seconds else None

    def __str__(self) -> str:
        number = f"GPU {self.index}" if self.index is not None else self.name or self.uuid
        return visible(f"{self.node} {number}".strip())


def read_fleet(paths: Sequence[Path], configurations: Mapping[str, Configuration]) -> list[Device]:
    """The devices of all results folders at or below ``paths``, sorted; records of other configurations are ignored.

    Raises:
        DataError: a path has no results folders, or one contains something that cannot be read.
    """
    found_in = {path: list(_results_folders(path)) for path in paths}
    if empty := next((path for path, below in found_in.items() if not below), None):
        raise DataError(f"no results in {empty}; expected folders with records/, as `python -m benchmarks run` writes")
    folders = list(dict.fromkeys(folder.resolve() for below in found_in.values() for folder in below))
    devices: dict[tuple[str, str], Device] = {}
    device_in: dict[Path, Device] = {}
    unique: dict[str, Fingerprint] = {}

    def device_of(folder: Path, node: str | None, uuid: str | None) -> Device:
        device = Device(node or "", "" if uuid else folder.name, uuid or "")
        # The name of the node may change: a resumed container has another one.
        device_in[folder] = devices.setdefault(("", uuid) if uuid else (device.node, device.name), device)
        return device_in[folder]

    for folder in folders:
        phase = folder.parent.name if folder.parent.name in PHASES else ""
        for record in map(read_record, record_files(folder)):
            if configuration := configurations.get(record.configuration):
                run = Run(phase, record, judge_run(record, configuration, record.seed))
                record.history, record.details = {}, Details()  # saves memory: there may be thousands of records
                device_of(folder, record.environment.node, record.environment.gpu_uuid).runs.append(run)
        for path in filter(Path.exists, (folder / KEPT, folder / LATEST)):
            found = read_fingerprint(path)
            device = device_of(folder, found.environment.get("node"), found.environment.get("gpu_uuid"))
            if found.version == VERSION:
                compared = [*(found.environment.get(name) for name in ("device", *CAUSES)), found.networks]
                key = sha256(msgspec.json.encode(compared)).hexdigest()
                device.fingerprints[key] = unique.setdefault(key, found)
    above = {parent for folder in folders for parent in folder.parents}  # with the logs of whole nodes
    for folder in folders:
        has_log = (folder / LOG).exists()
        if folder not in above and not record_files(folder) and (has_log or folder not in device_in):
            # A GPU that fails in the first phase may be invisible in the second.
            twins = (folder, *(folder.parent.parent / phase / folder.name for phase in PHASES))
            twin = next((device_in[twin] for twin in twins if twin in device_in), None)
            device_in[folder] = device = twin or devices.setdefault(("", str(folder)), Device("", str(folder)))
            log = (folder / LOG).read_text(encoding="utf-8", errors="replace") if has_log else "no log"
            device.last_log_line = visible(log.strip().rpartition("\n")[2])
    on_node = Counter(device.node for device in devices.values())
    for device in devices.values():
        device.name = device.name if on_node[device.node] > 1 or not device.node else ""
    return sorted(devices.values(), key=lambda device: (device.node, device.index or 0, device.name, device.uuid))


def _results_folders(path: Path) -> Iterator[Path]:
    for folder, folders, files in os.walk(path):
        if "records" in folders or {KEPT, LOG} & {*files}:
            yield Path(folder)
        folders[:] = sorted({*folders} - {"records", "weights", "samples", "figures"})
