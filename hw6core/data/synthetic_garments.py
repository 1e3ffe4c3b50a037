"""Procedurally drawn garments in the format of Fashion-MNIST: 28 x 28, grey, ten classes.

Each garment is a silhouette with seams and a fabric, at a random position and with a random phase of the fabric.
Look-ups on pixels (nearest neighbours, class means) therefore perform poorly, while a convolutional network recognises
a garment at any position and learns in few steps the fabric that is typical of each class.

Coordinates run from -1 to 1 over the image, x to the right and y down. All images of a class are drawn at once: the
first axis of an array is the image, the second its 784 pixels; parameters of an image are columns of shape (N, 1).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

SIDE = 28
Floats = npt.NDArray[np.floating[Any]]
Bytes = npt.NDArray[np.uint8]
Shape = Callable[[np.random.Generator, Floats, Floats], tuple[Floats, Floats]]
Range = tuple[float, float]
Fabric = tuple[int, Range]  # weave, and range of its pitch in radians per half-width

_PLAIN, _ACROSS, _ALONG, _CHECKED, _QUILTED, _PRINTED = _WEAVES = range(6)
_USUAL_FABRIC = 0.9  # share of the garments of a class that have its usual fabric

_GRID = ((np.arange(SIDE, dtype=np.float32) + 0.5) / SIDE) * 2 - 1
_EDGE = 0.6 * (2 / SIDE)  # half the width of the soft edge of an outline: 0.6 pixels


def draw_garments(rng: np.random.Generator, count: int) -> tuple[Bytes, Bytes]:
    """Draw `count` garments in random order, the same number of each class (the first classes get the remainder).

    Returns images (count, 28, 28), 0 (backdrop) to 255, and labels (count,), 0 to 9, in Fashion-MNIST's order.
    """
    labels = rng.permutation(np.arange(count) % len(_GARMENTS)).astype(np.uint8)
    images = np.zeros((count, SIDE, SIDE), np.uint8)
    for label, (shape, fabric) in enumerate(_GARMENTS):
        chosen = np.flatnonzero(labels == label)
        if chosen.size:
            images[chosen] = _draw_class(rng, shape, fabric, chosen.size)
    return images, labels


def _column(rng: np.random.Generator, count: int, low: float, high: float) -> Floats:
    return rng.uniform(low, high, (count, 1)).astype(np.float32)


def _draw_class(rng: np.random.Generator, shape: Shape, fabric: Fabric, count: int) -> Bytes:
    """(count, 28, 28) images of one class."""
    x, y = _placed(rng, count)
    cover, tone = shape(rng, x, y)
    brightness = _column(rng, count, 0.30, 0.95)
    image = cover * np.clip(brightness * tone * _woven(rng, x, y, fabric), 0.08, 1)
    noise = rng.standard_normal(image.shape, dtype=np.float32) * _column(rng, count, 0.01, 0.05)
    # The noise is mostly in the fabric, as the background of a product photo is clean.
    image = np.clip(image + noise * (0.15 + 0.85 * cover), 0, 1)
    pixels: Bytes = (255 * image).astype(np.uint8)
    return pixels.reshape(count, SIDE, SIDE)


def _placed(rng: np.random.Generator, count: int) -> tuple[Floats, Floats]:
    """The coordinates of every pixel relative to the garment: shifted, sheared, scaled and stretched per image."""
    y, x = (axis.reshape(1, -1) for axis in np.meshgrid(_GRID, _GRID, indexing="ij"))
    x = x - _column(rng, count, -0.35, 0.35)
    y = y - _column(rng, count, -0.35, 0.35)
    x = x + _column(rng, count, -0.13, 0.13) * y
    size = _column(rng, count, 0.65, 0.85)
    return x / (size * _column(rng, count, 0.82, 1.15)), y / (size * _column(rng, count, 0.86, 1.10))


def _woven(rng: np.random.Generator, x: Floats, y: Floats, usual: Fabric) -> Floats:
    """Brightness factor of the fabric, the usual one or another, with a gradual change of light."""
    count = len(x)
    usual_weave, usual_pitch = usual
    is_usual = _column(rng, count, 0, 1) < _USUAL_FABRIC
    weave = np.where(is_usual, usual_weave, rng.choice(len(_WEAVES), size=(count, 1)))
    pitch = np.where(is_usual, _column(rng, count, *usual_pitch), _column(rng, count, 12, 22))
    first, second = _column(rng, count, 0, 6.28), _column(rng, count, 0, 6.28)
    across, along = np.sin(pitch * y + first), np.sin(pitch * x + second)
    quilted = np.sin(0.7 * pitch * (x + y) + first) * np.sin(0.7 * pitch * (x - y) + second)
    printed = rng.standard_normal(x.shape, dtype=np.float32)
    chosen = [weave == kind for kind in (_ACROSS, _ALONG, _CHECKED, _QUILTED, _PRINTED)]
    marks = np.select(chosen, [across, along, 1.5 * across * along, 1.5 * quilted, printed], 0.0)
    fall = 1 + _column(rng, count, -0.18, 0.18) * y + _column(rng, count, -0.18, 0.18) * x
    fabric: Floats = fall * (1 + _column(rng, count, 0.3, 0.6) * marks)
    return fabric


def _soft(distance: Floats) -> Floats:
    """Coverage of a pixel, 0 to 1, from its distance to the outline, positive inside."""
    cover: Floats = np.clip(0.5 + distance / (2 * _EDGE), 0, 1)
    return cover


def _between(value: Floats, low: Floats | float, high: Floats | float) -> Floats:
    return _soft(np.minimum(value - low, high - value))


def _profile(y: Floats, *knots: tuple[float, float]) -> Floats:
    """Half-width at height y, interpolated between (y, half-width) knots and constant beyond them."""
    values = np.interp(y, [k[0] for k in knots], [k[1] for k in knots])
    return values.astype(np.float32)


def _top(
    rng: np.random.Generator, x: Floats, y: Floats, *, sleeve: Range, hem: Range, girth: Range, neck: Range
) -> tuple[Floats, Floats]:
    """The common form of upper garments: a trunk with a neckline and two hanging sleeves.

    Takes the ranges of sleeve length (0.4 short, 1.3 to the wrist), height of the hem, half-width of the trunk and
    depth of the neck.
    """
    count = len(x)
    bottom, side = _column(rng, count, *hem), _column(rng, count, *girth)
    out = np.abs(x)
    shoulder = -0.80 + 0.22 * np.clip(out - 0.15, 0, None)
    flare = 1 + _column(rng, count, -0.06, 0.16) * (y + 0.2)
    trunk = np.minimum(_between(y, shoulder, bottom), _soft(side * flare - out))
    # A sleeve hangs from the shoulder: `down` is the position along it, `off` the distance from its centre line.
    slant = _column(rng, count, 0.22, 0.62)
    cos, sin = np.cos(slant), np.sin(slant)
    from_x, from_y = out - (side - 0.06), y + 0.56
    down, off = from_x * sin + from_y * cos, from_x * cos - from_y * sin
    arm = 0.19 - 0.05 * np.clip(down, 0, 1.3)
    sleeves = np.minimum(_between(down, -0.16, _column(rng, count, *sleeve)), _soft(arm - np.abs(off - 0.03)))
    opening = _soft(1 - np.hypot(x / _column(rng, count, 0.17, 0.26), (y + 0.86) / _column(rng, count, *neck)))
    cover = np.maximum(trunk, sleeves) * (1 - opening)
    seam = 1 - 0.3 * np.exp(-(((out - side + 0.03) / 0.05) ** 2)) * (y > -0.45) * (y < bottom)
    return cover, seam * (1 - 0.12 * sleeves)


_t_shirt = partial(_top, sleeve=(0.15, 0.48), hem=(0.62, 0.88), girth=(0.40, 0.52), neck=(0.16, 0.34))


def _pullover(rng: np.random.Generator, x: Floats, y: Floats) -> tuple[Floats, Floats]:
    cover, tone = _top(rng, x, y, sleeve=(1.05, 1.35), hem=(0.52, 0.84), girth=(0.40, 0.52), neck=(0.10, 0.20))
    cuff = 1 - 0.28 * _between(y, _column(rng, len(x), 0.48, 0.66), 1.0)  # the ribbed hem
    return cover, tone * cuff


def _coat(rng: np.random.Generator, x: Floats, y: Floats) -> tuple[Floats, Floats]:
    cover, tone = _top(rng, x, y, sleeve=(1.10, 1.40), hem=(0.80, 0.96), girth=(0.40, 0.54), neck=(0.10, 0.30))
    front = np.exp(-(((x - _column(rng, len(x), -0.04, 0.04)) / 0.06) ** 2))
    lapel = np.exp(-(((np.abs(x) - 0.30 * np.clip(-0.2 - y, 0, 1)) / 0.07) ** 2)) * (y < -0.2)
    return cover, tone * (1 - _column(rng, len(x), 0.4, 0.8) * np.maximum(front, lapel))


def _shirt(rng: np.random.Generator, x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Sleeves of any length, as in the real data, where this class is confused with all others."""
    cover, tone = _top(rng, x, y, sleeve=(0.40, 1.30), hem=(0.66, 0.94), girth=(0.36, 0.48), neck=(0.10, 0.24))
    buttons = np.exp(-((x / 0.05) ** 2)) * (np.sin(_column(rng, len(x), 15, 19) * y) > 0.1)
    collar = np.exp(-(((np.abs(x) - 0.20) / 0.08) ** 2)) * _between(y, -0.88, -0.60)
    marks = 1 + _column(rng, len(x), 0.35, 0.7) * (collar - buttons)
    return np.maximum(cover, 0.8 * collar), tone * marks


