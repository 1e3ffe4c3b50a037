"""Decoded data is kept, and never used where it does not answer for the files."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from hw6core.data.cache import cached

Load = Callable[[], dict[str, Tensor]]


class Files:
    """Two files, and a loader that counts how often it decodes them."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.paths = [folder / "a", folder / "b"]
        self.decoded = 0
        for path in self.paths:
            path.write_bytes(b"\1\2\3")

    def load(self) -> dict[str, Tensor]:
        def decode() -> dict[str, Tensor]:
            self.decoded += 1
            contents = [torch.tensor(list(path.read_bytes()), dtype=torch.uint8) for path in self.paths]
            return {"images": torch.stack(contents), "masks": torch.zeros(2, 3, dtype=torch.uint8)}

        return cached(self.paths, "things", decode)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HW6_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path / "files")


def test_the_second_load_decodes_nothing_and_gives_the_same(folder: Path, files: Files) -> None:
    first, second = files.load(), files.load()
    assert files.decoded == 1
    assert {name: tensor.tolist() for name, tensor in second.items()} == {
        "images": [[1, 2, 3], [1, 2, 3]],
        "masks": [[0, 0, 0], [0, 0, 0]],
    }
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert [path.suffix for path in folder.iterdir()] == [".safetensors"]  # nothing half-written beside it


def test_a_changed_file_is_decoded_again(folder: Path, files: Files) -> None:
    files.load()
    files.paths[1].write_bytes(b"\7\7\7")
    os.utime(files.paths[1], ns=(0, 1))  # the clock of a file system may be coarse
    assert files.load()["images"].tolist() == [[1, 2, 3], [7, 7, 7]]
    assert files.decoded == 2


def test_files_are_told_apart_by_their_place(folder: Path, files: Files, tmp_path: Path) -> None:
    files.load()
    others = Files(tmp_path / "others")
    others.load()
    assert others.decoded == 1


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "flipped"])
def test_a_damaged_cache_is_made_again(damage: str, folder: Path, files: Files) -> None:
    files.load()
    (kept,) = folder.iterdir()
    content = kept.read_bytes()
    damaged = {
        "cut": content[:-1],
        "empty": b"",
        "text": b"no tensors",
        "flipped": content[:-1] + bytes([content[-1] ^ 1]),
    }
    kept.write_bytes(damaged[damage])
    assert files.load()["images"].tolist() == [[1, 2, 3], [1, 2, 3]]
    assert files.decoded == 2
    files.load()
    assert files.decoded == 2


def test_the_cache_can_be_turned_off(folder: Path, files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HW6_CACHE", "off")
    files.load()
    files.load()
    assert files.decoded == 2
    assert not folder.exists()


def test_a_folder_that_cannot_be_written_costs_the_cache_alone(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "taken").write_text("a file where the folder should be", encoding="utf-8")
    monkeypatch.setenv("HW6_CACHE", str(tmp_path / "taken"))
    assert files.load()["images"].shape == (2, 3)
    assert files.load()["images"].shape == (2, 3)
    assert files.decoded == 2


def test_only_the_newest_are_kept(folder: Path, files: Files) -> None:
    for number in range(7):
        files.paths[0].write_bytes(bytes([number] * 3))
        os.utime(files.paths[0], ns=(0, number))
        files.load()
    assert len(list(folder.iterdir())) == 4


def test_an_error_is_not_kept(folder: Path, files: Files) -> None:
    files.paths[0].unlink()
    for _ in range(2):
        with pytest.raises(FileNotFoundError):
            files.load()
    assert not folder.exists()
