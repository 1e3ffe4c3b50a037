"""A simulated GPU: torch's CUDA code with all libraries below it replaced.

`dry_gpu.c`, preloaded, replaces CUDA's runtime, cuBLAS and cuDNN. torch then sees a GPU and runs its own code for it:
dispatch, device and type checks, autograd, the caching allocator, generators, CUDA graphs, deterministic alerts, errors
on synchronization. Kernels are counted but not run; copies from the device are zero. Tests can check that all calls are
possible, in this order and on this stream, without synchronization, and count launches and memory. Values and times
need a real GPU: `make gpu-check`.
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import subprocess
from pathlib import Path

import torch

_SITE = Path(torch.__file__).parents[1]  # site-packages
_SOURCE = Path(__file__).with_name("dry_gpu.c")
_COUNTERS = ("kernels", "library", "waits", "to_device", "from_device", "between", "memsets", "mallocs", "replays")
_LAUNCHES = ("kernels", "library", "memsets", "between", "replays")
# Macros that cuda_runtime_api.h needs and the headers in the wheels lack.
_EMPTY = (
    "__host__ __device__ __global__ __shared__ __constant__ __managed__ __grid_constant__ CUDARTAPI CUDARTAPI_CDECL "
    "CUDART_CB __cudart_builtin__ __device_builtin__ __device_builtin_texture_type__ __device_builtin_surface_type__"
)
_ALIGN = "#define __align__(n) __attribute__((aligned(n)))\n#define __builtin_align__(n) __align__(n)\n"


def what_is_missing() -> str | None:
    """Why the library cannot be built; None if it can."""
    absent = [tool for tool in ("gcc", "nm") if shutil.which(tool) is None]
    if absent:
        return f"the simulated GPU must be compiled: {' and '.join(absent)} not found"
    if not (_SITE / "torch" / "lib" / "libtorch_cuda.so").is_file() or _headers() is None:
        return "the simulated GPU requires torch's CUDA wheel with its headers (nvidia-cuda-runtime)"
    return None


def build(folder: Path) -> Path:
    """Compile the library; functions that torch imports and dry_gpu.c does not define return 0."""
    source = _SOURCE.read_text(encoding="utf-8")
    imported: set[str] = set()
    for name in ("c10_cuda", "torch_cuda", "torch_python", "torch_cuda_linalg", "caffe2_nvrtc"):
        command: list[str | Path] = ["nm", "-D", "--undefined-only", _SITE / "torch" / "lib" / f"lib{name}.so"]
        lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
        imported |= {line.split()[-1].split("@")[0] for line in lines}
    imported = {name for name in imported if re.match(r"(__cuda|cuda[A-Z]|cublas|cudnn|cu[A-Z])", name)}
    # These work without a device, and torch compares the version.
    imported -= {"cudnnGetVersion", "cudnnGetProperty", "cudnnGetCudartVersion", "cublasLtGetVersion"}
    own = set(re.findall(r"(\w+)\(", source)) | set(re.findall(r"\((\w+)\)", source))  # the second: of macros
    rest = [f'int dry_{n}(void) __asm__("{n}"); int dry_{n}(void) {{ return 0; }}' for n in sorted(imported - own)]
    (folder / "crt").mkdir(parents=True, exist_ok=True)
    defined = "".join(f"#define {name}\n" for name in _EMPTY.split())
    (folder / "crt" / "host_defines.h").write_text(defined + _ALIGN, encoding="utf-8")
    (folder / "rest.h").write_text("\n".join(rest), encoding="utf-8")
    library = folder / "libdry.so"
    flags = ["-O1", "-w", "-shared", "-fPIC", "-fno-builtin", "-Wl,-soname,libcuda.so.1"]
    includes = [f"-I{folder}", f"-I{_headers()}"]
    subprocess.run(["gcc", *flags, *includes, _SOURCE, "-o", library, "-ldl", "-lpthread"], check=True)
    return library


def environment(library: Path) -> dict[str, str]:
    """The environment of a process with a simulated GPU.

    DRY_GPU_GIB (default: 79) is its memory, DRY_SM (90) its compute capability times ten. DRY_FAIL=CODE:N makes it fail
    with that CUDA error at the Nth launch.
    """
    return os.environ | {"LD_PRELOAD": str(library), "OMP_NUM_THREADS": "1", "HW6_CACHE": "off"}


def counted() -> dict[str, int]:
    """The number of calls so far by kind, and the sum of all launches; in a process with a simulated GPU."""
    values = (ctypes.c_longlong * len(_COUNTERS)).in_dll(ctypes.CDLL(os.environ["LD_PRELOAD"]), "dry_counters")
    found: dict[str, int] = dict(zip(_COUNTERS, values, strict=True))
    return found | {"launches": sum(found[name] for name in _LAUNCHES)}


def _headers() -> Path | None:
    found = (path.parent for path in _SITE.glob("nvidia/*/include/cuda_runtime_api.h"))
    return next(found, None)
