"""The labelling config this backend is made for, written in one place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from xml.etree import ElementTree

REQUEST_FIELD: Final = "request"
"""The field of a task's data that holds the request."""

REQUEST_CONTROL: Final = "request"
"""Name of the TextArea in which the annotator types another request."""

NOTES_CONTROL: Final = "notes"
"""Name of the TextArea that shows the model's reasons."""

STATUS_CONTROL: Final = "status"
"""Name of the TextArea that tells an annotator what went wrong."""

_COLUMNS: Final = "display: flex; gap: 1.5rem; align-items: flex-start"
_PICTURE: Final = "flex: 3 1 0; min-width: 0"
_BESIDE: Final = "flex: 2 1 0; min-width: 15rem"
"""The reasons beside the picture: below a tall one nobody would see them."""

_HINTS: Final = "margin-top: 0.5rem"
_STATUS: Final = "segzero-status"
_NO_INPUT: Final = f".{_STATUS} form {{ display: none }}"
"""Nobody is to write there, and while nothing went wrong nothing is to be seen of it."""

_HOW_TO: Final = "With Auto-Annotation: click on it (Alt: not on it), or draw a box around it"

_COLOURS: Final = (
    "#e600e6",
    "#e6194b",
    "#3cb44b",
    "#4363d8",
    "#f58231",
    "#911eb4",
    "#008080",
    "#9a6324",
    "#808000",
)


def labelling_config(
    labels: Sequence[str] = ("Object",), request_field: str | None = REQUEST_FIELD
) -> str:
    """A labelling config that this backend serves in full.

    The picture comes from `$image`. Label Studio refuses tasks that lack a field which the
    config shows, so leave `request_field` out where the tasks carry no request.

    Args:
        labels: Those of the brush, and of the points and boxes that hint at things; with
            several of them and no request in a task, each label is a request.
        request_field: Field of the task's data that holds the request, or None.

    Returns:
        The config as indented XML without a final newline.
    """
    view = ElementTree.Element("View")
    if request_field is not None:
        ElementTree.SubElement(view, "Header", value=f"${request_field}")
    columns = ElementTree.SubElement(view, "View", style=_COLUMNS)
    picture = ElementTree.SubElement(columns, "View", style=_PICTURE)
    image = {"name": "image", "value": "$image", "zoom": "true", "zoomControl": "true"}
    ElementTree.SubElement(picture, "Image", image)
    beside = ElementTree.SubElement(columns, "View", style=_BESIDE)
    # What is painted is meant as it is: only clicks and boxes are hints to the model.
    _labels(beside, "BrushLabels", {"name": "brush", "smart": "false"}, labels)
    hints = ElementTree.SubElement(beside, "View", style=_HINTS)
    ElementTree.SubElement(hints, "Header", value=_HOW_TO, size="6")
    _labels(hints, "KeyPointLabels", {"name": "click", "smart": "true"}, labels)
    _labels(hints, "RectangleLabels", {"name": "box", "smart": "true"}, labels)
    _texts(beside)
    ElementTree.indent(view)
    return ElementTree.tostring(view, encoding="unicode")


def _labels(
    parent: ElementTree.Element, tag: str, attributes: dict[str, str], labels: Sequence[str]
) -> None:
    control = ElementTree.SubElement(parent, tag, {**attributes, "toName": "image"})
    for index, label in enumerate(labels):
        colour = _COLOURS[index % len(_COLOURS)]
        ElementTree.SubElement(control, "Label", value=label, background=colour)


def _texts(parent: ElementTree.Element) -> None:
    """What tells problems, what tells reasons, and what is typed into."""
    problems = ElementTree.SubElement(parent, "View", className=_STATUS)
    ElementTree.SubElement(problems, "Style").text = _NO_INPUT
    status = {
        "name": STATUS_CONTROL,
        "toName": "image",
        "smart": "false",
        "editable": "false",
        "maxSubmissions": "1",
    }
    ElementTree.SubElement(problems, "TextArea", status)
    notes = {
        "name": NOTES_CONTROL,
        "toName": "image",
        "smart": "false",
        "editable": "true",
        "maxSubmissions": "1",
        "rows": "3",
        "placeholder": "The model's reasons appear here",
    }
    ElementTree.SubElement(parent, "TextArea", notes)
    prompt = {
        "name": REQUEST_CONTROL,
        "toName": "image",
        "smart": "true",
        "editable": "true",
        "rows": "1",
        "placeholder": "Find something else: describe it, press Enter",
    }
    ElementTree.SubElement(parent, "TextArea", prompt)
