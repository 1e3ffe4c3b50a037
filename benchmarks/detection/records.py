"""Every training of the experiment, one JSON line each: what is there is not trained again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from benchmarks.detection.detectors import difference, fingerprint
from benchmarks.detection.faults import FAULTS, Fault
from benchmarks.detection.trainings import TRAININGS, Run, run

FAULTY, CLEAN = 10, 201  # seeds of each fault, and of each training without one
FIRST_FAULTY_SEED = 1000


class Fingerprinted(Struct, frozen=True):
    """Where the fingerprint of a machine with a fault begins to differ; "" if nowhere."""

    training: str
    fault: str
    strength: str
    difference: str


class Files:
    """The two files of a folder; a last line that an interruption cut off is dropped."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._runs, self._fingerprints = folder / "runs.jsonl", folder / "fingerprints.jsonl"

    def runs(self) -> list[Run]:
        return [msgspec.json.decode(line, type=Run) for line in _lines(self._runs)]

    def fingerprints(self) -> list[Fingerprinted]:
        return [msgspec.json.decode(line, type=Fingerprinted) for line in _lines(self._fingerprints)]

    def add(self, found: Run | Fingerprinted) -> None:
        path = self._runs if isinstance(found, Run) else self._fingerprints
        with path.open("ab") as file:
            file.write(msgspec.json.encode(found) + b"\n")


def _lines(path: Path) -> list[bytes]:
    if not path.exists():
        return []
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if whole != content:
        path.write_bytes(whole)
    return whole.splitlines()


def plan(faults: Sequence[Fault], faulty: int, clean: int) -> Iterator[tuple[str, int, Fault | None]]:
    """In rounds, so that whatever is done when it is stopped is a smaller table of all faults."""
    share = -(-clean // faulty)
    names = [name for name in TRAININGS if any(fault.training == name for fault in faults)]
    for turn in range(faulty):
        yield from (
            (name, seed, None) for name in names for seed in range(turn * share, min((turn + 1) * share, clean))
        )
        yield from ((fault.training, FIRST_FAULTY_SEED + turn, fault) for fault in faults)


def make(folder: Path, faults: Sequence[Fault] = FAULTS, faulty: int = FAULTY, clean: int = CLEAN) -> None:
    """Train and fingerprint what is not there yet."""
    files = Files(folder)
    seen = {(entry.training, entry.fault, entry.strength) for entry in files.fingerprints()}
    sound = {name: fingerprint(name) for name in TRAININGS}
    for fault in (None, *faults):
        for name in TRAININGS if fault is None else (fault.training,):
            told = (fault.name, fault.strength) if fault else ("", "")
            if (name, *told) not in seen:
                files.add(Fingerprinted(name, *told, difference(sound[name], fingerprint(name, fault))))
    done = {(entry.training, entry.seed, entry.fault, entry.strength) for entry in files.runs()}
    todo = [
        entry
        for entry in plan(faults, faulty, clean)
        if (*entry[:2], *((entry[2].name, entry[2].strength) if entry[2] else ("", ""))) not in done
    ]
    for number, (name, seed, fault) in enumerate(todo, start=1):
        files.add(run(name, seed, fault))
        if not number % 50 or number == len(todo):
            print(f"{number} of {len(todo)} trainings", flush=True)
