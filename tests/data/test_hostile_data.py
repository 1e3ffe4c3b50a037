"""Data folders that were made to do harm: a benchmark reads what is mounted, whoever filled it."""

from __future__ import annotations

import gzip
import io
import os
import struct
import tracemalloc
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image

from hw6core.data import load_endovis, load_fashion_mnist
from hw6core.errors import DataError
from tests.fetching import write

MIB = 2**20


@contextmanager
def memory_below(mib: int) -> Iterator[None]:
    """Fails if Python's allocations rise by more than this within the block."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < mib * MIB
    finally:
        tracemalloc.stop()


MAPPING = b'{"Tissue": 0 "Forceps": 32}'


def encoded(image: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


FRAME = encoded(Image.new("RGB", (8, 8)), "JPEG")
MASK = encoded(Image.new("L", (8, 8)), "PNG")


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def bomb(width: int, height: int) -> bytes:
    """A PNG of zeros, a thousandth of what it inflates to."""
    packer = zlib.compressobj(9)
    row = bytes(width + 1)
    body = b"".join(packer.compress(row) for _ in range(min(height, 200))) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def frames(tmp_path: Path, **changed: bytes) -> Path:
    files = {"input.jpg": FRAME, "mask.png": MASK} | {name.replace("_", "."): value for name, value in changed.items()}
    write(tmp_path / "segmentation/train/0", {f"0_{name}": files[name] for name in ("input.jpg", "mask.png")})
    write(tmp_path, {"mapping.json": files.get("mapping.json", MAPPING)})
    return tmp_path


def refused(root: Path) -> str:
    with pytest.raises(DataError) as caught:
        load_endovis(root, "train")
    assert str(caught.value).isprintable()
    return str(caught.value)


# ------------------------------------------------------------------------------------------------------------- images


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("size", [(50_000, 50_000), (13_000, 13_000), (10_000, 9_000), (8_000, 8_000), (10**8, 1)])
@pytest.mark.parametrize("name", ["input_jpg", "mask_png"])
def test_picture_that_inflates_to_gigabytes(tmp_path: Path, size: tuple[int, int], name: str) -> None:
    """Pillow itself only warns below 179 megapixels: half a gigabyte for each of four threads."""
    root = frames(tmp_path, **{name: bomb(*size)})
    with memory_below(64):
        message = refused(root)
    assert "cannot decode" in message
    assert message.endswith("; get it again")


def test_large_frames_are_still_read(tmp_path: Path) -> None:
    large = frames(
        tmp_path,
        input_jpg=encoded(Image.new("RGB", (1280, 1024)), "JPEG"),
        mask_png=encoded(Image.new("L", (1280, 1024)), "PNG"),
    )
    assert load_endovis(large, "train").images.shape == (1, 3, 1024, 1280)


@pytest.mark.parametrize("kind", ["EPS", "PDF", "GIF", "TIFF", "BMP", "ICNS", "PPM", "WEBP"])
def test_other_formats_than_those_of_the_data_are_not_opened(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pillow goes by the content, not the name: it hands PostScript to Ghostscript, another program."""
    monkeypatch.setattr("subprocess.Popen", lambda *_, **__: pytest.fail("started a program"))
    content = encoded(Image.new("RGB", (16, 16)), kind) if kind != "ICNS" else b"icns\0\0\0\x08"
    assert "cannot identify image file" in refused(frames(tmp_path, input_jpg=content))


def test_text_in_a_picture_that_inflates(tmp_path: Path) -> None:
    text = b"k\0\0" + zlib.compress(bytes(100 * MIB), 9)
    content = MASK[:33] + chunk(b"zTXt", text) * 3 + MASK[33:]
    with memory_below(64):
        assert "cannot decode" in refused(frames(tmp_path, mask_png=content))


def test_what_is_no_file(tmp_path: Path) -> None:
    root = frames(tmp_path)
    file = root / "segmentation/train/0/0_input.jpg"
    file.unlink()
    os.mkfifo(file)  # reading it would wait for ever
    assert "no " in refused(root)
    file.unlink()
    file.symlink_to("/dev/zero")
    assert "no " in refused(root)


# ------------------------------------------------------------------------------------------------------------ mapping


@pytest.mark.parametrize(
    "content",
    [
        b'{"a": 0, "b": ' + b"9" * 5000 + b"}",
        b'{"a": 0, "b": \xd9\xa3}',
        b'{"a": 0, "\x1b[2J": 1',
        b'{"\x1b[2J": 0, "\x1b[2J": 1}',
        b"{" + b'"' * 60_000 + b"}",
        b"[" * 50_000,
        b"\xff\xfe" * 100,
    ],
)
def test_mapping_that_is_none(tmp_path: Path, content: bytes) -> None:
    assert "mapping.json" in refused(frames(tmp_path, mapping_json=content))


def test_mapping_without_end(tmp_path: Path) -> None:
    root = frames(tmp_path)
    with (root / "mapping.json").open("wb") as file:
        file.truncate(100 << 30)  # takes no room on the disk
    assert "mapping.json has 107374182400 bytes; expected at most 65536" in refused(root)


# ----------------------------------------------------------------------------------------------------------- garments

RAW = Path("FashionMNIST/raw")
IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


def garments(root: Path) -> Path:
    images = struct.pack(">IIII", 0x803, 2, 28, 28) + bytes(2 * 28 * 28)
    write(root / RAW, {IMAGES: images, LABELS: struct.pack(">II", 0x801, 2) + b"\x03\x04"})
    return root / RAW


@pytest.mark.parametrize("name", [IMAGES, LABELS])
def test_packed_garments_that_inflate_without_end(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = garments(tmp_path)
    (folder / name).unlink()
    (folder / f"{name}.gz").write_bytes(gzip.compress(bytes(200 * MIB)))
    monkeypatch.setattr("gzip.open", lambda *_: pytest.fail("was inflated"))
    with pytest.raises(DataError, match=r"has another checksum than Fashion-MNIST; get it again$"):
        load_fashion_mnist(tmp_path, train=True)


@pytest.mark.parametrize("name", [IMAGES, LABELS, f"{IMAGES}.gz", f"{LABELS}.gz"])
def test_garments_of_a_hundred_gigabytes(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = garments(tmp_path)
    (folder / name.removesuffix(".gz")).unlink()
    with (folder / name).open("wb") as file:
        file.truncate(100 << 30)
    monkeypatch.setattr("hw6core.data.fashion_mnist.check_integrity", lambda *_: pytest.fail("was read"))
    with pytest.raises(DataError, match=rf"{name} has 107374182400 bytes; expected at most 47040016; get it again$"):
        load_fashion_mnist(tmp_path, train=True)


@pytest.mark.parametrize(
    "header",
    [
        struct.pack(">IIII", 0x803, 2**31, 2**31, 2**31),
        struct.pack(">IIII", 0x803, 2**32 - 1, 28, 28),
        struct.pack(">I", 0x8FF) + b"\xff" * 1020,
        struct.pack(">I", 0xD03),
        b"",
        b"\0",
    ],
)
def test_header_that_announces_more_than_there_is(tmp_path: Path, header: bytes) -> None:
    folder = garments(tmp_path)
    (folder / IMAGES).write_bytes(header)
    with pytest.raises(DataError, match=r"announces|begins with|has \d bytes|holds images"):
        load_fashion_mnist(tmp_path, train=True)
