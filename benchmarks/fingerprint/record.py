"""The contents of a fingerprint and its files. Needs no torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from msgspec import Struct

from benchmarks.results.formatting import as_text
from benchmarks.results.records import write_atomically
from hw6core.errors import DataError

VERSION = 1  # increase it with every change to what is trained or recorded: versions are not comparable
STEPS = (1, 2, 5, 10, 20, 50)  # norms are kept at the end of these
DIGITS = 16  # hex digits of a digest: 8 of a hash, 8 of the sum of the bit patterns
KEPT, LATEST, FINDINGS = "fingerprint.json", "fingerprint-latest.json", "fingerprint.txt"
_OTHERS = {"benchmark.json", "fleet.json", "shard.json", "speed.json"}  # files of other commands in results folders


class Place(NamedTuple):
    """One tensor of a step."""

    phase: str  # "forward" or "backward"
    layer: str  # its name in the network
    tensor: str  # "output", or the name of a parameter; in the phase "backward" this means its gradient


class Network(Struct):
    """The training of one network.

    Attributes:
        start: digest of the data and of the initial weights.
        places: the tensors of a step in the order of their computation. In the phase "forward" a parameter has the
            value that the step before left.
        loss, gradient_norm: of each step; None if not finite.
        digests: for each step `DIGITS` hex digits per place; one more entry has the parameters after the last step and
            blanks for everything else.
        norms: for each place one value per step in `STEPS`; parameters at the end of that step.
    """

    start: str
    places: list[Place]
    loss: list[float | None]
    gradient_norm: list[float | None]
    digests: list[str]
    norms: list[list[float | None]]


class Fingerprint(Struct):
    """The fingerprint of a machine; ``environment``: see `benchmarks.machine.environment.environment`."""

    version: int
    made_at: str
    environment: dict[str, Any]
    networks: dict[str, Network]


def fingerprint_files(path: Path) -> list[Path]:
    """The file itself, or the fingerprints in a folder by name.

    Raises:
        DataError: there is none.
    """
    found = path.glob("[!.]*.json") if path.is_dir() else [path] if path.is_file() else []
    files = sorted(file for file in found if file.name not in _OTHERS)
    if not files:
        raise DataError(f"no fingerprint at {path}; make one: make fingerprint")
    return files


def write_fingerprint(path: Path, found: Fingerprint) -> None:
    """Write a fingerprint atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, msgspec.json.encode(found).decode() + "\n")


def read_fingerprint(path: Path) -> Fingerprint:
    """Read a fingerprint; one of another version is read without its networks.

    Raises:
        DataError: it cannot be read or is damaged.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(content, dict) and content.get("version") != VERSION:
            content["networks"] = {}
        return msgspec.convert(content, Fingerprint)
    except (OSError, ValueError, RecursionError) as error:  # includes msgspec's errors
        text = f"{path} is not a readable fingerprint ({error}); delete it and make a new one: make fingerprint"
        raise DataError(text) from error


def findings_line(results: Path) -> str:
    """The finding on a results folder's latest fingerprint as a line of Markdown; empty if there is none."""
    try:
        return f"Fingerprint: {as_text((results / FINDINGS).read_text(encoding='utf-8').partition(chr(10))[0])}."
    except (OSError, ValueError):
        return ""
