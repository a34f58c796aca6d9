"""Polygons and ellipses become masks: a pixel belongs to a shape if its centre does.

A centre that lies exactly on an edge belongs to the shape on its right or below, so that
shapes that share an edge share no pixel. Whatever sticks out of the image is cut off.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from segzero_ml.errors import MaskError
from segzero_ml.types import BoolMask, ImageSize

MAX_CROSSINGS: Final = 4_000_000
"""Rows that the edges of one polygon may cross in all; a drawn one crosses some thousands."""

_DIGITS: Final = 6  # of a pixel: what a percentage loses on its way must not move an edge
_LEAST_RADIUS_PX: Final = 1e-6


@dataclass(frozen=True, slots=True)
class Rectangle:
    """A rectangle as Label Studio writes it: measured in percent, but turned in pixels.

    Args:
        x_pct: Of the top left corner, around which it turns.
        y_pct: The same.
        width_pct: Before the turn, in percent of the image's width.
        height_pct: Before the turn, in percent of the image's height.
        degrees: Turn, clockwise.
    """

    x_pct: float
    y_pct: float
    width_pct: float
    height_pct: float
    degrees: float = 0.0

    def corners_px(self, size: ImageSize) -> NDArray[np.float64]:
        """Shape (4, 2): x and y of the corners on an image of this size."""
        scale = np.array([size.width, size.height]) / 100.0
        corner = np.array([self.x_pct, self.y_pct]) * scale
        width, height = np.array([self.width_pct, self.height_pct]) * scale
        turn = np.radians(self.degrees)
        cos, sin = np.cos(turn), np.sin(turn)
        offsets = np.array([[0.0, 0.0], [width, 0.0], [width, height], [0.0, height]])
        corners: NDArray[np.float64] = corner + offsets @ np.array([[cos, sin], [-sin, cos]])
        return corners


def fill_polygon(points_px: NDArray[np.float64], size: ImageSize) -> BoolMask:
    """Mask of a closed polygon, inside by the non-zero rule, as browsers fill paths.

    A loop within the outline is filled unless it runs the other way round.

    Args:
        points_px: Finite, shape (n, 2): x and y of the corners; fewer than three have no area.
        size: Size of the image.

    Returns:
        bool, shape (size.height, size.width).

    Raises:
        MaskError: The edges cross too many rows: no polygon that anybody drew.
    """
    start = np.round(points_px, _DIGITS)
    end = np.roll(start, -1, axis=0)
    low, high = np.minimum(start[:, 1], end[:, 1]), np.maximum(start[:, 1], end[:, 1])
    first = _first_centre(low, size.height)
    crossed = _first_centre(high, size.height) - first
    if int(crossed.sum()) > MAX_CROSSINGS:
        raise MaskError("A polygon has too many edges for its size.", "Draw it more simply.")
    edge = np.repeat(np.arange(len(start)), crossed)
    rows = np.arange(len(edge)) + np.repeat(first - (np.cumsum(crossed) - crossed), crossed)
    x1, y1 = start[edge].T
    x2, y2 = end[edge].T
    columns = _first_centre(x1 + (rows + 0.5 - y1) * (x2 - x1) / (y2 - y1), size.width)
    order = np.lexsort((columns, rows))
    rows, columns = rows[order], columns[order]
    # Every row is left as often as it is entered, so the sum is 0 from one row to the next.
    winding = np.cumsum(np.where(y2 > y1, 1, -1)[order])
    inside = np.flatnonzero(winding)
    return _fill(rows[inside], columns[inside], columns[inside + 1], size)


def fill_ellipse(
    center_px: tuple[float, float],
    radii_px: tuple[float, float],
    degrees: float,
    size: ImageSize,
) -> BoolMask:
    """Mask of an ellipse.

    Args:
        center_px: x and y, finite.
        radii_px: Before the turn: to the side and up, finite, at least 0.
        degrees: Turn around the centre, clockwise.
        size: Size of the image.

    Returns:
        bool, shape (size.height, size.width).
    """
    if min(radii_px) < _LEAST_RADIUS_PX:
        return np.zeros((size.height, size.width), dtype=np.bool_)
    turn = np.radians(degrees)
    cos, sin = np.cos(turn), np.sin(turn)
    side, up = radii_px[0] ** -2, radii_px[1] ** -2
    # In a row v below the centre, u is inside where  a u^2 + 2 b v u + c v^2 <= 1.
    a = cos**2 * side + sin**2 * up
    b = cos * sin * (side - up)
    c = sin**2 * side + cos**2 * up
    v = np.arange(size.height) + 0.5 - center_px[1]
    root = (b * v) ** 2 - a * (c * v**2 - 1)
    rows = np.flatnonzero(root > 0)
    half, middle = np.sqrt(root[rows]) / a, center_px[0] - b * v[rows] / a
    starts = _first_centre(np.round(middle - half, _DIGITS), size.width)
    return _fill(rows, starts, _first_centre(np.round(middle + half, _DIGITS), size.width), size)


def _first_centre(edges_px: NDArray[np.float64], pixels: int) -> NDArray[np.int64]:
    """First pixel whose centre is at or after an edge, within 0..pixels."""
    return np.ceil(np.clip(edges_px, -1, pixels + 1) - 0.5).clip(0, pixels).astype(np.int64)


def _fill(
    rows: NDArray[np.int64],
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    size: ImageSize,
) -> BoolMask:
    """Mask with the columns `starts` up to `ends` of `rows`; no two spans overlap."""
    steps = np.zeros(size.height * size.width + 1, dtype=np.int8)
    np.add.at(steps, rows * size.width + starts, 1)
    np.add.at(steps, rows * size.width + ends, -1)
    filled = np.cumsum(steps[:-1], dtype=np.int8)
    return filled.reshape(size.height, size.width) > 0
