"""Tabletop scenes: the bundled domain, drawn with exact masks and reproducible from a seed.

A scene holds 2 to 6 coloured shapes on a muted background. `plain` is what the bundled
models are trained on; `shifted` (dark backgrounds, outlined shapes, other jitter) is kept
out of every pretraining so that corrections have something to teach.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from segzero_ml.types import BoolMask, Box, ImageSize, Point

Style = Literal["plain", "shifted"]
Rgb = tuple[int, int, int]

SHAPES = ("circle", "square", "triangle", "star", "ring", "cross")
COLOURS: dict[str, Rgb] = {
    "red": (214, 40, 44),
    "orange": (243, 131, 26),
    "yellow": (246, 218, 48),
    "green": (48, 158, 70),
    "blue": (42, 96, 208),
    "purple": (132, 58, 168),
    "black": (28, 28, 32),
    "white": (246, 246, 244),
}
MIN_SIDE_PX, MAX_SIDE_PX = 320, 640
MIN_DIAMETER, MAX_DIAMETER = 0.10, 0.35
"""Diameter of an object's circumscribed circle, as a share of the shorter side."""

_SUPERSAMPLING = 4
_GAP = 0.02


@dataclass(frozen=True, slots=True)
class SceneObject:
    """One shape: its names, and where it lies in pixels of the scene."""

    shape: str
    colour: str
    center_px: Point
    diameter_px: float
    angle_deg: float
    box_px: Box
    point_px: Point
    area_px: int


@dataclass(frozen=True, slots=True)
class Scene:
    """A drawn scene.

    Args:
        size: Canvas size in pixels.
        objects: The shapes, in the order they were drawn.
        masks: One exact mask per object, bool, (height, width).
        jpeg: The picture as JPEG bytes.
    """

    size: ImageSize
    objects: tuple[SceneObject, ...]
    masks: tuple[BoolMask, ...]
    jpeg: bytes

    @property
    def image(self) -> Image.Image:
        """The decoded picture, RGB."""
        return Image.open(io.BytesIO(self.jpeg), formats=("JPEG",)).convert("RGB")


def make_scene(rng: np.random.Generator, style: Style = "plain") -> Scene:
    """Draws one scene.

    Args:
        rng: Where every choice comes from; the same state gives the same scene.
        style: `plain`, or `shifted` for the style that no bundled model was trained on.
    """
    size = _canvas(rng)
    names = _names(rng, count=int(rng.integers(2, 7)))
    circles = _place(rng, size, len(names))
    canvas = _background(rng, size, style)
    shadow = rng.random() < (0.3 if style == "shifted" else 0.4)
    objects, masks = [], []
    for (shape, colour), (cx, cy, radius) in zip(names, circles, strict=False):
        angle_deg = float(rng.uniform(0, 360))
        alpha, left, top = _stamp(rng, shape, (cx, cy), radius, angle_deg)
        if shadow:
            _cast_shadow(canvas, alpha, (left, top), radius)
        _paint(rng, canvas, alpha, (left, top), colour, style)
        mask = np.zeros((size.height, size.width), dtype=np.bool_)
        patch = np.asarray(alpha) >= 128
        mask[top : top + patch.shape[0], left : left + patch.shape[1]] = patch
        masks.append(mask)
        objects.append(_describe(shape, colour, (cx, cy, radius), angle_deg, mask))
    return Scene(size, tuple(objects), tuple(masks), _photograph(rng, canvas))


def _canvas(rng: np.random.Generator) -> ImageSize:
    aspect = rng.uniform(3 / 4, 4 / 3)
    longer = rng.uniform(MIN_SIDE_PX * 4 / 3, MAX_SIDE_PX)
    if aspect >= 1:
        return ImageSize(round(longer), max(MIN_SIDE_PX, round(longer / aspect)))
    return ImageSize(max(MIN_SIDE_PX, round(longer * aspect)), round(longer))


