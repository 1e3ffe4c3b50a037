"""Paired augmentation in batches, on the device of the data: image and mask get the same geometric draw."""

from __future__ import annotations

import math
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
    """
    if images.dtype != torch.float32:
        raise ValueError(f"images are {images.dtype}; expected float32, as half precision would move pixels")
    count = len(images)

    def draw(reach: float) -> Tensor:
        return (torch.rand(count, device=images.device, generator=generator) * 2 - 1) * reach

    def toss(probability: float) -> Tensor:
        return torch.rand(count, device=images.device, generator=generator) < probability

    for probability, axis in ((settings.horizontal_flip, -1), (settings.vertical_flip, -2)):
        if probability > 0:  # flips move whole pixels: exact, unlike a resampled one
            flipped = toss(probability)
            images = torch.where(flipped.view(-1, 1, 1, 1), images.flip(axis), images)
            masks = None if masks is None else torch.where(flipped.view(-1, 1, 1), masks.flip(axis), masks)
    if settings.rotation_degrees or settings.scale or settings.shift:
        angle = draw(math.radians(settings.rotation_degrees))
        grid = _affine_grid(images, angle, 1 + draw(settings.scale), draw(settings.shift), draw(settings.shift))
        images = F.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
        if masks is not None:
            planes = masks.unsqueeze(1).to(images.dtype)
            moved = F.grid_sample(planes, grid, mode="nearest", padding_mode="reflection", align_corners=False)
            masks = moved.squeeze(1).to(masks.dtype)
    if settings.brightness or settings.contrast:
        mean = images.mean((1, 2, 3), keepdim=True)
        factor = (1 + draw(settings.contrast)).view(-1, 1, 1, 1)
        images = (images - mean) * factor + mean + draw(settings.brightness).view(-1, 1, 1, 1)
    return images.clamp(0, 1), masks


def _affine_grid(images: Tensor, angle: Tensor, zoom: Tensor, shift_x: Tensor, shift_y: Tensor) -> Tensor:
    """(N, H, W, 2) sampling positions of a rotation and zoom around the centre, then a shift, in real proportions."""
    height, width = images.shape[-2:]
    cos, sin = torch.cos(angle) / zoom, torch.sin(angle) / zoom
    # Positions run from -1 to 1 on both axes, so a rotation must be told that a frame is wider than high.
    inverse = torch.stack([cos, -sin * (height / width), sin * (width / height), cos], 1).view(-1, 2, 2)
    shift = 2 * torch.stack([shift_x, shift_y], 1).unsqueeze(2)
    theta = torch.cat([inverse, -inverse @ shift], 2)  # (N, 2, 3): where each output pixel comes from
    return F.affine_grid(theta, list(images.shape), align_corners=False)
