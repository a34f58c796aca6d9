"""What was answered lately: whose region a click refines, and what was asked last."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final

from backend.controls import Kind
from backend.interactive.gesture import Click, TextBox
from backend.interactive.on_screen import Showing, box_of
from backend.regions import read_regions
from backend.translate import Shown
from backend.true_masks import mask_kind
from segzero_ml.types import Box

MAX_TASKS: Final = 500
MAX_OBJECTS: Final = 5000
MAX_BYTES: Final = 64 * 1024**2
MAX_BOXES: Final = 32
"""How much is remembered: tasks, objects and bytes of all tasks together, and request boxes of
one task; the oldest go first."""

KEPT_S: Final = 1800.0
"""Seconds after which a request that was typed is not asked of another task any more."""

_MAX_ANCESTORS: Final = 32
_MAX_EARLIER: Final = 64
_ENTRY_BYTES: Final = 500  # what an object or a line takes beside its text, roughly

TaskKey = tuple[int | None, int | str]
"""Project and task."""


@dataclass(frozen=True, slots=True)
class Remembered:
    """An object as it was shown last.

    Masks are told apart by the hash of the run lengths that their regions read back as.

    Args:
        shown: The object.
        box_px: Around its mask.
        drawn: Its mask.
        clicks: Those of the call that made it; none where a request did.
        earlier: Clicks that made what it was refined from.
        made_from: The masks that it was refined from, one after the other.
        is_painted: Whether somebody changed it by hand before it was refined.
        is_stored: Whether it, or something that it was refined from, was on the screen of the
            annotator who refined it, as Label Studio had stored it.
        showing: When it was shown.
    """

    shown: Shown
    box_px: Box
    drawn: int
    clicks: tuple[Click, ...] = ()
    earlier: tuple[Click, ...] = ()
    made_from: tuple[int, ...] = ()
    is_painted: bool = False
    is_stored: bool = False
    showing: Showing = field(default_factory=Showing.now)

    @property
    def nbytes(self) -> int:
        """Bytes that it takes, roughly."""
        texts = (self.shown.rle.counts, self.shown.request, self.shown.note)
        return _ENTRY_BYTES * (1 + len(self.clicks) + len(self.earlier)) + sum(map(len, texts))


def remembered(
    shown: Shown,
    regions: Sequence[Mapping[str, Any]],
    clicks: tuple[Click, ...] = (),
    refined: Remembered | None = None,
) -> Remembered | None:
    """What to remember of an object; nothing of one that is not shown.

    Args:
        shown: The object.
        regions: Its regions.
        clicks: Those of the call that made it.
        refined: The object that it was made from.
    """
    box_px = box_of(regions[0]) if regions else None
    if box_px is None:
        return None
    drawn = _drawn(shown, regions)
    if refined is None:
        return Remembered(shown, box_px, drawn, clicks)
    before = (one for one in refined.clicks if one not in clicks)
    return Remembered(
        shown,
        box_px,
        drawn,
        clicks,
        (*refined.earlier, *before)[-_MAX_EARLIER:],
        (*refined.made_from, refined.drawn)[-_MAX_ANCESTORS:],
        refined.is_painted,
        refined.is_stored,
    )


def _drawn(shown: Shown, regions: Sequence[Mapping[str, Any]]) -> int:
    if {mask_kind(one) for one in regions} & {Kind.BRUSH.value, Kind.BITMASK.value}:
        return hash(shown.rle.counts)  # they hold the mask exactly
    read = read_regions(regions, str(regions[0].get("to_name")))
    return hash(read[0].rle.counts if read else shown.rle.counts)


@dataclass(slots=True)
class TaskMemory:
    """What is remembered of a task.

    Args:
        objects: By id, the one shown last at the end.
        boxes: By id what stood in each annotator's request box when it was answered last.
        notes: What was shown in the notes last.
        notes_at: When that was; None where nothing was.
        is_told: Whether a problem was told last, which the next answer takes away.
    """

    objects: OrderedDict[str, Remembered] = field(default_factory=OrderedDict)
    boxes: OrderedDict[str, TextBox] = field(default_factory=OrderedDict)
    notes: tuple[str, ...] = ()
    notes_at: datetime | None = None
    is_told: bool = False


class Memory:
    """What was answered lately, bounded; for one thread, but what `of` gives is for any.

    Args:
        clock: Seconds on a clock that never goes back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._tasks: OrderedDict[TaskKey, TaskMemory] = OrderedDict()
        self._count = 0
        self._bytes = 0
        self._typed: OrderedDict[int | None, tuple[str, float]] = OrderedDict()

    @property
    def tasks(self) -> int:
        """How many tasks something is remembered of."""
        return len(self._tasks)

    @property
    def nbytes(self) -> int:
        """Bytes that tasks take, roughly."""
        return self._bytes

    def of(self, key: TaskKey) -> TaskMemory:
        """A copy of what is remembered of a task; empty for one that is new."""
        memory = self._tasks.get(key)
        if memory is None:
            return TaskMemory()
        return replace(memory, objects=memory.objects.copy(), boxes=memory.boxes.copy())

    def remember(self, key: TaskKey, *objects: Remembered) -> None:
        """Keep objects as they were shown."""
        memory = self._touch(key)
        for one in objects:
            self._forget(memory, one.shown.id)
            memory.objects[one.shown.id] = one
            self._count += 1
            self._bytes += one.nbytes
        self._trim()

    def note_typed(self, key: TaskKey, box: TextBox, text: str | None = None) -> None:
        """Keep what stands in a request box, and what was asked if that was typed just now."""
        memory = self._touch(key)
        self._bytes += _box_bytes(box) - _box_bytes(memory.boxes.pop(box.id, None))
        memory.boxes[box.id] = box
        while len(memory.boxes) > MAX_BOXES:
            self._bytes -= _box_bytes(memory.boxes.popitem(last=False)[1])
        self._trim()
        if text is None:
            return
        self._typed.pop(key[0], None)
        self._typed[key[0]] = (text, self._clock())
        while len(self._typed) > MAX_TASKS:
            self._typed.popitem(last=False)

    def note_shown(self, key: TaskKey, notes: Sequence[str]) -> None:
        """Keep what was put into the notes."""
        memory = self._touch(key)
        self._bytes += sum(map(len, notes)) - sum(map(len, memory.notes))
        memory.notes, memory.notes_at = tuple(notes), datetime.now(UTC)
        self._trim()

    def note_told(self, key: TaskKey, *, is_told: bool) -> None:
        """Keep whether a problem was told."""
        self._touch(key).is_told = is_told
        self._trim()

    def last_typed(self, project: int | None) -> str | None:
        """What was typed last in a project, if that was within `KEPT_S`."""
        text, at = self._typed.get(project, (None, 0.0))
        return text if self._clock() - at <= KEPT_S else None

    def _touch(self, key: TaskKey) -> TaskMemory:
        memory = self._tasks.setdefault(key, TaskMemory())
        self._tasks.move_to_end(key)
        return memory

    def _forget(self, memory: TaskMemory, object_id: str) -> None:
        dropped = memory.objects.pop(object_id, None)
        if dropped is not None:
            self._count -= 1
            self._bytes -= dropped.nbytes

    def _trim(self) -> None:
        """Drop the oldest tasks; of one that is too large by itself its oldest objects."""
        while (
            len(self._tasks) > MAX_TASKS or self._count > MAX_OBJECTS or self._bytes > MAX_BYTES
        ) and self._tasks:
            memory = next(iter(self._tasks.values()))
            if len(self._tasks) == 1 and memory.objects:
                self._forget(memory, next(iter(memory.objects)))
                continue
            self._tasks.popitem(last=False)
            for object_id in list(memory.objects):
                self._forget(memory, object_id)
            self._bytes -= sum(map(_box_bytes, memory.boxes.values()))
            self._bytes -= sum(map(len, memory.notes))


def _box_bytes(box: TextBox | None) -> int:
    return 0 if box is None else sum(map(len, box.lines)) + _ENTRY_BYTES * (1 + len(box.lines))
