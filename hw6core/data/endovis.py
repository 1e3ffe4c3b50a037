"""Loads the course's subset of EndoVis 2017 (Allan et al. 2019).

The layout below the root, the folder of both data sets or the one with ``mapping.json``::

    endovis/mapping.json
    endovis/segmentation/{train,validation,test}/K/K_input.jpg, K_mask.png
    endovis/colorization/{train_cor,validation_cor}/K/K_input.jpg, K_gray.jpg

K starts anywhere and may have gaps; files and folders that are not samples (``.DS_Store``, ``Icon``) are ignored,
broken links are an error. Frames are JPEG or PNG, masks PNG. Pixels are 8-bit grey or RGB, also with a palette or an
opaque alpha channel; any other format is an error. The EXIF orientation is applied.

Loading takes the memory of the returned tensors plus at most 32 MiB and 4 KiB per frame.
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
_RESIZE = "resize the others (masks without smoothing)"
# Pillow modes with a unique conversion to 8-bit grey or RGB. CMYK has several; Pillow keeps half of 16-bit pixels.
_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA")
_JPEG_TOLERANCE = 16  # maximum difference of the three channels of a grey image after JPEG
_FORMATS = ("JPEG", "PNG")  # Pillow detects the format by content, and would run Ghostscript for PostScript
_MAX_THREADS = 8  # Pillow releases the GIL while it decodes


@dataclass(frozen=True)
class SegmentationFrames:
    """images (N, 3, H, W) uint8 RGB; masks (N, H, W) uint8 class indices; class names, background first; files read."""

    images: Tensor
    masks: Tensor
    class_names: tuple[str, ...]
    files: tuple[Path, ...]


@dataclass(frozen=True)
class ColorizationFrames:
    """images (N, 3, H, W) uint8 RGB; grays (N, 1, H, W) uint8; files read."""

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
        DataError: a file is missing, damaged or of another size, or a mask has a grey level that is not in the mapping.

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
    base = remedy.set_folder(root, "endovis")
    mapping = read_mapping(base / "mapping.json")
    folder = base / "segmentation" / split
    samples = _samples(folder)
    inputs, masks = (_paths(folder, samples, kind) for kind in ("input.jpg", "mask.png"))
    files = (*inputs, *masks, base / "mapping.json")

    def decode() -> dict[str, Tensor]:
        images = _stack(inputs, _read_rgb)
        indices = _stack(masks, lambda path: _read_mask(path, list(mapping.values())))
        _require_one_size(folder, images, "masks", indices)
        return {"images": images, "masks": indices}

    frames = cached(files, f"segmentation-{split}", decode)
    return SegmentationFrames(frames["images"], frames["masks"], tuple(mapping), files)


@remedy.unreadable_is_missing()
def load_colorization(root: str | Path, split: str) -> ColorizationFrames:
    """Load a colorization split; a missing grey file is computed from the colour file (ITU-R 601).

    Args:
        root: as for `load_endovis`.
        split: "train" or "validation".

    Raises:
        DataError: a file is missing, damaged or of another size.

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
    folder = remedy.set_folder(root, "endovis") / "colorization" / COLORIZATION_SPLITS[split]
    samples = _samples(folder)
    inputs, grays = (_paths(folder, samples, kind) for kind in ("input.jpg", "gray.jpg"))
    sources = [gray if os.path.lexists(gray) else colour for gray, colour in zip(grays, inputs, strict=True)]
    files = tuple(dict.fromkeys((*inputs, *sources)))

    def decode() -> dict[str, Tensor]:
        images, planes = _stack(inputs, _read_rgb), _stack(sources, _read_gray)
        _require_one_size(folder, images, "grey images", planes)
        return {"images": images, "grays": planes.unsqueeze(1)}

    frames = cached(files, f"colorization-{split}", decode)
    return ColorizationFrames(frames["images"], frames["grays"], files)


_ENTRY = re.compile(r'"(?P<name>[^"]*)"\s*:\s*(?P<level>-?[0-9]{1,9})')


