"""Answers a call in which a person waits: what was typed, and what was clicked."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final

from PIL import Image

from backend.call import log_failure
from backend.interactive.cutting import Base, Cuts, cut
from backend.interactive.existing import meant
from backend.interactive.gesture import Gesture, read_gesture, text_box
from backend.interactive.memory import Memory, Remembered, TaskMemory, remembered
from backend.interactive.on_screen import Showing, by_object, read_screen, was_typed_before
from backend.interactive.telling import Asked, Telling
from backend.labelling import Labelling
from backend.model_thread import Predicts
from backend.task_requests import LabelRequest, prompted_request
from backend.translate import (
    Labelled,
    Shown,
    empty_result,
    new_region_id,
    objects,
    to_regions,
    to_task_result,
)
from segzero_ml import masks
from segzero_ml.errors import LabellingConfigError, ModelError, RequestError
from segzero_ml.reasoner.prompts import normalise_request
from segzero_ml.types import ImageSize, Rle

_AT_ONCE: Final = 2  # clicks that are cut at the same time; they share the machine

_NOTHING_THERE: Final = "No object was found there."
_NOTHING_TO_CUT: Final = "There is no mask that this click takes away from."


@dataclass(frozen=True, slots=True)
class Turn(Asked):
    """One interactive call, and how it is answered.

    Args:
        pipeline: Answers.
        image: Fetches the task's image.
        ask: Asks the reasoner.
        at: When it came.
    """

    pipeline: Predicts
    image: Callable[[], Awaitable[Image.Image]]
    ask: Callable[[Image.Image, LabelRequest], Awaitable[Labelled]]
    at: datetime = field(default_factory=lambda: datetime.now(UTC), kw_only=True)


class Interactive:
    """Answers interactive calls, and remembers what a later one may refine.

    Args:
        memory: What was answered lately.
    """

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._telling = Telling(memory)
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
            return await self._telling.told(turn, version, str(error))
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
        refined = None
        if gesture is not None and shown:
            base = await asyncio.to_thread(_as_shown, shown[0], turn.labelling)
            if base is not None:
                refined, _ = await self._refine(turn, gesture, image, base)
            if refined is not None:
                shown[0] = refined.shown
        reply = await asyncio.to_thread(
            to_task_result, [answer], turn.labelling, new_region_id, shown
        )
        others = [one for one in shown if refined is None or one.id != refined.shown.id]
        self._remember(turn, *await asyncio.to_thread(_all_of, others, reply["result"]))
        self._note_typed(turn, typed.text)
        self._telling.answered(turn, reply["result"])
        return reply

    def _typed(self, turn: Turn) -> LabelRequest | None:
        """The request that was just typed; None where another box was edited, or none was.

        Label Studio sends all boxes of the image whichever was edited. If the request box
        holds what it held when it was answered, or less, nobody typed into it; where nothing
        is known of it, what the annotator has saved counts as answered.
        """
        typed = prompted_request(turn.results, turn.labelling)
        if typed is None:
            return None
        normalise_request(typed.text)
        control = turn.labelling.prompt
        box = text_box(turn.results, control)
        known = self._known(turn).boxes.get(box.id)
        is_old = (
            was_typed_before(turn.task, turn.results, control, box)
            if known is None
            else known.begins_with(box)
        )
        if is_old:
            self._note_typed(turn)
            return None
        return typed

    async def _clicked(self, turn: Turn, gesture: Gesture) -> dict[str, Any]:
        """The object that was clicked at, without asking the reasoner."""
        version = turn.pipeline.model_version
        image = await turn.image()
        size = ImageSize(image.width, image.height)
        known = self._known(turn)  # a copy: what follows runs in another thread
        base = await asyncio.to_thread(meant, gesture, turn.task, known, turn.labelling, size)
        if base is None:
            try:
                _new_label(gesture, turn.labelling)
            except LabellingConfigError as error:
                log_failure(turn.task, error)
                return await self._telling.told(turn, version, str(error))
        found, regions = await self._refine(turn, gesture, image, base)
        if found is None:
            adds = gesture.box is not None or any(one.is_positive for one in gesture.clicks)
            why = _NOTHING_THERE if adds else _NOTHING_TO_CUT
            return await self._telling.told(turn, version, why)
        self._telling.answered(turn, regions)
        return {"model_version": version, "score": found.shown.score, "result": regions}

    async def _refine(
        self, turn: Turn, gesture: Gesture, image: Image.Image, base: Remembered | None
    ) -> tuple[Remembered | None, list[dict[str, Any]]]:
        """The object that clicks make of another one, or of nothing, with its regions."""
        pipeline = turn.pipeline
        if not isinstance(pipeline, Cuts):
            raise ModelError("The model that serves cannot answer clicks.")
        box_px = gesture.box_px(ImageSize(image.width, image.height))
        is_on = box_px is not None or any(one.is_positive for one in gesture.clicks)
        if base is None and not is_on:
            return None, []
        async with self._slots:
            found = await asyncio.to_thread(_cut, pipeline, image, gesture, base, turn.labelling)
        if found[0] is not None:
            self._remember(turn, found[0])
        return found

    def _remember(self, turn: Turn, *found: Remembered) -> None:
        if turn.key is not None and found:
            showing = Showing(turn.at, datetime.now(UTC), read_screen(turn.task).saved_at)
            self._memory.remember(turn.key, *(replace(one, showing=showing) for one in found))

    def _note_typed(self, turn: Turn, text: str | None = None) -> None:
        if turn.key is not None:
            box = text_box(turn.results, turn.labelling.prompt)
            self._memory.note_typed(turn.key, box, text)

    def _known(self, turn: Turn) -> TaskMemory:
        return TaskMemory() if turn.key is None else self._memory.of(turn.key)


def _as_shown(shown: Shown, labelling: Labelling) -> Remembered | None:
    return remembered(shown, to_regions(shown, labelling))


def _all_of(shown: Sequence[Shown], results: Sequence[Mapping[str, Any]]) -> list[Remembered]:
    """What to remember of objects that a reply shows."""
    regions = by_object(results)
    found = (remembered(one, regions.get(one.id, ())) for one in shown)
    return [one for one in found if one is not None]


def _cut(
    pipeline: Cuts,
    image: Image.Image,
    gesture: Gesture,
    base: Remembered | None,
    labelling: Labelling,
) -> tuple[Remembered | None, list[dict[str, Any]]]:
    begun = None
    if base is not None:
        before = (*base.earlier, *base.clicks)
        begun = Base(masks.decode(base.shown.rle), before, base.is_painted)
    mask, score = cut(pipeline, image, gesture, begun)
    if not mask.any():
        return None, []
    shown = _shown(masks.encode(mask), score, gesture, base, labelling, pipeline)
    regions = to_regions(shown, labelling)
    return remembered(shown, regions, gesture.clicks, base), regions


def _shown(
    rle: Rle,
    score: float,
    gesture: Gesture,
    base: Remembered | None,
    labelling: Labelling,
    pipeline: Any,
) -> Shown:
    version: str = pipeline.model_version
    if base is not None:
        return replace(base.shown, rle=rle, score=score, model_version=version, is_clicked=True)
    label = _new_label(gesture, labelling)
    return Shown(new_region_id(), label, rle, score, "", "", version, is_clicked=True)


def _new_label(gesture: Gesture, labelling: Labelling) -> str:
    """The label of an object that clicks make of nothing.

    Raises:
        LabellingConfigError: They have a label that no region can be shown with, and there are
            several others.
    """
    names = [label.name for label in labelling.labels]
    if gesture.label in names:
        return gesture.label
    if gesture.label and len(names) > 1:
        controls = " or ".join(shape.name for shape in labelling.outputs)
        raise LabellingConfigError(
            f'Nothing can be shown with the label "{gesture.label}": only a control for clicks '
            "has it.",
            f"Click with another label, or give {controls} this one in the labelling config.",
        )
    return names[0]
