"""Which device there is, what prevents its use, and how many of its kind: the one place that knows.

Nothing here imports torch before it is asked about a device.
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

# torch's names; ROCm's builds answer to "cuda". What else a device can do is asked of torch's module for it.
DEVICES = ("cpu", "cuda", "xpu", "mps")
RECORDING = ("cuda",)  # where steps can be recorded and replayed
SIZED_FOR = ("cuda",)  # where `full` is the default; elsewhere, where nothing of it was tested, it has to be asked for
PRECISIONS = ("float32", "tf32", "bfloat16", "float16")  # those of `hw6core.device.Precision`
SIGNS_OF_A_GPU = (Path("/proc/driver/nvidia/version"), Path("/dev/nvidia0"))
_HIDES_EVERY_GPU = ("", "-1", "none", "nodevfiles")  # the usual values of CUDA_VISIBLE_DEVICES that ask for the CPU

_DRIVER_LOADED = Path("/proc/driver/nvidia/version")  # of the host's kernel: seen in a container without a GPU as well
_DEVICE_NODES = Path("/dev")
_CONTAINER_MARKS = (Path("/.dockerenv"), Path("/run/.containerenv"))
_WITHOUT_FLAG = "start it with a GPU: docker run --gpus all ... (with NVIDIA's container toolkit on the host)"


def open_device(name: str) -> torch.device:
    """The device of that name.

    Raises:
        UsageError: no such name.
        InfrastructureError: torch does not see it.
    """
    import torch

    if name not in DEVICES:
        raise UsageError(f"unknown device {name!r}; expected {' or '.join(DEVICES)}")
    if name not in ("cpu", accelerator()):
        seen = f"torch {torch.__version__}, which sees {accelerator() or 'the CPU alone'}"
        raise InfrastructureError(f"no {name} device is visible to {seen}; ask why: make smoke, or: DEVICE=cpu")
    return torch.device(name)


def accelerator() -> str | None:
    """The kind of accelerator that torch sees here, by torch's name for it."""
    import torch

    found = torch.accelerator.current_accelerator(check_available=True)
    return None if found is None else found.type


def choose_precision(device: torch.device, asked: Precision | None) -> Precision:
    """The precision asked for, or the device's own.

    Raises:
        UsageError: the device has no such thing.
    """
    from hw6core.device import default_precision, precisions

    possible = precisions(device)
    if asked is not None and asked not in possible:
        raise UsageError(f"PRECISION is {asked!r}, and this {device.type} device has {', '.join(possible)}; name one")
    return asked or default_precision(device)


def check_compiler(device: torch.device) -> None:
    """Compile something small: what that needs (a C++ compiler, Triton) depends on the device and on torch.

    Raises:
        UsageError: nothing can be compiled.
    """
    import torch

    from benchmarks.machine.failures import compiler_failed, first_line
    from hw6core.steps import COMPILER

    try:
        torch.compile(torch.sin, backend=COMPILER)(torch.ones(16, device=device))
    except Exception as error:  # what it raises depends on what is missing
        raise UsageError(
            f"COMPILE=1, and torch {torch.__version__} cannot compile for this {device.type} device "
            f"({compiler_failed(error) or first_line(error)}); install a C++ compiler (Debian: g++), or leave it out"
        ) from error


