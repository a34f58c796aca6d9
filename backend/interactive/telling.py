"""Tells a person who waits what went wrong, and takes it back when the next call is answered."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from backend.interactive.existing import unaccepted
from backend.interactive.gesture import read_gesture, text_box
from backend.interactive.memory import Memory, TaskKey, TaskMemory
from backend.interactive.on_screen import AUTOSAVE, read_screen
from backend.labelling import Labelling
from backend.problems import error_result, no_problem
from backend.translate import to_regions


@dataclass(frozen=True, slots=True)
class Asked:
    """What an interactive call asks.

    Args:
        project: The project's id, if the call says it.
        task: The task as Label Studio sent it.
        results: What the annotator did: the context of the call.
        labelling: The project's labelling config.
    """

    project: int | None
    task: Mapping[str, Any]
    results: Sequence[Mapping[str, Any]]
    labelling: Labelling

    @property
    def key(self) -> TaskKey | None:
        """What the task is remembered by; None for one without an id."""
        task_id = self.task.get("id")
        return (self.project, task_id) if isinstance(task_id, int | str) else None


class Telling:
    """Tells problems in the editor.

    Args:
        memory: What was answered lately.
    """

    def __init__(self, memory: Memory) -> None:
        self._memory = memory

    async def told(self, asked: Asked, version: str, why: str) -> dict[str, Any]:
        """What a call gets that fails: the reason, and the suggestion that it would cost.

        Args:
            asked: The call.
            version: Model version that would have answered.
            why: The reason.
        """
        known = TaskMemory() if asked.key is None else self._memory.of(asked.key)
        regions = await asyncio.to_thread(_regions_to_keep, asked, known)
        if asked.key is not None:
            self._memory.note_told(asked.key, is_told=True)
        notes = _notes_on_screen(asked, known)
        return error_result(why, asked.labelling, version, regions=regions, notes=notes)

    def answered(self, asked: Asked, results: list[dict[str, Any]]) -> None:
        """Have an answer take away what was told before, and keep the reasons that it shows.

        Args:
            asked: The call.
            results: What it gets; added to.
        """
        if asked.key is None:
            return
        own = asked.labelling.notes
        shown = text_box(results, own).lines
        known = self._memory.of(asked.key)
        if known.is_told:
            told = no_problem(asked.labelling, _notes_on_screen(asked, known))
            # New reasons have taken the place of all that stood there.
            results += [one for one in told if not shown or one["from_name"] != own]
            self._memory.note_told(asked.key, is_told=False)
        if shown:
            self._memory.note_shown(asked.key, shown)


def _regions_to_keep(asked: Asked, known: TaskMemory) -> list[dict[str, Any]]:
    gesture = read_gesture(asked.results, asked.labelling)
    shown = unaccepted(gesture, asked.task, known, asked.labelling)
    return [] if shown is None else to_regions(shown, asked.labelling)


def _notes_on_screen(asked: Asked, known: TaskMemory) -> tuple[str, ...]:
    """What stands in the notes: as the call says, as shown just now, or as it is stored."""
    control = asked.labelling.notes
    if control is None:
        return ()
    sent = text_box(asked.results, control).lines
    if sent:
        return sent
    if known.notes_at is not None and datetime.now(UTC) - known.notes_at < AUTOSAVE:
        return known.notes
    return read_screen(asked.task).texts.get(control, ())
