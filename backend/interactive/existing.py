"""The objects of a task that clicks may refine: what was answered, and what became of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final

from backend.interactive.gesture import Gesture
from backend.interactive.memory import Remembered, TaskMemory
from backend.interactive.on_screen import Screen, box_of, label_of, read_screen
from backend.labelling import Labelling
from backend.regions import Region, read_regions
from backend.translate import Shown
from backend.true_masks import is_mask_region
from segzero_ml.errors import SegZeroError
from segzero_ml.types import Box, ImageSize, Point

GROWN: Final = 0.25
"""How far beyond an object, in its own sides, a click still means it."""

LEAST_GROWN: Final = 0.02
"""The same in sides of the picture, for small objects."""


@dataclass(frozen=True, slots=True)
class _Candidate:
    """An object that may be meant, not decoded yet.

    Args:
        id: Of the object.
        label: Its label.
        box_px: Around the mask that the model gave it.
        results: Its regions as the task holds them; none where only the memory has it.
        known: As it was shown last; None where the backend does not know it any more.
        is_decided: Whether the task's regions were saved after it was shown.
    """

    id: str
    label: str
    box_px: Box
    results: tuple[Mapping[str, Any], ...] = ()
    known: Remembered | None = None
    is_decided: bool = False


def meant(
    gesture: Gesture,
    raw_task: Mapping[str, Any],
    memory: TaskMemory,
    labelling: Labelling,
    size: ImageSize,
) -> Remembered | None:
    """The object that clicks refine, as it is on the annotator's screen; None for a new one.

    Clicks that only add to those which made an object mean that one, which is then still a
    suggestion. Else it is the smallest object of the same label whose box, a little grown,
    holds every positive click; without positive clicks the smallest one that a negative click
    lies on. A box drawn without clicks is a new object.

    Only the object that is meant is decoded, however many there are.
    """
    screen = read_screen(raw_task)
    label = gesture.label if any(one.name == gesture.label for one in labelling.labels) else ""
    for known in reversed(memory.objects.values()):
        is_same = known.clicks and set(known.clicks) <= set(gesture.clicks)
        if is_same and label in ("", known.shown.label):
            results = screen.objects.get(known.shown.id, ())
            one = _Candidate(known.shown.id, known.shown.label, known.box_px, results, known)
            return _now(one, labelling, size)
    if not gesture.clicks:
        return None
    chosen = [
        one
        for one in _candidates(screen, memory)
        if (not label or one.label == label) and _is_meant(one.box_px, gesture, size)
    ]
    for one in sorted(chosen, key=lambda one: one.box_px.area):
        current = _now(one, labelling, size)
        if current is not None:
            return current
    return None


def unaccepted(
    gesture: Gesture | None, raw_task: Mapping[str, Any], memory: TaskMemory, labelling: Labelling
) -> Shown | None:
    """The object that clicks mean, if it was shown in a way that Label Studio has not stored.

    It is a suggestion still, as far as can be known, and the editor drops suggestions before
    it looks at what a call brings.
    """
    if gesture is None or not memory.objects:
        return None
    rle = next(iter(memory.objects.values())).shown.rle  # all are of the same picture
    size = ImageSize(rle.width, rle.height)
    found = meant(gesture, raw_task, memory, labelling, size)
    if found is None or found.shown.id not in memory.objects:
        return None
    stored = _region(read_screen(raw_task).objects.get(found.shown.id, ()), labelling, size)
    is_stored = stored is not None and hash(stored.rle.counts) == found.drawn
    return None if is_stored else found.shown


def _is_meant(box: Box, gesture: Gesture, size: ImageSize) -> bool:
    positive = [one.in_px(size) for one in gesture.clicks if one.is_positive]
    if not positive:
        negative = [one.in_px(size) for one in gesture.clicks]
        return any(_holds(box, point, 0.0, 0.0) for point in negative)
    x = max(GROWN * box.width, LEAST_GROWN * size.width)
    y = max(GROWN * box.height, LEAST_GROWN * size.height)
    return all(_holds(box, point, x, y) for point in positive)


def _holds(box: Box, point: Point, x: float, y: float) -> bool:
    return box.x1 - x <= point.x <= box.x2 + x and box.y1 - y <= point.y <= box.y2 + y


def _candidates(screen: Screen, memory: TaskMemory) -> Iterator[_Candidate]:
    """What is stored of the annotator's screen, and what was shown since.

    What was shown, but is missing from work that was saved later, was deleted, undone or
    rejected. What was refined from something that is not stored here is on another annotator's
    screen.
    """
    now = datetime.now(UTC)
    for key, results in screen.objects.items():
        known = memory.objects.get(key)
        is_decided = known is not None and screen.tells_of(known.showing, now)
        box = box_of(results[0]) if known is None or is_decided else known.box_px
        if box is not None:
            yield _Candidate(key, label_of(results), box, results, known, is_decided)
    for key, one in memory.objects.items():
        is_unsaved = key not in screen.objects and not one.is_stored
        if is_unsaved and not screen.tells_of(one.showing, now):
            yield _Candidate(key, one.shown.label, one.box_px, (), one)


def _now(one: _Candidate, labelling: Labelling, size: ImageSize) -> Remembered | None:
    """The object as the annotator sees it: as it is stored, unless it was refined since."""
    known, region = one.known, _region(one.results, labelling, size)
    if region is None:
        is_erased = one.is_decided and any(map(is_mask_region, one.results))
        return None if is_erased else known
    drawn = hash(region.rle.counts)
    if known is not None and drawn == known.drawn:
        shown = replace(known.shown, label=region.label or known.shown.label)
        return replace(known, shown=shown, is_stored=True)
    if known is not None and drawn in known.made_from and not one.is_decided:
        return replace(known, is_stored=True)
    return Remembered(
        shown=Shown(
            id=one.id,
            label=region.label,
            rle=region.rle,
            score=0.0,
            request=region.request or "",
            note=region.note,
            model_version=region.model_version or "",
            is_clicked=region.is_clicked,
        ),
        box_px=one.box_px,
        drawn=drawn,
        earlier=() if known is None else (*known.earlier, *known.clicks),
        is_painted=region.origin in ("prediction-changed", "manual"),
        is_stored=True,
    )


def _region(
    results: Sequence[Mapping[str, Any]], labelling: Labelling, size: ImageSize
) -> Region | None:
    if not results:
        return None
    try:
        regions = read_regions(results, labelling.image, size, labelling.masked_labels)
    except SegZeroError:
        return None
    return regions[0] if regions else None
