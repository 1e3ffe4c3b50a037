"""Procedurally drawn endoscopic frames (tissue, light, instruments) with their masks.

Everything is drawn at 256 x 320 with NumPy and Pillow. Colours are floats, 0 (black) to 1 (white), until `_sensor`
converts them to bytes. Lengths are in pixels, angles in radians, x to the right and y down.

The seven instrument classes are of the same greyish metal, with a random brightness and tint for each instrument: as in
the real recordings they differ in silhouette, shaft width and pattern. A model therefore needs the neighbourhood of a
pixel; its colour says little more than "metal or tissue".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

HEIGHT, WIDTH = 256, 320

Floats = npt.NDArray[np.floating[Any]]
Bytes = npt.NDArray[np.uint8]
Pixels = npt.NDArray[np.bool_]
Knots = tuple[tuple[float, float], ...]

_Y, _X = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32)
_MIN_VISIBLE = 900  # pixels: not even a person could identify an instrument with fewer
_OTHER = 7

# Albedo (red, green, blue) and lumpiness of the surface. Brightness and lumpiness are correlated with the hue, so that
# the colour can mostly be inferred from a grey image.
_TISSUES: tuple[tuple[tuple[float, float, float], float], ...] = (
    ((0.60, 0.24, 0.22), 0.8),  # muscle
    ((0.78, 0.46, 0.46), 0.5),  # mucosa
    ((0.88, 0.64, 0.52), 1.5),  # fat: pale, in lobules
    ((0.66, 0.38, 0.42), 0.6),  # serosa
    ((0.42, 0.16, 0.15), 0.3),  # liver: dark, smooth
    ((0.70, 0.55, 0.54), 0.4),  # connective tissue: nearly as grey as metal
)


@dataclass(frozen=True)
class _Ribbon:
    """A rigid part of an instrument, described along its axis u; v is the distance from the axis.

    Knots are (u, value) pairs, interpolated linearly; the part ends at the first and last knot of half_width.
    """

    half_width: Knots
    tone: Knots = ((0, 0.5),)
    centre: Knots = ((0, 0.0),)  # v of the centre line: how the part curves
    gloss: float = 0.5
    slots: tuple[tuple[float, float], ...] = ()  # holes from u to u, half as wide as the part
    teeth: float = 0.0  # period of a saw-tooth outline
    hatch: float = 0.0  # period of a cross-hatched surface
    rings: float = 0.0  # period of dark rings around the part
    grooves: float = 0.0  # number of dark grooves along the part


@dataclass(frozen=True)
class _Instrument:
    """Fixed parts (shaft and wrist, with the tip near u = 0) and jaws that rotate about u = pivot."""

    body: tuple[_Ribbon, ...]
    jaws: tuple[tuple[_Ribbon, float], ...] = ()  # each with the side that it opens to: -1, 0 or 1
    pivot: float = 0.0
    opening: tuple[float, float] = (0.0, 0.0)
    bend: float = 0.0  # maximum angle between jaws and shaft
    floating: bool = False  # lies in the frame instead of entering from an edge


_FAR = -460.0  # a shaft is longer than the frame's diagonal


def _pair(ribbon: _Ribbon) -> tuple[tuple[_Ribbon, float], ...]:
    """Two jaws of the same shape, one for each side."""
    return (ribbon, -1.0), (ribbon, 1.0)


def _bow(side: float) -> Knots:
    """The centre line of a jaw that curves away from the axis and back."""
    return (0, 0), (14, 8.0 * side), (34, 11.5 * side), (52, 8.0 * side), (66, 1.0 * side)


def _band(start: float, end: float) -> Knots:
    """Tone knots of a dark band around a light shaft."""
    return (start - 2, 0.74), (start, 0.16), (end, 0.16), (end + 2, 0.74)


_BIPOLAR = _Instrument(
    body=(
        _Ribbon(((_FAR, 19), (-8, 17)), tone=((_FAR, 0.26), (-8, 0.30)), gloss=0.3, rings=34),
        _Ribbon(((-10, 15), (14, 8)), tone=((-10, 0.72), (14, 0.60))),
    ),
    jaws=tuple(
        (_Ribbon(((0, 6.5), (30, 5), (66, 2.5)), tone=((0, 0.66),), centre=_bow(side)), side) for side in (-1.0, 1.0)
    ),
    pivot=10,
    opening=(0.0, 0.25),
    bend=0.5,
)
_PROGRASP = _Instrument(
    body=(
        _Ribbon(((_FAR, 17), (-18, 17)), tone=((_FAR, 0.30), (-150, 0.34), (-18, 0.66)), gloss=0.5),
        _Ribbon(((-20, 13), (20, 11), (28, 9)), tone=((-20, 0.40), (0, 0.82), (28, 0.70))),
    ),
    jaws=_pair(
        _Ribbon(((0, 8), (10, 12), (58, 11), (68, 5)), ((0, 0.78), (68, 0.70)), gloss=0.6, slots=((14, 34), (40, 58)))
    ),
    pivot=24,
    opening=(0.14, 0.45),
    bend=0.8,
)
_NEEDLE_DRIVER = _Instrument(
    body=(
        _Ribbon(((_FAR, 21), (-26, 20), (-20, 16)), tone=((_FAR, 0.50), (-20, 0.46)), gloss=0.2, grooves=3),
        _Ribbon(((-22, 18), (-6, 18), (-5, 12), (14, 11)), tone=((-22, 0.88), (-6, 0.80), (14, 0.62)), gloss=0.7),
    ),
    jaws=_pair(_Ribbon(((0, 7), (8, 9), (26, 8), (34, 5)), tone=((0, 0.62),), gloss=0.3, hatch=9)),
    pivot=10,
    opening=(0.08, 0.5),
    bend=0.5,
)
_VESSEL_SEALER = _Instrument(
    body=(
        _Ribbon(
            ((_FAR, 26), (-12, 25), (0, 20)),
            tone=((-190, 0.74), *_band(-172, -150), *_band(-116, -94), *_band(-60, -34), (0, 0.66)),
            gloss=0.4,
        ),
    ),
    jaws=((_Ribbon(((-4, 17), (10, 13), (34, 19), (52, 19), (64, 13), (70, 5)), tone=((-4, 0.5), (70, 0.74))), 0.0),),
    bend=0.35,
)
_RETRACTOR = _Instrument(
    body=(
        _Ribbon(((_FAR, 12), (-4, 12)), tone=((_FAR, 0.62), (-4, 0.62)), gloss=0.6, rings=20),
        _Ribbon(((-6, 15), (12, 15)), tone=((-6, 0.34), (12, 0.34))),
    ),
    jaws=_pair(_Ribbon(((0, 6), (30, 11), (92, 16), (100, 12)), tone=((0, 0.42), (100, 0.68)), teeth=15)),
    pivot=8,
    opening=(0.17, 0.34),
    bend=0.4,
)
_SCISSORS = _Instrument(
    body=(
        _Ribbon(((_FAR, 20), (-50, 20)), tone=((_FAR, 0.78), (-50, 0.72)), gloss=0.5, hatch=52),
        _Ribbon(((-56, 23), (-40, 22), (8, 9)), tone=((-56, 0.13), (8, 0.17)), gloss=0.2),
    ),
    jaws=_pair(
        _Ribbon(
            ((-4, 5), (18, 8), (44, 5), (58, 2)),
            tone=((-4, 0.70), (58, 0.84)),
            # Both blades curve to the same side.
            centre=((-4, 0), (22, -2), (44, 5), (58, 13)),
            gloss=0.8,
        )
    ),
    pivot=6,
    opening=(0.2, 0.5),
    bend=0.4,
)
_TUBE = _Instrument(
    body=(_Ribbon(((_FAR, 9), (-6, 9), (4, 5)), tone=((_FAR, 0.14), (-28, 0.16), (-26, 0.5), (4, 0.5)), gloss=0.9),)
)
_PROBE = _Instrument(
    body=(
        _Ribbon(
            ((-74, 8), (-64, 16), (58, 16), (72, 7)),
            tone=((-74, 0.2), (-30, 0.2), (-28, 0.62), (72, 0.62)),
            gloss=0.6,
            grooves=1,
        ),
    ),
    floating=True,
)

# Class index -> its variants. As in the real data, "Other" combines different instruments.
_FORMS: dict[int, tuple[_Instrument, ...]] = {
    1: (_BIPOLAR,),
    2: (_PROGRASP,),
    3: (_NEEDLE_DRIVER,),
    4: (_VESSEL_SEALER,),
    5: (_RETRACTOR,),
    6: (_SCISSORS,),
    _OTHER: (_TUBE, _PROBE),
}


def draw_frame(rng: np.random.Generator, classes: Sequence[int], scene: np.random.Generator) -> tuple[Bytes, Bytes]:
    """Draw a frame and its mask.

    Args:
        rng: the source of randomness.
        classes: the instrument classes (1 to 7) to draw, each with at least 900 visible pixels if six attempts suffice;
            a class may be repeated.
        scene: a generator for tissue and light, which the frames of a recording share.

    Returns:
        The image (256, 320, 3), RGB, 0 to 255, and the mask (256, 320) of class indices, 0 being tissue.
    """
    light = _light(scene)
    tissue = _tissue(scene, light)
    down, right = rng.integers(-12, 13, 2)  # the camera moves slightly within a recording
    tissue = tissue.take(np.arange(HEIGHT) + down, 0, mode="clip").take(np.arange(WIDTH) + right, 1, mode="clip")
    for _ in range(6):
        image, mask = _place_instruments(rng, tissue, light, classes)
        visible = np.bincount(mask.ravel(), minlength=_OTHER + 1)
        if all(visible[c] >= _MIN_VISIBLE for c in classes):
            break
    return _sensor(rng, _smoke_and_blood(rng, image)), mask


def _noise(rng: np.random.Generator, cells: int) -> Floats:
    """(256, 320) smooth noise of about unit variance with `cells` bumps from top to bottom."""
    if cells > 12:
        coarse = rng.standard_normal((cells, cells * WIDTH // HEIGHT + 1), dtype=np.float32)
        return _resized(Image.fromarray(coarse))
    # Rotate a coarse grid, or it would show as stripes parallel to the edges; it covers the diagonal of the frame.
    # Rotation is slow, so it is done at half the size, which is enough for smooth noise.
    side = int(np.ceil(1.62 * cells)) + 3
    coarse = rng.standard_normal((side, side), dtype=np.float32)
    half = (WIDTH // 2, HEIGHT // 2)
    angle, step = rng.uniform(0, 2 * np.pi), cells / half[1]
    cos, sin = step * math.cos(angle), step * math.sin(angle)
    x = (side - cos * half[0] + sin * half[1]) / 2
    y = (side - sin * half[0] - cos * half[1]) / 2
    rotated = Image.fromarray(coarse).transform(
        half, Image.Transform.AFFINE, (cos, -sin, x, sin, cos, y), Image.Resampling.BICUBIC
    )
    return _resized(rotated)


def _resized(image: Image.Image) -> Floats:
    return np.asarray(image.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC), dtype=np.float32)


def _light(rng: np.random.Generator) -> Floats:
    """(256, 320) brightness: a light beside the lens, and vignetting."""
    x, y = WIDTH * rng.uniform(0.3, 0.7), HEIGHT * rng.uniform(0.3, 0.7)
    spread = rng.uniform(110, 190)
    spot = np.exp(-((_X - x) ** 2 + (_Y - y) ** 2) / (2 * spread**2))
    rim = ((_X - WIDTH / 2) ** 2 + (_Y - HEIGHT / 2) ** 2) / (WIDTH / 2) ** 2
    light: Floats = (0.40 + 0.85 * spot) * (1 - 0.28 * np.clip(rim, 0, 1.6)) * rng.uniform(0.85, 1.15)
    return light


def _tissue(rng: np.random.Generator, light: Floats) -> Floats:
    """(256, 320, 3) lit tissue: three kinds side by side, folds, vessels, wet highlights."""
    kinds = rng.choice(len(_TISSUES), size=3, replace=False, p=(0.22, 0.23, 0.14, 0.17, 0.1, 0.14))
    albedo: Floats = np.empty((HEIGHT, WIDTH, 3), np.float32)
    albedo[:], lumps = _TISSUES[kinds[0]][0], np.full((HEIGHT, WIDTH), _TISSUES[kinds[0]][1], np.float32)
    for kind in kinds[1:]:
        share = 1 / (1 + np.exp(-9 * (_noise(rng, 3) - 0.5)))
        colour, lumpiness = _TISSUES[kind]
        albedo += share[..., None] * (np.array(colour, np.float32) - albedo)
        lumps += share * (lumpiness - lumps)

    # The absolute value of smooth noise looks like folded tissue: rounded bulges with creases between them.
    relief = 26 * np.abs(_noise(rng, 3)) + 9 * np.abs(_noise(rng, 6)) + 5 * _noise(rng, 5)
    relief += lumps * (1.8 * _noise(rng, 14) + 0.9 * _noise(rng, 28)) + 0.25 * _noise(rng, 70)
    down, right = np.gradient(relief)
    heading = rng.uniform(0, 2 * np.pi)
    slope = math.cos(heading) * right + math.sin(heading) * down
    steep = np.sqrt(down**2 + right**2)
    shade = (1 + 0.42 * np.tanh(0.8 * slope)) * (1.08 - 0.3 * np.tanh(0.6 * steep)) * (1 + 0.03 * _noise(rng, 60))

    vessels = _vessels(rng)
    albedo *= 1 - vessels[..., None] * np.array((0.30, 0.62, 0.52), np.float32)
    albedo *= rng.uniform(0.94, 1.06, 3).astype(np.float32)
    lit: Floats = albedo * (shade * light)[..., None]
    # Specular highlights of wet tissue: short streaks along the slopes that face the light.
    facing = np.exp(-(((slope - 0.7) / 0.35) ** 2)) + 0.35 * _noise(rng, 22) + 0.3 * _noise(rng, 64)
    lit += (np.clip(2.2 * (facing - rng.uniform(1.15, 1.45)), 0, 0.9) * light**2)[..., None]
    return lit


def _vessels(rng: np.random.Generator) -> Floats:
    """(256, 320) vessels, 0 to 1: random walks that branch and become thinner."""
    canvas = Image.new("L", (WIDTH, HEIGHT))
    pen = ImageDraw.Draw(canvas)
    walks = [
        (rng.uniform(0, WIDTH), rng.uniform(0, HEIGHT), rng.uniform(0, 2 * np.pi), rng.uniform(1.5, 4))
        for _ in range(rng.integers(2, 7))
    ]
    while walks:
        x, y, heading, thickness = walks.pop()
        for turn, fork in zip(rng.normal(0, 0.28, 22), rng.random(22), strict=True):
            heading += turn
            x_next, y_next = x + 9 * np.cos(heading), y + 9 * np.sin(heading)
            pen.line((x, y, x_next, y_next), fill=int(110 + 30 * thickness), width=max(1, round(thickness)))
            x, y, thickness = x_next, y_next, thickness * 0.96
            if fork < 0.09 and thickness > 1.2:
                walks.append((x, y, heading + rng.choice((-0.8, 0.8)), thickness * 0.65))
    return np.asarray(canvas.filter(ImageFilter.GaussianBlur(0.9)), dtype=np.float32) / 255


def _place_instruments(
    rng: np.random.Generator, tissue: Floats, light: Floats, classes: Sequence[int]
) -> tuple[Floats, Bytes]:
    """Draw the instruments over the tissue, later ones on top; sometimes a fold of tissue covers a part."""
    image, mask = tissue.copy(), np.zeros((HEIGHT, WIDTH), np.uint8)
    # Instruments enter from different edges, to reduce their overlap.
    edges = rng.permutation(np.array(["left", "right", rng.choice(("bottom", "top"), p=(0.7, 0.3))]))
    for position, class_index in enumerate(rng.permutation(np.asarray(classes, np.int64))):
        forms = _FORMS[int(class_index)]
        form = forms[rng.integers(len(forms))]
        covered, tone, shine, tint = _draw_instrument(rng, form, str(edges[position % len(edges)]))
        _shadow(rng, image, covered)
        # Metal reflects the tissue: its grey is shifted towards red by a varying amount.
        mirrored = np.clip(rng.uniform(0.0, 0.4) + 0.2 * _noise(rng, 5), 0, 0.7)[..., None]
        metal = tint * (1 - mirrored * np.array((-0.10, 0.42, 0.40), np.float32))
        colour = tone[..., None] * metal + shine[..., None]
        image[covered] = (colour * light[..., None])[covered]
        mask[covered] = class_index
    if rng.random() < 0.2:
        _cover_with_fold(rng, image, mask, tissue)
    return image, mask


def _draw_instrument(rng: np.random.Generator, form: _Instrument, edge: str) -> tuple[Pixels, Floats, Floats, Floats]:
    """An instrument that enters from an edge, before lighting.

    Returns its pixels, the brightness of the metal, specular highlights, each (256, 320), and the metal's tint, (3,).
    """
    along, depth = rng.uniform(0.2, 0.8), rng.uniform(0.26, 0.58)
    across, down, straight_in = {
        "left": (depth, along, 0.0),
        "right": (1 - depth, along, np.pi),
        "top": (along, depth, np.pi / 2),
        "bottom": (along, 1 - depth, -np.pi / 2),
    }[edge]
    x, y = across * WIDTH, down * HEIGHT  # of the wrist
    angle = rng.uniform(0, 2 * np.pi) if form.floating else straight_in + rng.uniform(-0.6, 0.6)
    metal = rng.uniform(0.80, 1.18)
    scale, flip = rng.uniform(0.95, 1.25), float(rng.choice((-1.0, 1.0)))
    opening, bend = rng.uniform(*form.opening), rng.uniform(-form.bend, form.bend)
    tint = (metal * np.array((1.04, 0.97, 0.97)) * rng.uniform(0.93, 1.07, 3)).astype(np.float32)

    covered, (tone, shine) = np.zeros((HEIGHT, WIDTH), np.bool_), np.zeros((2, HEIGHT, WIDTH), np.float32)
    parts = [(ribbon, x, y, angle) for ribbon in form.body]
    x, y = x + scale * form.pivot * math.cos(angle), y + scale * form.pivot * math.sin(angle)
    parts += [(ribbon, x, y, angle + bend + flip * side * opening) for ribbon, side in form.jaws]
    for part in parts:  # each over the previous ones
        box, inside, part_tone, part_shine = _draw_part(*part, scale, flip)
        covered[box] |= inside
        tone[box][inside] = part_tone[inside]
        shine[box][inside] = part_shine[inside]
    return covered, tone, shine, tint


def _draw_part(
    ribbon: _Ribbon, x: float, y: float, angle: float, scale: float, flip: float
) -> tuple[tuple[slice, slice], Pixels, Floats, Floats]:
    """The rows and columns that a part can reach, and there its pixels, brightness and specular highlights."""
    cos, sin = math.cos(angle), math.sin(angle)
    ends = scale * np.array((ribbon.half_width[0][0], ribbon.half_width[-1][0]))
    margin = scale * (max(h for _, h in ribbon.half_width) + max(abs(c) for _, c in ribbon.centre)) + 1
    xs, ys = x + ends * cos, y + ends * sin
    left, right = np.clip((xs.min() - margin, xs.max() + margin), 0, WIDTH).astype(int)
    top, bottom = np.clip((ys.min() - margin, ys.max() + margin), 0, HEIGHT).astype(int)
    box = slice(top, bottom), slice(left, right)
    dx, dy = (_X[box] - x) / scale, (_Y[box] - y) / scale
    u, v = dx * cos + dy * sin, flip * (dy * cos - dx * sin)

    half = _along(u, ribbon.half_width)
    if ribbon.teeth:
        half = half * (1 - 0.34 * ((u / ribbon.teeth) % 1))
    t = (v - _along(u, ribbon.centre)) / half  # -1 at one side of the part, 1 at the other
    inside = (np.abs(t) < 1) & (u >= ribbon.half_width[0][0]) & (u <= ribbon.half_width[-1][0])
    for start, end in ribbon.slots:
        inside &= ~((np.abs(t) < 0.5) & (u > start) & (u < end))
    inside_t = np.clip(t, -1, 1)
    # A rod lit from one side: a bright ridge off the centre, darker towards both sides.
    round_shade = 0.30 + 0.85 * np.sqrt(1 - 0.96 * np.clip(inside_t + 0.25, -1, 1) ** 2)
    tone = _along(u, ribbon.tone) * _pattern(ribbon, u, v, inside_t) * round_shade
    shine = ribbon.gloss * 0.5 * np.exp(-(((inside_t + 0.35) / 0.16) ** 2)) * (0.6 + 0.4 * np.sin(u / 23))
    return box, inside, tone, shine


def _along(u: Floats, knots: Knots) -> Floats:
    values = np.interp(u, [k[0] for k in knots], [k[1] for k in knots])
    return values.astype(np.float32)


def _pattern(ribbon: _Ribbon, u: Floats, v: Floats, t: Floats) -> Floats:
    """Brightness factor of rings, grooves and hatching; 1 without any."""
    factor = np.ones_like(u)
    if ribbon.rings:
        factor *= np.where((u / ribbon.rings) % 1 < 0.3, 0.45, 1.1)
    if ribbon.grooves:
        factor *= 0.62 + 0.6 * np.cos(np.pi * (ribbon.grooves + 1) * (t + 1) / 2 + np.pi * (ribbon.grooves % 2)) ** 2
    if ribbon.hatch:
        crossed = np.sin(2 * np.pi * (u + v) / ribbon.hatch) * np.sin(2 * np.pi * (u - v) / ribbon.hatch)
        factor *= np.where(crossed > 0, 0.5, 1.2)
    return factor.astype(np.float32)


def _shadow(rng: np.random.Generator, image: Floats, covered: Pixels) -> None:
    """Darken the image under and beside an instrument."""
    soft = Image.fromarray(covered.astype(np.uint8) * 255).filter(ImageFilter.BoxBlur(4))
    shifted = np.roll(np.asarray(soft, dtype=np.float32) / 255, rng.integers(-7, 8, 2), axis=(0, 1))
    image *= (1 - 0.5 * shifted)[..., None]


def _cover_with_fold(rng: np.random.Generator, image: Floats, mask: Bytes, tissue: Floats) -> None:
    """Draw a fold of tissue from the lower edge over image and mask, unless it would hide over half of a class."""
    edge = HEIGHT * rng.uniform(0.7, 0.9) + 14 * np.sin(_X[0] / rng.uniform(24, 60) + rng.uniform(0, 6))
    depth = _Y - edge
    fold = depth > 0
    before, after = (np.bincount(m.ravel(), minlength=_OTHER + 1) for m in (mask, np.where(fold, 0, mask)))
    if (after[1:] < 0.5 * before[1:]).any():
        return
    image *= np.where(fold, 1.0, 1 - 0.4 * np.exp(np.minimum(depth, 0) / 6))[..., None]
    image[fold] = (tissue * (0.75 + 0.4 * np.exp(-np.maximum(depth, 0) / 12))[..., None])[fold]
    mask[fold] = 0


def _smoke_and_blood(rng: np.random.Generator, image: Floats) -> Floats:
    """Tint some frames; both are transparent, so the mask does not change."""
    if rng.random() < 0.3:
        blood = 0.75 * np.clip(2.5 * (_noise(rng, 5) - 0.9), 0, 1)
        image = image * (1 - blood[..., None] * np.array((0.25, 0.80, 0.78), np.float32))
    if rng.random() < 0.2:
        smoke = np.clip(0.2 + 0.14 * _noise(rng, 3), 0, 0.42)[..., None]
        image = image * (1 - smoke) + smoke * np.array((0.74, 0.70, 0.70), np.float32)
    return image


def _sensor(rng: np.random.Generator, image: Floats) -> Bytes:
    """Exposure, blur, noise and conversion to 8 bits."""
    exposed = np.clip(image, 0, 1.2) ** 0.9 * (rng.uniform(0.88, 1.12) * 255)
    picture = Image.fromarray(np.clip(exposed, 0, 255).astype(np.uint8))
    blurred = picture.filter(ImageFilter.GaussianBlur(rng.uniform(0.5, 1.2)))
    grain = rng.standard_normal((HEIGHT, WIDTH, 1), dtype=np.float32) * rng.uniform(1.5, 5.0)
    return np.clip(np.asarray(blurred, dtype=np.float32) + grain, 0, 255).astype(np.uint8)
