"""Devices: which are available, how many, and why one cannot be used.

Torch is only imported inside functions that need it.
"""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.errors import InfrastructureError
from hw6core.errors import UsageError

if TYPE_CHECKING:
    import torch

    from hw6core.device import Precision

DEVICES = ("cpu", "cuda", "xpu", "mps")  # torch's names; "cuda" includes ROCm
CAPTURING = ("cuda",)  # devices on which steps can be captured as CUDA graphs
SIZED_FOR = ("cuda",)  # devices with `full` as the default profile; it is not tested on the others
PRECISIONS = ("float32", "tf32", "bfloat16", "float16")  # those of `hw6core.device.Precision`
SIGNS_OF_A_GPU = (Path("/proc/driver/nvidia/version"), Path("/dev/nvidia0"))
_HIDES_EVERY_GPU = ("", "-1", "none", "nodevfiles")  # common values of CUDA_VISIBLE_DEVICES that select the CPU

_DRIVER_LOADED = Path("/proc/driver/nvidia/version")  # of the host's kernel; also visible in containers without a GPU
_DEVICE_NODES = Path("/dev")
_CONTAINER_MARKS = (Path("/.dockerenv"), Path("/run/.containerenv"))
_WITHOUT_FLAG = "start it with a GPU: docker run --gpus all ... (with NVIDIA's container toolkit on the host)"


def open_device(name: str) -> torch.device:
    """The torch device with this name, one of `DEVICES`.

    Raises:
        InfrastructureError: torch does not see the device.
    """
    import torch

    if name not in ("cpu", accelerator()):
        seen = f"torch {torch.__version__}, which sees {accelerator() or 'only the CPU'}"
        raise InfrastructureError(f"no {name} device is visible to {seen}; to find out why: make smoke, or DEVICE=cpu")
    return torch.device(name)


def accelerator() -> str | None:
    """Torch's name for the kind of accelerator that it sees, if any."""
    import torch

    found = torch.accelerator.current_accelerator(check_available=True)
    return None if found is None else found.type


def choose_precision(device: torch.device, asked: Precision | None) -> Precision:
    """The requested precision, or the device's default.

    Raises:
        UsageError: the device does not support it.
    """
    from hw6core.device import default_precision, precisions

    possible = precisions(device)
    if asked is not None and asked not in possible:
        raise UsageError(f"PRECISION is {asked!r}; expected one that {device.type} supports: {', '.join(possible)}")
    return asked or default_precision(device)


def check_compiler(device: torch.device) -> None:
    """Compile a small function; what that requires (a C++ compiler, Triton) depends on the device and on torch.

    Raises:
        UsageError: it cannot be compiled.
    """
    import torch

    from benchmarks.machine.failures import compiler_failed, first_line
    from hw6core.steps import COMPILER

    try:
        torch.compile(torch.sin, backend=COMPILER)(torch.ones(16, device=device))
    except Exception as error:  # its class depends on what is missing
        raise UsageError(
            f"COMPILE=1, but torch {torch.__version__} cannot compile for this {device.type} device "
            f"({compiler_failed(error) or first_line(error)}); install a C++ compiler (Debian: g++), or set COMPILE=0"
        ) from error


def default_device() -> str:
    """The accelerator that torch sees, else the CPU if there is none or it is hidden on purpose.

    Raises:
        InfrastructureError: the system has an NVIDIA GPU that torch cannot use. With a fallback to the CPU, a broken
            driver or image would pass.
    """
    import torch

    if found_by_torch := accelerator():
        return found_by_torch
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and visible.strip().lower() in _HIDES_EVERY_GPU:
        return "cpu"
    found = next((path for path in SIGNS_OF_A_GPU if path.exists()), None)
    if found is not None:
        hint = "" if visible is None else f" with CUDA_VISIBLE_DEVICES={visible[:60]!r}"
        raise InfrastructureError(
            f"this machine has an NVIDIA GPU ({found}), but torch {torch.__version__} cannot use it{hint}; "
            "to find out why: make smoke, or use the CPU: DEVICE=cpu"
        )
    return "cpu"


def visible_devices(count: int) -> list[str]:
    """The first ``count`` GPUs that this process may use, by their names for CUDA_VISIBLE_DEVICES."""
    named = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")]
    return (named if any(named) else [str(index) for index in range(count)])[:count]


