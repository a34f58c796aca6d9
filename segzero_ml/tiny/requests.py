"""Requests about tabletop scenes: what is asked, which objects answer it, and why.

Every request is built from the scene's own facts, so its targets are exact, and its
reasoning names only what is there. A comparison ("the largest") is asked only where the
winner leads by a clear margin.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from segzero_ml.tiny.scenes import COLOURS, SHAPES, SceneObject

KINDS = (
    "attribute",
    "superlative",
    "relation",
    "exclusion",
    "plural",
    "absent",
    "implicit",
)

SHAPE_IDEAS: dict[str, tuple[tuple[str, str], ...]] = {
    "ring": (
        ("a wheel", "A wheel is round with a hole"),
        ("a tyre", "A tyre is round with a hole"),
    ),
    "cross": (
        ("the mark on a first-aid kit", "A first-aid kit is marked with a cross"),
        ("the sign on an ambulance", "An ambulance carries a cross"),
    ),
    "star": (
        ("something in the night sky", "Stars belong in the night sky"),
        ("a light in the night sky", "Stars light the night sky"),
    ),
    "triangle": (("a slice of pizza", "A slice of pizza is a triangle"),),
    "circle": (
        ("a coin", "A coin is a full circle"),
        ("a ball", "A ball looks like a full circle"),
    ),
    "square": (
        ("a tile", "A tile is a square"),
        ("the face of a dice", "The face of a dice is a square"),
    ),
}
COLOUR_IDEAS: dict[str, tuple[tuple[str, str], ...]] = {
    "green": (("grass", "Grass is green"),),
    "red": (("a ripe tomato", "A ripe tomato is red"),),
    "blue": (("the sky", "The sky is blue"),),
    "yellow": (("a lemon", "A lemon is yellow"),),
    "black": (("coal", "Coal is black"),),
    "white": (("snow", "Snow is white"),),
    "purple": (("an aubergine", "An aubergine is purple"),),
    "orange": (("a carrot", "A carrot is orange"),),
}

_NOUNS = (("shape", "shapes"), ("object", "objects"), ("thing", "things"))
_NUMBERS = ("no", "one", "two", "three", "four", "five", "six")
_LEAD = 1.12
_LEAD_IN = (
    "",
    "",
    "",
    "find ",
    "segment ",
    "please mark ",
    "show me ",
    "select ",
    "where is ",
    "i need ",
)


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


@dataclass(frozen=True)
class _Ask:
    """What a builder needs: the objects, left to right, and the source of chance."""

    objects: Sequence[SceneObject]
    rng: np.random.Generator

    def pick(self, options: Sequence[str]) -> str:
        return options[int(self.rng.integers(len(options)))]

    def noun(self) -> tuple[str, str]:
        return _NOUNS[int(self.rng.integers(len(_NOUNS)))]

    def with_lead_in(self, phrase: str) -> str:
        lead_in = self.pick(_LEAD_IN)
        return f"{lead_in}{phrase}" + ("?" if lead_in == "where is " else "")

    def index_if(self, test: Callable[[SceneObject], bool]) -> list[int]:
        return [i for i, o in enumerate(self.objects) if test(o)]


def make_request(
    objects: Sequence[SceneObject], kind: str, rng: np.random.Generator
) -> SceneRequest | None:
    """Builds a request of a kind.

    Args:
        objects: The scene's objects, in any order.
        kind: One of `KINDS`.
        rng: Where every choice comes from.

    Returns:
        The request, its targets being indices into `objects`; None where the scene does
        not allow this kind ("the largest" of two equals, say).
    """
    order = sorted(range(len(objects)), key=lambda i: objects[i].center_px.x)
    ask = _Ask([objects[i] for i in order], rng)
    built = _BUILDERS[kind](ask)
    if built is None:
        return None
    phrase, targets, because = built
    reasoning = f"{_inventory(ask.objects)} {because}"
    return SceneRequest(phrase, kind, tuple(order[i] for i in sorted(targets)), reasoning)


_Built = tuple[str, list[int], str] | None


def _name(o: SceneObject) -> str:
    return f"{o.colour} {o.shape}"


def _a(words: str) -> str:
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def _plural(shape: str) -> str:
    return f"{shape}es" if shape == "cross" else f"{shape}s"


def _join(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _inventory(objects: Sequence[SceneObject]) -> str:
    return f"From left to right I see {_join([_a(_name(o)) for o in objects])}."


def _attribute(ask: _Ask) -> _Built:
    options: list[tuple[int, list[str]]] = []
    for i, o in enumerate(ask.objects):
        c, s = o.colour, o.shape
        if len(ask.index_if(lambda x, c=c, s=s: (x.colour, x.shape) == (c, s))) == 1:
            both = [f"the {c} {s}", f"the {c} {s}", f"{c} {s}", f"the {s} that is {c}"]
            options += [(i, both), (i, both)]
        if len(ask.index_if(lambda x, s=s: x.shape == s)) == 1:
            options.append((i, [f"the {s}", f"{s}", _a(s)]))
        if len(ask.index_if(lambda x, c=c: x.colour == c)) == 1:
            noun = ask.noun()[0]
            options.append((i, [f"the {c} {noun}", f"the {c} one", f"{c}", f"the {noun} in {c}"]))
    if not options:
        return None
    i, phrases = options[int(ask.rng.integers(len(options)))]
    return ask.with_lead_in(ask.pick(phrases)), [i], f"It is the {_name(ask.objects[i])}."


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
    edges = {
        "leftmost": lambda o: -o.box_px.x1,
        "rightmost": lambda o: o.box_px.x2,
        "topmost": lambda o: -o.box_px.y1,
        "bottommost": lambda o: o.box_px.y2,
    }[word]
    return ranked[0] if clear and edges(first) >= max(edges(o) for o in pool) else None


def _superlative(ask: _Ask) -> _Built:
    singular, plural = ask.noun()
    pools: list[tuple[list[int], str, str]] = [
        (list(range(len(ask.objects))), singular, plural),
        (list(range(len(ask.objects))), singular, plural),
    ]
    for colour in COLOURS:
        pools.append((ask.index_if(lambda o, c=colour: o.colour == c), f"{colour} {singular}",
                      f"{colour} {plural}"))
    for shape in SHAPES:
        pools.append((ask.index_if(lambda o, s=shape: o.shape == s), shape, _plural(shape)))
    pools = [p for p in pools if len(p[0]) >= 2]
    for k in ask.rng.permutation(len(pools)):
        members, one, many = pools[k]
        word = ask.pick(tuple(_SUPERLATIVES))
        winner = _leads([ask.objects[i] for i in members], word)
        if winner is not None:
            phrase = ask.pick(_SUPERLATIVES[word][0]).format(one)
            target = members[winner]
            because = f"The {word} of the {many} is the {_name(ask.objects[target])}."
            return ask.with_lead_in(phrase), [target], because
    return None


def _relation(ask: _Ask) -> _Built:
    if len(ask.objects) < 3:
        return None
    for k in ask.rng.permutation(len(ask.objects)):
        anchor = ask.objects[k]
        if len(ask.index_if(lambda o, a=anchor: _name(o) == _name(a))) > 1:
            continue
        far = sorted(
            (math.dist((o.center_px.x, o.center_px.y), (anchor.center_px.x, anchor.center_px.y)), i)
            for i, o in enumerate(ask.objects)
            if i != k
        )
        if far[1][0] < far[0][0] * 1.2:
            continue
        noun = ask.noun()[0]
        name = _name(anchor)
        phrase = ask.pick(
            (
                f"the {noun} closest to the {name}",
                f"the {noun} nearest to the {name}",
                f"the nearest neighbour of the {name}",
                f"what is closest to the {name}",
            )
        )
        target = far[0][1]
        because = f"Closest to the {name} is the {_name(ask.objects[target])}."
        return ask.with_lead_in(phrase), [target], because
    return None


def _exclusion(ask: _Ask) -> _Built:
    if len(ask.objects) < 3:
        return None
    options: list[tuple[int, str, str]] = []
    for i in range(len(ask.objects)):
        rest = [o for j, o in enumerate(ask.objects) if j != i]
        colours, shapes = {o.colour for o in rest}, {o.shape for o in rest}
        if len(colours) == 1 and ask.objects[i].colour not in colours:
            colour = colours.pop()
            options.append((i, colour, colour))
        if len(shapes) == 1 and ask.objects[i].shape not in shapes:
            shape = shapes.pop()
            options.append((i, _a(shape), _plural(shape)))
    if not options:
        return None
    i, one, many = options[int(ask.rng.integers(len(options)))]
    noun = ask.noun()[0]
    phrase = ask.pick(
        (
            f"the only {noun} that is not {one}",
            f"the {noun} that is not {one}",
            f"the one that isn't {one}",
            f"the odd one out that is not {one}",
        )
    )
    because = f"All are {many} except the {_name(ask.objects[i])}."
    return ask.with_lead_in(phrase), [i], because


def _groups(ask: _Ask) -> list[tuple[str, str, list[str]]]:
    """(colour or "", shape or "", wordings) of every group that can be asked for."""
    noun, nouns = ask.noun()
    groups = []
    for c in COLOURS:
        groups.append(
            (c, "", [f"all {c} {nouns}", f"every {c} {noun}", f"the {c} {nouns}", f"{c} {nouns}", c])
        )
    for s in SHAPES:
        many = _plural(s)
        groups.append(("", s, [f"all {many}", f"every {s}", f"the {many}", many, s]))
    for c in COLOURS:
        for s in SHAPES:
            many = _plural(s)
            groups.append((c, s, [f"all {c} {many}", f"every {c} {s}", f"{c} {many}"]))
    groups.append(("", "", [f"all {nouns}", f"every {noun}", "everything", f"all the {nouns}"]))
    return groups


def _matches(o: SceneObject, colour: str, shape: str) -> bool:
    return colour in ("", o.colour) and shape in ("", o.shape)


def _plural_request(ask: _Ask) -> _Built:
    options = []
    for colour, shape, phrases in _groups(ask):
        members = ask.index_if(lambda o, c=colour, s=shape: _matches(o, c, s))
        if len(members) >= 2:
            options.append((members, phrases))
    members, phrases = options[int(ask.rng.integers(len(options)))]
    names = _join([f"the {_name(ask.objects[i])}" for i in members])
    count = _NUMBERS[len(members)].capitalize()
    return ask.with_lead_in(ask.pick(phrases)), members, f"{count} match: {names}."


def _absent(ask: _Ask) -> _Built:
    colours = {o.colour for o in ask.objects}
    shapes = {o.shape for o in ask.objects}
    if ask.rng.random() < 0.25:
        return _absent_idea(ask, colours, shapes)
    options = []
    for colour, shape, phrases in _groups(ask):
        if ask.index_if(lambda o, c=colour, s=shape: _matches(o, c, s)):
            continue
        near = (colour in colours) + (shape in shapes)
        one = f"{colour} {shape}".strip()
        the = [f"the {one}"] * 3 if colour and shape else []
        what = _a(one) if shape else colour
        options.append((1 + 4 * near, phrases + the, what))
    weights = np.asarray([o[0] for o in options], dtype=float)
    _, phrases, what = options[int(ask.rng.choice(len(options), p=weights / weights.sum()))]
    return ask.with_lead_in(ask.pick(phrases)), [], f"None of them is {what}."


_SHAPE_IDEA = (
    "the {noun} that looks like {idea}",
    "something like {idea}",
    "which {noun} reminds you of {idea}?",
    "what could be {idea}?",
)
_COLOUR_IDEA = (
    "the {noun} that has the colour of {idea}",
    "the one with the colour of {idea}",
    "which {noun} is the colour of {idea}?",
    "what has the same colour as {idea}?",
)


def _idea(ask: _Ask, options: Sequence[tuple[str, str]]) -> tuple[str, str, str, str]:
    """A wording, its explanation, and the colour and shape (one of them "") it means."""
    colour, shape = options[int(ask.rng.integers(len(options)))]
    ideas = SHAPE_IDEAS[shape] if shape else COLOUR_IDEAS[colour]
    idea, why = ideas[int(ask.rng.integers(len(ideas)))]
    wording = ask.pick(_SHAPE_IDEA if shape else _COLOUR_IDEA)
    return wording.format(noun=ask.noun()[0], idea=idea), why, colour, shape


def _implicit(ask: _Ask) -> _Built:
    options = [
        (colour, shape)
        for colour, shape in [(c, "") for c in COLOURS] + [("", s) for s in SHAPES]
        if len(ask.index_if(lambda o, c=colour, s=shape: _matches(o, c, s))) == 1
    ]
    if not options:
        return None
    phrase, why, colour, shape = _idea(ask, options)
    target = ask.index_if(lambda o: _matches(o, colour, shape))[0]
    return phrase, [target], f"{why}, so it is the {_name(ask.objects[target])}."


def _absent_idea(ask: _Ask, colours: set[str], shapes: set[str]) -> _Built:
    options = [(c, "") for c in COLOURS if c not in colours]
    options += [("", s) for s in SHAPES if s not in shapes]
    phrase, why, colour, shape = _idea(ask, options)
    what = colour if colour else _a(shape)
    return phrase, [], f"{why}, but none of them is {what}."


_BUILDERS: dict[str, Callable[[_Ask], _Built]] = {
    "attribute": _attribute,
    "superlative": _superlative,
    "relation": _relation,
    "exclusion": _exclusion,
    "plural": _plural_request,
    "absent": _absent,
    "implicit": _implicit,
}
