"""Why torch sees no GPU: each cause has its own message, with the fix."""

from __future__ import annotations

import pytest
import torch

from benchmarks.__main__ import main
from benchmarks.errors import InfrastructureError
from benchmarks.machine import devices as module
from benchmarks.machine.devices import Driver, explain_missing_gpu, smoke


@pytest.mark.parametrize(
    ("built_for", "driver", "loaded", "nodes", "container", "message"),
    [
        (None, Driver(0, (13, 0)), True, True, False, "this torch was built without CUDA"),
        ("13.0", Driver(None), False, False, False, "this machine has no NVIDIA driver"),
        ("13.0", Driver(None), True, False, True, "the host has a driver, but this container"),
        ("13.0", Driver(None), False, False, True, "this container sees neither a driver nor a GPU"),
        ("13.0", Driver(None), True, True, False, "libcuda.so.1 is missing"),
        ("13.0", Driver(0, (12, 4)), True, True, True, "the driver supports CUDA 12.4, this torch needs 13.0"),
        ("13.0", Driver(100, (13, 1)), True, False, True, "the driver's library is here, but no device"),
        ("13.0", Driver(100, (13, 1)), True, True, True, "does CUDA_VISIBLE_DEVICES name"),
        ("12.8", Driver(803, (12, 8)), True, True, False, "library and kernel module have different versions"),
        ("12.8", Driver(804, (13, 0)), True, True, False, "forward compatibility"),
        ("12.8", Driver(4711, (13, 0)), True, True, False, "the driver returns error 4711"),
    ],
)
def test_every_cause_has_its_message(
    built_for: str | None, driver: Driver, loaded: bool, nodes: bool, container: bool, message: str
) -> None:
    found = explain_missing_gpu(built_for, driver, driver_loaded=loaded, device_nodes=nodes, in_container=container)
    assert message in found
    assert "\n" not in found


def test_no_gpu_ends_with_4_and_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(module, "query_driver", lambda: Driver(None))
    assert main(["smoke"]) == 4
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: torch {torch.__version__} sees no GPU: ")


def test_a_gpu_is_reported_after_a_matrix_product(monkeypatch: pytest.MonkeyPatch) -> None:
    real_ones = torch.ones
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda number: f"GPU {number}")
    monkeypatch.setattr(torch, "ones", lambda *size, device: real_ones(*size))
    for cuda, rocm, expected in (("13.0", None, "CUDA 13.0"), (None, "7.1", "ROCm 7.1")):
        monkeypatch.setattr(torch.version, "cuda", cuda)
        monkeypatch.setattr(torch.version, "hip", rocm)
        assert smoke() == f"torch {torch.__version__} with {expected} sees 2 GPUs: GPU 0, GPU 1"
    monkeypatch.setattr(torch, "ones", lambda *size, device: real_ones(*size) * 1.5)
    with pytest.raises(InfrastructureError, match="multiplies two matrices of ones wrongly"):
        smoke()