def _dress(rng: np.random.Generator, x: Floats, y: Floats) -> tuple[Floats, Floats]:
    count, out = len(x), np.abs(x)
    waist, flare = _column(rng, count, 0.8, 1.25), _column(rng, count, 0.0, 0.30)
    width = waist * _profile(y, (-0.9, 0.20), (-0.6, 0.27), (-0.2, 0.20), (0.9, 0.30))
    width = width + flare * np.clip(y + 0.2, 0, None)
    cover = np.minimum(_between(y, -0.92, _column(rng, count, 0.75, 0.97)), _soft(width - out))
    neck = _soft(1 - np.hypot(x / 0.13, (y + 0.95) / _column(rng, count, 0.15, 0.4)))
    sleeves = np.minimum(_between(y + 0.6 * out, -0.66, _column(rng, count, -0.62, -0.1)), _between(out, 0.1, 0.46))
    belt = 1 - _column(rng, count, 0.0, 0.5) * np.exp(-(((y + 0.2) / 0.06) ** 2))
    has_sleeves = _column(rng, count, 0, 1) < 0.35
    return np.maximum(cover, sleeves * has_sleeves) * (1 - neck), belt


def _trouser(rng: np.random.Generator, x: Floats, y: Floats) -> tuple[Floats, Floats]:
    count, out = len(x), np.abs(x)
    outer = _column(rng, count, 0.85, 1.3) * _profile(y, (-0.95, 0.27), (-0.5, 0.36), (0.95, 0.34))
    gap = _column(rng, count, 0.02, 0.13) * _profile(y, (-0.35, -1.0), (-0.15, 0.3), (0.95, 1.0))
    cover = np.minimum(_between(y, -0.95, _column(rng, count, 0.7, 0.97)), _between(out, gap, outer))
    band = 1 - 0.3 * np.exp(-(((y + 0.8) / 0.06) ** 2))
    return cover, band


