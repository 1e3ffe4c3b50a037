"""Augmentation of batches on the device of the data; an image and its mask get the same geometric transformation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

Masks = TypeVar("Masks", Tensor, None)


@dataclass(frozen=True)
class Augmentation:
    """Ranges of the random transformations, drawn uniformly for each sample. The defaults change nothing.

    Attributes:
        horizontal_flip, vertical_flip: probability of each flip.
        rotation_degrees: maximum angle in either direction.
        scale: the zoom is between one minus and one plus this; above 1 enlarges.
        shift: maximum translation in either direction, as a share of width and height.
        brightness: maximum offset in either direction, for values in [0, 1].
        contrast: the factor is between one minus and one plus this, around the mean of each image.

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
    images: Tensor, masks: Masks, settings: Augmentation | None, generator: torch.Generator
) -> tuple[Tensor, Masks]:
    """Draw a transformation for each sample and apply it to image and mask.

    Args:
        images: (N, C, H, W) float32, values in [0, 1].
        masks: (N, H, W) integer classes in [0, 255], or None.
        settings: the ranges of the transformations; None changes nothing.
        generator: the only source of randomness, on the device of the images.

    Returns:
        Images of the same shape, clamped to [0, 1] (bilinear), and masks of the same shape and type (nearest
        neighbour, so no new classes). Pixels from outside the frame are filled by reflection in both.

    Raises:
        ValueError: the images are not float32.

    >>> images, masks = torch.tensor([[[[0.0, 0.5, 1.0]]]]), torch.tensor([[[0, 1, 2]]])
    >>> augment(images, masks, Augmentation(horizontal_flip=1.0), torch.Generator())
    (tensor([[[[1.0000, 0.5000, 0.0000]]]]), tensor([[[2, 1, 0]]]))
    """
    if settings is None:
        return images, masks
    if images.dtype != torch.float32:
        raise ValueError(f"images are {images.dtype}; expected float32")
    count = len(images)

    def draw(reach: float) -> Tensor:
        return (torch.rand(count, device=images.device, generator=generator) * 2 - 1) * reach

    def toss(probability: float) -> Tensor:
        return torch.rand(count, device=images.device, generator=generator) < probability

    moves = bool(settings.rotation_degrees or settings.scale or settings.shift)
    signs = []  # of the sampling positions on the x and y axis: -1 mirrors
    for probability, axis in ((settings.horizontal_flip, -1), (settings.vertical_flip, -2)):
        flipped = toss(probability) if probability > 0 else torch.zeros(count, dtype=torch.bool, device=images.device)
        signs.append(1.0 - 2.0 * flipped)
        if probability > 0 and not moves:  # exact, without resampling
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
    """(N, H, W, 2) sampling positions: mirrored by ``signs``, rotated and zoomed around the centre, then shifted.

    Positions run from -1 to 1 on both axes, so the rotation takes the aspect ratio into account. x and y of a position
    are each the sum of a term of its column and a term of its row.
    """
    count, _, height, width = images.shape

    def pixel_centres(pixels: int) -> Tensor:  # (1, pixels) positions
        return ((2 * torch.arange(pixels, device=images.device, dtype=images.dtype) + 1) / pixels - 1).unsqueeze(0)

    x, y = pixel_centres(width) - 2 * shift_x.unsqueeze(1), pixel_centres(height) - 2 * shift_y.unsqueeze(1)
    cos, sin = (torch.cos(angle) / zoom).unsqueeze(1), (torch.sin(angle) / zoom).unsqueeze(1)
    mirror_x, mirror_y = (sign.unsqueeze(1) for sign in signs)
    grid = images.new_empty(count, height, width, 2)
    terms = (
        (mirror_x * cos * x, -mirror_x * sin * (height / width) * y),
        (mirror_y * sin * (width / height) * x, mirror_y * cos * y),
    )
    for axis, (column_term, row_term) in enumerate(terms):
        torch.add(column_term.unsqueeze(1), row_term.unsqueeze(2), out=grid[..., axis])
    return grid
