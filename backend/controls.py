"""The controls of a labelling config that this backend fills."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final


class Kind(StrEnum):
    """What a control draws; its tag is `<Kind>Labels`, its results are `<kind>labels`."""

    BRUSH = "brush"
    BITMASK = "bitmask"
    POLYGON = "polygon"
    RECTANGLE = "rectangle"
    KEYPOINT = "keypoint"


MASKS: Final = (Kind.BRUSH, Kind.BITMASK, Kind.POLYGON)
"""Kinds that show a mask, the most exact first; the others only say where it is."""


@dataclass(frozen=True, slots=True)
class Label:
    """One label of a control.

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
class Shape:
    """A control that draws regions.

    Args:
        kind: What it draws.
        name: Its name.
        labels: Its labels, at least one.
        is_output: Whether predictions are shown with it; else it is there for clicking only.
    """

    kind: Kind
    name: str
    labels: tuple[Label, ...]
    is_output: bool = True

    def has(self, label: str) -> bool:
        """Whether a label is one of this control's."""
        return any(one.name == label for one in self.labels)


@dataclass(frozen=True, slots=True)
class Verdict:
    """A Choices that says whether what was asked for is in the picture.

    Args:
        name: Its name.
        present: The choice for "found"; None where each label has a choice of its own.
        absent: The choice for "not found", if there is one.
        by_label: The choice of each label, where the choices are the labels.
        is_multiple: Whether several choices may be taken.
    """

    name: str
    present: str | None = None
    absent: str | None = None
    by_label: Mapping[str, str] = field(default_factory=dict)
    is_multiple: bool = False
