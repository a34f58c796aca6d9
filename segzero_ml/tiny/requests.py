"""Requests about tabletop scenes: what is asked, which objects answer it, and why.

Every request is built from the scene's own facts, so its targets are exact, and its
reasoning names only what is there. A comparison ("the largest") is asked only where the
winner leads by a clear margin.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from segzero_ml.tiny import asking_groups, asking_one
from segzero_ml.tiny.scenes import SceneObject
from segzero_ml.tiny.wording import Ask, Built
from segzero_ml.types import ImageSize


@dataclass(frozen=True, slots=True)
class SceneRequest:
    """A request about a scene.

    Args:
        text: What the user asks, lower case.
        kind: One of `KINDS`.
        targets: Indices of the objects that answer it, left to right; may be empty.
        reasoning: One to three truthful sentences that lead to the targets.
    """

    text: str
    kind: str
    targets: tuple[int, ...]
    reasoning: str


_BUILDERS: dict[str, Callable[[Ask], Built]] = {
    "attribute": asking_one.attribute,
    "superlative": asking_one.superlative,
    "relation": asking_one.relation,
    "exclusion": asking_one.exclusion,
    "plural": asking_groups.plural,
    "absent": asking_groups.absent,
    "implicit": asking_groups.implicit,
}
KINDS = tuple(_BUILDERS)


def make_request(
    objects: Sequence[SceneObject], size: ImageSize, kind: str, rng: np.random.Generator
) -> SceneRequest | None:
    """Builds a request of a kind.

    Args:
        objects: The scene's objects, in any order.
        size: The scene's.
        kind: One of `KINDS`.
        rng: Where every choice comes from.

    Returns:
        The request, its targets being indices into `objects`; None where the scene does
        not allow this kind ("the largest" of two equals, say).
    """
    order = sorted(range(len(objects)), key=lambda i: objects[i].center_px.x)
    ask = Ask([objects[i] for i in order], size, rng)
    built = _BUILDERS[kind](ask)
    if built is None:
        return None
    phrase, targets, reasoning = built
    return SceneRequest(phrase, kind, tuple(order[i] for i in sorted(targets)), reasoning)
