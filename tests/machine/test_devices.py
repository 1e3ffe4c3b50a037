"""Devices other than CUDA's: what torch offers is taken by its name, and what a Mac lacks is not asked for."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from benchmarks.errors import InfrastructureError
from benchmarks.machine.devices import open_device
from benchmarks.machine.monitor import available_cpus, peak_memory_bytes
from benchmarks.options import read_options
from benchmarks.runs.plan import Plan
from benchmarks.suite import SUITE
from hw6core import dice
from hw6core.errors import UsageError
from tests.short_runs import run, shortened


@pytest.fixture
def apple(monkeypatch: pytest.MonkeyPatch) -> None:
    """`torch.accelerator.current_accelerator` as it answers on an Apple chip."""
    monkeypatch.setattr("torch.accelerator.current_accelerator", lambda check_available: torch.device("mps"))


@pytest.mark.usefixtures("apple")
def test_an_apple_chip_means_quick_unless_full_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = read_options({}, {})
    assert (found.device, found.profile, found.workers, found.cuda_graphs) == ("mps", "quick", 1, False)
    (tmp_path / "data").mkdir()
    assert read_options({"DEVICE": "mps", "PROFILE": "full", "DATA": "data"}, {}).profile == "full"
    assert read_options({"DEVICE": "cpu"}, {}).device == "cpu"
    with pytest.raises(UsageError, match="GPUS is 2, and the device is 'mps'; several runs at once: WORKERS=2"):
        read_options({}, {"GPUS": "2"})
    assert open_device("mps") == torch.device("mps")
    with pytest.raises(InfrastructureError, match=r"^no cuda device is visible to torch .*, which sees cpu and mps; "):
        open_device("cuda")


def test_scores_are_summed_on_the_cpu_where_the_device_has_no_float64() -> None:
    """As Apple's has not: "MPS framework doesn't support float64"."""
    with FakeTensorMode():
        counts = dice.overlap_of(torch.zeros(2, 4, 4, dtype=torch.int64, device="mps"))
        assert dice.dice_of_counts(counts).device.type == "cpu"


@pytest.fixture
def mac(monkeypatch: pytest.MonkeyPatch) -> None:
    """No /proc, no /sys, no glibc, no affinity: what Linux has and macOS has not."""
    for name in ("read_text", "write_text"):
        original = getattr(Path, name)

        def linux_alone(path: Path, *given: Any, original: Any = original, **more: Any) -> Any:
            if path.parts[1:2] in (("proc",), ("sys",)):
                raise FileNotFoundError(path)
            return original(path, *given, **more)

        monkeypatch.setattr(Path, name, linux_alone)
    for name in ("sched_getaffinity", "sched_setaffinity", "posix_fadvise", "memfd_create"):
        monkeypatch.delattr(os, name)
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(platform, "system", lambda: "Darwin")


@pytest.mark.usefixtures("mac")
def test_a_run_asks_for_nothing_that_a_mac_lacks(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resource.getrusage", lambda who: type("usage", (), {"ru_maxrss": 3 * 2**30}))
    assert peak_memory_bytes() == 3 * 2**30  # getrusage(2) there counts bytes
    assert available_cpus() == os.cpu_count()
    (record,), _ = run(Plan([shortened(SUITE["seg-baseline"], 1)], "quick", (0,), data, "cpu", tmp_path))
    assert (record.status, record.message) == ("completed", "")
    machine = record.environment.machine
    assert (machine.peak_memory_gib, machine.start["cpu_mhz"], machine.energy_j) == (3.0, None, None)
    assert record.environment.device_name
