"""What a project's labelling config offers this backend: controls, labels, request, notes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from backend.config_controls import image_texts, is_true, read_shapes, read_verdict, targets
from backend.controls import MASKS, Kind, Label, Shape, Verdict
from backend.templates import NOTES_CONTROL, REQUEST_CONTROL, STATUS_CONTROL, labelling_config
from backend.xml_tags import Tag, read_tags
from segzero_ml.errors import LabellingConfigError

REQUEST_NAMES: Final = (REQUEST_CONTROL, "prompt")
"""Names that mark a TextArea, a Text or a Header as the place of the request."""

NOTES_NAMES: Final = (NOTES_CONTROL, "note", "reasoning", "reasons")
"""Names that mark a TextArea as the place of the model's reasons."""

STATUS_NAMES: Final = (STATUS_CONTROL,)
"""Names that mark a TextArea as the place where a person who waits is told what went wrong."""

_FIELD = re.compile(r"\$([A-Za-z_][\w.-]*)")
_TEXT_TAGS: Final = frozenset({"text", "header", "hypertext", "markdown"})
_SERVED: Final = (
    "BrushLabels, BitmaskLabels, PolygonLabels, RectangleLabels or KeyPointLabels tag, "
    "no Choices for present and absent, and no TextArea for the notes"
)


