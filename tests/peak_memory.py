"""What a piece of work takes at its most, counted: the resident memory of a process depends on its allocator's mood."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path

from torch.profiler import ProfilerActivity, profile


def peak_bytes(work: Callable[[], object], folder: Path) -> int:
    """The most bytes that tensors on the CPU held at once, and beside them the most that Python and NumPy did.

    A trace is left in the folder.
    """
    tracemalloc.start()
    try:
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
            work()
        others = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    trace = folder / "trace.json"
    profiler.export_chrome_trace(str(trace))
    events = json.loads(trace.read_text(encoding="utf-8"))["traceEvents"]
    held = most = 0
    for event in sorted((event for event in events if event.get("name") == "[memory]"), key=lambda event: event["ts"]):
        held += event["args"]["Bytes"]
        most = max(most, held)
    return most + others