@dataclass(frozen=True)
class Driver:
    """The state of the NVIDIA driver."""

    code: int | None  # what cuInit returns; 0 is success, None means that there is no libcuda
    cuda: tuple[int, int] = (0, 0)  # the newest CUDA version that it supports: (major, minor)


def query_driver() -> Driver:
    """Load libcuda as torch does, and initialise it."""
    try:
        library = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return Driver(None)
    version = ctypes.c_int(0)
    library.cuDriverGetVersion(ctypes.byref(version))
    return Driver(int(library.cuInit(0)), (version.value // 1000, version.value % 1000 // 10))


def explain_missing_gpu(
    built_for: str | None, driver: Driver, *, driver_loaded: bool, device_nodes: bool, in_container: bool
) -> str:
    """The reason that torch sees no GPU, and how to fix it.

    Args:
        built_for: the CUDA version of torch's wheels; None for a build without CUDA.
        driver_loaded: whether the kernel has loaded NVIDIA's module.
        device_nodes: whether there are device nodes such as /dev/nvidia0.
    """
    if built_for is None:
        return "this torch was built without CUDA; install the locked one: make setup"
    if driver.code is None:
        if driver_loaded and in_container:
            return f"the host has a driver, but this container was started without a GPU; {_WITHOUT_FLAG}"
        if driver_loaded:
            return "the kernel has NVIDIA's module, but libcuda.so.1 is missing; install the driver's libraries"
        if in_container:
            return f"this container sees neither a driver nor a GPU; {_WITHOUT_FLAG}, on a machine that has one"
        return "this machine has no NVIDIA driver"
    needed = int(built_for.split(".")[0])
    if driver.cuda[0] < needed:
        supported = f"{driver.cuda[0]}.{driver.cuda[1]}"
        return f"the driver supports CUDA {supported}, this torch needs {built_for}; update the driver on the host"
    if driver.code == 100 and not device_nodes:
        return f"the driver's library is here, but no device; {_WITHOUT_FLAG}, or check NVIDIA_VISIBLE_DEVICES"
    meaning = _CODES.get(driver.code, "see CUDA's list of errors; does nvidia-smi work on the host?")
    return f"the driver returns error {driver.code}: {meaning}"


_CODES = {
    0: "no error, so torch and the driver disagree; does CUDA_VISIBLE_DEVICES name a device that does not exist?",
    3: "not initialized; restart the container",
    46: "all devices are unavailable or in exclusive use; see nvidia-smi",
    100: "no device; does CUDA_VISIBLE_DEVICES name one that does not exist?",
    803: "library and kernel module have different versions; restart the machine after updating the driver",
    804: "this GPU does not support forward compatibility; update the driver on the host",
    999: "unknown; restarting the machine often helps",
}


def smoke() -> str:
    """Multiply two matrices on the GPU and return one line about it.

    Raises:
        InfrastructureError: torch sees no GPU, or it does not work, with the reason.
    """
    import torch

    kind = accelerator()
    if kind is None:
        reason = explain_missing_gpu(
            torch.version.cuda,
            query_driver(),
            driver_loaded=_DRIVER_LOADED.exists(),
            device_nodes=any(_DEVICE_NODES.glob("nvidia[0-9]*")),
            in_container=any(mark.exists() for mark in _CONTAINER_MARKS),
        )
        raise InfrastructureError(f"torch {torch.__version__} sees no GPU: {reason}")
    try:
        ones = torch.ones(256, 256, device=kind)
        total = float((ones @ ones).sum())
    except RuntimeError as error:  # no kernels for this GPU, no free memory, or in exclusive use by another process
        built_for = ", ".join(torch.cuda.get_arch_list()) or kind
        raise InfrastructureError(
            f"torch {torch.__version__} sees a GPU but cannot multiply on it: {str(error).splitlines()[0]}; "
            f"it is built for {built_for}; install a torch for this GPU, or check nvidia-smi"
        ) from error
    if total != 256.0**3:
        raise InfrastructureError("the GPU multiplies two matrices of ones wrongly; check its memory: nvidia-smi -q")
    if kind != "cuda":
        return f"torch {torch.__version__} sees {kind}"
    toolkit = f"CUDA {torch.version.cuda}" if torch.version.cuda else f"ROCm {torch.version.hip}"
    count = torch.cuda.device_count()
    names = ", ".join(torch.cuda.get_device_name(number) for number in range(count))
    return f"torch {torch.__version__} with {toolkit} sees {count} GPU{'s' * (count > 1)}: {names}"