def _facing(rng: np.random.Generator, x: Floats) -> Floats:
    """x, mirrored for some images: shoes mostly point to the left, as in the real data."""
    return np.where(_column(rng, len(x), 0, 1) < 0.15, -x, x)


def _sandal(rng: np.random.Generator, x: Floats, y: Floats) -> tuple[Floats, Floats]:
    count, x = len(x), _facing(rng, x)
    heel = _column(rng, count, 0.0, 0.55)
    ground = 0.45 - heel * np.clip(x + 0.1, 0, 1)  # the foot rises towards the heel
    sole = np.minimum(_between(y, ground - 0.02, ground + _column(rng, count, 0.12, 0.22)), _between(x, -0.92, 0.92))
    post = np.minimum(_between(x, 0.66, 0.90), _between(y, ground, 0.5))
    instep = ground - _column(rng, count, 0.3, 0.8) * np.clip(0.55 + 0.5 * x, 0.1, 1)
    straps = np.minimum(_between(y, instep, ground), _soft(np.sin(_column(rng, count, 7, 12) * (x + 0.6 * y)) * 0.2))
    straps = np.minimum(straps, _between(x, -0.8, 0.85))
    cover = np.maximum(np.maximum(sole, post), straps)
    return cover, 1 - 0.3 * sole


