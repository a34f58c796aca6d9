"""The words of tabletop requests and reasons: nouns, lists, and what things remind one of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from segzero_ml.tiny.scenes import COLOURS, SHAPES, SceneObject
from segzero_ml.types import ImageSize

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

NOUNS = (("shape", "shapes"), ("object", "objects"), ("thing", "things"))
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


@dataclass(frozen=True)
class Ask:
    """What a builder needs: the objects, left to right, their picture, and chance."""

    objects: Sequence[SceneObject]
    size: ImageSize
    rng: np.random.Generator

    def pick(self, options: Sequence[str]) -> str:
        """One of the options, at random."""
        return options[int(self.rng.integers(len(options)))]

    def noun(self) -> tuple[str, str]:
        """A general noun and its plural."""
        return NOUNS[int(self.rng.integers(len(NOUNS)))]

    def with_lead_in(self, phrase: str) -> str:
        """The phrase, perhaps as an order or a question."""
        lead_in = self.pick(_LEAD_IN)
        return f"{lead_in}{phrase}" + ("?" if lead_in == "where is " else "")

    def matching(self, colour: str = "", shape: str = "") -> list[int]:
        """Indices of the objects that have the colour and the shape; an empty one fits all."""
        return [
            i
            for i, o in enumerate(self.objects)
            if colour in ("", o.colour) and shape in ("", o.shape)
        ]


Built = tuple[str, list[int], str] | None
"""What is asked, the objects that answer it, and why."""


def called(o: SceneObject) -> str:
    """Colour and shape, as an object is called."""
    return f"{o.colour} {o.shape}"


def with_article(words: str) -> str:
    """The words with `a` or `an`."""
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def plural_of(shape: str) -> str:
    """More than one of a shape."""
    return f"{shape}es" if shape == "cross" else f"{shape}s"


def one_of(colour: str, shape: str) -> str:
    """What one of a group is called: `red ring`, `red shape`, `ring` or `shape`.

    In the very words of the list of objects, so that like is found by like.
    """
    return f"{colour} {shape or 'shape'}".strip()


def checked(ask: Ask, goal: str, findings: Sequence[str], conclusion: str) -> str:
    """The reasoning: what is looked for, each object checked in turn, what follows.

    Every finding stands right behind its object, and the conclusion repeats what was found:
    a small model reasons only as far as each word follows from those just written.
    """
    looked = "; ".join(
        f"{with_article(called(o))}, {finding}"
        for o, finding in zip(ask.objects, findings, strict=True)
    )
    return f"{goal}. From left to right: {looked}. {conclusion}."


def filtered(ask: Ask, goal: str, members: Sequence[int]) -> str:
    """The reasoning that says yes or no to each object."""
    found = ", ".join(f"the {called(ask.objects[i])}" for i in members)
    return checked(
        ask, goal, verdicts(ask, members), f"Found: {found}" if members else "Found nothing"
    )


def verdicts(ask: Ask, members: Sequence[int]) -> list[str]:
    """Yes or no for each object."""
    return ["yes" if i in members else "no" for i in range(len(ask.objects))]


def groups(ask: Ask) -> list[tuple[str, str, list[str]]]:
    """(colour or "", shape or "", wordings) of every group that can be asked for."""
    noun, nouns = ask.noun()
    groups = []
    for c in COLOURS:
        groups.append(
            (
                c,
                "",
                [f"all {c} {nouns}", f"every {c} {noun}", f"the {c} {nouns}", f"{c} {nouns}", c],
            )
        )
    for s in SHAPES:
        many = plural_of(s)
        groups.append(("", s, [f"all {many}", f"every {s}", f"the {many}", many, s]))
    for c in COLOURS:
        for s in SHAPES:
            many = plural_of(s)
            groups.append((c, s, [f"all {c} {many}", f"every {c} {s}", f"{c} {many}"]))
    groups.append(("", "", [f"all {nouns}", f"every {noun}", "everything", f"all the {nouns}"]))
    return groups
