"""The state of the machine during a run: clocks, temperature, throttling, memory, energy, load.

Times can only be compared if the device was not hot, throttled or shared. What cannot be read is None: NVML comes with
the driver, its Python binding (nvidia-ml-py) is optional, and not every system tells the CPU's clock.
"""

from __future__ import annotations

import math
import os
import resource
import sys
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from hw6core.device import release_freed_memory

_CLEAR_REFS, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")
_CPU_INFO = Path("/proc/cpuinfo")
_RESET_PEAK = "5"  # see proc(5): resets the peak resident memory
_THROTTLING = ("power", "thermal", "reliability")  # reasons for throttling whose time NVML counts, and that matter here
_COUNTERS = ("ecc_corrected", "ecc_uncorrected", "remapped_rows", "pcie_replays", "nvlink_errors", *_THROTTLING)
_NVLINK_KINDS = 5  # replay, recovery, CRC of control and of data, ECC
_WHOLE_GPU = 0xFFFFFFFF  # the instance id of events that concern every MIG slice
_GPU_IDLE = 0x0001  # not throttled
# The other bits, as named in NVML's header.
_THROTTLE_REASONS = {
    0x0002: "application clock setting",
    0x0004: "software power cap",
    0x0008: "hardware slowdown",
    0x0010: "sync boost",
    0x0020: "software thermal slowdown",
    0x0040: "hardware thermal slowdown",
    0x0080: "hardware power brake",
    0x0100: "display clock setting",
    0x0200: "board limit",
    0x0400: "reliability",
}


class Meter:
    """Measures the machine from construction until `read`.

    No energy is reported if the device is ``shared`` with other runs, as it only counts that of all together.
    """

    def __init__(self, device: torch.device, *, shared: bool = False) -> None:
        self._device, self._shared = device, shared
        self._gpu = _Gpu(device) if device.type != "cpu" else None
        self._started_at = datetime.now(UTC).isoformat(timespec="seconds")
        self._start = self._state()
        self._energy = self._energy_j()
        self._used: float | None = None
        self._stopped = False
        self._memory: Any = torch.get_device_module(device)
        if hasattr(self._memory, "reset_peak_memory_stats"):
            self._memory.reset_peak_memory_stats(device)
        release_freed_memory()  # so that an earlier run's memory is not counted
        with suppress(OSError):
            _CLEAR_REFS.write_text(_RESET_PEAK, encoding="ascii")

    def stop_energy(self) -> None:
        """End the measurement of energy now instead of in `read`: what follows is not part of the run."""
        start, end, self._stopped = self._energy, self._energy_j(), True
        self._used = None if start is None or end is None or end < start else round(end - start, 1)

    def read(self) -> dict[str, Any]:
        """The measurements for a record; call once. See `benchmarks.results.records.Machine` and `Hardware`."""
        if not self._stopped:
            self.stop_energy()
        counts = hasattr(self._memory, "max_memory_allocated")
        return {
            "started_at": self._started_at,
            "start": self._start,
            "end": self._state(),
            "peak_memory_gib": _gib(peak_memory_bytes()),
            "peak_device_memory_gib": _gib(self._memory.max_memory_allocated(self._device)) if counts else None,
            "energy_j": self._used,
            "hardware": self._gpu.hardware() if self._gpu else None,
        }

    def _state(self) -> dict[str, Any]:
        state: dict[str, Any] = {"load_average": None, "cpu_mhz": None}
        with suppress(OSError):  # not available in some sandboxes
            state["load_average"] = round(os.getloadavg()[0], 2)
        with suppress(OSError, ValueError):  # ValueError also if no core is listed
            lines = _CPU_INFO.read_text(encoding="utf-8").splitlines()
            state["cpu_mhz"] = round(fmean(float(line.split(":")[1]) for line in lines if line.startswith("cpu MHz")))
        return state | (self._gpu.state() if self._gpu else {})

    def _energy_j(self) -> float | None:
        return self._gpu.energy_j() if self._gpu and not self._shared else None


