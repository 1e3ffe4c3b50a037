"""Weights on disk: written atomically, read without running code; weights of another network are an error."""

from __future__ import annotations

import io
import pickle
import shutil
from functools import partial
from pathlib import Path

import pytest
import torch
from filelock import BaseFileLock
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from hw6core import checkpoint as tensor_files
from hw6core import files
from hw6core.checkpoint import load_weights, save_weights, transfer
from hw6core.errors import DataError

STATE = {
    "float": torch.tensor([[1.5, -2.0], [float("inf"), 1e-40]]),
    "bf16": torch.tensor([0.1, 3.0], dtype=torch.bfloat16),
    "half": torch.tensor([65504.0], dtype=torch.float16),
    "count": torch.tensor(2**40),
    "bytes": torch.tensor([0, 255], dtype=torch.uint8),
    "flag": torch.tensor([True, False]),
    "empty": torch.zeros(0, 3),
}


def torch_file(content: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


assert_same = partial(torch.testing.assert_close, rtol=0, atol=0)


def test_round_trip_keeps_values_types_and_metadata(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "weights.safetensors"
    save_weights(path, STATE, {"configuration": "colorization", "seed": "0"})
    assert_same(load_weights(path), STATE)
    with safe_open(path, framework="pt") as file:
        notes = file.metadata()
    assert {name: notes[name] for name in ("configuration", "seed")} == {"configuration": "colorization", "seed": "0"}
    assert [entry.name for entry in path.parent.iterdir()] == ["weights.safetensors"]
    assert path.stat().st_mode & 0o777 == 0o644  # for other users as well, as of a container's results


def test_views_parameters_and_channels_last_are_written_contiguously(tmp_path: Path) -> None:
    grid = torch.arange(24.0).view(1, 2, 3, 4)
    state = {
        "transposed": grid[0, 0].T,
        "part": grid[0, 1, 1:],
        "channels_last": grid.contiguous(memory_format=torch.channels_last),
        "parameter": nn.Parameter(torch.ones(2)),
    }
    save_weights(tmp_path / "w.safetensors", state)
    loaded = load_weights(tmp_path / "w.safetensors")
    assert_same(loaded, {name: tensor.detach() for name, tensor in state.items()})
    assert not any(tensor.requires_grad for tensor in loaded.values())


def test_a_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "weights.safetensors"
    save_weights(path, STATE)
    before = path.read_bytes()

    def disk_full(tensors: dict[str, Tensor], filename: Path, metadata: dict[str, str]) -> None:
        Path(filename).write_bytes(before[:20])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tensor_files, "save_file", disk_full)
    with pytest.raises(OSError, match="No space left"):
        save_weights(path, {"float": torch.zeros(1)})
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["weights.safetensors"]


def test_many_processes_can_write_to_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that begins to write may take another's new scratch folder for one that was left behind, and remove it."""
    lock, locked = files.file_lock, []

    def lock_late(path: Path) -> BaseFileLock:
        locked.append(path)
        if len(locked) == 1:
            shutil.rmtree(path.parent)
        return lock(path)

    monkeypatch.setattr(files, "file_lock", lock_late)
    save_weights(tmp_path / "weights.safetensors", STATE)
    assert_same(load_weights(tmp_path / "weights.safetensors"), STATE)
    assert [entry.name for entry in tmp_path.iterdir()] == ["weights.safetensors"]


@pytest.mark.parametrize("change", ["a flipped bit", "exchanged halves"])
def test_weights_that_changed_on_disk_are_an_error(tmp_path: Path, change: str) -> None:
    path, values = tmp_path / "weights.safetensors", torch.arange(2**22, dtype=torch.int32)
    save_weights(path, {"values": values})
    content = path.read_bytes()
    start, middle = len(content) - values.nbytes, len(content) - values.nbytes // 2
    halves = content[:start] + content[middle:] + content[start:middle]
    path.write_bytes(halves if change == "exchanged halves" else content[:-1] + bytes([content[-1] ^ 4]))
    with pytest.raises(DataError, match="do not match its digest"):
        load_weights(path)


class TouchesAFile:
    """Unpickling it creates a file."""

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, ("marker", "w")


@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"404: Not Found",
        pickle.dumps({"a": TouchesAFile()}, protocol=2),
        torch_file({"a": torch.ones(1), "b": TouchesAFile()}),
        torch_file({"a": torch.rand(200)})[:400],
        save({"a": torch.rand(200)})[:400],
    ],
    ids=["empty", "text", "code", "code in a torch file", "torch file cut short", "safetensors cut short"],
)
def test_an_invalid_file_is_an_error_and_no_code_in_it_runs(
    content: bytes, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes(content)
    with pytest.raises(DataError, match=r"is not a readable state dict .*; expected \.safetensors or \.pth"):
        load_weights(name)
    assert not Path("marker").exists()


@pytest.mark.parametrize(
    "content",
    [[torch.ones(1)], {"state_dict": {"a": torch.ones(1)}, "epoch": 3}, torch.ones(1), {0: torch.ones(1)}],
    ids=["list", "nested", "tensor", "numbers for names"],
)
def test_a_torch_file_without_named_tensors_is_an_error(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "weights.pth")
    with pytest.raises(DataError, match=r"not a state dict; save model\.state_dict"):
        load_weights(tmp_path / "weights.pth")


def test_a_folder_instead_of_a_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no weights at .*; expected a \.safetensors or \.pth"):
        load_weights(tmp_path)


def network(outputs: int, width: int = 3) -> nn.Sequential:
    """Layers "0", "1" and the head "2"."""
    return nn.Sequential(nn.Linear(2, width), nn.BatchNorm1d(width), nn.Linear(width, outputs))


def copied(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize("outputs", [5, 2])
def test_transfer_copies_all_but_the_head(outputs: int) -> None:
    """A source head of the same size is not copied either."""
    source, model = network(outputs), network(outputs=2)
    source[1].running_mean = torch.tensor([1.0, 2, 3])
    before, given = copied(model), copied(source)
    transfer(source.state_dict(), model, head="2", source="weights")
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, (before if name.startswith("2.") else given)[name]), name
    assert_same(source.state_dict(), given)


def test_transfer_needs_no_source_head_and_keeps_the_dtype_of_the_model() -> None:
    model = network(outputs=2)
    state = {name: tensor.bfloat16() for name, tensor in network(2).state_dict().items() if not name.startswith("2.")}
    transfer(state, model, head="2", source="weights")
    assert model.state_dict()["0.weight"].dtype == torch.float32
    assert torch.equal(model.state_dict()["0.weight"], state["0.weight"].float())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"1.running_var": None}, r"weights of A do not fit: 1 tensors missing, 0 unknown \(first: 1.running_var\)"),
        ({"3.weight": torch.ones(1)}, r"0 tensors missing, 1 unknown \(first: 3.weight\); .* up to 2"),
        ({"20.weight": torch.ones(1)}, "1 unknown"),  # "20" is not below the head "2"
        ({"1.weight": torch.ones(4)}, r"1\.weight has shape \(4,\), expected \(3,\)"),
    ],
)
def test_weights_of_another_network_are_an_error_and_change_nothing(
    change: dict[str, Tensor | None], message: str
) -> None:
    model = network(outputs=2)
    before = copied(model)
    changed = {**network(outputs=2).state_dict(), **change}
    state = {name: tensor for name, tensor in changed.items() if tensor is not None}
    with pytest.raises(DataError, match=message):
        transfer(state, model, head="2", source="weights of A")
    assert_same(model.state_dict(), before)
