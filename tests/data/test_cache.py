"""The cache of decoded data, and when it is invalid."""

from __future__ import annotations

import os
import time
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock
from torch import Tensor

from hw6core.data.cache import cached, one_at_a_time


class Files:
    """Two files, and a loader that counts how often they are decoded."""

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


def test_the_second_load_reads_the_cache(folder: Path, files: Files) -> None:
    first, second = files.load(), files.load()
    assert files.decoded == 1
    assert {name: tensor.tolist() for name, tensor in second.items()} == {
        "images": [[1, 2, 3], [1, 2, 3]],
        "masks": [[0, 0, 0], [0, 0, 0]],
    }
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert [path.suffix for path in folder.iterdir()] == [".safetensors"]  # and no temporary files


@pytest.mark.parametrize("way", ["in place", "renamed over it"])
def test_changed_content_of_equal_size_and_time_is_decoded_again(way: str, folder: Path, files: Files) -> None:
    """As after ``rsync -t`` from a store with fixed times, or in the layers of a container."""
    path = files.paths[1]
    os.utime(path, (1, 1))
    files.load()
    time.sleep(0.02)  # the clock of a file system ticks every few milliseconds
    place = path if way == "in place" else path.with_name("new")
    place.write_bytes(b"\7\7\7")
    os.utime(place, (1, 1))
    place.rename(path)
    assert files.load()["images"].tolist() == [[1, 2, 3], [7, 7, 7]]


def test_another_version_of_the_code_decodes_again(folder: Path, files: Files, tmp_path: Path) -> None:
    for version in (1, 2):
        text = f"def load(): return {{'all': torch.tensor([{version}], dtype=torch.uint8)}}"
        (tmp_path / "loader.py").write_text(text, encoding="utf-8")
        scope: dict[str, Any] = {"torch": torch}
        exec(compile(text, tmp_path / "loader.py", "exec"), scope)
        assert cached(files.paths, "things", scope["load"])["all"].tolist() == [version]


def test_another_decoder_decodes_again(folder: Path, files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both sides of an upgrade share the cache, and the new image's decoder may be the broken part."""
    for count, (place, version) in enumerate((("PIL.__version__", "99.0"), ("PIL.features.version", lambda _: "9")), 2):
        files.load()
        monkeypatch.setattr(place, version)
        files.load()
        assert files.decoded == count


@pytest.mark.parametrize("damage", ["cut", "text", "reshaped"])
def test_a_damaged_cache_file_is_replaced(damage: str, folder: Path, files: Files) -> None:
    files.load()
    (kept,) = folder.iterdir()
    content = kept.read_bytes()
    damaged = {"cut": content[:-1], "text": b"no tensors", "reshaped": content.replace(b"[2,3]", b"[3,2]")}
    assert damaged[damage] != content
    kept.write_bytes(damaged[damage])
    assert files.load()["images"].tolist() == [[1, 2, 3], [1, 2, 3]]
    assert files.decoded == 2
    files.load()
    assert files.decoded == 2


def test_nothing_is_cached_if_the_folder_cannot_be_created(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HW6_CACHE", str(files.paths[0]))
    assert torch.equal(files.load()["images"], files.load()["images"])
    assert files.decoded == 2


def test_nothing_is_cached_that_takes_more_than_half_of_the_free_disk(
    folder: Path, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage(1000, 977, 23))
    files.load()
    assert list(folder.iterdir()) == []
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage(1000, 976, 24))
    files.load()
    assert len(list(folder.iterdir())) == 1


def test_scratch_folders_of_running_processes_are_kept(folder: Path, files: Files) -> None:
    scratch = folder / ".hw6-unfinished-of-another"
    scratch.mkdir(parents=True)
    with FileLock(scratch / ".lock"):
        files.load()
        assert scratch.is_dir()
    files.paths[0].write_bytes(b"other")
    with pytest.raises(RuntimeError):  # files of different sizes: nothing is cached after an error
        files.load()
    files.paths[1].write_bytes(b"other")
    files.load()
    assert not scratch.exists()


def test_concurrent_loads_fill_the_cache_once(folder: Path, files: Files) -> None:
    """The lock works between threads as between processes."""

    def load(_: int) -> None:
        with one_at_a_time("things"):
            files.load()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(load, range(4)))
    assert files.decoded == 1


@pytest.mark.parametrize("cache", ["off", "/dev/null/cache"])
def test_without_a_cache_there_is_no_lock(cache: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HW6_CACHE", cache)
    with one_at_a_time("ones"), one_at_a_time("ones"):
        pass
