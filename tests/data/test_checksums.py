"""The checksums detect missing, changed and added files, also among the files that a run reads."""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
from pathlib import Path

import pytest

from hw6core.data import checksums
from hw6core.data.checksums import identify, require_published, verify
from hw6core.errors import DataError
from tests.fetching import as_nobody, write

RAW = "fashion_mnist/FashionMNIST/raw"
TRAIN = "endovis/segmentation/train"
FILES = {
    "endovis/mapping.json": b"{}",
    **{f"endovis/colorization/validation_cor/{k}/{k}_input.jpg": bytes([k]) for k in range(1, 12)},
    **{f"{TRAIN}/{k}/{k}_{kind}": f"{k}{kind}".encode() for k in (0, 1, 2) for kind in ("i", "m")},
    f"{RAW}/t10k-labels-idx1-ubyte.gz": gzip.compress(b"labels", mtime=0),
}


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny data folder, with checksums as if it was published."""
    root = tmp_path / "data"
    write(root, FILES)
    listed = FILES | {f"{RAW}/t10k-labels-idx1-ubyte": b"labels"}
    lines = [f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in listed.items()]
    (tmp_path / "SUMS.gz").write_bytes(gzip.compress("".join(lines).encode()))
    monkeypatch.setattr(checksums, "PUBLISHED", tmp_path / "SUMS.gz")
    return root


def found(root: Path) -> list[str]:
    return [f"{path}: {detail}" for path, detail in verify(root).items()]


def verify_error(root: Path) -> DataError:
    with pytest.raises(DataError) as caught:
        require_published(root)
    return caught.value


@pytest.mark.parametrize(("folder", "count"), [(".", 19), ("endovis", 18), ("fashion_mnist", 1)])
def test_published_data_has_no_problems(tree: Path, folder: str, count: int) -> None:
    assert verify(tree / folder) == {}
    assert require_published(str(tree / folder)) == count


def test_the_whole_checksum_is_compared(tree: Path) -> None:
    listed = gzip.decompress(checksums.PUBLISHED.read_bytes()).replace(b"  endovis/mapping", b"-  endovis/mapping")
    checksums.PUBLISHED.write_bytes(gzip.compress(listed))
    assert list(verify(tree)) == ["endovis/mapping.json"]


def test_missing_files_and_folders_are_reported(tree: Path) -> None:
    (tree / "endovis/colorization/validation_cor/10/10_input.jpg").unlink()
    shutil.rmtree(tree / TRAIN / "2")
    shutil.rmtree(tree / RAW)
    missing = ("endovis/colorization/validation_cor/10/10_input.jpg", f"{TRAIN}/2/2_i", f"{TRAIN}/2/2_m")
    assert found(tree) == [f"{file}: missing" for file in (*missing, f"{RAW}/t10k-labels-idx1-ubyte.gz")]


def test_stray_files_are_ignored_but_added_samples_are_reported(tree: Path) -> None:
    write(tree, {"endovis/.DS_Store": b"", f"{TRAIN}/Icon": b"", f"{TRAIN}/0/Icon\r": b"", "endovis/17/notes": b""})
    assert found(tree) == []
    (tree / TRAIN / "3").mkdir()
    assert found(tree) == [f"{TRAIN}/3: not a published sample"]


def test_unpacked_garments_are_optional_and_must_match(tree: Path) -> None:
    packed = tree / RAW / "t10k-labels-idx1-ubyte.gz"
    packed.with_suffix("").write_bytes(b"labels")
    assert found(tree) == []
    packed.unlink()
    assert found(tree) == [f"{RAW}/t10k-labels-idx1-ubyte.gz: missing"]
    packed.with_suffix("").write_bytes(b"others")
    assert list(verify(tree)) == [f"{RAW}/t10k-labels-idx1-ubyte{end}" for end in (".gz", "")]


def test_a_folder_without_data_is_an_error(tmp_path: Path) -> None:
    error = verify_error(tmp_path / "my data")
    assert str(error).endswith("or a mapping.json, or FashionMNIST/raw; download it")
    assert (error.remedy, error.root) == ("fetch", tmp_path / "my data")


@pytest.mark.parametrize("own", [False, True])
def test_differences_are_summarised_in_one_line(tree: Path, own: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    for k in (0, 1, 2):
        (tree / TRAIN / f"{k}/{k}_i").unlink()
    (tree / "endovis/mapping.json").write_bytes(b"[]")
    monkeypatch.chdir(tree / "endovis" if own else tree)
    error, below = verify_error(Path()), "" if own else "endovis/"
    assert str(error) == (
        f".: 4 differences from the published data: {below}mapping.json: changed: its SHA-256 is 4f53cda18c2b..., "
        f"expected 44136fa355b3...; {below}segmentation/train/0/0_i: missing; "
        f"{below}segmentation/train/1/1_i: missing; and 1 more; fix it"
    )
    assert (error.remedy, error.root.resolve()) == ("replace", tree)


def test_fingerprint_depends_on_paths_and_content_only(tree: Path) -> None:
    files = [tree / "endovis/mapping.json", tree / TRAIN / "0/0_i"]
    before, _ = identify(files, tree)
    # { printf '%s  endovis/mapping.json\n' "$(printf '{}' | sha256sum | cut -c-64)"; the same for 0i; } | sha256sum
    assert before == "04b115a9e39f7580"
    assert identify(reversed(files), tree)[0] == before
    assert identify(files, tree / "endovis")[0] != before
    files[0].write_bytes(b"[]")
    assert identify(files, tree)[0] != before
    with pytest.raises(DataError, match=r"no .*none; download it again"):
        identify([tree / "none"], tree)
    files[0].chmod(0)
    with as_nobody(tree.parent), pytest.raises(DataError, match=r"no permission to read .*mapping.json"):
        identify(files, tree)


def others(root: Path, *folders: str) -> list[str]:
    files = [path for folder in folders for path in sorted((root / folder).rglob("*")) if path.is_file()]
    return identify(files, root)[1]


def test_files_that_are_not_as_published_are_identified(tree: Path) -> None:
    assert others(tree, "endovis", "fashion_mnist") == []
    assert others(tree, "endovis/colorization") == []  # folders that were not read do not count
    write(tree / TRAIN, {"1/1_i": b"another", "7/7_i": b"more"})
    (tree / TRAIN / "2/2_m").unlink()
    expected = [f"{TRAIN}/1/1_i", f"{TRAIN}/2/2_m", f"{TRAIN}/7/7_i"]
    assert others(tree, TRAIN) == expected
    (tree / "endovis").rename(tree.parent / "own")  # the folder of a data set may have any name
    assert others(tree.parent / "own", "segmentation/train") == expected


@pytest.mark.parametrize("at_the_root", [("endovis",), ("fashion_mnist",), ("endovis", "fashion_mnist")])
def test_each_data_set_may_be_at_the_root_or_in_a_folder_of_its_name(tree: Path, at_the_root: tuple[str, ...]) -> None:
    for name in at_the_root:
        for entry in (tree / name).iterdir():
            entry.rename(tree / entry.name)
        (tree / name).rmdir()
    assert others(tree, ".") == []
    write(tree, {"1/1_i": b"more"})
    assert others(tree, ".") == ["endovis/1/1_i"]


@pytest.mark.parametrize(("content", "as_published"), [(b"labels", True), (b"others", False)])
def test_unpacked_garments_count_as_the_packed_ones(tree: Path, content: bytes, as_published: bool) -> None:
    packed = tree / RAW / "t10k-labels-idx1-ubyte.gz"
    packed.rename(packed.with_suffix(""))
    packed.with_suffix("").write_bytes(content)
    assert others(tree, "fashion_mnist") == ([] if as_published else [f"{RAW}/t10k-labels-idx1-ubyte"])
    packed.with_suffix("").rename(packed.with_name("t10k-images-idx3-ubyte"))
    assert others(tree, "fashion_mnist") == [f"{RAW}/t10k-labels-idx1-ubyte.gz", f"{RAW}/t10k-images-idx3-ubyte"]


def test_the_list_has_the_published_files() -> None:
    lines = gzip.decompress(checksums.PUBLISHED.read_bytes()).splitlines(keepends=True)
    packed = [line for line in lines if not line.endswith(b"-ubyte\n")]
    assert (len(lines), len(packed)) == (4077, 4073)
    assert hashlib.sha256(b"".join(packed)).hexdigest().startswith("25262f5f6a6a42d4")


@pytest.mark.skipif("HW6_DATA" not in os.environ, reason="set HW6_DATA to the folder with endovis/ and fashion_mnist/")
def test_published_data(tmp_path: Path) -> None:
    root = Path(os.environ["HW6_DATA"])
    assert require_published(root) == 4073
    files = [path for path in root.rglob("*") if path.suffix in (".jpg", ".png", ".json", ".gz")]
    assert identify(files, root)[1] == []
    raw = tmp_path / "FashionMNIST/raw"
    raw.mkdir(parents=True)
    for path in (root / RAW).glob("*.gz"):
        (raw / path.stem).write_bytes(gzip.decompress(path.read_bytes()))
    assert identify(raw.iterdir(), tmp_path)[1] == []
