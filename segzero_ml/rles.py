"""Run lengths compared and joined without making masks of them.

pycocotools trusts its input: only run lengths that `masks.encode` wrote may come here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco

from segzero_ml.types import Rle


def area(rle: Rle) -> int:
    """Number of pixels inside."""
    return int(coco.area(_native(rle)))


def ious(a: Sequence[Rle], b: Sequence[Rle]) -> NDArray[np.float64]:
    """Intersection over union of each with each.

    Args:
        a: Masks that are not empty, all of one size.
        b: The same.

    Returns:
        Shape (len(a), len(b)), in [0, 1].
    """
    if not a or not b:
        return np.zeros((len(a), len(b)))
    crowds = [0] * len(b)
    return np.asarray(coco.iou([_native(x) for x in a], [_native(x) for x in b], crowds))


def union_iou(a: Sequence[Rle], b: Sequence[Rle]) -> float:
    """Intersection over union of all of one side with all of the other; 1 if both are empty."""
    if not a or not b:
        return float(not a and not b)
    both = [coco.merge([_native(rle) for rle in side]) for side in (a, b)]
    joined = int(coco.area(coco.merge(both)))
    shared = int(coco.area(coco.merge(both, intersect=True)))
    return shared / joined if joined else 1.0


def _native(rle: Rle) -> dict[str, Any]:
    return {"size": [rle.height, rle.width], "counts": rle.counts.encode("ascii")}
