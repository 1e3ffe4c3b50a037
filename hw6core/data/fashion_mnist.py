"""Fashion-MNIST (Xiao et al. 2017) through torchvision, from a folder to tensors."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor
from torchvision.datasets import FashionMNIST
from torchvision.datasets.mnist import read_image_file, read_label_file
from torchvision.datasets.utils import check_integrity, extract_archive

from hw6core.errors import DataError

CLASS_NAMES = tuple(name.replace("/", " or ") for name in FashionMNIST.classes)
_RAW = Path("FashionMNIST") / "raw"
_FETCH = "python -m benchmarks data fetch"
_MOST_BYTES = 16 + 60_000 * 28 * 28  # the largest of the files, unpacked


@dataclass(frozen=True)
class Garments:
    """images (N, 1, 28, 28) uint8; labels (N,) int64 in 0 to 9; the files that were read."""

    images: Tensor
    labels: Tensor
    class_names: tuple[str, ...]
    files: tuple[Path, ...]


def load_fashion_mnist(root: str | Path, train: bool) -> Garments:
    """Load the training set or the test set.

    Args:
        root: the folder that holds ``fashion_mnist/``, or the one that holds ``FashionMNIST/raw``. The files may be
            packed (.gz, checked against torchvision's checksums) or unpacked; the folder is only read.
        train: training set or test set.

    Raises:
        DataError: files are missing, damaged, or not 28x28 images with labels 0 to 9.
    """
    folder = fashion_mnist_folder(root)
    prefix = "train" if train else "t10k"
    names = [f"{prefix}-images-idx3-ubyte", f"{prefix}-labels-idx1-ubyte"]
    files = [_existing(folder / _RAW / name) for name in names]
    try:
        with tempfile.TemporaryDirectory() as scratch:
            images_file, labels_file = (_unpacked(path, Path(scratch)) for path in files)
            images, labels = read_image_file(str(images_file)).unsqueeze(1), read_label_file(str(labels_file))
    except (OSError, EOFError, RuntimeError, ValueError, TypeError, AssertionError, KeyError) as error:
        reason = str(error) or type(error).__name__
        raise DataError(f"cannot read Fashion-MNIST in {folder} ({reason}); get it again: {_FETCH} --force") from error
    if images.shape[1:] != (1, 28, 28) or len(images) != len(labels) or len(images) == 0:
        raise DataError(
            f"{folder} holds images {tuple(images.shape)} and {len(labels)} labels; expected (N, 1, 28, 28) and N"
        )
    if int(labels.max()) > 9 or int(labels.min()) < 0:
        raise DataError(f"{files[1]} holds the label {int(labels.max())}; expected 0 to 9; get it: {_FETCH} --force")
    return Garments(images, labels, CLASS_NAMES, tuple(files))


def fashion_mnist_folder(root: str | Path) -> Path:
    """The folder with ``FashionMNIST/raw``: ``root`` itself or ``root/fashion_mnist``.

    Raises:
        DataError: neither holds it.
    """
    for folder in (Path(root), Path(root) / "fashion_mnist"):
        if (folder / _RAW).is_dir():
            return folder
    raise DataError(
        f"no Fashion-MNIST in {root}: expected fashion_mnist/FashionMNIST/raw or FashionMNIST/raw there; "
        f"get it: {_FETCH}"
    )


def _existing(path: Path) -> Path:
    """The unpacked file if it is there, else the packed one."""
    packed = path.with_name(f"{path.name}.gz")
    for candidate in (path, packed):
        if candidate.is_file():
            if (size := candidate.stat().st_size) > _MOST_BYTES:
                raise DataError(f"{candidate} has {size} bytes; expected at most {_MOST_BYTES}; get it again: {_FETCH}")
            return candidate
    raise DataError(f"no {path} and no {packed.name} beside it; get it: {_FETCH}")


def _unpacked(path: Path, scratch: Path) -> Path:
    """The file itself, or a copy unpacked into ``scratch``: torchvision reads unpacked files only."""
    if path.suffix != ".gz":
        return path
    if not check_integrity(str(path), dict(FashionMNIST.resources)[path.name]):
        raise DataError(f"{path} has another checksum than Fashion-MNIST; get it again: {_FETCH} --force")
    extract_archive(str(path), str(scratch))
    return scratch / path.stem
