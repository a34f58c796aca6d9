"""Finds in a labelling config's tags the controls that this backend fills."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from backend.controls import Kind, Label, Shape, Verdict
from backend.xml_tags import Tag

PRESENT_NAMES: Final = ("present", "found", "yes", "true", "visible")
ABSENT_NAMES: Final = ("absent", "not present", "not found", "no", "false", "missing", "nothing")
"""Choices that say that what was asked for is, or is not, in the picture."""

_KINDS: Final = {f"{kind.value}labels": kind for kind in Kind}


def targets(tag: Tag) -> list[str]:
    """Names of the objects that a control is for."""
    return [name.strip() for name in tag.attributes.get("toName", "").split(",")]


def is_true(tag: Tag, name: str, *, default: bool = False) -> bool:
    """What a yes-or-no attribute says."""
    value = tag.attributes.get(name, "").strip().lower()
    return value == "true" if value in ("true", "false") else default


def read_shapes(tags: list[Tag], image: str) -> tuple[Shape, ...]:
    """The controls with labels that draw on an image.

    A smart keypoint or rectangle control beside another one is there for clicking: what it
    draws are hints to the model, and predictions are shown with the others.
    """
    shapes: list[Shape] = []
    for index, tag in enumerate(tags):
        kind, name = _KINDS.get(tag.name), tag.attributes.get("name", "")
        labels = () if kind is None else _labels(tags, index)
        if kind is None or not name or not labels or image not in targets(tag):
            continue
        hints = kind in (Kind.RECTANGLE, Kind.KEYPOINT)
        is_hint = hints and (is_true(tag, "smart") or is_true(tag, "smartOnly"))
        shapes.append(Shape(kind, name, labels, is_output=not is_hint))
    if any(shape.is_output for shape in shapes):
        return tuple(shapes)
    boxes = [shape for shape in shapes if shape.kind is Kind.RECTANGLE]
    shown = boxes or shapes
    return tuple(replace(shape, is_output=shape in shown) for shape in shapes)


def image_texts(tags: list[Tag], image: str, *, per_region: bool = False) -> list[Tag]:
    """The TextArea tags of an image, of its regions or of itself."""
    return [
        tag
        for tag in tags
        if tag.name == "textarea"
        and tag.attributes.get("name")
        and image in targets(tag)
        and is_true(tag, "perRegion") == per_region
    ]


def read_verdict(tags: list[Tag], image: str, shapes: Sequence[Shape]) -> Verdict | None:
    """The first Choices that says what is in the picture, by present and absent or by label."""
    for index, tag in enumerate(tags):
        name = tag.attributes.get("name", "")
        if tag.name != "choices" or not name or image not in targets(tag):
            continue
        if is_true(tag, "perRegion") or is_true(tag, "perItem"):
            continue
        verdict = _verdict(tags, index, name, shapes)
        if verdict is not None:
            return verdict
    return None


def _verdict(tags: list[Tag], at: int, name: str, shapes: Sequence[Shape]) -> Verdict | None:
    stored: dict[str, str] = {}  # by every way to name the choice
    for index, tag in enumerate(tags):
        value = tag.attributes.get("value", "").strip()
        if (
            tag.name == "choice"
            and value
            and not value.startswith("$")
            and _is_inside(tags, index, at)
        ):
            alias = tag.attributes.get("alias", "").strip()
            for way in (value, alias):
                stored.setdefault(way.lower(), alias or value)
    stored.pop("", None)
    is_multiple = tags[at].attributes.get("choice", "").lower() == "multiple"
    present = next((stored[way] for way in PRESENT_NAMES if way in stored), None)
    absent = next((stored[way] for way in ABSENT_NAMES if way in stored), None)
    if present is not None:
        return Verdict(name, present, absent, is_multiple=is_multiple)
    labels = {label.name: label for shape in shapes for label in shape.labels}
    by_label = {
        label.name: stored[way.lower()]
        for label in labels.values()
        for way in label.names
        if way.lower() in stored
    }
    if by_label:
        return Verdict(name, None, absent, by_label, is_multiple)
    return None


def _labels(tags: list[Tag], control_at: int) -> tuple[Label, ...]:
    labels: dict[str, Label] = {}
    for index, tag in enumerate(tags):
        if tag.name != "label" or not _is_inside(tags, index, control_at):
            continue
        value = tag.attributes.get("value", "").strip()
        alias = tag.attributes.get("alias", "").strip()
        hint = tag.attributes.get("hint", "").strip()
        if not value or value.startswith("$"):
            continue
        names = tuple(dict.fromkeys(name for name in (value, alias, hint) if name))
        label = Label(alias or value, hint or alias or value, names)
        labels.setdefault(label.name, label)
    return tuple(labels.values())


def _is_inside(tags: list[Tag], index: int, ancestor: int) -> bool:
    while index > ancestor:
        index = tags[index].parent
    return index == ancestor
