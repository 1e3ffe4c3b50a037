"""What a GPU's error counters say of a run: whether its numbers can be trusted, and whether its times compare."""

from __future__ import annotations

from collections import Counter

from benchmarks.results.records import Hardware, Record

# Xid events after which NVIDIA takes the device to be healthy: most often a program's own fault, and a program that is
# at fault does not complete. (Those that its Kubernetes device plugin passes over, `internal/rm/health.go`, except 109,
# for which the Xid catalogue, docs.nvidia.com/deploy/xid-errors, asks for a reset.)
PROGRAM_XIDS = (13, 31, 43, 45, 68)
# Of the others the best known, and what to do: what the catalogue says, which for 63 and 94 lets a reset wait.
_RESET = "reset the GPU (nvidia-smi --gpu-reset)"
_DEVICE_XIDS = {
    48: ("an uncorrectable memory error", _RESET),
    63: ("a memory row was remapped", _RESET),
    64: ("a memory row could not be remapped", _RESET),
    74: ("an error of an NVLink", "check its NVLinks and reset the GPU"),
    79: ("it fell off the bus", "reboot the node"),
    94: ("a contained memory error", _RESET),
    95: ("an uncontained memory error", _RESET),
    119: ("its firmware does not answer", _RESET),
}
_OTHERS = "see docs.nvidia.com/deploy/xid-errors", _RESET
# A run whose clock was held down for longer by heat or for reliability is not comparable in time. Such a slowdown
# divides the clock by two or more: in 5% of the time that costs 2.5% to 5%, up to half of the margin by which times are
# judged. Power does not count: many cards run at their power limit whenever they work, and a limit that
# somebody lowered is a property of the machine that a comparison has to show.
THROTTLED_SHARE = 0.05
_SLOWDOWNS = {"thermal": "heat", "reliability": "its reliability limit"}
COUNTERS = ("xids", "ecc_corrected", "ecc_uncorrected", "remapped_rows", "pcie_replays", "nvlink_errors", "throttled_s")


def counted(hardware: Hardware | None) -> dict[str, float]:
    """What rose in a run, by name: "ecc_corrected", "throttled_by_power_seconds", and how many events: "xid_79"."""
    if hardware is None:
        return {}
    rose: dict[str, float] = {f"xid_{xid}": count for xid, count in Counter(hardware.xids).items()}
    rose |= {name: getattr(hardware, name) for name in COUNTERS[1:-1]}
    rose |= {f"throttled_by_{reason}_seconds": time for reason, time in (hardware.throttled_s or {}).items()}
    return {name: count for name, count in rose.items() if count}


def failure(hardware: Hardware | None) -> str:
    """Why a run's numbers cannot be trusted, and what to do; empty where nothing speaks against them."""
    if hardware is None:
        return ""
    found, actions = [], []
    for xid in dict.fromkeys(hardware.xids or ()):
        if xid not in PROGRAM_XIDS:
            meaning, action = _DEVICE_XIDS.get(xid, _OTHERS)
            found.append(f"Xid {xid} ({meaning})")
            actions.append(action)
    if hardware.ecc_uncorrected:
        found.append(f"{hardware.ecc_uncorrected} uncorrected memory errors")
        actions.append(_RESET)
    if not found:
        return ""
    return (
        f"GPU {hardware.uuid} had {', '.join(found)} during the run, so its numbers cannot be trusted: "
        f"{', '.join(dict.fromkeys(actions))} and run again; if that comes back, take the GPU out of use"
    )


def throttled(record: Record) -> str:
    """How a run was slowed down so that its times are not comparable; empty where they are."""
    hardware, timing = record.environment.machine.hardware, record.timing
    watched_s = (timing.total_s or 0.0) + (timing.floors_s or 0.0)
    times = (hardware.throttled_s if hardware else None) or {}
    slowed = {name: times[reason] for reason, name in _SLOWDOWNS.items() if times.get(reason)}
    share = sum(slowed.values()) / watched_s if watched_s else 0.0
    return f"held back by {' and '.join(slowed)} for {share:.0%} of its time" if share > THROTTLED_SHARE else ""
