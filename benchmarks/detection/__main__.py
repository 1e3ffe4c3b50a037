"""`make detection`: train with every fault and without, and fill docs/detection.md."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from benchmarks.detection.page import write_page
from benchmarks.detection.records import make
from benchmarks.exits import exit_code_of
from benchmarks.interruption import exit_process

RESULTS = Path(__file__).parents[2] / "results" / "detection"


def main() -> int:
    """Goes on where an earlier call was stopped."""
    torch.set_num_threads(1)  # one order of sums, and nothing here is large enough for two
    for path in write_page(make(Path(os.environ.get("RESULTS") or RESULTS))):
        print(f"written: {path}")
    return 0


if __name__ == "__main__":
    exit_process(exit_code_of(main))
