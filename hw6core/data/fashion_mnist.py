"""Loads Fashion-MNIST (Xiao et al. 2017) from the files that torchvision downloads."""

from __future__ import annotations

import gzip
import math
import struct
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torchvision.datasets import FashionMNIST
from torchvision.datasets.utils import check_integrity

from hw6core.data import remedy
from hw6core.provenance import SETS

CLASS_NAMES = tuple(name.replace("/", " or ") for name in FashionMNIST.classes)


@dataclass(frozen=True)
class Garments:
    """images (N, 1, 28, 28) uint8; labels (N,) int64 in 0 to 9; class names; files read."""

    images: Tensor
    labels: Tensor
    class_names: tuple[str, ...]
    files: tuple[Path, ...]


@remedy.unreadable_is_missing()
def load_fashion_mnist(root: str | Path, train: bool) -> Garments:
    """Load the training set or the test set.

    Args:
        root: the folder that holds ``fashion_mnist/``, or the one that holds ``FashionMNIST/raw``. The files may be
            packed (.gz, verified against torchvision's checksums) or unpacked; the folder is only read.
        train: training set or test set.

    Raises:
        DataError: files are missing, damaged, or not 28x28 images with labels 0 to 9.
        ValueError: ``train`` is the name of a split, which would always count as True.

    >>> import tempfile
    >>> from hw6core.data.synthetic import Sizes, synthesize
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     synthesize(Path(folder), sizes=Sizes(1, 1, 1, 1, 1, 2, 1))
    ...     garments = load_fashion_mnist(folder, train=True)
    >>> garments.images.shape, garments.labels.shape
    (torch.Size([2, 1, 28, 28]), torch.Size([2]))
    """
    if isinstance(train, str):
        raise ValueError(f"train={train!r}; expected True or False")
    raw = remedy.set_folder(root, "fashion_mnist") / SETS["fashion_mnist"]
    prefix = "train" if train else "t10k"
    files = _existing(raw / f"{prefix}-images-idx3-ubyte"), _existing(raw / f"{prefix}-labels-idx1-ubyte")
    images, labels = _read_idx(files[0], (28, 28)).unsqueeze(1), _read_idx(files[1], ()).long()
    if len(images) != len(labels):
        raise remedy.damaged(
            f"{files[0]} has {len(images)} images, {files[1].name} {len(labels)} labels; expected the same number",
            files[0],
        )
    if int(labels.max()) > 9:
        raise remedy.damaged(f"{files[1]} has the label {int(labels.max())}; expected 0 to 9", files[1])
    return Garments(images, labels, CLASS_NAMES, files)


def _existing(path: Path) -> Path:
    """The unpacked file if it exists, else the packed one."""
    packed = path.with_name(f"{path.name}.gz")
    for candidate in (path, packed):
        if candidate.is_file():
            return candidate
    raise remedy.damaged(f"neither {path} nor {packed.name} exists", path)


def _read_idx(path: Path, size: tuple[int, ...]) -> Tensor:
    """(N, *size) uint8 from a file in the idx format: two zero bytes, 8 for unsigned bytes, the number of axes, the
    length of each as four bytes, the pixels or labels."""
    content = path.read_bytes()
    if path.suffix == ".gz":
        if not check_integrity(str(path), dict(FashionMNIST.resources)[path.name]):
            raise remedy.damaged(f"{path} does not have the checksum of Fashion-MNIST", path)
        content = gzip.decompress(content)
    axes, each = 1 + len(size), math.prod(size)
    count = max((len(content) - 4 - 4 * axes) // each, 1)  # the number that fits the size of the file
    header = struct.pack(f">{1 + axes}I", 0x800 + axes, count, *size)
    if not content.startswith(header) or len(content) != len(header) + count * each:
        found = f"has {len(content)} bytes and starts with {content[: len(header)].hex(' ', 4)}"
        raise remedy.damaged(f"{path} {found}; expected {header.hex(' ', 4)} and {count * each} bytes", path)
    return torch.frombuffer(bytearray(content), dtype=torch.uint8, offset=len(header)).view(count, *size)