def peak_memory_bytes() -> int:
    """The peak resident memory of this process since the last `Meter` was made; since its start without resets."""
    with suppress(OSError, ValueError, StopIteration):
        lines = _STATUS.read_text(encoding="ascii").splitlines()
        return 1024 * int(next(line.split()[1] for line in lines if line.startswith("VmHWM")))
    return (1 if sys.platform == "darwin" else 1024) * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


class _Gpu:
    """One device as NVML reports it; without NVML every value is None."""

    def __init__(self, device: torch.device) -> None:
        self._nvml: Any = None
        self._handle: Any = None
        self._uuid: str | None = None
        self._slice: Any = None
        self._events: Any = None
        with suppress(Exception):  # the binding is missing or the driver too old: run without
            self._uuid = str(torch.cuda.get_device_properties(device).uuid)
            import pynvml

            pynvml.nvmlInit()
            bare = self._uuid.removeprefix("GPU-").removeprefix("MIG-")
            try:
                self._handle, self._uuid = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{bare}"), f"GPU-{bare}"
            except pynvml.NVMLError:  # a MIG slice, which has no clocks or sensors of its own
                part = pynvml.nvmlDeviceGetHandleByUUID(f"MIG-{bare}")
                self._handle = pynvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(part)
                self._slice, self._uuid = part, f"MIG-{bare}"
            self._nvml = pynvml
        self._initial = self._counters()
        with suppress(Exception):  # this driver or user may not receive events
            events = self._nvml.nvmlEventSetCreate()
            self._nvml.nvmlDeviceRegisterEvents(self._handle, self._nvml.nvmlEventTypeXidCriticalError, events)
            self._events = events

    def state(self) -> dict[str, Any]:
        nvml = self._nvml
        power, bits = self._ask("nvmlDeviceGetPowerUsage"), self._ask("nvmlDeviceGetCurrentClocksEventReasons")
        return {
            "gpu_mhz": self._ask("nvmlDeviceGetClockInfo", nvml and nvml.NVML_CLOCK_SM),
            "gpu_mhz_limit": self._ask("nvmlDeviceGetMaxClockInfo", nvml and nvml.NVML_CLOCK_SM),
            "gpu_memory_mhz": self._ask("nvmlDeviceGetClockInfo", nvml and nvml.NVML_CLOCK_MEM),
            "gpu_celsius": self._ask("nvmlDeviceGetTemperature", nvml and nvml.NVML_TEMPERATURE_GPU),
            "gpu_watts": None if power is None else round(power / 1000, 1),
            "gpu_throttled_by": None if bits is None else throttle_reasons(bits),
        }

    def energy_j(self) -> float | None:
        """Energy since the driver was loaded; None if other processes use the device, as their energy counts too."""
        if self._slice is not None or len(self._ask("nvmlDeviceGetComputeRunningProcesses") or ()) > 1:
            return None
        millijoules = self._ask("nvmlDeviceGetTotalEnergyConsumption")
        return None if millijoules is None else millijoules / 1000

    def hardware(self) -> dict[str, Any]:
        """Which GPU this is, and by how much its counters have increased since construction."""
        increases: dict[str, Any] = {"xids": self._xids()}
        for name, before, count in zip(_COUNTERS, self._initial, self._counters(), strict=True):
            # A lower count means that the driver or the GPU was reset meanwhile.
            increases[name] = None if count is None or before is None or count < before else count - before
        times = {reason: time for reason in _THROTTLING if (time := increases.pop(reason)) is not None}
        increases["throttled_s"] = {reason: round(time / 1e9, 3) for reason, time in times.items()} or None
        unknown = [name for name, count in increases.items() if count is None]
        unknown += [f"throttled_by_{reason}" for reason in _THROTTLING if times and reason not in times]
        which = {"serial": self._ask("nvmlDeviceGetSerial"), "index": self._ask("nvmlDeviceGetIndex")}
        return {"uuid": self._uuid, **which, **increases, "not_told": unknown}

    def _counters(self) -> list[int | None]:
        """Monotonic counters. For a MIG slice, ECC errors are its own; all others are those of the whole GPU."""
        nvml, ask = self._nvml, self._ask
        if nvml is None:
            return [None] * len(_COUNTERS)
        kinds = nvml.NVML_MEMORY_ERROR_TYPE_CORRECTED, nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED
        ecc = [ask("nvmlDeviceGetTotalEccErrors", kind, nvml.NVML_VOLATILE_ECC, of=self._slice) for kind in kinds]
        rows = ask("nvmlDeviceGetRemappedRows")
        if rows is not None:
            corrected, uncorrected, _pending, failed = rows  # both counts include pending ones
            rows = corrected + uncorrected + failed
        counters = [(link, kind) for link in range(nvml.NVML_NVLINK_MAX_LINKS) for kind in range(_NVLINK_KINDS)]
        links = [n for each in counters if (n := ask("nvmlDeviceGetNvLinkErrorCounter", *each)) is not None]
        replays = ask("nvmlDeviceGetPcieReplayCounter")
        policies = [getattr(nvml, f"NVML_FI_DEV_PERF_POLICY_{reason.upper()}") for reason in _THROTTLING]
        fields = ask("nvmlDeviceGetFieldValues", policies) or ()  # nanoseconds; CUDA 14 removes the older function
        times = [int(each.value.ullVal) if each.nvmlReturn == nvml.NVML_SUCCESS else None for each in fields]
        return [*ecc, rows, replays, sum(links) if links else None, *(times or [None] * len(_THROTTLING))]

    def _xids(self) -> list[int] | None:
        """The Xids of all events since construction; None if events are not available."""
        nvml, events = self._nvml, self._events
        if events is None:
            return None
        own = None if self._slice is None else self._ask("nvmlDeviceGetGpuInstanceId", of=self._slice)
        found: list[int] = []
        try:
            while True:  # each call returns one event
                event = nvml.nvmlEventSetWait(events, 0)
                if self._slice is None or event.gpuInstanceId in (_WHOLE_GPU, own):
                    found.append(int(event.eventData))
        except nvml.NVMLError as error:
            is_valid = bool(found) or isinstance(error, nvml.NVMLError_Timeout)  # else the GPU is lost
        self._events = None
        with suppress(nvml.NVMLError):
            nvml.nvmlEventSetFree(events)
        return found if is_valid else None

    def _ask(self, function: str, *arguments: Any, of: Any = None) -> Any:
        if self._nvml is None:
            return None
        with suppress(self._nvml.NVMLError, AttributeError):  # not supported by this device or driver
            return getattr(self._nvml, function)(self._handle if of is None else of, *arguments)
        return None


