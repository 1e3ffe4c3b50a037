"""`make detection`: train with each fault and without faults, and fill docs/detection.md."""

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
    """Run the experiment; it resumes where an earlier call was stopped."""
    torch.set_num_threads(1)  # fixes the order of sums; nothing here is large enough for two threads
    for path in write_page(make(Path(os.environ.get("RESULTS") or RESULTS))):
        print(f"wrote {path}")
    return 0


if __name__ == "__main__":
    exit_process(exit_code_of(main))
