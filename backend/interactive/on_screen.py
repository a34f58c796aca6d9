"""What the annotator who calls sees, as far as Label Studio has stored it.

Label Studio sends the drafts of the caller alone, but everybody's annotations, and never says
who calls.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Self

from backend.interactive.gesture import TextBox, text_box
from backend.regions import read_results
from segzero_ml.checks import read_time
from segzero_ml.errors import InputError
from segzero_ml.types import Box

AUTOSAVE: Final = timedelta(seconds=6)
"""Label Studio saves a draft 5 s after a change; one that is saved later knows a later change."""

_ALIKE: Final = timedelta(seconds=2)
"""So far the clocks of two machines may be apart, and calls underway, and still count as alike."""

_MOST_APART: Final = timedelta(days=1)
"""A time that is further off tells nothing of two clocks: it is old, or could not be read."""

_NEVER: Final = datetime.min.replace(tzinfo=UTC)

_Result = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Showing:
    """When something was shown, and what had been saved by then.

    Args:
        asked_at: When the call came that it answers, by this machine's clock.
        at: When the answer was there, by the same.
        saved_at: When the caller's own work had been saved last, by Label Studio's clock, as the
            call told it; None where nothing had.
    """

    asked_at: datetime
    at: datetime
    saved_at: datetime | None = None

    @classmethod
    def now(cls) -> Self:
        """Of what is asked and shown right now."""
        at = datetime.now(UTC)
        return cls(at, at)


@dataclass(frozen=True, slots=True)
class Screen:
    """The objects that are stored of what the caller sees.

    Args:
        objects: By id the regions of each.
        texts: By the name of each TextArea what stands in it.
        saved_at: When the caller's own work was saved; None where all that is stored are
            predictions, which say nothing about what the caller did with them.
    """

    objects: Mapping[str, tuple[_Result, ...]] = field(default_factory=dict)
    texts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    saved_at: datetime | None = None

    def is_after(self, shown_at: datetime) -> bool:
        """Whether it was saved after something was shown, by the clocks of both machines."""
        return self.saved_at is not None and self.saved_at > shown_at + AUTOSAVE

    def tells_of(self, showing: Showing, now: datetime) -> bool:
        """Whether it was saved after something was shown, so that it tells what became of it.

        It must have been saved after the call came which that answers: Label Studio's clock alone
        tells so. It may still have been saved before the answer was there. Where both clocks can
        be alike, they tell. Where its time lies before that call or in the future, they are not:
        then it tells once so much time has passed that what was accepted is saved.

        Args:
            showing: When it was shown.
            now: When this was sent, by the clock of `Showing.at`.
        """
        if self.saved_at is None:
            return False
        apart = max(showing.asked_at - self.saved_at, self.saved_at - now)
        if apart < _MOST_APART:
            if showing.saved_at is not None and self.saved_at <= showing.saved_at:
                return False
            if apart > _ALIKE:
                return now - showing.at > AUTOSAVE
        return self.is_after(showing.at)


def read_screen(raw_task: _Result) -> Screen:
    """The caller's own draft saved last, else the only annotation, else the last prediction.

    Of several annotations nobody knows which is the caller's, and one that is older than a
    prediction is most likely not what the task was opened with.
    """
    drafts = _saved(raw_task, "drafts")
    if drafts:
        return _screen(drafts[-1], is_own=True)
    annotations, predictions = _saved(raw_task, "annotations"), _saved(raw_task, "predictions")
    if len(annotations) == 1 and (
        not predictions or _time(predictions[-1]) <= _time(annotations[0])
    ):
        return _screen(annotations[0], is_own=True)
    return _screen(predictions[-1], is_own=False) if predictions else Screen()


def was_typed_before(
    raw_task: _Result, results: Sequence[_Result], control: str | None, box: TextBox
) -> bool:
    """Whether a call came about by something else than typing into a TextArea.

    Its lines are in what the caller has saved, which its id tells, and something else of the
    call is not. If all of it is saved, the draft may have been saved after the typing and
    before the call.

    Args:
        raw_task: The task as Label Studio sent it.
        results: Of the call's context.
        control: Name of the TextArea.
        box: What it holds in the call.
    """
    others = [one for one in results if one.get("from_name") != control]
    for saved in (*_saved(raw_task, "drafts"), *_saved(raw_task, "annotations")):
        kept = _results(saved)
        stored = text_box([one for one in kept if one.get("id") == box.id], control)
        if stored.begins_with(box):
            values = [one.get("value") for one in kept]
            return stored != box or any(one.get("value") not in values for one in others)
    return False


def by_object(results: Sequence[_Result]) -> dict[str, tuple[_Result, ...]]:
    """The regions that this backend made, by the object that they show."""
    found: dict[str, tuple[_Result, ...]] = {}
    for one in results:
        meta = one.get("meta")
        if isinstance(meta, Mapping) and box_of(one) is not None:
            key = meta.get("object") or one.get("id")
            if isinstance(key, str):
                found[key] = (*found.get(key, ()), one)
    return found


def box_of(region: _Result) -> Box | None:
    """The box in pixels around the mask that the model gave the region's object."""
    meta = region.get("meta")
    box = meta.get("box") if isinstance(meta, Mapping) else None
    if not isinstance(box, list) or len(box) != 4:
        return None
    if not all(isinstance(v, int) and not isinstance(v, bool) and 0 <= v < 1e6 for v in box):
        return None
    x1, y1, x2, y2 = box
    return Box(x1, y1, x2, y2) if x1 < x2 and y1 < y2 else None


def label_of(regions: Sequence[_Result]) -> str:
    """The label of an object; empty where its regions say none."""
    for one in regions:
        value = one.get("value")
        for key, labels in value.items() if isinstance(value, Mapping) else ():
            if str(key).endswith("labels") and isinstance(labels, list) and labels:
                return str(labels[0])
    return ""


def _screen(saved: _Result, *, is_own: bool) -> Screen:
    results = _results(saved)
    names = {str(one.get("from_name")) for one in results if one.get("type") == "textarea"}
    texts = {name: text_box(results, name).lines for name in names}
    return Screen(by_object(results), texts, _time(saved) if is_own else None)


def _saved(raw_task: _Result, name: str) -> list[_Result]:
    """Drafts, annotations or predictions of a task, the one saved last at the end."""
    saved = raw_task.get(name)
    found = [one for one in saved if isinstance(one, Mapping)] if isinstance(saved, list) else []
    return sorted(found, key=_time)


def _results(saved: _Result) -> Sequence[_Result]:
    try:
        return read_results(saved.get("result"))
    except InputError:
        return ()


def _time(saved: _Result) -> datetime:
    try:
        return read_time("updated_at", saved.get("updated_at") or saved.get("created_at"))
    except InputError:
        return _NEVER
