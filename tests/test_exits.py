"""Exit codes: each kind of error has its own, and an unexpected error does not look like a failed gate."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import subprocess
import sys
import tomllib
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest
import torch

from benchmarks.__main__ import main
from benchmarks.errors import InfrastructureError
from benchmarks.exits import REPORT_PACKAGES, exit_code_of
from benchmarks.results.records import write_record
from hw6core.errors import DataError, UsageError
from tests.record_factory import make_record

CHECKOUT = Path(__file__).parent.parent
PYTHON = shlex.quote(sys.executable)


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DEVICE", "cpu")


@pytest.mark.parametrize(
    ("error", "exit_code", "message"),
    [
        (UsageError("no such thing"), 2, "error: no such thing"),
        (DataError("no data"), 3, "error: no data"),
        (DataError("do", "fetch", Path("a b")), 3, f"error: do: {PYTHON} -m benchmarks data fetch --root 'a b'"),
        (DataError("repeat", "weights"), 3, f"error: repeat: {PYTHON} -m benchmarks data fetch --only vgg16"),
        (InfrastructureError("no GPU"), 4, "error: no GPU"),
        (OSError(28, "No space left on device"), 4, "error: the machine failed: [Errno 28] No space left on device"),
        (MemoryError(), 4, "error: the machine failed: out of memory"),
        (RuntimeError("can't start new thread"), 4, "error: the machine failed: can't start new thread"),
        (RuntimeError("CUDA error: unspecified launch failure\nhint"), 4, "error: the machine failed: CUDA error"),
        (RuntimeError("HIP error: invalid device function\nhint"), 4, "error: the machine failed: HIP error: invalid"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried"), 4, "error: the machine failed: CUDA out of memory"),
        (ImportError("libx.so: cannot open", name="matplotlib.ft2font"), 2, "error: matplotlib cannot be imported by"),
        (ModuleNotFoundError("No module named 'PIL'", name="PIL"), 2, "error: pillow cannot be imported by"),
        (KeyboardInterrupt(), 130, "interrupted; finished epochs are kept"),
        (KeyError("a bug"), 70, "error: unexpected KeyError: 'a bug'; this is a bug in the suite"),
        (RuntimeError("shapes differ"), 70, "error: unexpected RuntimeError: shapes differ"),
        (ImportError("cannot import name", name="benchmarks.suite"), 70, "error: unexpected ImportError"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "odd"), 70, "error: unexpected UnicodeDecodeError"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_each_reason_has_its_exit_code_and_one_line(
    error: BaseException, exit_code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> int:
        raise error

    assert exit_code_of(fail) == exit_code
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith(message)
    if exit_code == 70:
        traceback = Path(line.rpartition("traceback: ")[2]).read_text(encoding="utf-8")
        assert "in fail" in traceback
        assert type(error).__name__ in traceback


def test_the_traceback_goes_to_the_results_folder(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("mine").mkdir()
    monkeypatch.setenv("RESULTS", "mine")
    assert exit_code_of(lambda: 1 // 0) == 70
    assert [f"traceback: {path}" in capsys.readouterr().err for path in Path("mine").glob("traceback-*.txt")] == [True]


def test_a_gpu_without_kernels_is_infrastructure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("CUDA error: no kernel image is available for execution on the device\nhint")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "ones", refuse)
    assert main(["smoke"]) == 4
    (line,) = capsys.readouterr().err.splitlines()
    assert "sees a GPU but cannot multiply on it: CUDA error: no kernel image is available" in line


def test_all_missing_packages_are_reported(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    real = importlib.util.find_spec

    def without(name: str) -> ModuleSpec | None:
        return None if name in ("PIL", "markdown_it", "matplotlib", "torch") else real(name)

    monkeypatch.setattr(importlib.util, "find_spec", without)
    for arguments in (["report", "--results", "r"], ["judge", "--results", "r"], ["compare", "r", "r"]):
        assert main(arguments) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: markdown-it-py, matplotlib, pillow are not installed for ")
        assert "-m pip install markdown-it-py matplotlib pillow" in line
        assert "torch" not in line


def test_an_older_python_is_reported_without_a_traceback() -> None:
    code = "import sys; sys.version_info = (3, 10, 12, 'final', 0); import benchmarks.acceptance"
    answer = subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert answer.returncode == 2
    assert re.fullmatch(r"error: .* is Python 3\..*; expected 3\.11 or newer\n", answer.stderr)


def test_the_extra_for_reports_has_the_packages_that_a_report_needs() -> None:
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = {entry.split(">")[0] for entry in project["optional-dependencies"]["report"]}
    assert named | {"numpy", "pillow"} == set(REPORT_PACKAGES.values())
    assert {"numpy", "pillow"} <= {entry.split(">")[0] for entry in project["dependencies"]}


def test_a_report_needs_no_torch_and_no_data_and_ignores_matplotlibs_settings(tmp_path: Path) -> None:
    """Such as a notebook's backend, or LaTeX for all text."""
    write_record(tmp_path / "r", make_record("seg-baseline"))
    (tmp_path / "settings").write_text("text.usetex: True\nsavefig.dpi: 600\n", encoding="utf-8")
    code = """
import os, sys
from benchmarks.__main__ import main
codes = [main(["judge", "--results", "r", "--seeds", "0", "seg-baseline"])]
codes.append("matplotlib" in sys.modules)
codes += [main(["report", "--results", "r", "seg-baseline"]), main(["compare", "r", "r"])]
heavy = {"torch", "matplotlib.pyplot", "torchvision", "safetensors", "pooch", "pynvml", "rich", "ray"}
print(codes, heavy & set(sys.modules), os.environ["MPLBACKEND"])
"""
    variables = {"MPLBACKEND": "nonsense", "MATPLOTLIBRC": str(tmp_path / "settings"), "PYTHONPATH": str(CHECKOUT)}
    environment = {name: value for name, value in os.environ.items() if name != "DEVICE"} | variables
    answer = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert answer.stdout.splitlines()[-1:] == ["[0, False, 0, 0] set() nonsense"], answer.stderr
    assert list((tmp_path / "r" / "figures").glob("*.png"))


def test_text_is_printed_in_any_encoding(tmp_path: Path) -> None:
    """The comparison has a middle dot, and the folder's name is not valid UTF-8."""
    folder = os.fsdecode(b"latin\xe9")
    write_record(Path(folder), make_record("seg-baseline"))
    command = [sys.executable, "-m", "benchmarks", "compare", folder, folder]
    environment = os.environ | {"PYTHONPATH": str(CHECKOUT), "PYTHONIOENCODING": "ascii"}
    answer = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert (answer.returncode, answer.stderr) == (0, b"")
    assert b"NO WORSE" in answer.stdout
