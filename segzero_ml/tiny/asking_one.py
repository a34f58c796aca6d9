"""Requests for one object by what sets it apart: attribute, superlative, relation, exclusion."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from segzero_ml.tiny.scenes import COLOURS, SHAPES, SceneObject
from segzero_ml.tiny.wording import (
    Ask,
    Built,
    called,
    checked,
    filtered,
    one_of,
    verdicts,
    with_article,
)
from segzero_ml.types import Point

MEASURE = 160
"""Reasons measure in 160ths of the picture's side, as the reasoner sees it: squashed square."""

_LEAD = 1.12  # how much larger the largest must be


def attribute(ask: Ask) -> Built:
    """The only object of a colour, a shape, or both."""
    options: list[tuple[int, str, list[str]]] = []
    for i, o in enumerate(ask.objects):
        c, s = o.colour, o.shape
        if len(ask.matching(c, s)) == 1:
            both = [f"the {c} {s}", f"the {c} {s}", f"{c} {s}", f"the {s} that is {c}"]
            options += [(i, one_of(c, s), both), (i, one_of(c, s), both)]
        if len(ask.matching(shape=s)) == 1:
            options.append((i, one_of("", s), [f"the {s}", f"{s}", with_article(s)]))
        if len(ask.matching(c)) == 1:
            noun = ask.noun()[0]
            phrases = [f"the {c} {noun}", f"the {c} one", f"{c}", f"the {noun} in {c}"]
            options.append((i, one_of(c, ""), phrases))
    if not options:
        return None
    i, group, phrases = options[int(ask.rng.integers(len(options)))]
    because = filtered(ask, f"Looking for any {group}", [i])
    return ask.with_lead_in(ask.pick(phrases)), [i], because


_SUPERLATIVES: dict[str, tuple[tuple[str, ...], Callable[[SceneObject], float], int]] = {
    "largest": (("the largest {}", "the biggest {}"), lambda o: o.diameter_px, 1),
    "smallest": (("the smallest {}", "the tiniest {}"), lambda o: o.diameter_px, -1),
    "leftmost": (("the leftmost {}", "the {} furthest to the left"), lambda o: o.center_px.x, -1),
    "rightmost": (("the rightmost {}", "the {} furthest to the right"), lambda o: o.center_px.x, 1),
    "topmost": (("the topmost {}", "the highest {}"), lambda o: o.center_px.y, -1),
    "bottommost": (("the bottommost {}", "the lowest {}"), lambda o: o.center_px.y, 1),
}


def _leads(pool: Sequence[SceneObject], word: str) -> int | None:
    """Which of the pool is clearly the most `word`, if any."""
    _, value, sign = _SUPERLATIVES[word]
    ranked = sorted(range(len(pool)), key=lambda i: -sign * value(pool[i]))
    first, second = pool[ranked[0]], pool[ranked[1]]
    if word in ("largest", "smallest"):
        lead = (first.diameter_px / second.diameter_px) ** sign
        areas = [(o.area_px / first.area_px) ** sign for o in pool if o is not first]
        return ranked[0] if lead >= _LEAD and max(areas) < 1 else None
    clear = abs(value(first) - value(second)) >= 0.25 * (first.diameter_px + second.diameter_px) / 2
    edges: Callable[[SceneObject], float] = {
        "leftmost": lambda o: -o.box_px.x1,
        "rightmost": lambda o: o.box_px.x2,
        "topmost": lambda o: -o.box_px.y1,
        "bottommost": lambda o: o.box_px.y2,
    }[word]
    return ranked[0] if clear and edges(first) >= max(edges(o) for o in pool) else None


