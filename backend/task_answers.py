"""From one task of a call to its prediction."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

from PIL import Image

from backend.call import Call, log_failure
from backend.image_cache import Fetches
from backend.images import load_task_image
from backend.interactive.gesture import is_asked
from backend.interactive.memory import Memory
from backend.interactive.session import Interactive, Turn
from backend.interactive.telling import Asked, Telling
from backend.labelling import Labelling
from backend.model_thread import ModelThread
from backend.protocol import Context, PredictBody, Task, check
from backend.settings import Settings
from backend.task_requests import LabelRequest, task_requests
from backend.translate import Labelled, empty_result, to_task_result
from segzero_ml.errors import ModelError
from segzero_ml.images import ImageLimits
from segzero_ml.reasoner.prompts import normalise_request


class TaskAnswers:
    """Reads a task, fetches its image and has the model answer; knows no deadline.

    Args:
        model: Answers the requests.
        fetcher: Fetches the images.
        settings: Limits, and which fields hold requests.
        clock: Seconds on a clock that never goes back.
    """

    def __init__(
        self,
        model: ModelThread,
        fetcher: Fetches,
        settings: Settings,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._model = model
        self._fetcher = fetcher
        self._settings = settings
        self._limits = ImageLimits(settings.max_image_bytes, settings.max_image_pixels)
        self._memory = Memory(clock)
        self._interactive = Interactive(self._memory)
        self._telling = Telling(self._memory)

    async def answer(self, raw: Any, call: Call) -> dict[str, Any]:
        """The prediction of one task.

        Args:
            raw: The task as it came.
            call: The call that it is of.

        Raises:
            SegZeroError: There is none; the message says why.
        """
        task = check(Task, raw)
        if call.context is not None:
            return await self._interactive.answer(self._turn(task, raw, call, call.context))
        requests = self._requests(task, call)
        for request in requests:
            normalise_request(request.text)  # refused before anything is fetched
        answers = await self._ask(await self._image(task, call), requests, call, raw)
        return await asyncio.to_thread(to_task_result, answers, call.labelling)

    async def missing(
        self, raw: Any, body: PredictBody, labelling: Labelling | None, version: str, why: str
    ) -> Any:
        """What a task without an answer gets; where a person waits, the reason.

        Args:
            raw: The task as it came.
            body: The call that it is of; Label Studio expects an object if it has a context.
            labelling: Where the reason goes; None where the labelling config cannot be read.
            version: Model version that would have answered.
            why: The reason.
        """
        context = body.params.context
        if context is None:
            return []
        if labelling is None or not is_asked(context.result, labelling):
            return empty_result(version)
        task = raw if isinstance(raw, dict) else {}
        asked = Asked(body.project, task, context.result, labelling)
        return await self._telling.told(asked, version, why)

    def _turn(self, task: Task, raw: Any, call: Call, context: Context) -> Turn:
        async def ask(image: Image.Image, request: LabelRequest) -> Labelled:
            [answer] = await self._ask(image, [request], call, raw)
            return answer

        return Turn(
            project=call.project,
            task=raw,
            results=context.result,
            labelling=call.labelling,
            pipeline=call.pipeline,
            image=lambda: self._image(task, call),
            ask=ask,
        )

    async def _image(self, task: Task, call: Call) -> Image.Image:
        return await load_task_image(
            self._fetcher,
            task.data.get(call.labelling.image_field),
            self._limits,
            task.id if isinstance(task.id, int) else None,
        )

    async def _ask(
        self, image: Image.Image, requests: Sequence[LabelRequest], call: Call, raw: object
    ) -> list[Labelled]:
        """Answers to those requests that got a usable one.

        Raises:
            SegZeroError: None did.
        """
        waiting = [
            asyncio.wrap_future(
                self._model.submit(
                    image, request.text, interactive=call.is_urgent, pipeline=call.pipeline
                )
            )
            for request in requests
        ]
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)
        answers, problems = [], []
        for request, outcome in zip(requests, outcomes, strict=True):
            if isinstance(outcome, BaseException):
                problems.append(outcome)
            elif outcome.problem is not None:
                problems.append(ModelError(f"The model gave no usable answer: {outcome.problem}"))
            else:
                answers.append(Labelled(outcome, request.label))
        if not answers:
            raise problems[0]
        for problem in problems:
            log_failure(raw, problem)
        return answers

    def _requests(self, task: Task, call: Call) -> tuple[LabelRequest, ...]:
        """The task's requests; what was typed last is kept for a task that is opened."""
        kept = None
        if self._settings.keep_request and call.is_opened:
            kept = self._memory.last_typed(call.project)
        return task_requests(task.data, call.labelling, self._settings.request_fields, kept)
