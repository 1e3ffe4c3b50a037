"""GPU error counters of a run: whether its numbers can be trusted, and whether its times are comparable."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from enum import IntEnum

from benchmarks.results.records import Hardware, Record


class Word(IntEnum):
    """What to do with a device; if there are several reasons, the greatest value applies."""

    WATCH = 1  # slow, throttled, or with far more corrected errors than the others
    RESET = 2
    REBOOT = 3
    ISOLATE = 4  # wrong results, or runs that finish on other devices fail

    def __str__(self) -> str:
        return self.name.lower()


# From NVIDIA's catalogue, docs.nvidia.com/deploy/xid-errors/analyzing-xid-catalog.html, column "Resolution Bucket
# (Immediate Action)": RESTART_BM and RESTART_VM mean a reboot, and 110 requires a cold reset of the system. The
# catalogue leaves a choice for 48 and its details 171 and 172, for 64 and 157 (remapping or retirement failed) and 54
# (no auxiliary power): here they mean out of service until tested. WATCH: NVIDIA considers the device healthy, because
# usually a program was at fault, which then does not complete; its Kubernetes device plugin ignores these
# (`internal/rm/health.go`), and 109, for which the catalogue requires a reset. Any other Xid, known or not, requires a
# reset: after it that plugin takes the device out of use.
_XIDS: Mapping[Word, Collection[int]] = {
    Word.ISOLATE: (48, 54, 64, 157, 171, 172),
    Word.REBOOT: (79, 110, 151),
    Word.WATCH: (13, 31, 43, 45, 68),
}
_MEANINGS = {
    48: "an uncorrectable memory error",
    63: "a memory row was remapped",
    64: "a memory row could not be remapped",
    74: "an error of an NVLink",
    79: "it fell off the bus",
    94: "a contained memory error",
    95: "an uncontained memory error",
    119: "its firmware does not answer",
}
_ACTIONS = {
    Word.ISOLATE: "take the GPU out of use until it is tested",
    Word.REBOOT: "reboot the node and run again",
    Word.RESET: "reset the GPU (nvidia-smi --gpu-reset) and run again",
}
# Times are not comparable if the clock was reduced for heat or reliability for a larger share of the run. Such a
# slowdown divides the clock by two or more: over 5% of the time it costs 2.5% to 5%, up to half of the margin by which
# times are judged. Power does not count: many cards always work at their power limit, and a lowered limit is a property
# of the machine that a comparison has to show.
THROTTLED_SHARE = 0.05
_SLOWDOWNS = {"thermal": "heat", "reliability": "its reliability limit"}
COUNTERS = ("xids", "ecc_corrected", "ecc_uncorrected", "remapped_rows", "pcie_replays", "nvlink_errors", "throttled_s")


def counted(hardware: Hardware | None) -> dict[str, float]:
    """The counters that rose during a run: "ecc_corrected", "throttled_by_power_seconds", events as "xid_79"."""
    if hardware is None:
        return {}
    rose: dict[str, float] = {f"xid_{xid}": count for xid, count in Counter(hardware.xids).items()}
    rose |= {name: getattr(hardware, name) for name in COUNTERS[1:-1]}
    rose |= {f"throttled_by_{reason}_seconds": time for reason, time in (hardware.throttled_s or {}).items()}
    return {name: count for name, count in rose.items() if count}


def word_of(xid: int) -> Word:
    """What NVIDIA advises after an event with this number."""
    return next((word for word, xids in _XIDS.items() if xid in xids), Word.RESET)


def failure(hardware: Hardware | None) -> str:
    """Why a run's numbers cannot be trusted, and what to do; empty if they can."""
    if hardware is None:
        return ""
    xids = [xid for xid in dict.fromkeys(hardware.xids or ()) if word_of(xid) is not Word.WATCH]
    found = [f"Xid {xid} ({_MEANINGS.get(xid, 'see docs.nvidia.com/deploy/xid-errors')})" for xid in xids]
    found += [f"{hardware.ecc_uncorrected} uncorrected memory errors"] if hardware.ecc_uncorrected else []
    if not found:
        return ""
    action = _ACTIONS[max([Word.RESET, *map(word_of, xids)])]
    return f"GPU {hardware.uuid} had {', '.join(found)} during the run, so its numbers cannot be trusted: {action}"


def throttled(record: Record) -> str:
    """How a run was throttled so that its times are not comparable; empty if they are."""
    hardware, timing = record.environment.machine.hardware, record.timing
    watched_s = (timing.total_s or 0.0) + (timing.floors_s or 0.0)
    times = (hardware.throttled_s if hardware else None) or {}
    slowed = {name: times[reason] for reason, name in _SLOWDOWNS.items() if times.get(reason)}
    share = sum(slowed.values()) / watched_s if watched_s else 0.0
    return f"throttled by {' and '.join(slowed)} for {share:.0%} of its time" if share > THROTTLED_SHARE else ""
