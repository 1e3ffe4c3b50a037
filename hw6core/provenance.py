"""Is a data set real, or was it drawn here? Told by a file that the drawing leaves, without loading torch."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Literal

MARKER = "SYNTHETIC.json"
SETS = {"endovis": "mapping.json", "fashion_mnist": "FashionMNIST/raw"}  # each set's folder, and what is in it


def is_synthetic(root: Path) -> bool:
    """Whether `root`, a folder of both sets or one set's own, holds drawn data, complete or not."""
    # os.path's answer for a folder that may not be entered is no; its loading will tell what is wrong with it.
    return any(os.path.isfile(root / place / MARKER) for place in ("", *SETS))  # noqa: PTH113


def data_kind(root: Path) -> Literal["real", "synthetic"]:
    """The word for it in records, reports and names of folders."""
    return "synthetic" if is_synthetic(root) else "real"


def read_marker(folder: Path) -> object:
    """The marker's content; None where there is none or it cannot be read."""
    try:
        return json.loads((folder / MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def drawing(root: Path) -> str | None:
    """What was drawn in a folder, by which version of the drawing: "version 3, seed 0"; None for real data.

    Processors differ in the last bits of what is drawn, so files differ by a shade where this is the same.
    """
    for marker in (read_marker(root / place) for place in ("", *SETS)):
        if isinstance(marker, dict) and {"version", "seed"} <= marker.keys():
            return f"version {marker['version']}, seed {marker['seed']}"
    return None
