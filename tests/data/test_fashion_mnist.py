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
from tests.fetching import as_nobody, files_in, write

RAW = "FashionMNIST/raw"
IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
UINT8, INT32 = 0x08, 0x0C  # type codes of the idx format


def idx(shape: tuple[int, ...], content: bytes, kind: int = UINT8) -> bytes:
    """An idx file: two zeros, type, number of axes, the axes as big-endian 32-bit numbers, the elements."""
    return bytes([0, 0, kind, len(shape)]) + struct.pack(f">{len(shape)}I", *shape) + content


def labels(values: list[int]) -> bytes:
    return idx((len(values),), bytes(values))


PICTURES = idx((3, 28, 28), bytes(3 * 28 * 28))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The folder of Fashion-MNIST with three training samples, unpacked."""
    write(tmp_path / RAW, {IMAGES: PICTURES, LABELS: labels([9, 0, 3])})
    return tmp_path


def test_every_garment_of_both_sets_has_its_pixels_and_label(tmp_path: Path) -> None:
    source = torch.Generator().manual_seed(0)
    written = {}
    for name, count in (("train", 130), ("t10k", 12)):
        images = torch.randint(256, (count, 28, 28), generator=source, dtype=torch.uint8)
        answers = torch.randint(10, (count,), generator=source)
        files = {IMAGES: idx((count, 28, 28), bytes(images.flatten().tolist())), LABELS: labels(answers.tolist())}
        write(tmp_path / RAW, {file.replace("train", name): content for file, content in files.items()})
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
    packed = {f"{Path(name).name}.gz": gzip.compress(content) for name, content in files_in(root).items()}
    for name in (IMAGES, LABELS):
        (root / RAW / name).unlink()
    write(root / RAW, packed)
    sums = [(name, hashlib.md5(content).hexdigest()) for name, content in packed.items()]
    monkeypatch.setattr(FashionMNIST, "resources", sums)
    garments = load_fashion_mnist(root, train=True)
    assert garments.labels.tolist() == [9, 0, 3]
    assert [path.name for path in garments.files] == [f"{IMAGES}.gz", f"{LABELS}.gz"]
    assert files_in(root / RAW) == packed


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (LABELS, labels([9, 10, 3]), f"{LABELS} has the label 10; expected 0 to 9; download it again$"),
        (LABELS, labels([1, 2]), f"{IMAGES} has 3 images, {LABELS} 2 labels; expected the same number"),
        (IMAGES, idx((3, 27, 28), bytes(3 * 27 * 28)), "has 2284 bytes and starts with 00000803 00000003 0000001b"),
    ],
)
def test_other_content_is_an_error(root: Path, name: str, content: bytes, message: str) -> None:
    write(root / RAW, {name: content})
    with pytest.raises(DataError, match=message):
        load_fashion_mnist(root, train=True)


@pytest.mark.parametrize("name", [IMAGES, LABELS])
@pytest.mark.parametrize(
    "content",
    [
        b"404: Not Found",
        PICTURES[:-1],
        PICTURES + b"\0",
        idx((3, 28, 28), bytes(3 * 28 * 28 * 4), kind=INT32),
        idx((3, 3), bytes(9)),
        idx((0, 28, 28), b""),
        labels([]),
    ],
    ids=["text", "pictures cut", "pictures too long", "numbers for pictures", "two axes", "no pictures", "no labels"],
)
def test_a_damaged_file_is_an_error(root: Path, name: str, content: bytes) -> None:
    write(root / RAW, {name: content})
    with pytest.raises(
        DataError, match=rf"{name} has \d+ bytes and starts with .*; expected .* bytes; download it again$"
    ):
        load_fashion_mnist(root, train=True)


def test_missing_permission_is_a_data_error(root: Path) -> None:
    load_fashion_mnist(root, train=True)  # imports what the other user may not be able to
    (root / RAW / IMAGES).chmod(0)
    with as_nobody(root), pytest.raises(DataError, match=rf"no permission to read .*/{IMAGES}; its owner can run"):
        load_fashion_mnist(root, train=True)


@pytest.mark.parametrize(("train", "count"), [(True, 60_000), (False, 10_000)])
def test_real_data(real_data: Path, train: bool, count: int) -> None:
    garments = load_fashion_mnist(real_data, train)
    assert garments.images.shape == (count, 1, 28, 28)
    assert int(garments.labels[0]) == 9
    assert torch.bincount(garments.labels).tolist() == [count // 10] * 10
