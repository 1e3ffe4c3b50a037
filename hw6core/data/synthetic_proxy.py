"""A procedurally drawn image classification task, to pre-train a stand-in for ImageNet weights.

Its classes are eight shapes, bright on dark, lightly textured. There are no garments or instruments among them: what a
model transfers from here is general (edges, textures, shapes). It is easy on purpose: VGG16, which has no batch norm,
must learn it in a hundred steps; with sixteen shapes and strong textures it stayed at chance level.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

SIDE = 32

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.floating[Any]]

# How far a point (u, v) is inside each shape; r is its Euclidean distance from the centre, `side` the maximum norm.
OUTLINES: dict[str, Callable[[Floats, Floats, Floats, Floats], Floats]] = {
    "disc": lambda u, v, r, side: 1 - r,
    "ring": lambda u, v, r, side: 0.27 - np.abs(r - 0.75),
    "square": lambda u, v, r, side: 0.85 - side,
    "frame": lambda u, v, r, side: 0.22 - np.abs(side - 0.68),
    "triangle": lambda u, v, r, side: np.minimum(0.6 - v, 0.5 * v - 0.87 * np.abs(u) + 0.5),
    "star": lambda u, v, r, side: 0.72 + 0.34 * np.cos(5 * np.arctan2(u, -v)) - r,
    "cross": lambda u, v, r, side: np.minimum(1 - side, 0.33 - np.minimum(np.abs(u), np.abs(v))),
    "crescent": lambda u, v, r, side: np.minimum(1 - r, np.hypot(u - 0.5, v) - 0.75),
}

_BLOCK = 512  # images drawn at once, so that their arrays fit into the CPU cache
_AXIS = np.arange(SIDE, dtype=np.float32) - (SIDE - 1) / 2


def proxy_images(count: int, seed: int) -> tuple[Bytes, npt.NDArray[np.int64]]:
    """Draw `count` images of bright shapes with stripes or checks on a darker, noisy background.

    Position, size, angle, colours and texture are random; the classes are balanced and shuffled. Returns images
    (count, 3, 32, 32), RGB, 0 to 255, and labels (count,), 0 to 7.
    """
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(count, dtype=np.int64) % len(OUTLINES))
    images = np.empty((count, 3, SIDE, SIDE), np.uint8)
    for start in range(0, count, _BLOCK):
        block = slice(start, start + _BLOCK)
        images[block] = _draw(rng, labels[block])
    return images, labels


def _draw(rng: np.random.Generator, labels: npt.NDArray[np.int64]) -> Bytes:
    """(N, 3, 32, 32) images of the given classes."""
    count = len(labels)

    def each(low: float, high: float) -> Floats:
        return rng.uniform(low, high, (count, 1, 1)).astype(np.float32)

    x, y = _AXIS[None, None, :] - each(-2, 2), _AXIS[None, :, None] - each(-2, 2)
    angle, radius = each(-0.2, 0.2), each(10, 14)
    u, v = (x * np.cos(angle) + y * np.sin(angle)) / radius, (y * np.cos(angle) - x * np.sin(angle)) / radius
    distance = np.empty_like(u)  # inside the shape, in radii; negative outside
    for label, inside in enumerate(OUTLINES.values()):
        chosen = labels == label
        p, q = u[chosen], v[chosen]
        distance[chosen] = inside(p, q, np.hypot(p, q), np.maximum(np.abs(p), np.abs(q)))
    cover = np.clip(0.5 + radius * distance, 0, 1)[:, None]

    turn, pitch = each(0, np.pi), each(1.0, 1.7)
    p, q = pitch * (x * np.cos(turn) + y * np.sin(turn)), pitch * (y * np.cos(turn) - x * np.sin(turn))
    checked = each(0, 1) < 0.5
    # Stripes vary along p alone; a checkerboard also changes sign along q.
    weave = np.tanh(3 * np.sin(p) * np.where(checked, np.sin(q), 1))[:, None]

    colours = rng.uniform(0, 255, (2, count, 3, 1, 1)).astype(np.float32)
    ground, figure = 0.3 * colours[0], 0.5 * colours[1] + 110 + 20 * weave
    noise = rng.standard_normal((count, 3, SIDE, SIDE), dtype=np.float32) * each(2, 10)[:, None]
    picture = ground + cover * (figure - ground) + noise
    pixels: Bytes = np.clip(picture, 0, 255).astype(np.uint8)
    return pixels
