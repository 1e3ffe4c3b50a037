"""Loading Fashion-MNIST from valid and damaged idx files."""

from __future__ import annotations

import gzip
import hashlib
import struct
from pathlib import Path

import pytest
import torch
from torchvision.datasets import FashionMNIST

from hw6core.data import load_fashion_mnist
from hw6core.errors import DataError
from tests.fetching import as_nobody

IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
UINT8, INT32 = 0x08, 0x0C  # type codes of the idx format


def idx(shape: tuple[int, ...], content: bytes, kind: int = UINT8) -> bytes:
    """An idx file: two zeros, type, number of axes, the axes as big-endian 32-bit numbers, the elements."""
    return bytes([0, 0, kind, len(shape)]) + struct.pack(f">{len(shape)}I", *shape) + content


def pictures(count: int, size: tuple[int, int] = (28, 28)) -> bytes:
    """Image n starts with the bytes n, 1, 2, 3; the others are n."""
    height, width = size
    return idx((count, *size), b"".join(bytes([n, 1, 2, 3]) + bytes([n]) * (height * width - 4) for n in range(count)))


def labels(values: list[int]) -> bytes:
    return idx((len(values),), bytes(values))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The folder of Fashion-MNIST with three training samples, unpacked."""
    folder = tmp_path / "fashion_mnist"
    write(folder, IMAGES, pictures(3))
    write(folder, LABELS, labels([9, 0, 3]))
    return folder


def write(folder: Path, name: str, content: bytes) -> Path:
    path = folder / "FashionMNIST" / "raw" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def pack(folder: Path, name: str) -> Path:
    """Replace an unpacked file by its .gz."""
    path = folder / "FashionMNIST" / "raw" / name
    packed = write(folder, f"{name}.gz", gzip.compress(path.read_bytes(), mtime=0))
    path.unlink()
    return packed


def test_every_garment_of_both_sets_has_its_pixels_and_label(tmp_path: Path) -> None:
    source = torch.Generator().manual_seed(0)
    written = {}
    for name, count in (("train", 130), ("t10k", 12)):
        images = torch.randint(256, (count, 28, 28), generator=source, dtype=torch.uint8)
        answers = torch.randint(10, (count,), generator=source)
        write(tmp_path, IMAGES.replace("train", name), idx((count, 28, 28), bytes(images.flatten().tolist())))
        write(tmp_path, LABELS.replace("train", name), labels(answers.tolist()))
        written[name == "train"] = images, answers
    for train, (images, answers) in written.items():
        garments = load_fashion_mnist(tmp_path, train=train)
        assert torch.equal(garments.images, images.unsqueeze(1))
        assert torch.equal(garments.labels, answers)


def test_the_name_of_a_split_is_an_error(root: Path) -> None:
    with pytest.raises(ValueError, match=r"^train='test'; expected True or False$"):
        load_fashion_mnist(root, "test")  # type: ignore[arg-type]


def test_packed_files_with_the_known_checksum_are_read_and_not_unpacked(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sums = [(pack(root, name).name, name) for name in (IMAGES, LABELS)]
    raw = root / "FashionMNIST" / "raw"
    known = [(packed, hashlib.md5((raw / packed).read_bytes()).hexdigest()) for packed, _ in sums]
    monkeypatch.setattr(FashionMNIST, "resources", known)
    garments = load_fashion_mnist(root, train=True)
    assert garments.labels.tolist() == [9, 0, 3]
    assert [path.name for path in garments.files] == [f"{IMAGES}.gz", f"{LABELS}.gz"]
    assert sorted(path.name for path in raw.iterdir()) == [f"{IMAGES}.gz", f"{LABELS}.gz"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (LABELS, labels([9, 10, 3]), f"{LABELS} has the label 10; expected 0 to 9; download it again$"),
        (LABELS, labels([1, 2]), f"{IMAGES} has 3 images, {LABELS} 2 labels; expected the same number"),
        (IMAGES, pictures(3, (27, 28)), f"{IMAGES} has 2284 bytes and starts with 00000803 00000003 0000001b 0000001c"),
    ],
)
def test_other_content_is_an_error(root: Path, name: str, content: bytes, message: str) -> None:
    write(root, name, content)
    with pytest.raises(DataError, match=message):
        load_fashion_mnist(root, train=True)


@pytest.mark.parametrize("name", [IMAGES, LABELS])
@pytest.mark.parametrize(
    "content",
    [
        b"404: Not Found",
        pictures(3)[:-1],
        pictures(3) + b"\0",
        idx((3, 28, 28), bytes(3 * 28 * 28 * 4), kind=INT32),
        idx((3, 3), bytes(9)),
        idx((0, 28, 28), b""),
        labels([]),
    ],
    ids=["text", "pictures cut", "pictures too long", "numbers for pictures", "two axes", "no pictures", "no labels"],
)
def test_a_damaged_file_is_an_error(root: Path, name: str, content: bytes) -> None:
    write(root, name, content)
    with pytest.raises(
        DataError, match=rf"{name} has \d+ bytes and starts with .*; expected .* bytes; download it again$"
    ):
        load_fashion_mnist(root, train=True)


@pytest.mark.parametrize("name", [IMAGES, f"{LABELS}.gz"])
def test_missing_permission_is_a_data_error(root: Path, name: str) -> None:
    if name.endswith(".gz"):
        pack(root, LABELS)
    (root / "FashionMNIST/raw" / name).chmod(0)
    with as_nobody(root.parent), pytest.raises(DataError, match=rf"no permission to read .*/{name}; its owner can run"):
        load_fashion_mnist(root, train=True)


@pytest.mark.parametrize(("train", "count", "first"), [(True, 60_000, 9), (False, 10_000, 9)])
def test_real_data(real_data: Path, train: bool, count: int, first: int) -> None:
    garments = load_fashion_mnist(real_data, train)
    assert garments.images.shape == (count, 1, 28, 28)
    assert int(garments.labels[0]) == first
    assert torch.bincount(garments.labels).tolist() == [count // 10] * 10
