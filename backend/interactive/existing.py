"""The objects of a task that clicks may refine: what was answered, and what became of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from backend.interactive.gesture import Gesture
from backend.interactive.memory import Remembered, TaskMemory
from backend.labelling import Labelling
from backend.regions import read_regions, read_results
from backend.translate import Shown
from segzero_ml.errors import SegZeroError
from segzero_ml.types import Box, ImageSize, Point

GROWN: Final = 0.25
"""How far beyond an object, in its own sides, a click still means it."""

LEAST_GROWN: Final = 0.02
"""The same in sides of the picture, for small objects."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """An object that may be meant, not decoded yet.

    Args:
        id: Of the object.
        label: Its label.
        box_px: Around the mask that the model gave it.
        results: Its regions as the task holds them; none where only the memory has it.
        remembered: As it was shown last; None where the backend does not know it any more.
    """

    id: str
    label: str
    box_px: Box
    results: tuple[Mapping[str, Any], ...] = ()
    remembered: Remembered | None = None


def meant(
    gesture: Gesture,
    raw_task: Mapping[str, Any],
    memory: TaskMemory,
    labelling: Labelling,
    size: ImageSize,
) -> Shown | None:
    """The object that clicks refine, as it is shown now; None for a new one.

    Clicks that only add to those which made an object mean that one. Else it is the smallest
    object of the same label whose box, a little grown, holds every positive click; without
    positive clicks the smallest one that a negative click lies on. A box drawn without
    clicks is a new object.

    Only the object that is meant is decoded, however many there are.
    """
    label = gesture.label if any(one.name == gesture.label for one in labelling.labels) else ""
    for known in reversed(memory.objects.values()):
        is_same = known.clicks and set(known.clicks) <= set(gesture.clicks)
        if is_same and label in ("", known.shown.label):
            return known.shown
    if not gesture.clicks:
        return None
    chosen = [
        one
        for one in _candidates(raw_task, memory)
        if (not label or one.label == label) and _is_meant(one.box_px, gesture, size)
    ]
    for one in sorted(chosen, key=lambda one: one.box_px.area):
        shown = _now(one, labelling, size)
        if shown is not None:
            return shown
    return None


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


def _candidates(raw_task: Mapping[str, Any], memory: TaskMemory) -> Iterator[Candidate]:
    """Objects of the annotator's own draft, or else of what the task was opened with."""
    stored: dict[str, list[Mapping[str, Any]]] = {}
    for result in _on_screen(raw_task):
        meta = result.get("meta")
        if isinstance(meta, Mapping) and isinstance(meta.get("box"), list):
            key = meta.get("object") or result.get("id")
            if isinstance(key, str):
                stored.setdefault(key, []).append(result)
    for key, results in stored.items():
        box = _box(results[0]["meta"]["box"])
        if box is not None:
            known = memory.objects.get(key)
            yield Candidate(key, _label(results), box, tuple(results), known)
    for key, one in memory.objects.items():
        if key not in stored:
            yield Candidate(key, one.shown.label, one.box_px, (), one)


def _on_screen(raw_task: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """Results of what was saved last: a draft, else an annotation, else a prediction."""
    for name in ("drafts", "annotations", "predictions"):
        saved = raw_task.get(name)
        found = (
            [one for one in saved if isinstance(one, Mapping)] if isinstance(saved, list) else []
        )
        if found:
            last = max(found, key=lambda one: str(one.get("updated_at") or one.get("created_at")))
            try:
                return read_results(last.get("result"))
            except SegZeroError:
                return ()
    return ()


def _now(one: Candidate, labelling: Labelling, size: ImageSize) -> Shown | None:
    """The object as the annotator sees it: as changed by hand, unless it was answered since."""
    if not one.results:
        return None if one.remembered is None else one.remembered.shown
    try:
        regions = read_regions(one.results, labelling.image, size, labelling.masked_labels)
    except SegZeroError:
        regions = ()
    if not regions:
        return None if one.remembered is None else one.remembered.shown
    region = regions[0]
    if one.remembered is not None and (
        region.origin != "prediction-changed" or one.remembered.made_from == region.rle.counts
    ):
        return one.remembered.shown
    return Shown(
        id=one.id,
        label=region.label,
        rle=region.rle,
        score=0.0,
        request=region.request or "",
        note=region.note,
        model_version=region.model_version or "",
    )


def _label(results: Sequence[Mapping[str, Any]]) -> str:
    for result in results:
        value = result.get("value")
        for key, labels in value.items() if isinstance(value, Mapping) else ():
            if str(key).endswith("labels") and isinstance(labels, list) and labels:
                return str(labels[0])
    return ""


def _box(value: object) -> Box | None:
    if not isinstance(value, list) or len(value) != 4:
        return None
    if not all(isinstance(v, int) and not isinstance(v, bool) and 0 <= v < 1e6 for v in value):
        return None
    x1, y1, x2, y2 = value
    return Box(x1, y1, x2, y2) if x1 < x2 and y1 < y2 else None
