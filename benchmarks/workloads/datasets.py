"""The data of all runs: loaded once, then resized and moved to the device for each run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from hw6core.data import load_colorization, load_endovis, load_fashion_mnist
from hw6core.data.checksums import identify
from hw6core.data.endovis import ColorizationFrames, SegmentationFrames
from hw6core.data.fashion_mnist import Garments
from hw6core.errors import DataError
from hw6core.provenance import data_kind, drawing
from hw6core.tasks import resize_images
from hw6core.training import Split

_HELD_OUT_SEED = 0  # every run has the same validation garments
_HELD_OUT_ONE_IN = 10
_MOST_VALIDATION_GARMENTS = 5_000
_UNPUBLISHED_SHOWN = 3
_CUTOUT_SEEDS = {"train": 0, "validation": 1, "test": 2}
DataName = Literal["segmentation", "colorization", "garments"]
VGG_MIN_SIZE = 32  # VGG16 halves its input five times


@dataclass
class Store:
    """Both data sets below one root, loaded on first use.

    Host memory: the loaded frames, as long as this object exists, and each split, as long as the caller keeps it.
    Creating a split takes its own memory and that of a hundred frames as float32.

    Raises (on first use):
        DataError: the data is missing or damaged.
    """

    root: Path
    device: torch.device
    _descriptions: dict[DataName, dict[str, object]] = field(default_factory=dict, init=False, repr=False)

    @property
    def kind(self) -> str:
        """ "real" or "synthetic"."""
        return data_kind(self.root)

    @cached_property
    def segmentation(self) -> dict[str, SegmentationFrames]:
        """Frames and masks of "train", "validation" and "test"."""
        return {split: load_endovis(self.root, split) for split in ("train", "validation", "test")}

    @cached_property
    def colorization(self) -> dict[str, ColorizationFrames]:
        """Colour and grey frames of "train" and "validation"."""
        return {split: load_colorization(self.root, split) for split in ("train", "validation")}

    @cached_property
    def garments(self) -> dict[str, Garments]:
        """Fashion-MNIST's "train" and "test"."""
        splits = {"train": load_fashion_mnist(self.root, True), "test": load_fashion_mnist(self.root, False)}
        if len(splits["train"].images) < _HELD_OUT_ONE_IN:
            raise DataError(
                f"{splits['train'].files[0]} has {len(splits['train'].images)} images; expected at least "
                f"{_HELD_OUT_ONE_IN}, as one in {_HELD_OUT_ONE_IN} is used for validation; add more"
            )
        return splits

    def segmentation_split(self, split: str, working_size: tuple[int, int]) -> Split:
        """Images at the working size, masks at their own size."""
        frames = self.segmentation[split]
        return self._placed(frames.images, frames.masks, working_size)

    def cutouts_split(self, split: str, working_size: tuple[int, int], each: int, most: int | None = None) -> Split:
        """Crops of frames at the working size, with the crops of the masks at their own size.

        Half as high and wide as a frame, at random positions, half of them mirrored; the same for every run. Each
        split draws its own positions, so a test crop rarely matches a training crop even if their frames look alike.

        Args:
            each: number of crops of each frame; the first crops of all frames come first, then the second ones.
            most: maximum number of crops.
        """
        frames = self.segmentation[split]
        count, whole = len(frames.images), frames.masks.shape[-2:]
        height, width = (length // 2 for length in whole)
        draws = torch.Generator().manual_seed(_CUTOUT_SEEDS[split])
        tops, lefts, tosses = (
            torch.randint(length, (each * count,), generator=draws).tolist()
            for length in (whole[0] - height + 1, whole[1] - width + 1, 2)
        )
        parts = []
        for number, (top, left, mirrored) in enumerate(zip(tops, lefts, tosses, strict=True)):
            crop = (number % count, ..., slice(top, top + height), slice(left, left + width))
            part = frames.images[crop], frames.masks[crop]
            parts.append(tuple(plane.flip(-1) for plane in part) if mirrored else part)
        images, masks = (torch.stack(planes) for planes in zip(*parts[:most], strict=True))
        return self._placed(images, masks, working_size)

    def _placed(self, images: Tensor, masks: Tensor, working_size: tuple[int, int]) -> Split:
        """Resized on the CPU: on Apple's GPUs torch cannot average 256 rows to 24 or 96 (pytorch issue 96056)."""
        return Split(resize_images(images, working_size).to(self.device), masks.to(self.device))

    def colorization_split(self, split: str) -> Split:
        """(N, 4, H, W) uint8, grey before RGB, as inputs and as targets."""
        frames = self.colorization[split]
        stacked = torch.cat([frames.grays, frames.images], 1).to(self.device)
        return Split(stacked, stacked)

    def garment_splits(self, working_size: tuple[int, int], training_samples: int | None) -> dict[str, Split]:
        """Training, validation (a tenth of the training set, at most 5,000) and test garments at the working size."""
        train, test = self.garments["train"], self.garments["test"]
        order = torch.randperm(len(train.images), generator=torch.Generator().manual_seed(_HELD_OUT_SEED))
        order = order[:training_samples]
        held_out = min(len(order) // _HELD_OUT_ONE_IN, _MOST_VALIDATION_GARMENTS)
        chosen = {"validation": order[:held_out], "train": order[held_out:]}
        splits = {
            name: self._garments(train.images[rows], train.labels[rows], working_size) for name, rows in chosen.items()
        }
        return splits | {"test": self._garments(test.images, test.labels, working_size)}

    def _garments(self, images: Tensor, labels: Tensor, size: tuple[int, int]) -> Split:
        padded = F.pad(images, (2, 2, 2, 2)).to(self.device)  # 28 is too small for VGG16
        if size != (VGG_MIN_SIZE, VGG_MIN_SIZE):
            enlarged = F.interpolate(padded.float(), size=size, mode="bilinear", align_corners=False, antialias=True)
            padded = enlarged.round().to(torch.uint8)
        return Split(padded, labels.to(self.device))

    def description(self, name: DataName) -> dict[str, object]:
        """For the record: real or synthetic, a fingerprint of the files that a run reads, number of samples per split.

        For real data also the number of files that are not as published and the first of them; for drawn data its
        version and seed.
        """
        if name not in self._descriptions:
            splits: Mapping[str, SegmentationFrames | ColorizationFrames | Garments] = getattr(self, name)
            fingerprint, unpublished = identify((path for part in splits.values() for path in part.files), self.root)
            found: dict[str, object] = {
                "kind": self.kind,
                "fingerprint": fingerprint,
                "samples": {split: len(part.images) for split, part in splits.items()},
            }
            if drawn := drawing(self.root):
                found["drawn"] = drawn
            if self.kind == "real":
                found["unpublished"] = {"count": len(unpublished), "first": unpublished[:_UNPUBLISHED_SHOWN]}
            self._descriptions[name] = found
        return self._descriptions[name]
