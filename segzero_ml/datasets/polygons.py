"""A mask as polygons that `reasonseg.rasterise` paints back pixel by pixel, holes and all.

A polygon has no holes, and its painted outline takes up pixels. So the mask is cut into pieces
whose every row is one run, each overlapping the one above, and a piece's corners are its own
outermost pixels: what is painted is the piece, and a hole is what no piece covers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from segzero_ml.types import BoolMask

_Run = tuple[int, int]  # first and last column of a run of pixels
_Piece = tuple[int, list[_Run]]  # its first row, and its runs from there downwards


def polygons(mask: BoolMask) -> list[list[tuple[int, int]]]:
    """Corners x, y of the pieces of a mask, in pixels; their union is the mask.

    Args:
        mask: Bool, shape (height, width).
    """
    return [_corners(first, runs) for first, runs in _pieces(mask)]


def _pieces(mask: BoolMask) -> Iterator[_Piece]:
    above: list[_Piece] = []  # those that reach into the row before, from left to right
    for row in range(mask.shape[0]):
        runs = _runs(mask, row)
        pairs = _overlaps([piece[1][-1] for piece in above], runs)
        downwards = Counter(piece for piece, _ in pairs)
        upwards = Counter(run for _, run in pairs)
        goes_on = {run: piece for piece, run in pairs if downwards[piece] == upwards[run] == 1}
        longer = set(goes_on.values())
        yield from (piece for place, piece in enumerate(above) if place not in longer)
        below: list[_Piece] = []
        for place, run in enumerate(runs):
            # A piece begins where nothing is above, or where pieces join or part.
            piece = above[goes_on[place]] if place in goes_on else (row, [])
            piece[1].append(run)
            below.append(piece)
        above = below
    yield from above


def _runs(mask: BoolMask, row: int) -> list[_Run]:
    edges = np.flatnonzero(np.diff(mask[row].astype(np.int8), prepend=0, append=0))
    return [(int(first), int(end) - 1) for first, end in zip(edges[::2], edges[1::2], strict=True)]


def _overlaps(above: list[_Run], below: list[_Run]) -> list[tuple[int, int]]:
    """Places of the runs of two rows that share a column; each row from left to right."""
    pairs, i, j = [], 0, 0
    while i < len(above) and j < len(below):
        if above[i][0] <= below[j][1] and below[j][0] <= above[i][1]:
            pairs.append((i, j))
        if above[i][1] < below[j][1]:
            i += 1
        else:
            j += 1
    return pairs


def _corners(top: int, runs: list[_Run]) -> list[tuple[int, int]]:
    """Down the left side and up the right one, in level and upright steps within the piece."""
    left = [(first, top + row) for row, (first, _) in enumerate(runs)]
    right = [(last, top + row) for row, (_, last) in enumerate(runs)]
    down = _side(left, inwards=1)
    up = _side(right, inwards=-1)[::-1]
    return _without_idle(down + up)


def _side(ends: list[tuple[int, int]], inwards: int) -> list[tuple[int, int]]:
    """One side from top to bottom, with the corners of its steps."""
    path = ends[:1]
    for (x, y), (next_x, next_y) in pairwise(ends):
        # The level part of a step lies in the longer run, where its pixels are the piece's.
        narrows = (next_x - x) * inwards > 0
        path.append((next_x, y) if narrows else (x, next_y))
        path.append((next_x, next_y))
    return path


def _without_idle(path: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The path without repeated corners and those in the middle of a straight part."""
    kept: list[tuple[int, int]] = []
    for corner in path:
        if kept and corner == kept[-1]:
            continue
        if len(kept) > 1 and _is_straight(kept[-2], kept[-1], corner):
            kept.pop()
        kept.append(corner)
    return kept


def _is_straight(a: tuple[int, int], b: tuple[int, int], c: tuple[int, int]) -> bool:
    """Whether b lies between a and c on one level or upright line."""
    for one, other in ((0, 1), (1, 0)):
        if a[one] == b[one] == c[one]:
            return (b[other] - a[other]) * (c[other] - b[other]) > 0
    return False