def cpu_quota(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> float | None:
    """The CPU limit of this container (``docker run --cpus``); None if there is none.

    Args:
        root: where control groups (version 1 or 2) are mounted.
        own: the groups of this process. In a container their paths are often the host's, but ``root`` is its own.
    """
    with suppress(OSError, ValueError):
        for line in own.read_text(encoding="utf-8").splitlines():
            _, controllers, group = line.split(":", 2)
            if controllers and "cpu" not in controllers.split(","):
                continue
            top = root / "cpu" if controllers else root
            for folder in (top / group.strip("/"), top):
                with suppress(OSError, ValueError):
                    names = ("cpu.cfs_quota_us", "cpu.cfs_period_us") if controllers else ("cpu.max",)
                    quota, period = " ".join((folder / name).read_text(encoding="ascii") for name in names).split()
                    if float(quota) > 0:  # ValueError for "max"; -1 also means no limit
                        return float(quota) / float(period)
    return None


def available_cpus() -> int:
    """The number of CPUs that this process may use: those it is bound to, limited by its quota."""
    quota = cpu_quota()
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1  # not on macOS
    return bound if quota is None else min(bound, math.ceil(quota))


def throttle_reasons(bits: int) -> str:
    """NVML's bit mask in words."""
    named = [name for bit, name in _THROTTLE_REASONS.items() if bits & bit]
    unknown = bits & ~_GPU_IDLE & ~sum(_THROTTLE_REASONS)
    return ", ".join(named + ([f"other ({unknown:#x})"] if unknown else [])) or "nothing"


def _gib(count: int) -> float:
    return round(count / 2**30, 2)
