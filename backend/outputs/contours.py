"""A mask as one few-cornered closed outline that a browser fills back to almost the same mask.

The outline runs along the pixels' edges, so that before it is simplified it is exact. Label
Studio's polygons have no holes and no parts: a hole is joined to the outline around it by a slit
that is walked twice, and runs the other way round, so that filling leaves it empty; parts that
lie by themselves are joined in the same way, and run the same way round. A polygon for each part
would not do: the editor never takes a region away, so that one would stay when its part is gone.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from backend.shapes import fill_polygon
from segzero_ml import masks
from segzero_ml.types import BoolMask, ImageSize

LEAST_IOU: Final = 0.97
"""What is filled back agrees with its part of the mask at least so far."""

LEAST_SHARE: Final = 0.01
"""Parts and holes that are smaller, measured by the whole mask, are left out."""

TOLERANCES_PX: Final = (2.0, 1.0, 0.5, 0.0)
"""How far a corner that is dropped may lie from the outline; the first that agrees is taken."""

_Outline = NDArray[np.float64]  # (n, 2): x and y of the corners


def outline(mask: BoolMask) -> _Outline:
    """One closed outline of all parts of a mask.

    Args:
        mask: Bool, shape (height, width), with at least one pixel.

    Returns:
        The corners, float64 of shape (n, 2): x and y in pixels. Parts and holes below
        `LEAST_SHARE` are left out, but never the largest part.
    """
    least = LEAST_SHARE * np.count_nonzero(mask)
    parts, count = ndimage.label(mask)  # pixels that touch at a corner only are apart
    found = ndimage.find_objects(parts)
    sizes = np.bincount(parts.ravel(), minlength=count + 1)[1:]
    order = [int(number) for number in np.argsort(-sizes, kind="stable")]
    shown = [n for rank, n in enumerate(order) if rank == 0 or sizes[n] >= least]
    found_in = []
    for number in shown:
        rows, columns = found[number]
        part = _part_outline(parts[rows, columns] == number + 1, least)
        found_in.append(part + np.array([columns.start, rows.start], dtype=np.float64))
    return _join(found_in)


def _part_outline(part: BoolMask, least_hole: float) -> _Outline:
    """Outline of one part, with its holes, simplified as far as the mask stays the same."""
    part = _without_small_holes(part, least_hole)
    loops = _loops(part)
    size = ImageSize(part.shape[1], part.shape[0])
    joined = loops[0]
    for tolerance in TOLERANCES_PX:
        joined = _join([_simplified(loop, tolerance) for loop in loops])
        if tolerance == 0 or masks.iou(fill_polygon(joined, size), part) >= LEAST_IOU:
            break
    return joined


def _without_small_holes(part: BoolMask, least: float) -> BoolMask:
    holes, count = ndimage.label(ndimage.binary_fill_holes(part) & ~part)
    small = np.bincount(holes.ravel(), minlength=count + 1) < least
    small[0] = False
    filled: BoolMask = part | small[holes]
    return filled


def _loops(part: BoolMask) -> list[_Outline]:
    """The outer loop and those of the holes; the part lies to the right of each.

    An edge between two pixels becomes a step from one corner of the grid to the next. Where
    four steps meet, two pixels of the part touch at a corner: turning right keeps to one.
    """
    steps = _steps(part)
    loops: list[_Outline] = []
    while steps:
        start, heading = next(iter(steps))
        corners: list[tuple[int, int]] = []
        at = start
        while (at, heading) in steps:
            steps.remove((at, heading))
            corners.append(at)
            at = (at[0] + heading[0], at[1] + heading[1])
            right = (-heading[1], heading[0])
            for turned in (right, heading, (heading[1], -heading[0])):
                if (at, turned) in steps:
                    heading = turned
                    break
        loops.append(_corners_only(np.array(corners, dtype=np.float64)))
    return sorted(loops, key=lambda loop: -abs(_area(loop)))


def _steps(part: BoolMask) -> set[tuple[tuple[int, int], tuple[int, int]]]:
    """Each step as the corner (x, y) that it starts from and its direction."""
    padded = np.pad(part, 1)
    inside = padded[1:-1, 1:-1]
    found = []
    # Clockwise as seen on the screen: right along the top, down the right side, and so on.
    for outside, offset, heading in (
        (padded[:-2, 1:-1], (0, 0), (1, 0)),
        (padded[1:-1, 2:], (1, 0), (0, 1)),
        (padded[2:, 1:-1], (1, 1), (-1, 0)),
        (padded[1:-1, :-2], (0, 1), (0, -1)),
    ):
        rows, columns = np.nonzero(inside & ~outside)
        xs, ys = (columns + offset[0]).tolist(), (rows + offset[1]).tolist()
        found += [((x, y), heading) for x, y in zip(xs, ys, strict=True)]
    return set(found)


def _corners_only(loop: _Outline) -> _Outline:
    """The loop without the corners in the middle of a straight line."""
    before, after = np.roll(loop, 1, axis=0), np.roll(loop, -1, axis=0)
    corners: _Outline = loop[_cross(loop - before, after - loop) != 0]
    return corners


def _simplified(loop: _Outline, tolerance: float) -> _Outline:
    """Ramer, Douglas and Peucker, on the two halves between two corners that lie far apart."""
    if tolerance == 0 or len(loop) <= 4:
        return loop
    loop = np.roll(loop, -int(np.argmax(np.hypot(*(loop - loop.mean(axis=0)).T))), axis=0)
    middle = int(np.argmax(np.hypot(*(loop - loop[0]).T)))
    closed = np.vstack([loop, loop[:1]])
    kept = np.zeros(len(closed), dtype=np.bool_)
    kept[[0, middle, -1]] = True
    spans = [(0, middle), (middle, len(closed) - 1)]
    while spans:
        first, last = spans.pop()
        if last - first < 2:
            continue
        distances = _distances(closed[first + 1 : last], closed[first], closed[last])
        furthest = int(np.argmax(distances))
        if distances[furthest] > tolerance:
            at = first + 1 + furthest
            kept[at] = True
            spans += [(first, at), (at, last)]
    simple = closed[:-1][kept[:-1]]
    return simple if len(simple) > 2 else loop


def _distances(points: _Outline, start: _Outline, end: _Outline) -> NDArray[np.float64]:
    """How far points lie from the line between two others."""
    along = end - start
    length = float(np.hypot(*along))
    if length == 0:
        distances: NDArray[np.float64] = np.hypot(*(points - start).T)
        return distances
    return np.abs(_cross(along[None], points - start)) / length


def _join(loops: list[_Outline]) -> _Outline:
    """One outline: each loop is entered and left over the shortest slit from what is joined."""
    joined, *others = loops
    for loop in others:
        gaps, nearest = cKDTree(joined).query(loop)
        entry = int(np.argmin(gaps))
        at = int(nearest[entry])
        turned = np.roll(loop, -entry, axis=0)
        joined = np.vstack([joined[: at + 1], turned, turned[:1], joined[at:]])
    return joined


def _area(loop: _Outline) -> float:
    return float(_cross(loop, np.roll(loop, -1, axis=0)).sum()) / 2


def _cross(a: _Outline, b: _Outline) -> NDArray[np.float64]:
    """Third component of the cross product of vectors of shape (n, 2)."""
    crossed: NDArray[np.float64] = a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
    return crossed
