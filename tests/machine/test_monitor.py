"""Measurements of the machine during a run: plain values, and None for what cannot be read."""

from __future__ import annotations

import json
import mmap
import os
import sys
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import msgspec
import pytest
import torch

from benchmarks.machine import monitor as machine
from benchmarks.machine.monitor import Meter, peak_memory_bytes, throttle_reasons
from benchmarks.results.hardware import COUNTERS
from benchmarks.results.records import Hardware
from benchmarks.runs.plan import Plan
from benchmarks.suite import SUITE
from tests.fake_nvml import UUID, FakeNVML, install, refuse
from tests.short_runs import run, shortened

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)
GPU_KEYS = ["gpu_mhz", "gpu_mhz_limit", "gpu_memory_mhz", "gpu_celsius", "gpu_watts", "gpu_throttled_by"]


def can_reset_peak_memory() -> bool:
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return False
    return True


def test_a_reading_on_a_cpu_is_plain_json(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text("processor\t: 0\ncpu MHz\t\t: 2000.000\nprocessor\t: 1\ncpu MHz\t\t: 3001.000\n", encoding="utf-8")
    monkeypatch.setattr(machine, "_CPU_INFO", info)
    monkeypatch.setattr(os, "getloadavg", lambda: (1.234, 0.0, 0.0))
    reading = Meter(CPU).read()
    assert json.loads(json.dumps(reading, allow_nan=False)) == reading
    assert reading["start"] == reading["end"] == {"load_average": 1.23, "cpu_mhz": 2500}
    assert reading["started_at"].endswith("+00:00")
    assert reading["peak_memory_gib"] > 0.05  # torch alone needs more
    assert reading["peak_device_memory_gib"] is None


def test_a_run_works_on_macos(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No /proc, /sys, glibc or affinity; getrusage(2) returns bytes."""
    read, nowhere = Path.read_text, Path("/nowhere")
    linux = ("/proc/", "/sys/")
    monkeypatch.setattr(Path, "read_text", lambda p, **more: read(nowhere if str(p).startswith(linux) else p, **more))
    monkeypatch.setattr(machine, "_CLEAR_REFS", nowhere / "file")
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr("platform.system", lambda: "Darwin")
    monkeypatch.setattr("resource.getrusage", lambda who: mock.Mock(ru_maxrss=3 * 2**30))
    (record,), _ = run(Plan([shortened(SUITE["seg-baseline"], 1)], "quick", (0,), data, "cpu", tmp_path))
    found = record.environment.machine
    assert (record.status, record.message, found.peak_memory_gib, found.energy_j) == ("completed", "", 3.0, None)
    assert found.start["cpu_mhz"] is None
    assert machine.available_cpus() == os.cpu_count()
    assert record.environment.device_name


@pytest.mark.skipif(not can_reset_peak_memory(), reason="this system does not let a process reset its peak memory")
def test_the_peak_memory_rises_with_use_and_is_reset_by_a_meter() -> None:
    meter = Meter(CPU)
    before = peak_memory_bytes()
    with mmap.mmap(-1, 200_000_000) as block:
        block[::4096] = b"x" * len(block[::4096])  # makes the pages resident
    assert 190_000_000 < peak_memory_bytes() - before < 260_000_000
    assert meter.read()["peak_memory_gib"] == pytest.approx(peak_memory_bytes() / 2**30, abs=0.01)
    Meter(CPU)
    assert peak_memory_bytes() - before < 50_000_000


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> FakeNVML:
    return install(monkeypatch)


def test_a_reading_on_a_gpu_has_clocks_temperature_power_and_energy(nvml: FakeNVML) -> None:
    reading = Meter(CUDA).read()
    assert [reading["end"][key] for key in GPU_KEYS] == [1410, 1980, 2619, 61, 345.7, "software power cap"]
    assert reading["start"].keys() == reading["end"].keys()
    assert reading["energy_j"] == 123.5  # 5123.456 - 5000 J
    assert reading["peak_device_memory_gib"] == 3.0
    assert json.loads(json.dumps(reading)) == reading


def test_the_energy_of_the_floors_is_not_that_of_the_run(
    data: Path, nvml: FakeNVML, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.runs.runner.Meter", lambda device, shared: Meter(CUDA))
    monkeypatch.setattr("benchmarks.workloads.find_floors", lambda *_: {"floor": {"joules": next(nvml.millijoules)}})
    (record,), _ = run(Plan([shortened(SUITE["seg-baseline"], 1)], "quick", (0,), data, "cpu", tmp_path))
    assert (record.status, record.environment.machine.energy_j) == ("completed", 123.5)


def test_the_energy_of_a_shared_gpu_is_not_reported(nvml: FakeNVML) -> None:
    assert Meter(CUDA, shared=True).read()["energy_j"] is None
    for processes, expected in ((["this"], 123.5), (["this", "another"], None)):
        nvml.nvmlDeviceGetComputeRunningProcesses = {"handle": processes}.__getitem__
        assert Meter(CUDA).read()["energy_j"] == expected


LACKS: dict[str, Callable[[FakeNVML, pytest.MonkeyPatch], None]] = {
    "no module": lambda fake, patch: patch.setitem(sys.modules, "pynvml", None),
    "an old driver": lambda fake, patch: setattr(fake, "nvmlInit", refuse),
    "another device": lambda fake, patch: setattr(fake, "names", {}),
}


@pytest.mark.parametrize("lack", LACKS.values(), ids=LACKS.keys())
def test_without_nvml_every_value_of_the_gpu_is_none(
    lack: Callable[[FakeNVML, pytest.MonkeyPatch], None], nvml: FakeNVML, monkeypatch: pytest.MonkeyPatch
) -> None:
    lack(nvml, monkeypatch)
    reading = Meter(CUDA).read()
    assert {key: reading["end"][key] for key in GPU_KEYS} == dict.fromkeys(GPU_KEYS)
    assert reading["energy_j"] is None
    assert reading["peak_device_memory_gib"] == 3.0  # from torch
    assert reading["hardware"]["not_told"] == list(COUNTERS)
    assert reading["hardware"]["uuid"] == UUID


def hardware_of(meter: Meter) -> Hardware:
    return msgspec.convert(meter.read()["hardware"], Hardware)


def test_increases_of_counters_are_reported(nvml: FakeNVML) -> None:
    nvml.fire(48)  # before the measurement
    meter = Meter(CUDA)
    nvml.ecc["handle"] = {"CORRECTED": 112, "UNCORRECTED": 9}
    nvml.rows, nvml.replays = (2, 2, 1, 1), 41  # the pending row is counted as uncorrected
    nvml.nvlink |= {(0, 2): 4, (17, 4): 6}
    nvml.fields["POWER"].value.ullVal += 12_500_000_000
    nvml.fire(63, 45, 45)
    times = {"power": 12.5, "thermal": 0.0, "reliability": 0.0}
    expected = Hardware(f"GPU-{UUID}", "1650522000123", 3, [63, 45, 45], 12, 2, 2, 1, 5, times)
    assert hardware_of(meter) == expected
    assert nvml.event_sets == []
    expected = Hardware(f"GPU-{UUID}", "1650522000123", 3, [], 0, 0, 0, 0, 0, dict.fromkeys(times, 0.0))
    assert hardware_of(Meter(CUDA)) == expected


@pytest.mark.parametrize(
    ("refused", "not_told"),
    [
        ("EventSetWait DeviceGetRemappedRows DeviceGetNvLinkErrorCounter", "xids remapped_rows nvlink_errors"),
        ("DeviceRegisterEvents DeviceGetPcieReplayCounter", "xids pcie_replays"),
        ("DeviceGetTotalEccErrors DeviceGetFieldValues", "ecc_corrected ecc_uncorrected throttled_s"),
        ("DeviceGetTotalEnergyConsumption", ""),
    ],
)
def test_values_that_a_device_does_not_report_are_none_and_listed(refused: str, not_told: str, nvml: FakeNVML) -> None:
    for function in refused.split():
        setattr(nvml, f"nvml{function}", refuse)
    reading = Meter(CUDA).read()
    assert (reading["energy_j"] is None) == ("Energy" in refused)
    assert reading["end"]["gpu_mhz"] == 1410
    found = msgspec.convert(reading["hardware"], Hardware)
    assert found.not_told == [name for name in COUNTERS if getattr(found, name) is None] == not_told.split()


def test_a_counter_that_was_reset_is_none_and_xids_before_the_gpu_is_lost_are_kept(nvml: FakeNVML) -> None:
    meter = Meter(CUDA)
    nvml.ecc["handle"]["CORRECTED"] = 3  # was reset
    nvml.fields["RELIABILITY"].nvmlReturn = 3  # not supported
    nvml.fire(79)
    nvml.nvmlEventSetWait = lambda events, timeout_ms: nvml.pending.pop() if nvml.pending else refuse()
    found = hardware_of(meter)
    assert (found.xids, found.ecc_corrected, found.ecc_uncorrected) == ([79], None, 0)
    assert (found.throttled_s or {}).keys() == {"power", "thermal"}
    assert found.not_told == ["ecc_corrected", "throttled_by_reliability"]


def test_a_mig_slice_has_its_own_name_memory_errors_and_events_and_no_energy(nvml: FakeNVML) -> None:
    """NVML names a MIG device MIG-<uuid>; clocks, temperature and power are those of the whole GPU."""
    nvml.names = {f"MIG-{UUID}": "slice"}
    nvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle = {"slice": "handle"}.__getitem__
    nvml.nvmlDeviceGetGpuInstanceId = {"slice": 2}.__getitem__
    meter = Meter(CUDA)
    nvml.ecc["handle"]["UNCORRECTED"], nvml.ecc["slice"]["CORRECTED"] = 8, 4
    nvml.fire(94, instance=1)
    nvml.fire(31, instance=2)
    nvml.fire(74)
    reading = meter.read()
    assert (reading["end"]["gpu_mhz"], reading["end"]["gpu_celsius"], reading["energy_j"]) == (1410, 61, None)
    found = msgspec.convert(reading["hardware"], Hardware)
    assert (found.uuid, found.index, found.xids) == (f"MIG-{UUID}", 3, [31, 74])
    assert (found.ecc_corrected, found.ecc_uncorrected) == (4, 0)


@pytest.mark.parametrize(
    ("bits", "text"),
    [
        (0x1, "nothing"),  # an idle GPU
        (0x24, "software power cap, software thermal slowdown"),
        (0x1 | 0x80, "hardware power brake"),
    ],
)
def test_throttling_in_words(bits: int, text: str) -> None:
    assert throttle_reasons(bits) == text
