"""Synthetic data: procedurally drawn endoscopic frames and garments, written to disk in the layout of the real data.

With it every configuration can be trained and judged without the real data. Results show that the code and the machine
work; they say nothing about the real task, which is why `hw6core.provenance` exists.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator
from dataclasses import asdict, astuple, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from hw6core.data.synthetic_frames import draw_frame
from hw6core.data.synthetic_garments import draw_garments
from hw6core.data.synthetic_proxy import proxy_images
from hw6core.errors import DataError, UsageError
from hw6core.files import atomic_write, file_lock, scratch_folder
from hw6core.provenance import MARKER, SETS, read_marker

__all__ = ["STANDARD_SIZES", "Sizes", "proxy_images", "synthesize"]

GENERATOR_VERSION = 3  # raise it when the drawn data changes; folders of another version are then drawn again
CLASS_LEVELS = {
    "Background_Tissue": 0,
    "Bipolar_Forceps": 32,
    "Prograsp_Forceps": 64,
    "Large_Needle_Driver": 96,
    "Vessel_Sealer": 128,
    "Grasping_Retractor": 160,
    "Monopolar_Curved_Scissors": 192,
    "Other": 224,
}

# Number of frames with instrument classes 1 to 7, of the 300 of the real training split.
_APPEARANCES = (66, 149, 138, 49, 8, 22, 95)
_OFTEN_TWICE = (2, 3)  # forceps and needle drivers come in pairs in the real recordings
_JPEG_QUALITY = 85

# Every frame has its own random stream, so that it does not depend on the number of frames before it.
_SEGMENTATION_STREAMS = {"train": 0, "validation": 1, "test": 2}
_COLORIZATION_ONLY, _COLORIZATION_VALIDATION = 3, 4
_GARMENT_STREAMS = {"train": 5, "t10k": 6}
_ORDER = 7
_SCENE, _RECORDINGS = 8, 11
_PLAN = 100  # added to the stream of a split: the classes of its frames


@dataclass(frozen=True)
class Sizes:
    """Number of samples in each split, each 1 or more.

    The segmentation training frames are part of the colorization training frames, as in the real data, so
    `colorization_train` must not be smaller than `segmentation_train`.

    Raises:
        UsageError: otherwise.
    """

    segmentation_train: int = 300
    segmentation_validation: int = 40
    segmentation_test: int = 50
    colorization_train: int = 330
    colorization_validation: int = 30
    garments_train: int = 4500
    garments_test: int = 1000

    def __post_init__(self) -> None:
        if min(astuple(self)) < 1 or self.colorization_train < self.segmentation_train:
            raise UsageError(f"{self}; expected 1 or more of each, and no fewer for colorization than for segmentation")


STANDARD_SIZES = Sizes()


def synthesize(root: str | Path, seed: int = 0, *, sizes: Sizes = STANDARD_SIZES) -> None:
    """Draw both data sets into `root/endovis` and `root/fashion_mnist`, in the layout and formats of the real data.

    Frames are 320 wide and 256 high. The same seed, sizes and library versions give the same bytes. Does nothing if
    the files SYNTHETIC.json in `root` and in both sets show that the same data was already drawn; other drawn data,
    complete or not, is replaced.
    `root` is created if missing; other files in it are not changed. If several processes draw into the same folder, one
    draws and the others wait.

    Args:
        root: the folder of both data sets.
        seed: 0 or more.
        sizes: samples in each split.

    Raises:
        UsageError: the seed is negative.
        DataError: `root` holds a data set that was not drawn, or is not writable.
    """
    if seed < 0:
        raise UsageError(f"seed is {seed}; expected 0 or more")
    root = Path(root)
    marker = {"generator": "hw6core.data.synthetic", "version": GENERATOR_VERSION, "seed": seed, "sizes": asdict(sizes)}
    marked = [root, *(root / name for name in SETS)]
    if all(read_marker(folder) == marker for folder in marked):
        return
    try:
        root.mkdir(parents=True, exist_ok=True)
        with file_lock(root / ".lock"):
            if not all(read_marker(folder) == marker for folder in marked):  # or another process drew it meanwhile
                _draw(root, marker, seed, sizes)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise  # another folder on the same disk does not help
        reason = f"cannot write synthetic data to {root}: {error}"
        raise DataError(f"{reason}; draw it into another folder, for DATA=FOLDER", "draw", Path("FOLDER")) from error


def _draw(root: Path, marker: dict[str, object], seed: int, sizes: Sizes) -> None:
    """Draw both data sets in a scratch folder, then replace existing drawn data with them."""
    for folder in (root / name for name in SETS):
        if folder.is_symlink() or (folder.exists() and not (folder / MARKER).is_file()):
            raise DataError(
                f"{folder} exists and is not synthetic data (no {MARKER}); choose another folder or remove it"
            )
    (root / MARKER).unlink(missing_ok=True)  # the folder is incomplete from now on
    text = json.dumps(marker, indent=2) + "\n"
    with scratch_folder(root) as scratch:
        _write_endovis(scratch / "endovis", seed, sizes)
        _write_garments(scratch / "fashion_mnist", seed, sizes)
        for name in SETS:
            (scratch / name / MARKER).write_text(text, encoding="utf-8")
            if (root / name).exists():
                # Not deleted in place: if killed halfway, the rest might lack the marker and count as real data.
                (root / name).rename(scratch / f"old-{name}")
            (scratch / name).rename(root / name)
    with atomic_write(root / MARKER) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _write_endovis(folder: Path, seed: int, sizes: Sizes) -> None:
    folder.mkdir(parents=True)
    # As in the course's file: JSON without commas.
    mapping = "".join(f'\t"{name}": {level}\n' for name, level in CLASS_LEVELS.items())
    (folder / "mapping.json").write_text("{\n" + mapping + "}", encoding="utf-8")
    # Sample numbers of `train_cor` in drawing order, the segmentation frames first.
    order = np.random.default_rng((seed, _ORDER)).permutation(sizes.colorization_train).tolist()
    for split, stream in _SEGMENTATION_STREAMS.items():
        for number, (image, mask) in enumerate(_frames(seed, stream, getattr(sizes, f"segmentation_{split}"))):
            sample = _sample_folder(folder / "segmentation" / split, number)
            Image.fromarray(image).save(sample / f"{number}_input.jpg", quality=_JPEG_QUALITY)
            Image.fromarray(mask * np.uint8(32)).save(sample / f"{number}_mask.png")
            if split == "train":
                _add_colorization(folder, "train_cor", order[number], image)
    others = order[sizes.segmentation_train :]
    for number, (image, _) in zip(others, _frames(seed, _COLORIZATION_ONLY, len(others)), strict=True):
        _add_colorization(folder, "train_cor", number, image)
    validation = _frames(seed, _COLORIZATION_VALIDATION, sizes.colorization_validation)
    for number, (image, _) in enumerate(validation, start=1):  # the only real folder that starts at 1
        _add_colorization(folder, "validation_cor", number, image)


def _frames(seed: int, stream: int, count: int) -> Iterator[tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]]:
    plan = _plan_classes(np.random.default_rng((seed, _PLAN + stream)), count)
    for number, classes in enumerate(plan):
        # Frames come from few recordings, shared by all splits as in the real data, where a linear model on features of
        # garments recognises most instruments of a validation frame. The set of instruments decides the recording.
        recording = sum(2**index for index in set(classes)) % _RECORDINGS
        scene = np.random.default_rng((seed, _SCENE, recording))
        yield draw_frame(np.random.default_rng((seed, stream, number)), classes, scene)


def _plan_classes(rng: np.random.Generator, count: int) -> list[list[int]]:
    """Choose the instruments of each frame, with the frequencies of the real data.

    So that small splits contain the rarest classes, each class appears in at least one frame in twenty, up to six.
    Frames with few other classes are preferred, since real frames show one or two.
    """
    plan: list[list[int]] = [[] for _ in range(count)]
    for class_index, appearances in enumerate(_APPEARANCES, start=1):
        wanted = max(round(count * appearances / 300), min(6, count // 20))
        crowding = np.array([len(classes) for classes in plan]) + rng.uniform(0, 1.6, count)
        for number in np.argsort(crowding)[:wanted]:
            plan[int(number)].append(class_index)
    for classes in plan:
        if not classes:  # in a split of one frame all numbers round to 0
            classes.append(_OFTEN_TWICE[0])
        twins = [c for c in classes if c in _OFTEN_TWICE]
        if twins and len(classes) < 3 and rng.random() < 0.25:
            classes.append(twins[0])
    return plan


def _sample_folder(split: Path, number: int) -> Path:
    folder = split / str(number)
    folder.mkdir(parents=True, exist_ok=True)
    (split / "Icon").touch()  # a stray file between the samples, as in the real folders
    return folder


def _add_colorization(folder: Path, split: str, number: int, image: npt.NDArray[np.uint8]) -> None:
    sample = _sample_folder(folder / "colorization" / split, number)
    Image.fromarray(image).save(sample / f"{number}_input.jpg", quality=_JPEG_QUALITY)
    # Pillow's "L" is the luma of ITU-R 601.
    Image.fromarray(image).convert("L").save(sample / f"{number}_gray.jpg", quality=_JPEG_QUALITY)


def _write_garments(folder: Path, seed: int, sizes: Sizes) -> None:
    """Write the four files in torchvision's layout: idx format, unpacked."""
    raw = folder / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for name, count in (("train", sizes.garments_train), ("t10k", sizes.garments_test)):
        images, labels = draw_garments(np.random.default_rng((seed, _GARMENT_STREAMS[name])), count)
        (raw / f"{name}-images-idx3-ubyte").write_bytes(_idx(images))
        (raw / f"{name}-labels-idx1-ubyte").write_bytes(_idx(labels))


def _idx(array: npt.NDArray[np.uint8]) -> bytes:
    """The idx format: two zero bytes, 8 for unsigned bytes, number of axes, length of each axis, elements."""
    header = bytes((0, 0, 8, array.ndim)) + np.array(array.shape, dtype=">u4").tobytes()
    return header + array.tobytes()
