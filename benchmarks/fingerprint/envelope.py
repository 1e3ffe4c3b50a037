"""Make envelope.json from fingerprints with benign causes: python -m benchmarks.fingerprint.envelope FILE ...

Needs no torch.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.exits import exit_code_of
from benchmarks.fingerprint.comparison import CAUSES, ENVELOPE, Envelope, deviations, largest_share
from benchmarks.fingerprint.record import VERSION, Fingerprint, read_fingerprint
from benchmarks.interruption import exit_process
from benchmarks.results.formatting import json_text
from benchmarks.results.records import write_atomically
from hw6core.errors import UsageError

FACTOR = 10.0  # chosen beforehand: untried benign causes should be of the same order of magnitude, unlike harm


def learn_envelope(benign: Sequence[Fingerprint]) -> Envelope:
    """The largest deviations between any two fingerprints that differ for benign causes only."""
    largest: dict[str, dict[str, list[float]]] = {}
    for old, new in combinations(benign, 2):
        for name, network in old.networks.items():
            kept = largest.setdefault(name, {})
            for quantity, found in deviations(network, new.networks[name]).items():
                both = zip(kept.get(quantity, [0.0] * len(found)), found, strict=True)
                kept[quantity] = [float(f"{max(pair):.2e}") for pair in both]
    causes: dict[str, list[Any]] = {}
    for cause in CAUSES:
        values = [found.environment.get(cause) for found in benign]
        causes[cause] = [value for place, value in enumerate(values) if value not in values[:place]]
    return Envelope(VERSION, FACTOR, len(benign), causes, largest)


def main(paths: Sequence[str]) -> int:
    """Write the envelope; print how far each fingerprint is from the envelope of the others (leave-one-out)."""
    if len(paths) < 3:
        raise UsageError(f"an envelope is made from at least three fingerprints; found {len(paths)} FILEs")
    found = {path: read_fingerprint(Path(path)) for path in paths}
    for path, one in found.items():
        others = [other for other in found.values() if other is not one]
        envelope = learn_envelope(others)
        share, where = max(largest_share(other, one, envelope) for other in others)
        print(f"{path}: {share:.2f} of the deviation that the others' envelope allows ({where})")
    write_atomically(ENVELOPE, json_text(msgspec.to_builtins(learn_envelope([*found.values()]))))
    return 0


if __name__ == "__main__":
    exit_process(exit_code_of(lambda: main(sys.argv[1:])))
