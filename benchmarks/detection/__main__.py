"""`make detection`: train with each fault and without faults, and fill docs/detection.md.

The trainings are one JSON line each; those that are there already are not repeated.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import torch

from benchmarks.detection.faults import FAULTS, Fault, sound
from benchmarks.detection.page import write_page
from benchmarks.detection.trainings import Run, run
from benchmarks.exits import exit_code_of
from benchmarks.interruption import exit_process
from benchmarks.options import read_option

RESULTS = Path(__file__).parents[2] / "results" / "detection"
FAULTY, CLEAN = 10, 201  # seeds of each fault, and of each training without one
FIRST_FAULTY_SEED = 1000


def main() -> int:
    """Run the experiment; it resumes where an earlier call was stopped."""
    torch.set_num_threads(1)  # fixes the order of sums; nothing here is large enough for two threads
    for path in write_page(make(read_option("RESULTS", {}) or RESULTS)):
        print(f"wrote {path}")
    return 0


def make(folder: Path, faults: Sequence[Fault] = FAULTS, faulty: int = FAULTY, clean: int = CLEAN) -> list[Run]:
    """Train what is missing and return all runs; a last line that was cut off by an interruption is replaced."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "runs.jsonl"
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    whole = [line for line in lines if line.endswith(b"\n")]
    if whole != lines:
        path.write_bytes(b"".join(whole))
    runs = [msgspec.json.decode(line, type=Run) for line in whole]
    done = {(entry.training, entry.fault, entry.strength, entry.seed) for entry in runs}
    names = dict.fromkeys(fault.training for fault in faults)
    planned = [(sound(name), seed) for name in names for seed in range(clean)]
    planned += [(fault, FIRST_FAULTY_SEED + turn) for fault in faults for turn in range(faulty)]
    todo = [(fault, seed) for fault, seed in planned if (*fault.key, seed) not in done]
    for number, (fault, seed) in enumerate(todo, start=1):
        runs.append(run(fault, seed))
        with path.open("ab") as file:
            file.write(msgspec.json.encode(runs[-1]) + b"\n")
        if not number % 50 or number == len(todo):
            print(f"{number} of {len(todo)} trainings", flush=True)
    return runs


if __name__ == "__main__":
    exit_process(exit_code_of(main))
