"""Environments whose python is a script that copies a made-up record for each `run`."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path

from benchmarks.results.records import write_record
from tests.record_factory import LOW_FLOOR, make_record

_SCRIPT = """#!/bin/sh
case "$3" in
run) echo "$(basename "$RESULTS")$SEEDS$ENGINE$EVERY_GPU" >> "$RESULTS/../order"; echo '{says}'
     [ {code} = 0 ] || exit {code}
     mkdir -p "$RESULTS/records" && cp "{folder}/records/seg-baseline-seed$SEEDS.json" "$RESULTS/records/";;
*) echo '{inventory}';;
esac
"""


def make_python(folder: Path, drop: float = 0, time: float = 1, memory: float = 1, energy: float = 1,
                noise: float = 0.001, code: int = 0, says: str = "", torch: str = "torch") -> None:  # fmt: skip
    """Make an environment with noisy records of 0.9, 100 s, 2 GiB and 9 kJ, changed by a drop and by factors."""
    draws = random.Random(folder.name)
    for seed in range(10):
        shift = draws.gauss(0, noise)
        scores = dict.fromkeys(("course_dice", "present_dice"), 0.9 - drop + shift)
        seconds = {"training_s": 100 * time * math.exp(shift), "total_s": 105 * time * math.exp(shift)}
        record = make_record("seg-baseline", seed, metrics=scores, timing=seconds, **LOW_FLOOR)
        record.environment.machine.peak_memory_gib = 2 * memory * math.exp(shift)
        record.environment.machine.energy_j = 9000 * energy * math.exp(shift)
        write_record(folder, record)
    packages = {torch: {"version": folder.name, "requires": [], "own": True}}
    inventory = json.dumps({"python": "3.11.7", "packages": packages, "beside": []})
    (folder / "bin").mkdir()
    python = folder / "bin" / "python"
    python.write_text(_SCRIPT.format(folder=folder.absolute(), says=says, code=code, inventory=inventory))
    python.chmod(0o755)
