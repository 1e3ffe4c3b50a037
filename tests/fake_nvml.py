"""A fake GPU for torch and NVML, which behaves as the NVML reference says (docs.nvidia.com/deploy/nvml-api)."""

from __future__ import annotations

import sys
from itertools import count
from types import SimpleNamespace
from typing import Any

import pytest
import torch

UUID = "b11a4e2c-0000-4000-8000-000000000000"


class FakeNVMLError(Exception): ...


class FakeTimeoutError(FakeNVMLError): ...


def refuse(*_: Any) -> Any:
    raise FakeNVMLError("not supported")


class FakeNVML(SimpleNamespace):
    """The used part of pynvml: one device, whose energy counter rises with every reading."""

    NVMLError, NVMLError_Timeout, NVML_NVLINK_MAX_LINKS, NVML_SUCCESS = FakeNVMLError, FakeTimeoutError, 18, 0

    def __init__(self) -> None:
        self.millijoules = count(5_000_000, 123_456)
        self.names = {f"GPU-{UUID}": "handle"}
        self.ecc = {"handle": {"CORRECTED": 100, "UNCORRECTED": 7}, "slice": {"CORRECTED": 0, "UNCORRECTED": 0}}
        self.rows, self.replays = (2, 1, 0, 0), 40  # after corrected, after uncorrected errors, pending, failed
        self.nvlink = {(0, 0): 3, (0, 2): 0, (17, 4): 5}  # by link and kind
        self.fields: dict[str, SimpleNamespace] = {}
        for name in ("POWER", "THERMAL", "RELIABILITY"):  # nanoseconds
            self.fields[name] = SimpleNamespace(nvmlReturn=0, value=SimpleNamespace(ullVal=10**9))
        self.event_sets: list[str] = []
        self.pending: list[SimpleNamespace] = []
        self.nvmlInit = lambda: None
        self.nvmlDeviceGetHandleByUUID = lambda uuid: self.names[uuid] if uuid in self.names else refuse()
        self.nvmlDeviceGetSerial = lambda handle: "1650522000123"
        self.nvmlDeviceGetIndex = lambda handle: 3
        self.nvmlDeviceGetClockInfo = lambda handle, kind: {"SM": 1410, "MEM": 2619}[kind]
        self.nvmlDeviceGetMaxClockInfo = lambda handle, kind: {"SM": 1980, "MEM": 2619}[kind]
        self.nvmlDeviceGetTemperature = lambda handle, sensor: 61
        self.nvmlDeviceGetPowerUsage = lambda handle: 345_678
        self.nvmlDeviceGetCurrentClocksEventReasons = lambda handle: 0x4
        self.nvmlDeviceGetTotalEnergyConsumption = lambda handle: next(self.millijoules)
        self.nvmlDeviceGetTotalEccErrors = lambda handle, kind, counter: self.ecc[handle][kind]
        self.nvmlDeviceGetRemappedRows = lambda handle: self.rows
        self.nvmlDeviceGetPcieReplayCounter = lambda handle: self.replays
        self.nvmlDeviceGetNvLinkErrorCounter = lambda handle, *key: self.nvlink[key] if key in self.nvlink else refuse()
        self.nvmlDeviceGetFieldValues = lambda handle, names: [self.fields[name] for name in names]
        self.nvmlEventTypeXidCriticalError = 8
        self.nvmlEventSetCreate = lambda: "events"
        self.nvmlDeviceRegisterEvents = lambda handle, types, events: self.event_sets.append(events)
        self.nvmlEventSetWait = self.wait
        self.nvmlEventSetFree = self.event_sets.remove

    def __getattr__(self, name: str) -> str:
        """The value of any other constant is its last word: "SM" for NVML_CLOCK_SM."""
        if not name.startswith("NVML_"):
            raise AttributeError(name)
        return name.rpartition("_")[2]

    def fire(self, *xids: int, instance: int = 0xFFFFFFFF) -> None:
        # Only event sets that are already registered receive them.
        events = [SimpleNamespace(eventType=8, eventData=xid, gpuInstanceId=instance) for xid in xids]
        self.pending += events if self.event_sets else []

    def wait(self, events: str, timeout_ms: int) -> SimpleNamespace:
        assert (events, timeout_ms) == ("events", 0)
        if not self.pending:
            raise self.NVMLError_Timeout
        return self.pending.pop(0)


def install(monkeypatch: pytest.MonkeyPatch) -> FakeNVML:
    fake = FakeNVML()
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid=UUID))
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: None)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 3 * 2**30)
    return fake
