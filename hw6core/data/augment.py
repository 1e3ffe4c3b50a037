"""Paired augmentation in batches, on the device of the data: image and mask get the same geometric draw."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Augmentation:
    """What may be drawn for each sample. The defaults change nothing.

    Attributes:
        horizontal_flip, vertical_flip: probability of each flip.
        rotation_degrees: angle drawn from plus or minus this.
        scale: zoom drawn from one minus to one plus this; above 1 enlarges.
        shift: translation drawn from plus or minus this share of width and of height.
        brightness: drawn from plus or minus this, added to values in [0, 1].
        contrast: factor drawn from one minus to one plus this, around each image's mean.

    >>> Augmentation(horizontal_flip=0.5, rotation_degrees=10).shift
    0.0
    """

    horizontal_flip: float = 0.0
    vertical_flip: float = 0.0
    rotation_degrees: float = 0.0
    scale: float = 0.0
    shift: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0


def augment(
    images: Tensor, masks: Tensor | None, settings: Augmentation, generator: torch.Generator
) -> tuple[Tensor, Tensor | None]:
    """Draw one transformation for each sample and apply it to its image and its mask.

    Args:
        images: (N, C, H, W) float32, values in [0, 1].
        masks: (N, H, W) integer classes in [0, 255], or None.
        settings: what may be drawn.
        generator: the source of all draws, on the device of the images; the same state gives the same batch.

    Returns:
        Images of the same shape, clamped to [0, 1] (bilinear), and masks of the same shape and type (nearest
        neighbour: no new classes). What moves in from outside the frame is its mirror image, in both.

    Raises:
        ValueError: the images are not float32.

    >>> images, masks = torch.tensor([[[[0.0, 0.5, 1.0]]]]), torch.tensor([[[0, 1, 2]]])
    >>> augment(images, masks, Augmentation(horizontal_flip=1.0), torch.Generator())
    (tensor([[[[1.0000, 0.5000, 0.0000]]]]), tensor([[[2, 1, 0]]]))
    """
    if images.dtype != torch.float32:
        raise ValueError(f"images are {images.dtype}; expected float32, as half precision would move pixels")
    count = len(images)

    def draw(reach: float) -> Tensor:
        return (torch.rand(count, device=images.device, generator=generator) * 2 - 1) * reach

    def toss(probability: float) -> Tensor:
        return torch.rand(count, device=images.device, generator=generator) < probability

    moves = bool(settings.rotation_degrees or settings.scale or settings.shift)
    signs = []  # of the positions on each axis that frames are sampled at: -1 mirrors them
    for probability, axis in ((settings.horizontal_flip, -1), (settings.vertical_flip, -2)):
        flipped = toss(probability) if probability > 0 else torch.zeros(count, dtype=torch.bool, device=images.device)
        signs.append(1.0 - 2.0 * flipped)
        if probability > 0 and not moves:  # whole pixels move: exact, unlike resampled ones
            images = torch.where(flipped.view(-1, 1, 1, 1), images.flip(axis), images)
            masks = None if masks is None else torch.where(flipped.view(-1, 1, 1), masks.flip(axis), masks)
    if moves:
        angle = draw(math.radians(settings.rotation_degrees))
        zoom, shift_x, shift_y = 1 + draw(settings.scale), draw(settings.shift), draw(settings.shift)
        grid = _affine_grid(images, signs, angle, zoom, shift_x, shift_y)
        images = F.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
        if masks is not None:
            planes = masks.unsqueeze(1).to(images.dtype)
            moved = F.grid_sample(planes, grid, mode="nearest", padding_mode="reflection", align_corners=False)
            masks = moved.squeeze(1).to(masks.dtype)
    if settings.brightness or settings.contrast:
        mean = images.mean((1, 2, 3), keepdim=True)
        factor = (1 + draw(settings.contrast)).view(-1, 1, 1, 1)
        offset = mean * (1 - factor) + draw(settings.brightness).view(-1, 1, 1, 1)
        return torch.addcmul(offset, images, factor).clamp_(0, 1), masks
    return images.clamp(0, 1), masks


def _affine_grid(
    images: Tensor, signs: Sequence[Tensor], angle: Tensor, zoom: Tensor, shift_x: Tensor, shift_y: Tensor
) -> Tensor:
    """(N, H, W, 2) positions to sample at, in real proportions: rotation and zoom around the centre, then the shift,
    of frames that ``signs`` mirrored on the x and y axis before.

    Positions run from -1 to 1 on both axes, so a rotation must be told that a frame is wider than high. x and y of a
    position are each a sum of a term of its column and one of its row.
    """
    count, _, height, width = images.shape
    x, y = _centres(width, images) - 2 * shift_x.unsqueeze(1), _centres(height, images) - 2 * shift_y.unsqueeze(1)
    cos, sin = (torch.cos(angle) / zoom).unsqueeze(1), (torch.sin(angle) / zoom).unsqueeze(1)
    mirror_x, mirror_y = (sign.unsqueeze(1) for sign in signs)
    grid = images.new_empty(count, height, width, 2)
    terms = (
        (mirror_x * cos * x, -mirror_x * sin * (height / width) * y),
        (mirror_y * sin * (width / height) * x, mirror_y * cos * y),
    )
    for axis, (of_column, of_row) in enumerate(terms):
        torch.add(of_column.unsqueeze(1), of_row.unsqueeze(2), out=grid[..., axis])
    return grid


def _centres(pixels: int, images: Tensor) -> Tensor:
    """(1, pixels): where pixels' centres lie between -1 and 1."""
    return ((2 * torch.arange(pixels, device=images.device, dtype=images.dtype) + 1) / pixels - 1).unsqueeze(0)