def _names(rng: np.random.Generator, count: int) -> list[tuple[str, str]]:
    """Shapes and colours; often with repeats, so that every kind of request can be asked."""
    colours = list(COLOURS)
    names = [(str(rng.choice(SHAPES)), str(rng.choice(colours))) for _ in range(count)]
    plan = rng.random()
    shared = count - 1 if plan < 0.24 else int(rng.integers(2, count + 1))
    if plan < 0.56:
        axis = int(rng.random() < 0.5)
        value = names[0][axis]
        chosen = rng.permutation(count)[:shared]
        for i in chosen:
            shape, colour = names[i]
            names[i] = (shape, value) if axis else (value, colour)
    return names


def _place(rng: np.random.Generator, size: ImageSize, count: int) -> list[tuple[float, ...]]:
    """Centres and radii of circles that lie inside the canvas and do not touch."""
    shorter = min(size.width, size.height)
    circles: list[tuple[float, ...]] = []
    crowding = 1.0
    for attempt in range(400):
        if len(circles) == count:
            break
        if attempt % 40 == 39:
            crowding *= 0.8
        upper = MIN_DIAMETER + (MAX_DIAMETER - MIN_DIAMETER) * crowding
        radius = shorter * rng.uniform(MIN_DIAMETER, upper) / 2
        cx = rng.uniform(radius + 2, size.width - radius - 2)
        cy = rng.uniform(radius + 2, size.height - radius - 2)
        apart = (math.hypot(cx - x, cy - y) > radius + r + _GAP * shorter for x, y, r in circles)
        if all(apart):
            circles.append((cx, cy, radius))
    return circles


def _background(rng: np.random.Generator, size: ImageSize, style: Style) -> Image.Image:
    low, high = (62, 96) if style == "shifted" else (112, 196)
    tint = rng.uniform(-14, 14, size=3)
    base = rng.uniform(low, high) + tint
    kind = rng.choice(("plain", "gradient", "texture"))
    field = np.broadcast_to(base, (size.height, size.width, 3)).astype(np.float32)
    if kind == "gradient":
        angle = rng.uniform(0, 2 * math.pi)
        ys, xs = np.mgrid[-1 : 1 : size.height * 1j, -1 : 1 : size.width * 1j]
        ramp = (xs * math.cos(angle) + ys * math.sin(angle)).astype(np.float32)
        field = field + ramp[..., None] * rng.uniform(6, 18)
    elif kind == "texture":
        cells = int(rng.integers(6, 40))
        coarse = rng.normal(0, rng.uniform(3, 9), size=(cells, cells)).astype(np.float32)
        noise = Image.fromarray(coarse).resize((size.width, size.height), Image.Resampling.BICUBIC)
        field = field + np.asarray(noise)[..., None]
    return Image.fromarray(np.clip(field, 0, 255).astype(np.uint8))


def _outline(shape: str, rng: np.random.Generator) -> list[tuple[float, float]]:
    """Corners of a straight-edged shape inside the unit circle."""
    if shape == "square":
        return [_polar(1, 45 + 90 * i) for i in range(4)]
    if shape == "triangle":
        return [_polar(1, 90 + 120 * i) for i in range(3)]
    if shape == "star":
        inner = rng.uniform(0.38, 0.46)
        return [_polar(1 if i % 2 == 0 else inner, 90 + 36 * i) for i in range(10)]
    arm = rng.uniform(0.26, 0.36)
    long = math.sqrt(1 - arm * arm)
    corners = []
    for turn in range(4):
        for x, y in ((arm, arm), (arm, long), (-arm, long)):
            corners.append(((x, y), (-y, x), (-x, -y), (y, -x))[turn])
    return corners


def _polar(radius: float, angle_deg: float) -> tuple[float, float]:
    angle = math.radians(angle_deg)
    return radius * math.cos(angle), radius * math.sin(angle)


