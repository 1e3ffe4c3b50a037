"""Options from the command line and the Makefile's variables."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks import options
from benchmarks.errors import InfrastructureError
from benchmarks.machine import devices
from benchmarks.options import read_options
from benchmarks.runs.plan import SYNTHETIC_FOLDER
from benchmarks.suite import SUITE
from hw6core.errors import UsageError


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder without data/, and no GPU."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(options, "default_device", lambda: "cpu")
    return tmp_path


def put_data(folder: Path) -> None:
    (folder / "data" / "endovis").mkdir(parents=True, exist_ok=True)
    (folder / "data" / "endovis" / "mapping.json").touch()
    (folder / "data" / "fashion_mnist").mkdir()


def test_the_default_without_gpu_and_data_is_quick_and_synthetic() -> None:
    found = read_options({})
    assert (found.profile, found.data, found.seeds, found.device) == ("quick", SYNTHETIC_FOLDER, (0,), "cpu")
    assert found.results == Path("results/quick-synthetic")
    assert [entry.id for entry in found.selected] == list(SUITE)
    assert found.allow_not_run == ()


def test_available_data_is_used(empty_folder: Path) -> None:
    assert read_options({}).data == SYNTHETIC_FOLDER
    (empty_folder / "data" / "endovis").mkdir(parents=True)
    assert read_options({}).data == SYNTHETIC_FOLDER  # an interrupted download
    put_data(empty_folder)
    found = read_options({})
    assert (found.data, found.results) == (Path("data"), Path("results/quick-real"))


def test_the_default_with_a_gpu_is_full_with_three_seeds(empty_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options, "default_device", lambda: "cuda")
    put_data(empty_folder)
    found = read_options({})
    assert (found.profile, found.seeds, found.device) == ("full", (0, 1, 2), "cuda")


def test_the_full_profile_requires_a_gpu_even_if_torch_sees_none(empty_folder: Path) -> None:
    put_data(empty_folder)
    assert read_options({"PROFILE": "full"}).device == "cuda"
    assert read_options({"PROFILE": "full", "DEVICE": "cpu"}).device == "cpu"


def test_the_default_on_an_apple_chip_is_quick(empty_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.accelerator.current_accelerator", lambda check_available: torch.device("mps"))
    monkeypatch.setattr(options, "default_device", devices.default_device)
    found = read_options({})
    assert (found.device, found.profile, found.workers, found.cuda_graphs) == ("mps", "quick", 1, False)
    put_data(empty_folder)
    assert read_options({"DEVICE": "mps", "PROFILE": "full"}).profile == "full"
    with pytest.raises(UsageError, match="GPUS is 2, but the device is 'mps'; for concurrent runs set WORKERS=2"):
        read_options({"GPUS": "2"})
    assert devices.open_device("mps") == torch.device("mps")
    with pytest.raises(InfrastructureError, match=r"^no cuda device is visible to torch .*, which sees mps; to find"):
        devices.open_device("cuda")


def test_the_command_line_takes_precedence_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEEDS", "1 2")
    monkeypatch.setenv("ONLY", "vgg-scratch,seg-baseline")
    found = read_options({"SEEDS": "5", "ONLY": None})
    assert found.seeds == (5,)
    assert [entry.id for entry in found.selected] == ["seg-baseline", "vgg-scratch"]


def test_a_working_size_applies_to_the_u_nets_only_and_has_its_own_results_folder() -> None:
    found = read_options({"WORKING_SIZE": "256x320"})
    sizes = {entry.id: entry.work_on("quick", "synthetic").working_size for entry in found.selected}
    u_nets = {name for name, entry in SUITE.items() if entry.kind in ("segmentation", "colorization")}
    unchanged = {name: entry.work_on("quick", "synthetic").working_size for name, entry in SUITE.items()}
    assert sizes == unchanged | dict.fromkeys(u_nets, (256, 320))
    assert [entry.id for entry in found.configurations] == list(SUITE)
    assert {entry.work["full"].working_size for entry in found.configurations if entry.id in u_nets} == {(256, 320)}
    assert found.results == Path("results/quick-synthetic-256x320")


@pytest.mark.parametrize("text", ["256", "256x", "8x320", "256x320x3", "256,320", "256x4096"])
def test_an_invalid_working_size(text: str) -> None:
    with pytest.raises(UsageError, match=r"^WORKING_SIZE is '.*'; expected height and width, each from 16 to 2048 pi"):
        read_options({"WORKING_SIZE": text})


def test_an_invalid_count() -> None:
    with pytest.raises(UsageError, match=r"^WORKERS is '10000'; expected a whole number from 1 to 9999"):
        read_options({"WORKERS": "10000"})
