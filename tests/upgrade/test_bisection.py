"""The search for packages at fault: the groups, the search itself, and environments of small harmful packages."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from benchmarks.__main__ import main
from benchmarks.results.statistics import Change
from benchmarks.upgrade.bisection import bisect, ddmin, make_environment, units
from benchmarks.upgrade.session import Session
from benchmarks.upgrade.sides import Inventory, Package, find_side
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


def session(old: list[str], new: list[str], beside: list[str]) -> Session:
    for folder, packages in (("A", old), ("B", new)):
        make_environment(Path(folder, "environment"), sys.executable, packages, beside)
    sides = find_side("old", "A/environment"), find_side("new", "B/environment")
    return Session(*sides, Path("results").absolute(), 3)


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


TRAINING = """
import numpy as np
weight = np.ones(4)
for _ in range(5):
    weight = weight - 0.1 * np.multiply(2, weight)  # the gradient of the sum of squares
raise SystemExit(bool(weight.sum() > 2))
"""


def test_two_packages_that_are_only_harmful_together_are_both_found() -> None:
    """With a real gradient descent in real environments: together, the packages set its gradients to zero."""
    make_wheels("left", "", "import sys; sys.left = True")
    make_wheels("harmless", "", "")
    harm = "import sys\nif hasattr(sys, 'left'):\n    import numpy\n    numpy.multiply = lambda *_: 0"
    make_wheels("right", "", harm)
    names = ("harmless", "left", "right")
    asked = session([f"{name}==1" for name in names], [f"{name}==2" for name in names], [sysconfig.get_path("purelib")])
    inventories = asked.old.inventory(), asked.new.inventory()
    assert inventories[0].packages["torch"].own is False

    def judge(environment: Path) -> Change:
        worse = subprocess.run([environment / "bin" / "python", "-c", TRAINING], check=False).returncode
        return Change.WORSE if worse else Change.NO_WORSE

    found = bisect(asked, inventories, judge)
    lines = [line.split() for line in found.splitlines()]
    assert lines[5:7] == [["|", "left", "|", "1", "|", "2", "|"], ["|", "right", "|", "1", "|", "2", "|"]]
    assert "0 of the 6 environments that were tried could not be judged." in found
    assert [str(path) for path in Path("results/bisect").absolute().glob("*/environment")] == [lines[-1][-1]]


RUNS = """
import os, shutil, sys
from importlib import metadata
if sys.orig_argv[1:] == ["-m", "benchmarks", "run"]:
    side = "slow" if metadata.version("very-slow") == "2" else "fast"
    os.makedirs(os.environ["RESULTS"] + "/records", exist_ok=True)
    shutil.copy(f"{side}/records/seg-baseline-seed{os.environ['SEEDS']}.json", os.environ["RESULTS"] + "/records")
    os._exit(0)
"""


def test_a_package_that_slows_training_is_reported_by_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    """With made-up records; torch and torchvision of different versions cannot be imported together."""
    make_wheels("torch", "version = 1", "version = 2")
    for_torch = "import torch; assert torch.version == {}, 'made for another torch'"
    make_wheels("torchvision", for_torch.format(1), for_torch.format(2))
    make_wheels("very_slow", "", "")
    make_wheels("runs", RUNS)
    make_python(Path("fast"))
    make_python(Path("slow"), time=1.5)
    names = ("torch", "torchvision", "very_slow")
    session([*(f"{name}==1" for name in names), "runs==1"], [*(f"{name}==2" for name in names), "runs==1"], [])
    assert main(["upgrade", "A/environment", "B/environment", "--bisect", "--results", "r"]) == 1
    lines = Path("r/UPGRADE.md").read_text().split("## Packages at fault\n\n")[1].splitlines()
    assert [line.split() for line in lines[2:4]] == [["|", "very-slow", "|", "1", "|", "2", "|"], []]
    assert "3 of the 6 environments that were tried could not be judged." in lines[4]
    folder = Path(lines[6].split()[-1]).parent
    assert lines[6].split()[:2] == ["env", f"RESULTS={folder}/again"]
    assert main(lines[6].split()[5:]) == 1
    assert "made for another torch" in capsys.readouterr().out


def test_a_bisection_requires_uv(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    make_python(Path("A"))
    monkeypatch.setenv("PATH", "/nowhere")
    assert main(["upgrade", "A", "A", "--bisect"]) == 2
    assert "--bisect requires uv, which is not on the PATH; install it" in capsys.readouterr().err
