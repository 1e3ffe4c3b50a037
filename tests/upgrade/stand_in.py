"""Environments whose python is a script: it has records that were made up, and hands one out for each `run`."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Mapping
from pathlib import Path

from benchmarks.results.records import Record, write_record
from tests.record_factory import LOW_FLOOR, make_record

_SCRIPT = """#!/bin/sh
case "$3" in
run) echo "$(basename "$RESULTS")$SEEDS" >> "$RESULTS/../order"; echo '{says}'; [ {code} = 0 ] || exit {code}
     mkdir -p "$RESULTS/records" && cp "{folder}/records/seg-baseline-seed$SEEDS.json" "$RESULTS/records/";;
*) echo '{inventory}';;
esac
"""


def made_up(seed: int, effect: Mapping[str, float], draws: random.Random) -> Record:
    """A record with noise around 0.9, 100 s and 2 GiB; ``effect``: a drop of scores, factors of time and memory."""
    noise = draws.gauss(0, effect.get("noise", 0.001))
    seconds = 100 * effect.get("time", 1.0) * math.exp(noise)
    record = make_record(
        "seg-baseline",
        seed,
        metrics={name: 0.9 - effect.get("drop", 0.0) + noise for name in ("course_dice", "present_dice")},
        timing={"training_s": seconds, "total_s": seconds + 5},
        **LOW_FLOOR,
    )
    record.environment.machine.peak_memory_gib = 2.0 * effect.get("memory", 1.0) * math.exp(noise)
    return record


def make_python(folder: Path, effect: Mapping[str, float], says: str = "", torch: str = "2.11.0") -> Path:
    """An environment; ``effect`` may have an exit code, and its runs say something."""
    draws = random.Random(folder.name)
    for seed in range(10):
        write_record(folder, made_up(seed, effect, draws))
    packages = {name: {"version": torch, "requires": [], "own": True} for name in ("torch", "numpy") if torch}
    inventory = json.dumps({"python": "3.11.7", "packages": packages, "beside": []})
    python = folder / "bin" / "python"
    python.parent.mkdir()
    code = int(effect.get("code", 0))
    python.write_text(_SCRIPT.format(folder=folder.absolute(), says=says, code=code, inventory=inventory))
    python.chmod(0o755)
    return folder
