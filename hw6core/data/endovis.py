"""The course's subset of EndoVis 2017 (Allan et al. 2019), from its folder to tensors.

The layout, below a root that is either the folder of both data sets or the one with ``mapping.json``::

    endovis/mapping.json
    endovis/segmentation/{train,validation,test}/K/K_input.jpg, K_mask.png
    endovis/colorization/{train_cor,validation_cor}/K/K_input.jpg, K_gray.jpg

K counts from anywhere and may have gaps; files and folders that are not samples (``.DS_Store``, ``Icon``) are passed
over, links that lead nowhere are refused. Frames are JPEG or PNG, masks PNG; pixels are 8-bit grey or RGB, which may
come by way of a palette or with an alpha channel that hides nothing. A picture that says that it is to be shown turned
(EXIF orientation) is turned. What has another meaning, or several, is refused.

Loading takes the memory of the tensors that it returns and, at most, 32 MiB and 4 KiB a frame more. From the
cache (see `hw6core.data.cache`) the tensors are a mapped file, whose pages the system can take back.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from hw6core.data import remedy
from hw6core.data.cache import cached
from hw6core.errors import DataError

SEGMENTATION_SPLITS = ("train", "validation", "test")
COLORIZATION_SPLITS = {"train": "train_cor", "validation": "validation_cor"}
LUMA_ITU_R_601 = (0.299, 0.587, 0.114)
_RESIZE = "resize what differs (masks without smoothing)"
# Pillow's names of what has one meaning in 8-bit grey or RGB. CMYK has several; of 16-bit pixels Pillow keeps half.
_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA")
_JPEG_TOLERANCE = 16  # how far the three channels of a grey picture may differ after JPEG
_FORMATS = ("JPEG", "PNG")  # Pillow goes by the content, and would hand PostScript to another program
_MOST_THREADS = 8  # Pillow releases the interpreter lock while it decodes


@dataclass(frozen=True)
class ClassMapping:
    """Class names in the order of their class indices, and the grey level that each has in a mask file."""

    names: tuple[str, ...]
    levels: tuple[int, ...]


@dataclass(frozen=True)
class SegmentationFrames:
    """images (N, 3, H, W) uint8 RGB; masks (N, H, W) uint8 class indices; the names of the classes, background first;
    the files that were read."""

    images: Tensor
    masks: Tensor
    class_names: tuple[str, ...]
    files: tuple[Path, ...]


@dataclass(frozen=True)
class ColorizationFrames:
    """images (N, 3, H, W) uint8 RGB; grays (N, 1, H, W) uint8; the files that were read."""

    images: Tensor
    grays: Tensor
    files: tuple[Path, ...]


@remedy.unreadable_is_missing()
def load_endovis(root: str | Path, split: str) -> SegmentationFrames:
    """Load a segmentation split.

    Args:
        root: the folder that holds ``endovis/``, or the one that holds ``mapping.json``.
        split: "train", "validation" or "test".

    Raises:
        DataError: something is missing, damaged, of another size, or a mask holds a grey level not in the mapping.

    >>> import tempfile
    >>> from hw6core.data.synthetic import Sizes, synthesize
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     synthesize(Path(folder), sizes=Sizes(1, 1, 1, 1, 1, 2, 1))
    ...     frames = load_endovis(folder, "train")
    >>> frames.images.shape, frames.masks.shape
    (torch.Size([1, 3, 256, 320]), torch.Size([1, 256, 320]))
    """
    if split not in SEGMENTATION_SPLITS:
        raise DataError(f"EndoVis has no split {split!r}; expected one of {', '.join(SEGMENTATION_SPLITS)}")
    base = endovis_folder(root)
    mapping = read_mapping(base / "mapping.json")
    folder = base / "segmentation" / split
    samples = _samples(folder)
    inputs, masks = (_paths(folder, samples, kind) for kind in ("input.jpg", "mask.png"))
    files = (*inputs, *masks, base / "mapping.json")

    def decode() -> dict[str, Tensor]:
        _require([*inputs, *masks])
        images = _stack(inputs, _read_rgb)
        indices = _stack(masks, lambda path: _read_mask(path, mapping))
        if images.shape[2:] != indices.shape[1:]:
            raise DataError(
                f"{folder}: images are {_size(images.shape[2:])}, "
                f"masks {_size(indices.shape[1:])}; expected the same size; {_RESIZE}"
            )
        return {"images": images, "masks": indices}

    frames = cached(files, f"segmentation-{split}", decode)
    return SegmentationFrames(frames["images"], frames["masks"], mapping.names, files)


@remedy.unreadable_is_missing()
def load_colorization(root: str | Path, split: str) -> ColorizationFrames:
    """Load a colorization split; a missing grey file is derived from the colour one (ITU-R 601).

    Args:
        root: as for `load_endovis`.
        split: "train" or "validation".

    Raises:
        DataError: something is missing, damaged or of another size.

    >>> import tempfile
    >>> from hw6core.data.synthetic import Sizes, synthesize
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     synthesize(Path(folder), sizes=Sizes(1, 1, 1, 1, 1, 2, 1))
    ...     frames = load_colorization(folder, "validation")
    >>> frames.images.shape, frames.grays.shape
    (torch.Size([1, 3, 256, 320]), torch.Size([1, 1, 256, 320]))
    """
    if split not in COLORIZATION_SPLITS:
        raise DataError(f"colorization has no split {split!r}; expected one of {', '.join(COLORIZATION_SPLITS)}")
    folder = endovis_folder(root) / "colorization" / COLORIZATION_SPLITS[split]
    samples = _samples(folder)
    inputs, gray_paths = (_paths(folder, samples, kind) for kind in ("input.jpg", "gray.jpg"))
    gray_files = {number: path for number, path in enumerate(gray_paths) if path.is_file()}
    files = (*inputs, *gray_files.values())

    def decode() -> dict[str, Tensor]:
        _require(inputs)
        for path in gray_paths:
            if not path.is_file() and (other := _in_its_place(path)):
                raise DataError(f"no {path}; {other}")
        images = _stack(inputs, _read_rgb)
        grays = images.new_empty((len(images), *images.shape[2:]))
        if gray_files:
            given = _stack(list(gray_files.values()), _read_gray, list(gray_files), len(samples))
            if given.shape[1:] != images.shape[2:]:
                raise DataError(
                    f"{folder}: images are {_size(images.shape[2:])}, grey images {_size(given.shape[1:])}; "
                    f"expected the same size; {_RESIZE}"
                )
            grays = given
        for number in set(range(len(samples))) - set(gray_files):
            grays[number] = to_gray(images[number : number + 1])[0, 0]
        return {"images": images, "grays": grays.unsqueeze(1)}

    frames = cached(files, f"colorization-{split}", decode)
    return ColorizationFrames(frames["images"], frames["grays"], files)


def to_gray(images: Tensor) -> Tensor:
    """(N, 3, H, W) uint8 RGB -> (N, 1, H, W) uint8 luma with the weights of ITU-R 601."""
    weights = torch.tensor(LUMA_ITU_R_601, device=images.device)
    planes = [weights[channel] * images[:, channel] for channel in range(3)]
    return (planes[0] + planes[1] + planes[2]).round().to(torch.uint8).unsqueeze(1)


def endovis_folder(root: str | Path) -> Path:
    """The folder with ``mapping.json``: ``root`` itself or ``root/endovis``.

    Raises:
        DataError: neither holds it.
    """
    for folder in (Path(root), Path(root) / "endovis"):
        if (folder / "mapping.json").is_file():
            return folder
    raise remedy.missing(f"no EndoVis data in {root}: expected endovis/mapping.json or mapping.json there", Path(root))


_ENTRY = re.compile(r'"(?P<name>[^"]*)"\s*:\s*(?P<level>-?[0-9]{1,9})')


def read_mapping(path: Path) -> ClassMapping:
    """Read class names and grey levels, in the order of the file.

    The file that the course hands out is not valid JSON: the commas between its lines are missing. So entries are
    read one by one, and whatever else stands between the braces than white space and commas is an error.

    Raises:
        DataError: the file is missing or not a mapping of at least two names to different grey levels in 0 to 255,
            the first of which, background, is 0.
    """
    try:
        text = path.read_text(encoding="utf-8-sig").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise remedy.damaged(f"cannot read {path} ({error})", path) from error
    if not (text.startswith("{") and text.endswith("}")):
        raise remedy.damaged(f'{path} is not a mapping; expected {{"Background_Tissue": 0, ...}}', path)
    entries = [(found["name"], int(found["level"])) for found in _ENTRY.finditer(text)]
    rest = _ENTRY.sub("", text[1:-1]).replace(",", "").strip()
    if rest:
        raise DataError(f'{path} holds {rest[:40]!r}; expected lines like "Bipolar_Forceps": 32; correct it')
    if len(entries) < 2:
        raise DataError(
            f"{path} names {len(entries)} classes; expected background and an instrument at least; add them"
        )
    names, levels = zip(*entries, strict=True)
    for what, values in (("name", names), ("grey level", levels)):
        repeated = [value for value in values if values.count(value) > 1]
        if repeated:
            raise DataError(f"{path} gives the {what} {repeated[0]!r} twice; expected each once; correct it")
    if not all(0 <= level <= 255 for level in levels) or levels[0] != 0:
        raise DataError(
            f"{path} has the grey levels {list(levels)}; expected 0 for the first, all in 0 to 255; correct it"
        )
    return ClassMapping(names, levels)


def _samples(split: Path) -> list[str]:
    """The numbered folders of a split, in numerical order.

    A link that leads nowhere has a number for a name and is no folder: left out, it would change the data silently.
    """
    if not split.is_dir():
        raise remedy.damaged(f"no folder {split}; expected numbered samples in it", split)
    with os.scandir(split) as entries:
        numbered = [entry for entry in entries if entry.name.isdecimal()]
    for entry in numbered:
        if entry.is_symlink() and not os.path.exists(entry.path):  # noqa: PTH110
            raise DataError(_leads_nowhere(Path(entry.path)))
    samples = sorted((entry.name for entry in numbered if entry.is_dir()), key=int)
    if not samples:
        raise remedy.damaged(f"{split} holds no numbered samples; expected folders like 0, 1, 2", split)
    return samples


def _paths(split: Path, samples: Sequence[str], kind: str) -> list[Path]:
    text = str(split)  # of hundreds: half the time of split / ...
    return [Path(f"{text}/{sample}/{sample}_{kind}") for sample in samples]


def _require(paths: Sequence[Path]) -> None:
    for path in paths:
        if not path.is_file():
            if other := _in_its_place(path):
                raise DataError(f"no {path}; {other}")
            raise remedy.damaged(f"no {path}; the sample is incomplete", path)


def _in_its_place(path: Path) -> str:
    """What lies there instead of a file that is needed: a link that leads nowhere, a name in other letters; or ""."""
    if path.is_symlink():
        return _leads_nowhere(path)
    others = (entry.name for entry in path.parent.iterdir() if entry.name.casefold() == path.name != entry.name)
    return next((f"there is {name}; rename it to {path.name}" for name in others), "")


def _leads_nowhere(link: Path) -> str:
    return f"{link} is a link to {link.readlink()}, which is not there; restore that, or delete the link"


def _stack(
    paths: Sequence[Path],
    read: Callable[[Path], NDArray[np.uint8]],
    rows: Sequence[int] | None = None,
    count: int | None = None,
) -> Tensor:
    """Read files of one size into one uint8 tensor, each into its row as soon as it is decoded.

    (Collected first and stacked then, all of them would be in memory twice.)

    Args:
        rows: of each file; None for one after the other.
        count: how many rows there are; those without a file are left as they are.
    """
    rows = range(len(paths)) if rows is None else rows
    first = read(paths[0])
    stacked = np.empty((len(paths) if count is None else count, *first.shape), np.uint8)
    stacked[rows[0]] = first

    def place(row: int, path: Path) -> None:
        array = read(path)
        if array.shape != first.shape:
            found, expected = _size(array.shape[-2:]), _size(first.shape[-2:])
            raise DataError(f"{path} is {found}, {paths[0]} is {expected}; expected one size in a split; {_RESIZE}")
        stacked[row] = array

    with ThreadPoolExecutor(min(torch.get_num_threads(), _MOST_THREADS)) as pool:
        list(pool.map(place, rows[1:], paths[1:]))  # raises what the first of them raised
    return torch.from_numpy(stacked)


def _size(shape: Sequence[int]) -> str:
    height, width = shape
    return f"{width}x{height}"


def _decode(path: Path, only: str | None = None) -> Image.Image:
    """Decode an image whose pixels have one meaning in 8-bit grey or RGB, without an alpha channel.

    Args:
        only: Pillow's name of the file format that is accepted; None for any, whatever the file's name says.
    """
    try:
        with Image.open(path, formats=_FORMATS) as image:
            kind = "16-bit" if any(";16" in str(tile) for tile in image.tile) else image.mode
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
    except (MemoryError, PermissionError):
        raise
    except Exception as error:  # what Pillow raises depends on the damaged bytes
        reason = str(error) or type(error).__name__
        raise remedy.damaged(f"cannot decode {path} ({reason})", path) from error
    if only is not None and image.format != only:
        raise DataError(f"{path} is a {image.format} file; expected {only}, which keeps every level; save it as that")
    if kind not in _MODES:
        raise DataError(f"{path} has {kind} pixels; expected 8-bit grey or RGB; save it as that")
    if not image.has_transparency_data:
        return image
    if image.convert("RGBA").getchannel("A").getextrema() != (255, 255):
        raise DataError(f"{path} has transparent pixels; expected none; save it without an alpha channel")
    return image.convert("RGB")


def _read_rgb(path: Path) -> NDArray[np.uint8]:
    return np.ascontiguousarray(np.asarray(_decode(path).convert("RGB")).transpose(2, 0, 1))


def _read_gray(path: Path) -> NDArray[np.uint8]:
    return _one_channel(_decode(path), path, _JPEG_TOLERANCE)


def _one_channel(image: Image.Image, path: Path, tolerance: int = 0) -> NDArray[np.uint8]:
    """Grey levels; of colours only if a pixel's three values differ by no more than the tolerance."""
    if image.mode not in ("1", "L"):
        image = image.convert("RGB")  # a palette's numbers are no levels: the colours that they stand for are
        pixels = np.asarray(image)
        if int((pixels.max(axis=2) - pixels.min(axis=2)).max()) > tolerance:
            raise DataError(f"{path} shows colours; expected grey: one channel or three equal ones; save it as that")
    return np.asarray(image.convert("L"))


def _read_mask(path: Path, mapping: ClassMapping) -> NDArray[np.uint8]:
    levels = _one_channel(_decode(path, "PNG"), path)
    unknown = sorted(set(np.unique(levels).tolist()) - set(mapping.levels))
    if unknown:
        more = f" and {len(unknown) - 1} others" if len(unknown) > 1 else ""
        raise DataError(
            f"{path} holds the grey level {unknown[0]}{more}; expected those of mapping.json: {list(mapping.levels)}; "
            "save it without smoothing or compression loss"
        )
    table = np.zeros(256, dtype=np.uint8)
    table[list(mapping.levels)] = np.arange(len(mapping.levels), dtype=np.uint8)
    classes: NDArray[np.uint8] = table[levels]
    return classes
