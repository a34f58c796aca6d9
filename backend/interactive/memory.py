"""What was answered lately: whose region a click refines, and what was asked last."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from backend.interactive.gesture import Click, TextBox
from backend.translate import Shown
from segzero_ml import masks
from segzero_ml.types import Box

MAX_TASKS: Final = 500
MAX_OBJECTS: Final = 5000
"""How much is remembered: tasks, and objects of all tasks together; the oldest go first."""

KEPT_S: Final = 1800.0
"""Seconds after which a request that was typed is not asked of another task any more."""

TaskKey = tuple[int | None, int | str]
"""Project and task."""


@dataclass(frozen=True, slots=True)
class Remembered:
    """An object as it was shown last.

    Args:
        shown: The object.
        clicks: Those that made it; none where a request did.
        made_from: Run lengths of the mask that it was refined from; empty without one.
        box_px: Around its mask.
    """

    shown: Shown
    box_px: Box
    clicks: tuple[Click, ...] = ()
    made_from: str = ""


def remembered(
    shown: Shown, clicks: tuple[Click, ...] = (), refined: Shown | None = None
) -> Remembered | None:
    """What to remember of an object; nothing of one without a pixel.

    Args:
        shown: The object.
        clicks: Those that made it.
        refined: The object that it was made from.
    """
    box_px = masks.bounding_box_px(masks.decode(shown.rle))
    if box_px is None:
        return None
    return Remembered(shown, box_px, clicks, "" if refined is None else refined.rle.counts)


@dataclass(slots=True)
class TaskMemory:
    """What is remembered of a task.

    Args:
        objects: By id, the one shown last at the end.
        box: What stood in the request box when it was answered last.
    """

    objects: OrderedDict[str, Remembered] = field(default_factory=OrderedDict)
    box: TextBox = field(default_factory=TextBox)


class Memory:
    """What was answered lately, bounded; for one thread.

    Args:
        clock: Seconds on a clock that never goes back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._tasks: OrderedDict[TaskKey, TaskMemory] = OrderedDict()
        self._count = 0
        self._typed: OrderedDict[int | None, tuple[str, float]] = OrderedDict()

    def of(self, key: TaskKey) -> TaskMemory:
        """What is remembered of a task; empty for one that is new."""
        return self._tasks.get(key) or TaskMemory()

    def remember(self, key: TaskKey, *objects: Remembered) -> None:
        """Keep objects as they were shown."""
        memory = self._touch(key)
        for one in objects:
            self._count += one.shown.id not in memory.objects
            memory.objects[one.shown.id] = one
            memory.objects.move_to_end(one.shown.id)
        while self._count > MAX_OBJECTS or len(self._tasks) > MAX_TASKS:
            _, dropped = self._tasks.popitem(last=False)
            self._count -= len(dropped.objects)

    def note_typed(self, key: TaskKey, box: TextBox, text: str | None = None) -> None:
        """Keep what stands in the request box, and what was asked if that was typed just now."""
        self._touch(key).box = box
        if text is None:
            return
        self._typed.pop(key[0], None)
        self._typed[key[0]] = (text, self._clock())
        while len(self._typed) > MAX_TASKS:
            self._typed.popitem(last=False)

    def last_typed(self, project: int | None) -> str | None:
        """What was typed last in a project, if that was within `KEPT_S`."""
        text, at = self._typed.get(project, (None, 0.0))
        return text if self._clock() - at <= KEPT_S else None

    def _touch(self, key: TaskKey) -> TaskMemory:
        memory = self._tasks.setdefault(key, TaskMemory())
        self._tasks.move_to_end(key)
        return memory
