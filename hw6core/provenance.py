"""Tells real data from drawn data by the marker file that the drawing leaves, without loading torch."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Literal

MARKER = "SYNTHETIC.json"
SETS = {"endovis": "mapping.json", "fashion_mnist": "FashionMNIST/raw"}  # folder of each data set: a path inside it


def is_synthetic(root: str | Path) -> bool:
    """Whether `root`, the folder of both data sets or of one, holds drawn data, complete or not."""
    # For a folder without permission os.path.isfile returns False instead of raising; loading it reports the error.
    return any(os.path.isfile(Path(root, place, MARKER)) for place in ("", *SETS))  # noqa: PTH113


def data_kind(root: str | Path) -> Literal["real", "synthetic"]:
    """The kind of data as it appears in records, reports and folder names."""
    return "synthetic" if is_synthetic(root) else "real"


def read_marker(folder: Path) -> object:
    """The content of the marker file; None if it is missing or unreadable."""
    try:
        return json.loads((folder / MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def drawing(root: Path) -> str | None:
    """Version and seed of drawn data, such as "version 3, seed 0"; None for real data.

    Files with the same version and seed may differ slightly, as processors differ in the last bits of a float.
    """
    for marker in (read_marker(root / place) for place in ("", *SETS)):
        if isinstance(marker, dict) and {"version", "seed"} <= marker.keys():
            return f"version {marker['version']}, seed {marker['seed']}"
    return None
