"""Records and fingerprints of any number of results folders, by the device that they were made on."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import msgspec

from benchmarks.fingerprint.comparison import CAUSES
from benchmarks.fingerprint.files import KEPT, LATEST
from benchmarks.fingerprint.record import Fingerprint, read_fingerprint
from benchmarks.results.gates import Finding, judge_run
from benchmarks.results.records import Details, Hardware, Record, read_record, record_files
from benchmarks.suite import Configuration
from hw6core.errors import DataError, visible

PHASES, LOG = ("alone", "together"), "every-gpu.log"  # what `run --every-gpu` leaves


class Run(NamedTuple):
    """A record without its history, and what the suite's gates say of it; ``phase``: one of `PHASES`, or empty."""

    phase: str
    record: Record
    findings: Sequence[Finding]


@dataclass
class Device:
    """A GPU of a node; on the CPU a node, or one of several results folders of a node.

    Attributes:
        fingerprints: by a digest of what a comparison looks at; equal ones are one object.
        left: of a folder without any record or fingerprint, the last line of its log.
    """

    node: str
    name: str
    uuid: str = ""
    runs: list[Run] = field(default_factory=list)
    fingerprints: dict[str, Fingerprint] = field(default_factory=dict)
    left: str = ""

    @property
    def hardware(self) -> list[Hardware]:
        """What NVML told of its runs."""
        return [told for run in self.runs if (told := run.record.environment.machine.hardware)]

    @property
    def index(self) -> int | None:
        return next((told.index for told in self.hardware if told.index is not None), None)

    def count(self, name: str) -> float | None:
        """An error's count in all runs, or the share of them in which the clock was held down; None: nobody told."""
        if name != "throttled_share":
            counts = [count for told in self.hardware if (count := getattr(told, name)) is not None]
            return sum(counts) if counts else None
        times = [times for told in self.hardware if (times := told.throttled_s) is not None]
        seconds = sum(run.record.timing.total_s or 0.0 for run in self.runs)
        # Power is what limits many cards whenever they work.
        held = sum(found.get(reason, 0.0) for found in times for reason in ("thermal", "reliability"))
        return held / seconds if times and seconds else None

    def __str__(self) -> str:
        number = f"GPU {self.index}" if self.index is not None else self.name or self.uuid
        return visible(f"{self.node} {number}".strip())


def read_fleet(paths: Sequence[Path], configurations: Mapping[str, Configuration]) -> list[Device]:
    """The devices of all results folders at or below those named, in order.

    Records of other configurations are left out.

    Raises:
        DataError: there is no such folder, or something in one cannot be read.
    """
    folders = list(dict.fromkeys(folder.resolve() for path in paths for folder in _results_folders(path)))
    if not folders:
        named = ", ".join(map(str, paths))
        raise DataError(f"no results in {named}; expected folders with records/; make them: python -m benchmarks run")
    devices: dict[tuple[str, str], Device] = {}
    unique: dict[str, Fingerprint] = {}
    empty = dict.fromkeys(folders)

    def device_of(folder: Path, node: str | None, uuid: str | None) -> Device:
        empty.pop(folder, None)
        name = "" if uuid else folder.name
        return devices.setdefault((node or "", uuid or name), Device(node or "", name, uuid or ""))

    for folder in folders:
        phase = folder.parent.name if folder.parent.name in PHASES else ""
        for record in map(read_record, record_files(folder)):
            if configuration := configurations.get(record.configuration):
                run = Run(phase, record, judge_run(record, configuration, record.seed))
                record.history, record.details = {}, Details()  # of thousands, that would fill the memory
                device_of(folder, record.environment.node, record.environment.gpu_uuid).runs.append(run)
        for path in filter(Path.exists, (folder / KEPT, folder / LATEST)):
            made = read_fingerprint(path)
            looked_at = [made.version, *(made.environment.get(name) for name in ("device", *CAUSES)), made.networks]
            key = sha256(msgspec.json.encode(looked_at)).hexdigest()
            device = device_of(folder, made.environment.get("node"), made.environment.get("gpu_uuid"))
            device.fingerprints[key] = unique.setdefault(key, made)
    on_node = Counter(device.node for device in devices.values())
    for device in devices.values():
        device.name = device.name if on_node[device.node] > 1 else ""
    for folder in empty:
        log = (folder / LOG).read_text(encoding="utf-8", errors="replace") if (folder / LOG).exists() else "no log"
        devices[str(folder), ""] = Device("", str(folder), left=visible(log.strip().rpartition("\n")[2]))
    return sorted(devices.values(), key=lambda device: (device.node, device.index or 0, device.name, device.uuid))


def _results_folders(path: Path) -> Iterator[Path]:
    for folder, folders, files in os.walk(path):
        if "records" in folders or {KEPT, LOG} & {*files}:
            yield Path(folder)
        folders[:] = sorted({*folders} - {"records", "weights", "samples", "figures"})