def _stamp(
    rng: np.random.Generator,
    shape: str,
    center: tuple[float, float],
    radius: float,
    angle_deg: float,
) -> tuple[Image.Image, int, int]:
    """The coverage of a shape (mode L) and where its left top corner lies."""
    left, top = math.floor(center[0] - radius) - 1, math.floor(center[1] - radius) - 1
    side = math.ceil(2 * radius) + 3
    k = _SUPERSAMPLING
    big = Image.new("L", (side * k, side * k))
    draw = ImageDraw.Draw(big)
    cx, cy, r = (center[0] - left) * k, (center[1] - top) * k, radius * k
    if shape in ("circle", "ring"):
        draw.ellipse((cx - r, cy - r, cx + r, cy + r), fill=255)
        if shape == "ring":
            hole = r * rng.uniform(0.48, 0.62)
            draw.ellipse((cx - hole, cy - hole, cx + hole, cy + hole), fill=0)
    else:
        turn = math.radians(angle_deg)
        cos, sin = math.cos(turn) * r, math.sin(turn) * r
        draw.polygon(
            [(cx + x * cos - y * sin, cy + x * sin + y * cos) for x, y in _outline(shape, rng)],
            fill=255,
        )
    return big.reduce(k), left, top


def _cast_shadow(
    canvas: Image.Image, alpha: Image.Image, corner: tuple[int, int], radius: float
) -> None:
    offset = max(2, round(radius * 0.12))
    pad = 2 * offset
    padded = Image.new("L", (alpha.width + 2 * pad, alpha.height + 2 * pad))
    padded.paste(alpha, (pad, pad))
    soft = padded.filter(ImageFilter.GaussianBlur(offset * 0.8)).point(lambda v: v * 0.4)
    canvas.paste((0, 0, 0), (corner[0] - pad + offset, corner[1] - pad + offset), soft)


def _paint(
    rng: np.random.Generator,
    canvas: Image.Image,
    alpha: Image.Image,
    corner: tuple[int, int],
    colour: str,
    style: Style,
) -> None:
    if style == "shifted":
        # A rim in a tone of its own around a dulled fill.
        rim = int(rng.integers(150, 215))
        canvas.paste((rim, rim, rim), corner, alpha)
        width = max(3, round(alpha.width * 0.035)) | 1
        inside = alpha.filter(ImageFilter.MinFilter(width))
        canvas.paste(_jitter(rng, colour, spread=20, gain=(0.72, 0.95)), corner, inside)
    else:
        canvas.paste(_jitter(rng, colour, spread=12, gain=(0.92, 1.06)), corner, alpha)


def _jitter(rng: np.random.Generator, colour: str, spread: float, gain: tuple[float, float]) -> Rgb:
    base: NDArray[np.float64] = np.asarray(COLOURS[colour], dtype=np.float64)
    value = np.clip(base * rng.uniform(*gain) + rng.uniform(-spread, spread, size=3), 0, 255)
    return int(value[0]), int(value[1]), int(value[2])


def _photograph(rng: np.random.Generator, canvas: Image.Image) -> bytes:
    if rng.random() < 0.5:
        canvas = canvas.filter(ImageFilter.GaussianBlur(rng.uniform(0.2, 1.0)))
    buffer = io.BytesIO()
    canvas.save(buffer, "JPEG", quality=int(rng.integers(70, 96)))
    return buffer.getvalue()


def _describe(
    shape: str, colour: str, circle: tuple[float, ...], angle_deg: float, mask: BoolMask
) -> SceneObject:
    cx, cy, radius = circle
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    box_px = Box(float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1))
    # The centre lies inside every shape but the ring, whose band is pointed at on the left.
    point_px = Point(cx, cy)
    if shape == "ring":
        band = np.flatnonzero(mask[int(cy), : int(cx)])
        point_px = Point(float(band.mean()) + 0.5, cy)
    return SceneObject(
        shape, colour, Point(cx, cy), 2 * radius, angle_deg, box_px, point_px, int(mask.sum())
    )
