"""What a fingerprint holds, as one JSON file. Needs no torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from msgspec import Struct

from benchmarks.results.records import write_atomically
from hw6core.errors import DataError

VERSION = 1  # raise it with every change to what is trained or recorded: fingerprints of two versions tell nothing
STEPS = (1, 2, 5, 10, 20, 50)  # at whose ends norms are kept
DIGITS = 16  # of a digest: 8 of a hash, 8 of the sum of the bit patterns


class Place(NamedTuple):
    """One tensor of a step.

    Attributes:
        phase: "forward" or "backward".
        layer: its name in the network.
        tensor: "output", or the name of a parameter; in the phase "backward" the gradient of it.
    """

    phase: str
    layer: str
    tensor: str


class Network(Struct):
    """The training of one network.

    Attributes:
        start: digest of the data and of the first weights.
        places: the tensors of a step in the order in which they are computed. A parameter stands in the phase
            "forward" as the layer found it: as the step before left it.
        loss, gradient_norm: of each step; None where it is not finite.
        digests: of each step, `DIGITS` hex digits for each of the places; one more entry has the parameters after the
            last step, and blanks for all else.
        norms: of each of the places, a value for each of `STEPS`; parameters as that step left them.
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


def write_fingerprint(path: Path, found: Fingerprint) -> None:
    """Write it so that its name only ever shows a complete one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, msgspec.json.encode(found).decode() + "\n")


def read_fingerprint(path: Path) -> Fingerprint:
    """Read a fingerprint; one of another version is read as far as to tell that.

    Raises:
        DataError: it cannot be read or is damaged.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(content, dict) and content.get("version") != VERSION:
            content["networks"] = {}
        found = msgspec.convert(content, Fingerprint)
    except (OSError, ValueError, RecursionError) as error:  # msgspec's is a ValueError
        raise DataError(f"{path} is not a readable fingerprint ({error}); make one: make fingerprint") from error
    for name, network in found.networks.items():
        rows, steps = len(network.places), len(network.loss)
        if (
            {len(digest) for digest in network.digests} != {rows * DIGITS}
            or len(network.digests) != steps + 1
            or len(network.gradient_norm) != steps
            or {len(norms) for norms in network.norms} != {len(STEPS)}
            or len(network.norms) != rows
        ):
            raise DataError(f"{path}: {name} is not complete; make the fingerprint again: make fingerprint")
    return found
