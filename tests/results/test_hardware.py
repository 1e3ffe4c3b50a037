"""What a GPU's error counters say of a run, worked out by hand."""

from __future__ import annotations

import pytest

from benchmarks.results.hardware import failure, throttled
from benchmarks.results.records import Hardware
from tests.record_factory import make_record

RESET = "reset the GPU (nvidia-smi --gpu-reset)"
MEMORY = "Xid 48 (an uncorrectable memory error), Xid 63 (a memory row was remapped), 2 uncorrected memory errors"


@pytest.mark.parametrize(
    ("hardware", "found", "action"),
    [
        (Hardware("1", xids=[13, 79, 79, 45]), "Xid 79 (it fell off the bus)", "reboot the node"),
        (Hardware("1", xids=[109]), "Xid 109 (see docs.nvidia.com/deploy/xid-errors)", RESET),
        (Hardware("1", xids=[48, 63, 48], ecc_uncorrected=2), MEMORY, RESET),
        (Hardware("1", xids=[13, 31, 43, 45, 68], ecc_corrected=9, remapped_rows=1, nvlink_errors=2), "", ""),
    ],
)
def test_a_failure_names_what_was_found_and_what_to_do(hardware: Hardware, found: str, action: str) -> None:
    sentence = f"GPU 1 had {found} during the run, so its numbers cannot be trusted: {action} and run again; "
    sentence += "if that comes back, take the GPU out of use"
    assert failure(hardware) == (sentence if found else "")


def test_a_run_held_back_for_long_is_not_comparable_in_time() -> None:
    def text(**throttled_s: float) -> str:
        machine = {"hardware": {"throttled_s": throttled_s}}
        times = {"total_s": 90.0, "floors_s": 10.0}
        return throttled(make_record("seg-baseline", timing=times, environment={"machine": machine}))

    assert text(thermal=5.0, power=90.0) == ""
    assert text(thermal=5.1) == "held back by heat for 5% of its time"
    assert text(thermal=3.0, reliability=4.0) == "held back by heat and its reliability limit for 7% of its time"
