"""The verdict of a correction; by itself, so that a command line can name it at once."""

from __future__ import annotations

from enum import StrEnum


class Verdict(StrEnum):
    """What the annotator made of the prediction; `backend.verdicts` holds the rule."""

    ACCEPTED = "accepted"
    EDITED = "edited"
    REJECTED = "rejected"
    NOTHING_HERE = "nothing_here"
    DRAWN_BY_HAND = "drawn_by_hand"
