"""Requests for groups, for what is not there, and for what something reminds one of."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from segzero_ml.tiny.scenes import COLOURS, SHAPES
from segzero_ml.tiny.wording import (
    COLOUR_IDEAS,
    SHAPE_IDEAS,
    Ask,
    Built,
    filtered,
    groups,
    one_of,
)


def plural(ask: Ask) -> Built:
    """Every object of a colour, a shape, both, or all there are; at least two."""
    options = []
    for colour, shape, phrases in groups(ask):
        members = ask.matching(colour, shape)
        if len(members) >= 2:
            options.append((members, one_of(colour, shape), phrases))
    members, group, phrases = options[int(ask.rng.integers(len(options)))]
    because = filtered(ask, f"Looking for any {group}", members)
    return ask.with_lead_in(ask.pick(phrases)), members, because


def absent(ask: Ask) -> Built:
    """Something that is not in the scene; often nearly so."""
    colours = {o.colour for o in ask.objects}
    shapes = {o.shape for o in ask.objects}
    if ask.rng.random() < 0.25:
        return _absent_idea(ask, colours, shapes)
    options = []
    for colour, shape, phrases in groups(ask):
        if ask.matching(colour, shape):
            continue
        near = (colour in colours) + (shape in shapes)
        one = f"{colour} {shape}".strip()
        the = [f"the {one}"] * 3 if colour and shape else []
        options.append((1 + 4 * near, phrases + the, one_of(colour, shape)))
    weights = np.asarray([o[0] for o in options], dtype=float)
    _, phrases, group = options[int(ask.rng.choice(len(options), p=weights / weights.sum()))]
    return ask.with_lead_in(ask.pick(phrases)), [], filtered(ask, f"Looking for any {group}", [])


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


def _idea(ask: Ask, options: Sequence[tuple[str, str]]) -> tuple[str, str, str, str]:
    """A wording, its explanation, and the colour and shape (one of them "") it means."""
    colour, shape = options[int(ask.rng.integers(len(options)))]
    ideas = SHAPE_IDEAS[shape] if shape else COLOUR_IDEAS[colour]
    idea, why = ideas[int(ask.rng.integers(len(ideas)))]
    wording = ask.pick(_SHAPE_IDEA if shape else _COLOUR_IDEA)
    return wording.format(noun=ask.noun()[0], idea=idea), why, colour, shape


def implicit(ask: Ask) -> Built:
    """The only object that is like something in the world."""
    options = [
        (colour, shape)
        for colour, shape in [(c, "") for c in COLOURS] + [("", s) for s in SHAPES]
        if len(ask.matching(colour, shape)) == 1
    ]
    if not options:
        return None
    phrase, why, colour, shape = _idea(ask, options)
    target = ask.matching(colour, shape)[0]
    return phrase, [target], filtered(ask, _sought(why, colour, shape), [target])


def _absent_idea(ask: Ask, colours: set[str], shapes: set[str]) -> Built:
    options = [(c, "") for c in COLOURS if c not in colours]
    options += [("", s) for s in SHAPES if s not in shapes]
    phrase, why, colour, shape = _idea(ask, options)
    return phrase, [], filtered(ask, _sought(why, colour, shape), [])


def _sought(why: str, colour: str, shape: str) -> str:
    return f"{why}: looking for any {one_of(colour, shape)}"
