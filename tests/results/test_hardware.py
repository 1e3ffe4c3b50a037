"""GPU error counters: failures and throttling, worked by hand."""

from __future__ import annotations

from benchmarks.results.hardware import failure, throttled
from benchmarks.results.records import Hardware
from tests.record_factory import make_record


def test_a_failure_names_the_error_and_the_remedy() -> None:
    distrust = "during the run, so its numbers cannot be trusted"
    assert failure(Hardware("1", xids=[13, 79, 79, 45])) == (
        f"GPU 1 had Xid 79 (it fell off the bus) {distrust}: reboot the node and run again"
    )
    unknown = failure(Hardware("1", xids=[13, 999]))
    found = f"GPU 1 had Xid 999 (see docs.nvidia.com/deploy/xid-errors) {distrust}"
    assert unknown == f"{found}: reset the GPU (nvidia-smi --gpu-reset) and run again"
    memory = failure(Hardware("1", xids=[109, 48], ecc_uncorrected=2))
    found = "Xid 109 (see docs.nvidia.com/deploy/xid-errors), Xid 48 (an uncorrectable memory error), 2 uncorrected "
    assert memory == f"GPU 1 had {found}memory errors {distrust}: take the GPU out of use until it is tested"
    assert failure(Hardware("1", ecc_uncorrected=1)).endswith(": reset the GPU (nvidia-smi --gpu-reset) and run again")
    assert failure(Hardware("1", xids=[13, 31, 43, 45, 68], ecc_corrected=9, remapped_rows=1, nvlink_errors=2)) == ""


def test_a_throttled_run_is_not_comparable_in_time() -> None:
    def text(**throttled_s: float) -> str:
        of = {"machine": {"hardware": {"throttled_s": throttled_s}}}
        return throttled(make_record("vgg-frozen", timing={"total_s": 90.0, "floors_s": 10.0}, environment=of))

    assert text(thermal=5.0, power=90.0) == ""
    assert text(thermal=5.1) == "throttled by heat for 5% of its time"
    assert text(thermal=3.0, reliability=4.0) == "throttled by heat and its reliability limit for 7% of its time"