def read_mapping(path: Path) -> dict[str, int]:
    """Read the class names and their grey levels in the masks, in the order of the file.

    The course's file is not valid JSON: the commas between its lines are missing. Entries are therefore matched one by
    one; anything else between the braces, except white space and commas, is an error.

    Raises:
        DataError: the file is not a mapping of at least two names to different grey levels in 0 to 255, the first of
            which, background, is 0.
    """
    try:
        text = path.read_text(encoding="utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise remedy.damaged(f"cannot read {path} ({error})", path) from error
    if not (text.startswith("{") and text.endswith("}")):
        raise remedy.damaged(f'{path} is not a mapping; expected {{"Background_Tissue": 0, ...}}', path)
    entries = [(found["name"], int(found["level"])) for found in _ENTRY.finditer(text)]
    rest = _ENTRY.sub("", text[1:-1]).replace(",", "").strip()
    if rest:
        raise DataError(f'{path} holds {rest[:40]!r}; expected lines like "Bipolar_Forceps": 32; correct it')
    levels = [level for _, level in entries]
    different = len(dict(entries)) == len(set(levels)) == len(entries) > 1
    if not different or levels[0] != 0 or not 0 <= min(levels) <= max(levels) <= 255:
        raise DataError(
            f"{path} has the classes {entries}; expected background and at least one instrument, with different names "
            "and grey levels in 0 to 255, the first 0; correct it"
        )
    return dict(entries)


def _samples(split: Path) -> list[str]:
    """The numbered folders of a split, in numerical order; also broken links, so that no sample is dropped silently."""
    if not split.is_dir():
        raise remedy.damaged(f"no folder {split}; expected numbered samples in it", split)
    with os.scandir(split) as entries:
        numbered = [e.name for e in entries if e.name.isdecimal() and (e.is_dir() or e.is_symlink())]
    samples = sorted(numbered, key=int)
    if not samples:
        raise remedy.damaged(f"{split} has no numbered samples; expected folders like 0, 1, 2", split)
    return samples


def _paths(split: Path, samples: Sequence[str], kind: str) -> list[Path]:
    text = str(split)  # takes half the time of split / ...
    return [Path(f"{text}/{sample}/{sample}_{kind}") for sample in samples]


def _stack(paths: Sequence[Path], read: Callable[[Path], NDArray[np.uint8]]) -> Tensor:
    """Read files of the same size into one uint8 tensor.

    Each is copied to its row once decoded; collecting all before stacking would take twice the memory.
    """
    first = read(paths[0])
    stacked = np.empty((len(paths), *first.shape), np.uint8)
    stacked[0] = first

    def place(row: int, path: Path) -> None:
        array = read(path)
        if array.shape != first.shape:
            found, expected = _size(array.shape), _size(first.shape)
            raise DataError(f"{path} is {found}, {paths[0]} is {expected}; expected the same size; {_RESIZE}")
        stacked[row] = array

    with ThreadPoolExecutor(min(torch.get_num_threads(), _MAX_THREADS)) as pool:
        list(pool.map(place, range(1, len(paths)), paths[1:]))  # raises the first error
    return torch.from_numpy(stacked)


def _require_one_size(folder: Path, images: Tensor, name: str, others: Tensor) -> None:
    if images.shape[-2:] != others.shape[-2:]:
        found = f"images are {_size(images.shape)}, {name} {_size(others.shape)}"
        raise DataError(f"{folder}: {found}; expected the same size; {_RESIZE}")


def _size(shape: Sequence[int]) -> str:
    return f"{shape[-1]}x{shape[-2]}"


def _decode(path: Path, only: str | None = None) -> Image.Image:
    """Decode an 8-bit grey or RGB image; an opaque alpha channel is removed.

    Args:
        only: Pillow's name of the required file format; None for JPEG or PNG. The file's extension is ignored.
    """
    try:
        with Image.open(path, formats=_FORMATS) as image:
            kind = "16-bit" if any(";16" in str(tile) for tile in image.tile) else image.mode
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
    except (MemoryError, PermissionError):
        raise
    except FileNotFoundError as error:
        if similar := [
            entry.name for entry in path.parent.glob("*") if entry.name.casefold() == path.name != entry.name
        ]:
            raise DataError(f"no {path}; found {similar[0]}; rename it to {path.name}") from error
        found = f"{path} is a broken link" if path.is_symlink() else f"no {path}"
        raise remedy.damaged(f"{found}; the sample is incomplete", path) from error
    except Exception as error:  # Pillow raises many types for damaged files
        reason = str(error) or type(error).__name__
        raise remedy.damaged(f"cannot decode {path} ({reason})", path) from error
    if only is not None and image.format != only:
        raise DataError(f"{path} is a {image.format} file; expected {only}, which is lossless; save it as {only}")
    if kind not in _MODES:
        raise DataError(f"{path} has {kind} pixels; expected 8-bit grey or RGB; convert it")
    if not image.has_transparency_data:
        return image
    if image.convert("RGBA").getchannel("A").getextrema() != (255, 255):
        raise DataError(f"{path} has transparent pixels; expected none; save it without an alpha channel")
    return image.convert("RGB")


def _read_rgb(path: Path) -> NDArray[np.uint8]:
    return np.ascontiguousarray(np.asarray(_decode(path).convert("RGB")).transpose(2, 0, 1))


def _read_gray(path: Path) -> NDArray[np.uint8]:
    """A grey frame, or the luma (ITU-R 601) of a colour frame."""
    if path.name.endswith("input.jpg"):
        return np.asarray(_decode(path).convert("RGB").convert("L"))
    return _one_channel(_decode(path), path, _JPEG_TOLERANCE)


def _one_channel(image: Image.Image, path: Path, tolerance: int = 0) -> NDArray[np.uint8]:
    """Grey levels; the channels of an RGB image may differ by at most the tolerance."""
    if image.mode not in ("1", "L"):
        image = image.convert("RGB")  # palette indices are not grey levels, the palette's colours are
        pixels = np.asarray(image)
        if int((pixels.max(axis=2) - pixels.min(axis=2)).max()) > tolerance:
            raise DataError(f"{path} has colours; expected grey: one channel or three equal ones; convert it")
    return np.asarray(image.convert("L"))


def _read_mask(path: Path, mapping: Sequence[int]) -> NDArray[np.uint8]:
    """Class indices: the positions of the grey levels in the mapping."""
    levels = _one_channel(_decode(path, "PNG"), path)
    unknown = sorted(set(np.unique(levels).tolist()) - set(mapping))
    if unknown:
        more = f" and {len(unknown) - 1} others" if len(unknown) > 1 else ""
        raise DataError(
            f"{path} has the grey level {unknown[0]}{more}; expected those of mapping.json: {mapping}; "
            "save it without smoothing or compression loss"
        )
    table = np.zeros(256, dtype=np.uint8)
    table[mapping] = np.arange(len(mapping), dtype=np.uint8)
    classes: NDArray[np.uint8] = table[levels]
    return classes
