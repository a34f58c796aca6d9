"""What to export, and what became of it. Imports nothing heavy: the command line names these."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segzero_ml.verdict import Verdict

if TYPE_CHECKING:
    from training_hooks.store_values import ProjectKey


class Format(StrEnum):
    """Forms of a data set."""

    JSONL = "jsonl"
    COCO = "coco"
    REASONSEG = "reasonseg"


class LeftOut(StrEnum):
    """Why a correction is not in the export."""

    NO_IMAGE = "its image could not be fetched"
    CHANGED_IMAGE = "its image has changed since it was annotated"
    BAD_IMAGE = "its image is damaged, too large, or of an unknown format"
    BAD_MASK = "a mask of it cannot be written in this format"
    BAD_REQUEST = "a request of it is one that no model takes"
    DAMAGED = "it is damaged in the store"


@dataclass(frozen=True, slots=True)
class Order:
    """What to export.

    Args:
        format: In which form.
        out: Into which folder.
        projects: Of which projects.
        verdict: Only targets with this verdict.
        since: Only targets saved then or later.
        force: Replace an earlier export.
    """

    format: Format
    out: Path
    projects: tuple[ProjectKey, ...]
    verdict: Verdict | None = None
    since: datetime | None = None
    force: bool = False


@dataclass(slots=True)
class Summary:
    """What became of the corrections.

    Attributes:
        seen: Corrections looked at.
        exported: Corrections written, one a task.
        requests: Requests written, of which `nothing_here` match nothing.
        others: Not asked for, or another annotation of their task is the one to learn from.
        left_out: How many were left out for which reason.
        first_problem: What was said about the first one left out.
    """

    seen: int = 0
    exported: int = 0
    requests: int = 0
    nothing_here: int = 0
    others: int = 0
    left_out: Counter[LeftOut] = field(default_factory=Counter)
    first_problem: str = ""

    def as_dict(self) -> dict[str, Any]:
        """As JSON's own types."""
        return {
            "seen": self.seen,
            "exported": self.exported,
            "requests": self.requests,
            "nothing_here": self.nothing_here,
            "others": self.others,
            "left_out": {reason.name.lower(): number for reason, number in self.left_out.items()},
        }
