"""What a project's labelling config offers this backend: controls, labels, request, notes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from backend.templates import NOTES_CONTROL, REQUEST_CONTROL, labelling_config
from backend.xml_tags import Tag, read_tags
from segzero_ml.errors import LabellingConfigError

REQUEST_NAMES: Final = (REQUEST_CONTROL, "prompt")
"""Names that mark a TextArea, a Text or a Header as the place of the request."""

NOTES_NAMES: Final = (NOTES_CONTROL, "note", "reasoning", "reasons")
"""Names that mark a TextArea as the place of the model's reasons."""

_FIELD = re.compile(r"\$([A-Za-z_][\w.-]*)")
_TEXT_TAGS: Final = frozenset({"text", "header", "hypertext", "markdown"})


@dataclass(frozen=True, slots=True)
class BrushLabel:
    """One label of the brush.

    Args:
        name: What Label Studio stores in a region: the alias if there is one, else the value.
        phrase: What to look for when the label itself is the request: the hint, else the
            alias, else the value.
        names: Every way to name the label: value, alias and hint.
    """

    name: str
    phrase: str
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Labelling:
    """What this backend needs to know of a labelling config.

    Args:
        brush: Name of the BrushLabels control.
        image: Name of the Image object.
        image_field: Field of the task's data that holds the image.
        labels: Labels of the brush, at least one.
        request_fields: Fields of the task's data that the config shows as the request.
        prompt: Name of the TextArea the annotator types requests into, or None.
        notes: Name of the image-level TextArea for the reasons, or None.
        warnings: What works less well than it could, in sentences for the user.
    """

    brush: str
    image: str
    image_field: str
    labels: tuple[BrushLabel, ...]
    request_fields: tuple[str, ...] = ()
    prompt: str | None = None
    notes: str | None = None
    warnings: tuple[str, ...] = ()


def parse_config(xml: str) -> Labelling:
    """Read a labelling config.

    Raises:
        LabellingConfigError: The config is no XML, or lacks a tag without which there is
            nothing to serve. The message names the tag; the remedy shows a config that works.
    """
    try:
        tags = read_tags(xml)
    except ValueError as error:
        raise _unusable(f"cannot be read: {error}") from None
    brush_at, image = _brush_and_image(tags)
    brush = tags[brush_at]
    image_field = _field(image.attributes.get("value", ""))
    if image_field is None:
        raise _unusable('has an Image tag without value="$field": the task data has no image')
    labels = _labels(tags, brush_at)
    prompt = _text_area(tags, image, REQUEST_NAMES)
    notes = _text_area(tags, image, NOTES_NAMES)
    return Labelling(
        brush=brush.attributes["name"],
        image=image.attributes["name"],
        image_field=image_field,
        labels=labels,
        request_fields=_request_fields(tags, prompt),
        prompt=None if prompt is None else prompt.attributes["name"],
        notes=None if notes is None else notes.attributes["name"],
        warnings=_warnings(prompt, notes),
    )


def is_unset(xml: str) -> bool:
    """Whether a config is still Label Studio's default: blank, or an empty View."""
    if not xml.strip():
        return True
    try:
        return [tag.name for tag in read_tags(xml)] == ["view"]
    except ValueError:
        return False


def _unusable(problem: str) -> LabellingConfigError:
    return LabellingConfigError(
        f"The labelling config {problem}.", f"A config that works:\n{labelling_config()}"
    )


def _field(value: str) -> str | None:
    found = _FIELD.fullmatch(value.strip())
    return found[1] if found else None


def _targets(tag: Tag) -> list[str]:
    return [name.strip() for name in tag.attributes.get("toName", "").split(",")]


def _brush_and_image(tags: list[Tag]) -> tuple[int, Tag]:
    """Index of the first BrushLabels that is for an Image, and that Image."""
    images = {tag.attributes.get("name", ""): tag for tag in tags if tag.name == "image"}
    images.pop("", None)
    if not images:
        raise _unusable("has no Image tag with a name")
    brushes = [i for i, tag in enumerate(tags) if tag.name == "brushlabels"]
    if not brushes:
        raise _unusable("has no BrushLabels tag, and masks can only be shown as brush regions")
    for index in brushes:
        for name in _targets(tags[index]):
            if name in images and tags[index].attributes.get("name"):
                return index, images[name]
    raise _unusable("has a BrushLabels tag without a name, or whose toName is no Image tag")


def _labels(tags: list[Tag], brush_at: int) -> tuple[BrushLabel, ...]:
    labels: dict[str, BrushLabel] = {}
    for index, tag in enumerate(tags):
        if tag.name != "label" or not _is_inside(tags, index, brush_at):
            continue
        value = tag.attributes.get("value", "").strip()
        alias = tag.attributes.get("alias", "").strip()
        hint = tag.attributes.get("hint", "").strip()
        if not value or value.startswith("$"):
            continue
        names = tuple(dict.fromkeys(name for name in (value, alias, hint) if name))
        label = BrushLabel(alias or value, hint or alias or value, names)
        labels.setdefault(label.name, label)
    if not labels:
        raise _unusable("has a BrushLabels tag without a Label tag that has a fixed value")
    return tuple(labels.values())


def _is_inside(tags: list[Tag], index: int, ancestor: int) -> bool:
    while index > ancestor:
        index = tags[index].parent
    return index == ancestor


def _text_area(tags: list[Tag], image: Tag, names: tuple[str, ...]) -> Tag | None:
    """The image-level TextArea with the first of the names, however it is capitalised."""
    areas = {
        tag.attributes.get("name", "").lower(): tag
        for tag in reversed(tags)
        if tag.name == "textarea"
        and image.attributes["name"] in _targets(tag)
        and tag.attributes.get("perRegion", "").lower() != "true"
    }
    return next((areas[name] for name in names if name in areas), None)


def _request_fields(tags: list[Tag], prompt: Tag | None) -> tuple[str, ...]:
    """Fields that the config shows as the request: by the prompt box, a Text or a Header."""
    sources = [] if prompt is None else [prompt]
    for tag in tags:
        fields = _FIELD.findall(tag.attributes.get("value", ""))
        named = tag.attributes.get("name", "").lower() in REQUEST_NAMES
        if tag.name in _TEXT_TAGS and (named or set(fields) & set(REQUEST_NAMES)):
            sources.append(tag)
    found = [f for tag in sources for f in _FIELD.findall(tag.attributes.get("value", ""))]
    return tuple(dict.fromkeys(found))


def _warnings(prompt: Tag | None, notes: Tag | None) -> tuple[str, ...]:
    warnings = []
    if prompt is None:
        warnings.append(
            f'No TextArea name="{REQUEST_CONTROL}": annotators cannot type another request.'
        )
    elif prompt.attributes.get("smart", "").lower() == "false":
        warnings.append(
            f'The TextArea "{prompt.attributes["name"]}" has smart="false": '
            "what annotators type there does not reach the model."
        )
    if notes is None:
        warnings.append(
            f'No TextArea name="{NOTES_CONTROL}": the reasons show in the region details only.'
        )
    elif notes.attributes.get("smart", "").lower() != "false":
        warnings.append(
            f'The TextArea "{notes.attributes["name"]}" lacks smart="false": '
            "editing a note asks the model again."
        )
    return tuple(warnings)
