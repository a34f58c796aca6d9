"""Answers a call in which a person waits: what was typed, and what was clicked."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from PIL import Image

from backend.interactive.cutting import Cuts, cut
from backend.interactive.existing import meant
from backend.interactive.gesture import Gesture, read_gesture, text_box
from backend.interactive.memory import Memory, TaskKey, TaskMemory, remembered
from backend.labelling import Labelling
from backend.model_thread import Predicts
from backend.task_requests import LabelRequest, prompted_request
from backend.translate import (
    Labelled,
    Shown,
    empty_result,
    error_result,
    new_region_id,
    objects,
    to_regions,
    to_task_result,
)
from segzero_ml import masks
from segzero_ml.errors import ModelError, RequestError
from segzero_ml.reasoner.prompts import normalise_request
from segzero_ml.types import ImageSize, Rle

_AT_ONCE: Final = 2  # clicks that are cut at the same time; they share the machine


@dataclass(frozen=True, slots=True)
class Turn:
    """One interactive call.

    Args:
        project: The project's id, if the call says it.
        task: The task as Label Studio sent it.
        results: What the annotator did: the context of the call.
        labelling: The project's labelling config.
        pipeline: Answers.
        image: Fetches the task's image.
        ask: Asks the reasoner.
    """

    project: int | None
    task: Mapping[str, Any]
    results: Sequence[Mapping[str, Any]]
    labelling: Labelling
    pipeline: Predicts
    image: Callable[[], Awaitable[Image.Image]]
    ask: Callable[[Image.Image, LabelRequest], Awaitable[Labelled]]

    @property
    def key(self) -> TaskKey | None:
        """What the task is remembered by; None for one without an id."""
        task_id = self.task.get("id")
        return (self.project, task_id) if isinstance(task_id, int | str) else None


class Interactive:
    """Answers interactive calls, and remembers what a later one may refine.

    Args:
        memory: What was answered lately.
    """

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._slots = asyncio.Semaphore(_AT_ONCE)

    async def answer(self, turn: Turn) -> dict[str, Any]:
        """The prediction for what the annotator did; empty where it asks for nothing.

        Raises:
            SegZeroError: The image cannot be had, or the model fails.
        """
        version = turn.pipeline.model_version
        gesture = read_gesture(turn.results, turn.labelling)
        try:
            typed = self._typed(turn)
        except RequestError as error:
            return error_result(str(error), turn.labelling, version)
        if typed is not None:
            return await self._asked(turn, typed, gesture)
        if gesture is not None and turn.labelling.outputs:
            return await self._clicked(turn, gesture)
        return empty_result(version)

    async def _asked(
        self, turn: Turn, typed: LabelRequest, gesture: Gesture | None
    ) -> dict[str, Any]:
        """The answer to a request, its first object refined by clicks that came with it."""
        image = await turn.image()
        answer = await turn.ask(image, typed)
        shown = list(objects(answer))
        self._remember(turn, *shown)
        if gesture is not None and shown:
            refined, _ = await self._refine(turn, gesture, image, shown[0])
            if refined is not None:
                shown = [refined if one.id == refined.id else one for one in shown]
        reply = await asyncio.to_thread(
            to_task_result, [answer], turn.labelling, new_region_id, shown
        )
        self._note_typed(turn, typed.text)
        return reply

    def _typed(self, turn: Turn) -> LabelRequest | None:
        """The request that was just typed; None where another box was edited, or none was.

        Label Studio sends all boxes of the image whichever was edited. If the request box
        holds what it held when it was answered, or less, nobody typed into it.
        """
        typed = prompted_request(turn.results, turn.labelling)
        if typed is None:
            return None
        normalise_request(typed.text)
        box = text_box(turn.results, turn.labelling.prompt)
        known = self._known(turn).box
        if box.id and box.id == known.id and box.lines == known.lines[: len(box.lines)]:
            self._note_typed(turn)
            return None
        return typed

    async def _clicked(self, turn: Turn, gesture: Gesture) -> dict[str, Any]:
        """The object that was clicked at, without asking the reasoner."""
        version = turn.pipeline.model_version
        image = await turn.image()
        size = ImageSize(image.width, image.height)
        refined = await asyncio.to_thread(
            meant, gesture, turn.task, self._known(turn), turn.labelling, size
        )
        shown, regions = await self._refine(turn, gesture, image, refined)
        if shown is None:
            return empty_result(version)
        return {"model_version": version, "score": shown.score, "result": regions}

    async def _refine(
        self, turn: Turn, gesture: Gesture, image: Image.Image, base: Shown | None
    ) -> tuple[Shown | None, list[dict[str, Any]]]:
        """The object that clicks make of another one, or of nothing, with its regions."""
        pipeline = turn.pipeline
        if not isinstance(pipeline, Cuts):
            raise ModelError("The model that serves cannot answer clicks.")
        is_on = gesture.box_pct is not None or any(one.is_positive for one in gesture.clicks)
        if base is None and not is_on:
            return None, []
        async with self._slots:
            found = await asyncio.to_thread(_cut, pipeline, image, gesture, base, turn.labelling)
        shown = found[0]
        if shown is not None and turn.key is not None:
            one = remembered(shown, gesture.clicks, base)
            if one is not None:
                self._memory.remember(turn.key, one)
        return found

    def _remember(self, turn: Turn, *shown: Shown) -> None:
        found = [one for one in map(remembered, shown) if one is not None]
        if turn.key is not None and found:
            self._memory.remember(turn.key, *found)

    def _note_typed(self, turn: Turn, text: str | None = None) -> None:
        if turn.key is not None:
            box = text_box(turn.results, turn.labelling.prompt)
            self._memory.note_typed(turn.key, box, text)

    def _known(self, turn: Turn) -> TaskMemory:
        return TaskMemory() if turn.key is None else self._memory.of(turn.key)


def _cut(
    pipeline: Cuts,
    image: Image.Image,
    gesture: Gesture,
    base: Shown | None,
    labelling: Labelling,
) -> tuple[Shown | None, list[dict[str, Any]]]:
    mask, score = cut(pipeline, image, gesture, None if base is None else masks.decode(base.rle))
    if not mask.any():
        return None, []
    shown = _shown(masks.encode(mask), score, gesture, base, labelling, pipeline)
    return shown, to_regions(shown, labelling)


def _shown(
    rle: Rle,
    score: float,
    gesture: Gesture,
    base: Shown | None,
    labelling: Labelling,
    pipeline: Any,
) -> Shown:
    version: str = pipeline.model_version
    if base is not None:
        return replace(base, rle=rle, score=score, model_version=version)
    names = [label.name for label in labelling.labels]
    label = gesture.label if gesture.label in names else names[0]
    return Shown(new_region_id(), label, rle, score, "", "", version)