@dataclass(frozen=True, slots=True)
class Labelling:
    """What this backend needs to know of a labelling config.

    Args:
        image: Name of the Image object.
        image_field: Field of the task's data that holds the image.
        shapes: Controls that draw regions, in the config's order.
        request_fields: Fields of the task's data that the config shows as the request.
        default_request: What is asked where a task says nothing; None for each label.
        prompt: Name of the TextArea the annotator types requests into, or None.
        notes: Name of the image-level TextArea for the reasons, or None.
        status: Name of the TextArea that tells what went wrong with a click, or None.
        region_notes: Name of the TextArea for the reasons of each region, or None.
        verdict: The Choices for present or absent, or None.
        warnings: What works less well than it could, in sentences for the user.
    """

    image: str
    image_field: str
    shapes: tuple[Shape, ...] = ()
    request_fields: tuple[str, ...] = ()
    default_request: str | None = None
    prompt: str | None = None
    notes: str | None = None
    status: str | None = None
    region_notes: str | None = None
    verdict: Verdict | None = None
    warnings: tuple[str, ...] = ()

    @property
    def outputs(self) -> tuple[Shape, ...]:
        """The controls that predictions are shown with."""
        return tuple(shape for shape in self.shapes if shape.is_output)

    @property
    def labels(self) -> tuple[Label, ...]:
        """The labels of these controls, each once; none where there are no such controls."""
        labels: dict[str, Label] = {}
        for shape in self.outputs:
            for label in shape.labels:
                labels.setdefault(label.name, label)
        return tuple(labels.values())

    @property
    def brush(self) -> str | None:
        """Name of the first BrushLabels, if there is one."""
        return next((one.name for one in self.shapes if one.kind is Kind.BRUSH), None)

    @property
    def masked_labels(self) -> frozenset[str]:
        """Labels with which people can draw a mask: a box with one of them is no truth."""
        return self._labels_of(*MASKS)

    @property
    def pointed_labels(self) -> frozenset[str]:
        """Labels that are shown as points only, from which no mask can be learnt."""
        return self._labels_of(Kind.KEYPOINT) - self._labels_of(*MASKS, Kind.RECTANGLE)

    def _labels_of(self, *kinds: Kind) -> frozenset[str]:
        shapes = [shape for shape in self.shapes if shape.kind in kinds]
        return frozenset(label.name for shape in shapes for label in shape.labels)


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
    image = _image(tags)
    image_field = _field(image.attributes.get("value", ""))
    if image_field is None:
        raise _unusable('has an Image tag without value="$field": the task data has no image')
    name = image.attributes["name"]
    shapes = read_shapes(tags, name)
    verdict = read_verdict(tags, name, shapes)
    areas = image_texts(tags, name)
    region_areas = image_texts(tags, name, per_region=True)
    prompt, notes = _named(areas, REQUEST_NAMES), _named(areas, NOTES_NAMES)
    status = _status(areas)
    if not shapes and verdict is None and notes is None:
        raise _unserved(tags)
    return Labelling(
        image=name,
        image_field=image_field,
        shapes=shapes,
        request_fields=_request_fields(tags, prompt),
        default_request=_default_request(tags, prompt),
        prompt=_name_of(prompt),
        notes=_name_of(notes),
        status=_name_of(status),
        region_notes=_name_of(_region_notes(region_areas)),
        verdict=verdict,
        warnings=_warnings(prompt, notes, status, shapes),
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


def _unserved(tags: list[Tag]) -> LabellingConfigError:
    """Why nothing of the config can be filled."""
    for tag in tags:
        if tag.name in ("brushlabels", "bitmasklabels", "polygonlabels", "rectanglelabels"):
            written = tag.name.removesuffix("labels").capitalize() + "Labels"
            return _unusable(f"has a {written} tag without a Label tag that has a fixed value")
    return _unusable(f"has no {_SERVED}: predictions cannot be shown")


def _field(value: str) -> str | None:
    found = _FIELD.fullmatch(value.strip())
    return found[1] if found else None


def _image(tags: list[Tag]) -> Tag:
    """The Image that the first control that has one is for."""
    images = {tag.attributes.get("name", ""): tag for tag in tags if tag.name == "image"}
    images.pop("", None)
    if not images:
        raise _unusable("has no Image tag with a name")
    controls = [tag for tag in tags if "toName" in tag.attributes]
    # A Choices or a TextArea may be about something else in the same project.
    controls.sort(key=lambda tag: not tag.name.endswith("labels"))
    for tag in controls:
        for name in targets(tag):
            if name in images and tag.attributes.get("name"):
                return images[name]
    if any(tag.name.endswith("labels") for tag in controls):
        raise _unusable("has a Labels tag without a name, or whose toName is no Image tag")
    raise _unusable(f"has no {_SERVED}: predictions cannot be shown")


def _named(areas: list[Tag], names: tuple[str, ...]) -> Tag | None:
    """The TextArea with the first of the names, however it is capitalised."""
    by_name = {tag.attributes.get("name", "").lower(): tag for tag in reversed(areas)}
    return next((by_name[name] for name in names if name in by_name), None)


def _status(areas: list[Tag]) -> Tag | None:
    """The TextArea for problems: never one that annotators write into, whatever its name."""
    found = _named(areas, STATUS_NAMES)
    if found is None or is_true(found, "smart", default=True) or is_true(found, "editable"):
        return None
    return found


def _region_notes(areas: list[Tag]) -> Tag | None:
    """The per-region TextArea with a name for notes, else the only one there is."""
    found = _named(areas, NOTES_NAMES)
    if found is None and len(areas) == 1:
        only = areas[0]
        return None if only.attributes.get("name", "").lower() in REQUEST_NAMES else only
    return found


def _name_of(tag: Tag | None) -> str | None:
    return None if tag is None else tag.attributes["name"]


def _request_sources(tags: list[Tag], prompt: Tag | None) -> list[Tag]:
    """What shows the request: the prompt box, a Text or a Header."""
    sources = [] if prompt is None else [prompt]
    for tag in tags:
        fields = _FIELD.findall(tag.attributes.get("value", ""))
        named = tag.attributes.get("name", "").lower() in REQUEST_NAMES
        if tag.name in _TEXT_TAGS and (named or set(fields) & set(REQUEST_NAMES)):
            sources.append(tag)
    return sources


def _request_fields(tags: list[Tag], prompt: Tag | None) -> tuple[str, ...]:
    sources = _request_sources(tags, prompt)
    found = [f for tag in sources for f in _FIELD.findall(tag.attributes.get("value", ""))]
    return tuple(dict.fromkeys(found))


def _default_request(tags: list[Tag], prompt: Tag | None) -> str | None:
    """The fixed text of what shows the request."""
    for tag in _request_sources(tags, prompt):
        value = tag.attributes.get("value", "").strip()
        if value and not _FIELD.search(value):
            return value
    return None


def _warnings(
    prompt: Tag | None, notes: Tag | None, status: Tag | None, shapes: tuple[Shape, ...]
) -> tuple[str, ...]:
    warnings = []
    if prompt is None:
        warnings.append(
            f'No TextArea name="{REQUEST_CONTROL}": annotators cannot type another request.'
        )
    elif not is_true(prompt, "smart", default=True):
        warnings.append(
            f'The TextArea "{prompt.attributes["name"]}" has smart="false": '
            "what annotators type there does not reach the model."
        )
    if notes is None:
        warnings.append(
            f'No TextArea name="{NOTES_CONTROL}": the reasons show in the region details only.'
        )
    elif is_true(notes, "smart", default=True):
        warnings.append(
            f'The TextArea "{notes.attributes["name"]}" lacks smart="false": '
            "every edit of a note sends a call that changes nothing."
        )
    if status is None and not all(shape.is_output for shape in shapes):
        warnings.append(
            f'No TextArea name="{STATUS_CONTROL}" smart="false" that is not editable: what goes '
            f"wrong with a click is {'not shown' if notes is None else 'told among the reasons'}."
        )
    if not any(shape.kind in MASKS for shape in shapes):
        warnings.append(
            "No BrushLabels, BitmaskLabels or PolygonLabels: nobody can say where a mask is "
            "wrong, so that boxes are compared with boxes."
        )
    return tuple(warnings)
