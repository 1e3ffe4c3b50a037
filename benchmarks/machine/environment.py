"""The environment of a record: machine, versions and code."""

from __future__ import annotations

import ast
import hashlib
import os
import platform
import subprocess
from contextlib import suppress
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
import torchvision

from benchmarks.machine.monitor import available_cpus, cpu_quota
from hw6core.device import Precision

CHECKOUT = Path(__file__).resolve().parents[2]
# The code that decides a record's numbers: the library, and the part of the suite that trains.
_SOURCES = ("hw6core", "benchmarks/workloads")
_LIBRARIES = ("numpy", "pillow", "safetensors")  # besides torch and torchvision, those that compute or decode


def environment(device: torch.device, precision: Precision, mode: str) -> dict[str, Any]:
    """The environment as plain values, None if unknown. Also limits torch's threads to the CPU quota.

    ``image`` comes from the variable BENCHMARK_IMAGE, because a container cannot find out its own image's digest; the
    commit of an image, which has no .git, from BENCHMARK_COMMIT. ``node`` is the host name (in Kubernetes, the pod's).
    """
    if "OMP_NUM_THREADS" not in os.environ:  # more threads than the quota allows slow each other down
        torch.set_num_threads(min(torch.get_num_threads(), available_cpus()))
    cuda, changes = device.type == "cuda", _git("status", "--porcelain")
    module = torch.get_device_module(device)
    properties: Any = module.get_device_properties(device) if hasattr(module, "get_device_properties") else None
    return {
        "node": platform.node() or None,
        "device": device.type,
        "device_name": properties.name if properties else _processor(),
        "device_memory_gib": round(properties.total_memory / 2**30, 1) if properties else None,
        "precision": precision,
        "mode": mode,
        "threads": torch.get_num_threads(),
        "cpu": _processor(),
        "cpu_cores": os.cpu_count(),
        "cpu_quota": cpu_quota(),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "torchvision": torchvision.__version__,
        "cuda": torch.version.cuda or f"ROCm {torch.version.hip}" if cuda else None,
        "cudnn": torch.backends.cudnn.version() if cuda else None,
        "driver": getattr(properties, "driver_version", None) or (_driver() if cuda else None),
        "gpu_uuid": str(properties.uuid) if hasattr(properties, "uuid") else None,
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "container": _container(),
        "image": os.environ.get("BENCHMARK_IMAGE"),
        "versions": {name: metadata.version(name) for name in _LIBRARIES},
        "packages": _packages_digest(),
        "git_commit": git_commit(),
        "git_changed_files": None if changes is None else len(changes.splitlines()),
        "source": source_digest(),
    }


def _container() -> str | None:
    """The container engine that this process runs in, by its marker file."""
    marks = {"/.dockerenv": "docker", "/run/.containerenv": "podman", "/.singularity.d": "apptainer"}
    found = next((engine for mark, engine in marks.items() if Path(mark).exists()), None)
    return found or ("kubernetes" if "KUBERNETES_SERVICE_HOST" in os.environ else None)


@cache
def _packages_digest() -> str:
    """16 hex digits over the names and versions of all installed packages."""
    found = set()
    for package in metadata.distributions():
        with suppress(Exception):  # damaged metadata raises various errors; pip ignores such packages as well
            found.add(f"{package.name}=={package.version}")
    return hashlib.sha256("\n".join(sorted(found)).encode()).hexdigest()[:16]


def _driver() -> str | None:
    """The version of the NVIDIA driver's kernel module."""
    with suppress(OSError):
        text = Path("/proc/driver/nvidia/version").read_text(encoding="utf-8")
        return text.splitlines()[0].removeprefix("NVRM version:").strip()
    return None


@cache
def source_digest() -> str:
    """16 hex digits over the code that decides what a run computes, without comments and docstrings."""
    digest = hashlib.sha256()
    for path in sorted(path for package in _SOURCES for path in (CHECKOUT / package).rglob("[!.]*.py")):
        tree = ast.parse(path.read_bytes())
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and (
                ast.get_docstring(node, clean=False) is not None
            ):
                node.body = node.body[1:]
        digest.update(f"{path.relative_to(CHECKOUT).as_posix()} {ast.dump(tree)}\n".encode())
    return digest.hexdigest()[:16]


def _processor() -> str:
    """The processor's name, or its architecture if the system does not know the name."""
    names: list[str] = []
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    if platform.system() == "Darwin":
        with suppress(OSError, subprocess.SubprocessError):
            command = ["sysctl", "-n", "machdep.cpu.brand_string"]  # "Apple M2 Pro"
            names = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.splitlines()
    return names[0] if names else platform.processor() or platform.machine()


def git_commit() -> str | None:
    """The commit of this checkout, or BENCHMARK_COMMIT if there is no repository; None if that is not set."""
    return _git("rev-parse", "HEAD") or os.environ.get("BENCHMARK_COMMIT")


def _git(*arguments: str) -> str | None:
    """The output of a git command in this checkout; None if it fails.

    A hook's GIT_ variables and a repository around this folder are ignored. The checkout may belong to another user, as
    a mounted workspace does: that is safe, because its code already runs.
    """
    variables = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    variables["GIT_CEILING_DIRECTORIES"] = str(CHECKOUT.parent)
    command = ["git", "-C", str(CHECKOUT), "-c", f"safe.directory={CHECKOUT}", *arguments]
    with suppress(OSError, subprocess.SubprocessError):
        answer = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=10, check=True)
        return answer.stdout.strip()
    return None
