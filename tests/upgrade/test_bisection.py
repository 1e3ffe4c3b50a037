"""The search for packages at fault: the groups, the search itself, and environments of small harmful packages."""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from benchmarks.__main__ import main
from benchmarks.upgrade.bisection import ddmin, make_environment, units
from benchmarks.upgrade.sides import Inventory, Package
from tests.upgrade.stand_in import make_python

# Replaces uv if it is not installed: `uv venv` and `uv pip install`, as documented, for wheels of pure Python.
UV = """
import os, subprocess, sys, zipfile
from pathlib import Path
if "venv" in sys.argv:
    sys.exit(subprocess.call([sys.argv[-2], "-m", "venv", "--without-pip", sys.argv[-1]]))
(site,) = Path(sys.argv[-3]).parents[1].glob("lib/python*/site-packages")
for name, version in (line.split("==") for line in Path(sys.argv[-1]).read_text().split()):
    wheel = Path(os.environ["UV_FIND_LINKS"], f"{name.replace('-', '_')}-{version}-py3-none-any.whl")
    if not wheel.exists():
        sys.exit(f"there is no version of {name}=={version}")
    zipfile.ZipFile(wheel).extractall(site)
"""


@pytest.fixture(autouse=True)
def uv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in {"UV_FIND_LINKS": str(tmp_path), "UV_OFFLINE": "1", "UV_NO_INDEX": "1"}.items():
        monkeypatch.setenv(name, value)
    if shutil.which("uv") is None:
        Path("path").mkdir()
        Path("path/uv").write_text(f"#!{sys.executable}{UV}")
        Path("path/uv").chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path / 'path'}:{os.environ['PATH']}")


def make_wheels(name: str, *codes: str) -> None:
    """Versions 1, 2, ... of a package that runs when its environment's python starts."""
    for version, code in enumerate(codes, 1):
        with zipfile.ZipFile(f"{name}-{version}-py3-none-any.whl", "w") as wheel:
            about = f"{name}-{version}.dist-info/"
            wheel.writestr(f"{name}.py", code)
            wheel.writestr(f"{name}.pth", f"import {name}")
            wheel.writestr(f"{about}METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
            wheel.writestr(f"{about}WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            wheel.writestr(f"{about}RECORD", "")


@pytest.mark.parametrize("fault", [{4}, {0, 7}, {2, 3, 6}, set(range(8))])
def test_the_search_finds_a_minimal_set(fault: set[int]) -> None:
    assert ddmin(range(8), lambda part: fault <= set(part)) == sorted(fault)
    # An odd number without the one before it cannot be judged; it counts as no failure, and the search continues.
    found = ddmin(range(8), lambda part: fault <= set(part) and all(n % 2 == 0 or n - 1 in part for n in part))
    assert set(found) == fault | {n - 1 for n in fault if n % 2}


def test_packages_that_are_tied_to_exact_versions_move_together() -> None:
    def inventory(version: int) -> Inventory:
        packages = {
            "torch": (f"2.{version}.0+cpu", [f"cuda-toolkit[cublas]=={version}.0.3; sys_platform == 'linux'", "numpy"]),
            "cuda-toolkit": (f"{version}.0.3.0", [f'nvidia-cublas=={version}.1.*; extra == "cublas"', "ruff==9"]),
            "nvidia-cublas": (f"{version}.1.7", []),
            "vision": (f"0.{version}", [f"torch (==2.{version}.0)"]),
            "numpy": (f"1.{version}", []),
            "ruff": (f"0.{version}", []),  # not the version that an extra requires: not tied
            "pillow": ("10", [f"numpy==1.{version}"]),  # has the same version on both sides
        }
        return Inventory("3.11.7", {name: Package(*entry, own=True) for name, entry in packages.items()}, [])

    found = units(inventory(1), inventory(2))
    assert found == [("cuda-toolkit", "nvidia-cublas", "torch", "vision"), ("numpy",), ("ruff",)]


RUNS = """
import os, shutil, sys
from importlib.metadata import version
if sys.orig_argv[1:] == ["-m", "benchmarks", "run"]:
    side = "delayed" if version("slow") == version("very-slow") == "2" else "normal"
    os.makedirs(os.environ["RESULTS"] + "/records", exist_ok=True)
    shutil.copy(f"{side}/records/seg-baseline-seed{os.environ['SEEDS']}.json", os.environ["RESULTS"] + "/records")
    os._exit(0)
"""


def test_packages_that_only_together_slow_training_are_reported(capsys: pytest.CaptureFixture[str]) -> None:
    """With made-up records, in real environments that extend this one; torchvision 2 does not work with slow 1."""
    make_wheels("slow", "version = 1", "version = 2")
    make_wheels("very_slow", "", "")
    make_wheels("torchvision", "", "import slow; assert slow.version == 2, 'made for another slow'")
    make_wheels("torch", "")
    make_wheels("runs", RUNS)
    make_python(Path("normal"))
    make_python(Path("delayed"), time=1.5)
    for side, version in (("A", 1), ("B", 2)):
        packages = [f"{name}=={version}" for name in ("slow", "torchvision", "very_slow")]
        beside = [sysconfig.get_path("purelib")]
        make_environment(Path(side, "environment"), sys.executable, [*packages, "torch==1", "runs==1"], beside)
    assert main(["upgrade", "A/environment", "B/environment", "--bisect", "--results", "r"]) == 1
    lines = Path("r/UPGRADE.md").read_text().split("## Packages at fault\n\n")[1].splitlines()
    assert [line.replace(" ", "") for line in lines[2:5]] == ["|slow|1|2|", "|very-slow|1|2|", ""]
    assert "2 of the 7 environments that were tried could not be judged." in lines[5]
    assert "made for another slow" in capsys.readouterr().out
    command = lines[7].split()
    (environment,) = Path("r/bisect").absolute().glob("*/environment")
    assert (command[:2], command[-1]) == (["env", f"RESULTS={environment.parent}/again"], str(environment))
    assert main(command[5:]) == 1


def test_a_bisection_requires_uv(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    make_python(Path("A"))
    monkeypatch.setenv("PATH", "/nowhere")
    assert main(["upgrade", "A", "A", "--bisect"]) == 2
    assert "--bisect requires uv, which is not on the PATH; install it" in capsys.readouterr().err
