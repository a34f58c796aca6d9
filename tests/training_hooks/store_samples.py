"""Corrections made up for the tests of the store: no fixtures, no tests."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from segzero_ml.corrections import Correction, CorrectionKey, LabelledSegment, Revision, Verdict
from segzero_ml.types import ImageSize, Rle
from training_hooks.store_reader import CorrectionReader
from training_hooks.store_values import ProjectKey

STUDIO = "http://label-studio:8080"
PROJECT = ProjectKey(STUDIO, 7)
MORNING = datetime(2026, 3, 1, 8, tzinfo=UTC)
TEN_BY_TEN = ImageSize(10, 10)
SEGMENT = LabelledSegment(Rle(10, 10, "ST1"), "Object", "the red star")


def revision(second: float = 0, content: str = "") -> Revision:
    """A state saved so many seconds after eight in the morning."""
    digest = hashlib.sha256(content.encode()).hexdigest()
    return Revision(MORNING + timedelta(seconds=second), digest)


def correction(
    annotation: int = 1,
    second: float = 0,
    content: str = "",
    *,
    task: int = 1,
    verdict: Verdict = Verdict.EDITED,
    edit_iou: float | None = 0.5,
    lead_time_s: float | None = 10.0,
    project: ProjectKey = PROJECT,
) -> Correction:
    """One that is complete; its segments fit the verdict."""
    nothing_true = verdict is Verdict.NOTHING_HERE
    by_hand = verdict is Verdict.DRAWN_BY_HAND
    return Correction(
        key=project.annotation(annotation),
        revision=revision(second, content),
        task=task,
        image=f"/data/upload/{task}.png",
        image_sha256=None,
        size=TEN_BY_TEN,
        requests=("the red star",),
        predicted=() if by_hand else (SEGMENT,),
        corrected=() if nothing_true else (SEGMENT,),
        note_shown="",
        note_edited=content,
        verdict=verdict,
        edit_iou=None if by_hand else edit_iou,
        lead_time_s=lead_time_s,
        model_version=None if by_hand else "tiny-1",
        annotator=1,
    )


def with_segments(base: Correction, size: ImageSize, rles: list[Rle]) -> Correction:
    """The same with other masks, predicted and true."""
    segments = tuple(LabelledSegment(rle, "Object", base.requests[0]) for rle in rles)
    return replace(base, size=size, predicted=segments, corrected=segments)


def key(annotation: int = 1) -> CorrectionKey:
    """Key of an annotation of the project of the tests."""
    return PROJECT.annotation(annotation)


def everything(
    reader: CorrectionReader, project: ProjectKey = PROJECT, limit: int = 100
) -> dict[int, Correction]:
    """All corrections of a project by annotation, read page by page."""
    found: dict[int, Correction] = {}
    after, is_last = 0, False
    while not is_last:
        page = reader.page(project, after, limit)
        assert len(page.corrections) <= limit
        assert not page.unreadable
        found.update({one.key.annotation: one for one in page.corrections})
        after, is_last = page.after, page.is_last
    return found