def superlative(ask: Ask) -> Built:
    """The object that is clearly the most of something, of all or of a group."""
    singular = ask.noun()[0]
    everything = (ask.matching(), singular, one_of("", ""))
    pools = [everything, everything]
    for colour in COLOURS:
        pools.append((ask.matching(colour), f"{colour} {singular}", one_of(colour, "")))
    for shape in SHAPES:
        pools.append((ask.matching(shape=shape), shape, shape))
    pools = [p for p in pools if len(p[0]) >= 2]
    for k in ask.rng.permutation(len(pools)):
        members, noun, one = pools[k]
        word = ask.pick(tuple(_SUPERLATIVES))
        winner = _leads([ask.objects[i] for i in members], word)
        if winner is not None:
            phrase = ask.pick(_SUPERLATIVES[word][0]).format(noun)
            target = members[winner]
            because = checked(
                ask,
                f"Looking for the {word} {one}",
                [_measured(ask, word, i) if i in members else "no" for i in ask.matching()],
                f"The {word} is the {called(ask.objects[target])}",
            )
            return ask.with_lead_in(phrase), [target], because
    return None


def _measured(ask: Ask, word: str, i: int) -> str:
    """How far an object has what a superlative compares, in the reasoner's frame."""
    if word in ("largest", "smallest"):
        return f"{_frame_length(ask, ask.objects[i].diameter_px)} wide"
    if word in ("leftmost", "rightmost"):
        return _along(ask, i)
    return _down(ask, i)


def _along(ask: Ask, i: int) -> str:
    return f"{round(ask.objects[i].center_px.x / ask.size.width * MEASURE)} along"


def _down(ask: Ask, i: int) -> str:
    return f"{round(ask.objects[i].center_px.y / ask.size.height * MEASURE)} down"


def _frame_length(ask: Ask, length_px: float) -> int:
    side_px = math.sqrt(ask.size.width * ask.size.height)
    return min(MEASURE, round(length_px / side_px * MEASURE))


def relation(ask: Ask) -> Built:
    """The object clearly closest to another."""
    if len(ask.objects) < 3:
        return None
    for k in ask.rng.permutation(len(ask.objects)):
        anchor = ask.objects[k]
        if len(ask.matching(anchor.colour, anchor.shape)) > 1:
            continue
        away_px = [_apart_px(o.center_px, anchor.center_px) for o in ask.objects]
        far = sorted((px, i) for i, px in enumerate(away_px) if i != k)
        if far[1][0] < far[0][0] * 1.2:
            continue
        noun = ask.noun()[0]
        name = called(anchor)
        phrase = ask.pick(
            (
                f"the {noun} closest to the {name}",
                f"the {noun} nearest to the {name}",
                f"the nearest neighbour of the {name}",
                f"what is closest to the {name}",
            )
        )
        target = far[0][1]
        because = checked(
            ask,
            f"Looking for what is closest to the {name}, {_along(ask, k)}, {_down(ask, k)}",
            [
                "here" if i == k else f"{_frame_length(ask, px)} away"
                for i, px in enumerate(away_px)
            ],
            f"The closest is the {called(ask.objects[target])}",
        )
        return ask.with_lead_in(phrase), [target], because
    return None


def _apart_px(a: Point, b: Point) -> float:
    return math.dist((a.x, a.y), (b.x, b.y))


def exclusion(ask: Ask) -> Built:
    """The only object without what all others share."""
    if len(ask.objects) < 3:
        return None
    options: list[tuple[int, str, str]] = []
    for i in range(len(ask.objects)):
        rest = [o for j, o in enumerate(ask.objects) if j != i]
        colours, shapes = {o.colour for o in rest}, {o.shape for o in rest}
        if len(colours) == 1 and ask.objects[i].colour not in colours:
            colour = colours.pop()
            options.append((i, colour, one_of(colour, "")))
        if len(shapes) == 1 and ask.objects[i].shape not in shapes:
            shape = shapes.pop()
            options.append((i, with_article(shape), shape))
    if not options:
        return None
    i, one, group = options[int(ask.rng.integers(len(options)))]
    noun = ask.noun()[0]
    phrase = ask.pick(
        (
            f"the only {noun} that is not {one}",
            f"the {noun} that is not {one}",
            f"the one that isn't {one}",
            f"the odd one out that is not {one}",
        )
    )
    others = [k for k in ask.matching() if k != i]
    because = checked(
        ask,
        f"Leaving out any {group}",
        verdicts(ask, others),
        f"Left: the {called(ask.objects[i])}",
    )
    return ask.with_lead_in(phrase), [i], because
