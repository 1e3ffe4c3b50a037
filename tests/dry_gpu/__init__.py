"""A GPU that is not there: torch's own CUDA code, with everything below it replaced.

`dry_gpu.c`, preloaded, stands in for CUDA's runtime, cuBLAS and cuDNN. torch then sees a GPU and runs its own code for
it: dispatch, checks of devices and types, autograd, the caching allocator, generators, recorded graphs, deterministic
alerts, refusals to wait. Kernels are counted and not run; whatever is copied back is zero. It shows that everything can
be called, in this order, from this stream, without a wait, and what it costs in launches and memory. It says nothing of
numbers or time: `make gpu-check` does, on a GPU.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import re
import shutil
import subprocess
from pathlib import Path

_SOURCE = Path(__file__).with_name("dry_gpu.c")
_COUNTERS = ("kernels", "library", "waits", "to_device", "from_device", "between", "memsets", "mallocs", "replays")
_LAUNCHES = ("kernels", "library", "memsets", "between", "replays")
# What the wheels' headers leave out; cuda_runtime_api.h needs no more of it.
_EMPTY = (
    "__host__ __device__ __global__ __shared__ __constant__ __managed__ __grid_constant__ CUDARTAPI CUDARTAPI_CDECL "
    "CUDART_CB __cudart_builtin__ __device_builtin__ __device_builtin_texture_type__ __device_builtin_surface_type__"
)
_ALIGN = "#define __align__(n) __attribute__((aligned(n)))\n#define __builtin_align__(n) __align__(n)\n"


def what_is_missing() -> str | None:
    """Why the library cannot be built here; None if it can."""
    absent = [tool for tool in ("gcc", "nm") if shutil.which(tool) is None]
    if absent:
        return f"the dry GPU is compiled: {' and '.join(absent)} not found"
    if not (_site() / "torch" / "lib" / "libtorch_cuda.so").is_file() or _headers() is None:
        return "the dry GPU needs torch's CUDA wheel with its headers (nvidia-cuda-runtime)"
    return None


def build(folder: Path) -> Path:
    """Compile the library, with an answer of 0 for everything that torch imports and that it does not define itself."""
    source = _SOURCE.read_text(encoding="utf-8")
    imported: set[str] = set()
    for name in ("c10_cuda", "torch_cuda", "torch_python", "torch_cuda_linalg", "caffe2_nvrtc"):
        command: list[str | Path] = ["nm", "-D", "--undefined-only", _site() / "torch" / "lib" / f"lib{name}.so"]
        lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
        imported |= {line.split()[-1].split("@")[0] for line in lines}
    imported = {name for name in imported if re.match(r"(__cuda|cuda[A-Z]|cublas|cudnn|cu[A-Z])", name)}
    # These work without a device, and torch compares the version.
    imported -= {"cudnnGetVersion", "cudnnGetProperty", "cudnnGetCudartVersion", "cublasLtGetVersion"}
    own = set(re.findall(r"\b(?:dry_)?(\w+)\s*\(", source)) | set(re.findall(r"\((\w+)\)", source))
    own |= set(re.findall(r"(?:GET|SPACE)\((\w+)", source)) | {f"{n}Ex" for n in re.findall(r"PERF\((\w+)", source)}
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


def environment(library: Path, *, gib: float = 79.0, sm: int = 90, gpus: int = 1, fail: str = "") -> dict[str, str]:
    """Of a process that sees dry GPUs.

    Args:
        gib: memory of each.
        sm: compute capability times ten.
        fail: "CODE:N" loses the device with that CUDA error at the Nth launch.
    """
    told = {"DRY_GPU_GIB": str(gib), "DRY_SM": str(sm), "DRY_GPUS": str(gpus), "DRY_FAIL": fail}
    return os.environ | told | {"LD_PRELOAD": str(library), "OMP_NUM_THREADS": "1", "HW6_CACHE": "off"}


def counted() -> dict[str, int]:
    """In a process that sees a dry GPU: what was called so far, by kind, and all launches together."""
    values = (ctypes.c_longlong * 16).in_dll(ctypes.CDLL(os.environ["LD_PRELOAD"]), "dry_counters")
    found: dict[str, int] = dict(zip(_COUNTERS, values, strict=False))
    return found | {"launches": sum(found[name] for name in _LAUNCHES)}


def _site() -> Path:
    spec = importlib.util.find_spec("torch")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent.parent


def _headers() -> Path | None:
    found = (path.parent for path in _site().glob("nvidia/*/include/cuda_runtime_api.h"))
    return next(found, None)