def default_device() -> str:
    """The accelerator where torch sees one, the CPU where there is none or it was hidden on purpose.

    Raises:
        InfrastructureError: the system has an NVIDIA GPU that torch cannot use. Training on the CPU instead would let
            a broken driver or image pass.
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
            "ask why: make smoke, or leave the GPU out: DEVICE=cpu"
        )
    return "cpu"


def visible_devices(count: int) -> list[str]:
    """The names of the first so many GPUs that this process may use, as CUDA_VISIBLE_DEVICES takes them."""
    named = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")]
    return (named if any(named) else [str(index) for index in range(count)])[:count]


@dataclass(frozen=True)
class Driver:
    """What the driver's own library says.

    Attributes:
        code: of cuInit; 0 is well. None: there is no libcuda.
        cuda: the newest CUDA that it serves, as (major, minor).
    """

    code: int | None
    cuda: tuple[int, int] = (0, 0)


def ask_driver() -> Driver:
    """Load libcuda as torch does."""
    try:
        library = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return Driver(None)
    version = ctypes.c_int(0)
    library.cuDriverGetVersion(ctypes.byref(version))
    return Driver(int(library.cuInit(0)), (version.value // 1000, version.value % 1000 // 10))


def why_not(
    built_for: str | None, driver: Driver, *, driver_loaded: bool, device_nodes: bool, in_container: bool
) -> str:
    """The reason that torch sees no GPU, with what mends it.

    Args:
        built_for: the CUDA version of torch's wheels, None for a build without CUDA.
        driver: what libcuda says.
        driver_loaded: whether the kernel has NVIDIA's module.
        device_nodes: whether there is a /dev/nvidia0 or the like.
    """
    if built_for is None:
        return "this torch was built without CUDA; install the locked one: make setup"
    if driver.code is None:
        if driver_loaded and in_container:
            return f"the host has a driver, but this container was given no GPU; {_WITHOUT_FLAG}"
        if driver_loaded:
            return "the kernel has NVIDIA's module, but libcuda.so.1 is not to be found; install the driver's libraries"
        if in_container:
            return f"this container sees neither a driver nor a GPU; {_WITHOUT_FLAG}, on a machine that has one"
        return "this machine has no NVIDIA driver"
    needed = int(built_for.split(".")[0])
    if driver.cuda[0] < needed:
        served = f"{driver.cuda[0]}.{driver.cuda[1]}"
        return f"the driver serves CUDA {served}, these wheels need {built_for}; update the driver on the host"
    if driver.code == 100 and not device_nodes:
        return f"the driver's library is here, but no device; {_WITHOUT_FLAG}, or look at NVIDIA_VISIBLE_DEVICES"
    meaning = _CODES.get(driver.code, "see the driver's list of errors; does nvidia-smi work on the host?")
    return f"the driver answers with error {driver.code}: {meaning}"


_CODES = {
    0: "none, so torch and the driver disagree; is CUDA_VISIBLE_DEVICES set to a device that is not there?",
    3: "it is not initialised; restart the container",
    46: "all devices are in use exclusively or unavailable; see nvidia-smi",
    100: "no device; is CUDA_VISIBLE_DEVICES set to one that is not there?",
    803: "library and kernel module are of different versions; restart the machine after the driver's update",
    804: "this GPU does not take forward compatibility; update the driver on the host",
    999: "unknown; a restart of the machine often helps",
}


def smoke() -> str:
    """One line about the device, after a product of two matrices on it.

    Raises:
        InfrastructureError: torch sees no GPU, with the reason.
    """
    import torch

    kind = accelerator()
    if kind is None:
        reason = why_not(
            torch.version.cuda,
            ask_driver(),
            driver_loaded=_DRIVER_LOADED.exists(),
            device_nodes=any(_DEVICE_NODES.glob("nvidia[0-9]*")),
            in_container=any(mark.exists() for mark in _CONTAINER_MARKS),
        )
        raise InfrastructureError(f"torch {torch.__version__} sees no GPU: {reason}")
    try:
        ones = torch.ones(256, 256, device=kind)
        total = float((ones @ ones).sum())
    except RuntimeError as error:  # no kernels for this GPU, no memory left, another process has it to itself
        built_for = ", ".join(torch.cuda.get_arch_list()) or kind
        raise InfrastructureError(
            f"torch {torch.__version__} sees a GPU but cannot multiply on it: {str(error).splitlines()[0]}; "
            f"it is built for {built_for}; install a torch for this GPU, or ask nvidia-smi"
        ) from error
    if total != 256.0**3:
        raise InfrastructureError("the GPU multiplies two matrices of ones wrongly: look at its memory (nvidia-smi -q)")
    if kind != "cuda":
        return f"torch {torch.__version__} sees {kind}"
    count = torch.cuda.device_count()
    names = ", ".join(torch.cuda.get_device_name(number) for number in range(count))
    return f"torch {torch.__version__} with CUDA {torch.version.cuda} sees {count} GPU{'s' * (count > 1)}: {names}"