def _closed_shoe(rng: np.random.Generator, x: Floats, y: Floats, *, ankle: Range) -> tuple[Floats, Floats]:
    """A shoe with a sole; `ankle` is the range of the height of its shaft above the instep."""
    count, x = len(x), _facing(rng, x)
    rise = _column(rng, count, *ankle)
    ground = _column(rng, count, 0.34, 0.44) + 0.3 * rise
    instep = ground - 0.2 - 0.36 * _profile(x, (-0.95, 0.1), (-0.6, 0.5), (0.1, 1.15), (0.95, 1.25))
    shaft = ground - 0.58 - rise
    top = np.where(x > 0.12, shaft + 0.1 * np.sin(4 * x), instep)
    cover = np.minimum(_between(y, top, ground + 0.12), _between(x, -0.95, 0.92))
    sole = _between(y, ground - _column(rng, count, 0.0, 0.08), ground + 0.2)
    laces = np.exp(-(((y - instep - 0.12) / 0.1) ** 2)) * (np.sin(22 * x) > 0) * (np.abs(x + 0.1) < 0.35)
    tone = 1 + _column(rng, count, -0.5, 0.6) * sole - _column(rng, count, 0.0, 0.5) * laces
    return cover, tone


def _bag(rng: np.random.Generator, x: Floats, y: Floats) -> tuple[Floats, Floats]:
    count = len(x)
    top, width = _column(rng, count, -0.35, 0.1), _column(rng, count, 0.6, 0.9)
    body = np.minimum(
        _between(y, top, _column(rng, count, 0.55, 0.9)), _soft(width + _column(rng, count, -0.15, 0.2) * y - np.abs(x))
    )
    arc = np.hypot(x / _column(rng, count, 0.3, 0.6), (y - top) / _column(rng, count, 0.3, 0.7))
    handle = _soft(0.14 - np.abs(arc - 1)) * (y < top)
    flap = 1 - _column(rng, count, 0.1, 0.5) * np.exp(-(((y - top - 0.3) / 0.05) ** 2))
    return np.maximum(body, handle), flap


# In the order of Fashion-MNIST's labels.
_GARMENTS: tuple[tuple[Shape, Fabric], ...] = (
    (_t_shirt, (_PRINTED, (12, 12))),
    (_trouser, (_ALONG, (20, 23))),
    (_pullover, (_ACROSS, (15, 18))),
    (_dress, (_CHECKED, (9, 11))),
    (_coat, (_QUILTED, (13, 16))),
    (_sandal, (_PLAIN, (12, 12))),
    (_shirt, (_ALONG, (12, 15))),
    (partial(_closed_shoe, ankle=(0.02, 0.34)), (_CHECKED, (19, 22))),
    (_bag, (_QUILTED, (20, 24))),
    (partial(_closed_shoe, ankle=(0.36, 1.0)), (_ACROSS, (21, 24))),
)
