"""From the tasks of a call to their results: in time, as many as there were tasks."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from PIL import Image

from backend.champions import Champions
from backend.errors import UnavailableError
from backend.image_cache import Fetches
from backend.images import load_task_image
from backend.interactive.memory import Memory
from backend.interactive.session import Interactive, Turn
from backend.labelling import Labelling, parse_config
from backend.metrics import Metrics
from backend.model_thread import ModelState, ModelThread, Predicts
from backend.protocol import Context, PredictBody, Results, Task, check
from backend.settings import Settings
from backend.task_requests import LabelRequest, task_requests
from backend.translate import Labelled, empty_result, to_task_result
from segzero_ml.errors import LabellingConfigError, ModelError, SegZeroError
from segzero_ml.images import ImageLimits
from segzero_ml.reasoner.prompts import normalise_request

_log = logging.getLogger(__name__)
_LOOK_S: Final = 0.25
_MAX_RETRY_S: Final = 600


@dataclass(frozen=True, slots=True)
class Reply:
    """What a call to /predict gets.

    Args:
        results: One for each task, in their order.
        model_version: The one version that answered all of them.
        problems: Of each task: why it has no answer; None where it has one, or is late.
    """

    results: Results
    model_version: str
    problems: tuple[str | None, ...] = ()


class Predictor:
    """Answers calls to /predict, several at the same time, with one model thread.

    Args:
        model: Answers the requests.
        champions: Which version answers for which project.
        fetcher: Fetches the images.
        settings: Limits and deadlines.
        metrics: Where tasks are counted.
        clock: Seconds on a clock that never goes back.
    """

    def __init__(
        self,
        model: ModelThread,
        champions: Champions,
        fetcher: Fetches,
        settings: Settings,
        metrics: Metrics,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._model = model
        self._champions = champions
        self._fetcher = fetcher
        self._settings = settings
        self._metrics = metrics
        self._clock = clock
        self._limits = ImageLimits(settings.max_image_bytes, settings.max_image_pixels)
        self._memory = Memory(clock)
        self._interactive = Interactive(self._memory)
        self._calls = 0
        self._drain_until = math.inf
        # Decoded images are large: these bound how many are held, whatever the calls.
        self._in_flight = 2 * settings.batch_size
        self._slots = {True: self._new_slots(), False: self._new_slots()}

    @property
    def model_version(self) -> str:
        """The version of the base; see `version_of`."""
        return self.version_of(None)

    def version_of(self, project: int | None) -> str:
        """The version that answers for a project, or will; else that the preset is loading.

        Label Studio skips tasks that have predictions of exactly this version.
        """
        known = self._champions.version(project, self._model.expected_version)
        return known or f"{self._settings.preset} (loading)"

    @property
    def is_draining(self) -> bool:
        """Whether the backend is about to stop."""
        return self._drain_until < math.inf

    @property
    def drain_left_s(self) -> float:
        """Seconds until the backend is to have stopped; infinite while it is not draining."""
        return max(0.0, self._drain_until - self._clock())

    def begin_drain(self) -> None:
        """Take no new calls and end the running ones within `drain_s`; safe in a signal handler."""
        if not self.is_draining:
            self._drain_until = self._clock() + self._settings.drain_s

    async def predict(self, body: PredictBody) -> Reply:
        """One result for each task, in their order, before the deadline, by one version.

        A task that fails, or is not finished in time, gets `[]` (an empty prediction in an
        interactive call, where Label Studio expects an object); the log says why.

        Raises:
            UnavailableError: The model is still loading, failed to load, or has too much to do.
        """
        started = self._clock()
        self._check_available()
        self._calls += 1
        try:
            await self._wait_until_loaded()
            deadline = started + self._settings.predict_deadline_s
            with self._champions.lease(body.project) as pipeline:
                return await self._predict(body, pipeline, deadline)
        finally:
            self._calls -= 1
            self._metrics.predict_seconds.observe(self._clock() - started)

    async def _predict(self, body: PredictBody, pipeline: Predicts, deadline: float) -> Reply:
        try:
            call = _Call(body, parse_config(body.label_config), pipeline)
        except LabellingConfigError as error:
            _log.error("predict.config_unusable", extra={"fields": {"reason": str(error)}})
            self._count(failed=len(body.tasks))
            results: Results = [_missing(body, pipeline) for _ in body.tasks]
            return Reply(results, pipeline.model_version, (str(error),) * len(results))
        workers = {
            asyncio.create_task(self._work(call))
            for _ in range(min(self._in_flight, len(body.tasks)))
        }
        while workers:
            left = min(deadline, self._drain_until) - self._clock()
            if left <= 0:
                break
            _, workers = await asyncio.wait(workers, timeout=min(left, _LOOK_S))
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
        late = len(body.tasks) - len(call.ended)
        if late:
            _log.warning("predict.late", extra={"fields": {"tasks": late, "of": len(body.tasks)}})
        self._count(ok=len(call.answered), failed=len(call.ended) - len(call.answered), late=late)
        missing = _missing(body, pipeline)
        indices = range(len(body.tasks))
        return Reply(
            [call.answered.get(index, missing) for index in indices],
            pipeline.model_version,
            tuple(call.problems.get(index) for index in indices),
        )

    async def _work(self, call: _Call) -> None:
        """Answer tasks of a call until none is left."""
        for index, raw in call.remaining:
            try:
                async with self._slots[call.is_interactive]:
                    call.answered[index] = await self._answer(raw, call)
            except SegZeroError as error:
                _log_failure(raw, error)
                call.problems[index] = str(error)
            except Exception as error:  # noqa: BLE001 - one task must not fail the others
                _log_failure(raw, error)
                call.problems[index] = "An error of the backend; its log has it."
                _log.exception("predict.task_error")
            call.ended.add(index)

    async def _answer(self, raw: Any, call: _Call) -> dict[str, Any]:
        task = check(Task, raw)
        if call.context is not None:
            return await self._interactive.answer(self._turn(task, raw, call, call.context))
        requests = self._requests(task, call)
        for request in requests:
            normalise_request(request.text)  # refused before anything is fetched
        answers = await self._ask(await self._image(task, call), requests, call, raw)
        return await asyncio.to_thread(to_task_result, answers, call.labelling)

    def _turn(self, task: Task, raw: Any, call: _Call, context: Context) -> Turn:
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

    async def _image(self, task: Task, call: _Call) -> Image.Image:
        return await load_task_image(
            self._fetcher,
            task.data.get(call.labelling.image_field),
            self._limits,
            task.id if isinstance(task.id, int) else None,
        )

    async def _ask(
        self, image: Image.Image, requests: Sequence[LabelRequest], call: _Call, raw: object
    ) -> list[Labelled]:
        """Answers to those requests that got a usable one.

        Raises:
            SegZeroError: None did.
        """
        waiting = [
            asyncio.wrap_future(
                self._model.submit(
                    image,
                    request.text,
                    interactive=call.is_interactive,
                    pipeline=call.pipeline,
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
            _log_failure(raw, problem)
        return answers

    def _requests(self, task: Task, call: _Call) -> tuple[LabelRequest, ...]:
        """The task's requests; what was typed last is kept for a task that is opened alone."""
        kept = None
        if self._settings.keep_request and call.is_alone:
            kept = self._memory.last_typed(call.project)
        return task_requests(task.data, call.labelling, self._settings.request_fields, kept)

    def _check_available(self) -> None:
        if self.is_draining:
            raise UnavailableError("The backend is stopping.", retry_after_s=30)
        if self._calls >= self._settings.max_calls:
            seconds = math.ceil(self._model.waiting * self._model.seconds_per_request)
            raise UnavailableError(
                f"The backend already works on {self._calls} calls.",
                retry_after_s=min(max(1, seconds), _MAX_RETRY_S),
            )

    async def _wait_until_loaded(self) -> None:
        limit = min(self._settings.load_wait_s, self._settings.predict_deadline_s)
        until = self._clock() + limit
        while (
            self._model.state is ModelState.LOADING
            and self._clock() < until
            and not self.is_draining
        ):
            await asyncio.sleep(min(_LOOK_S, limit))
        match self._model.state:
            case ModelState.LOADING:
                raise UnavailableError("The model is still loading.", retry_after_s=10)
            case ModelState.FAILED | ModelState.STOPPED:
                problem = self._model.problem
                raise UnavailableError(
                    problem.message if problem else "The model has stopped.",
                    problem.remedy if problem else "",
                    retry_after_s=60,
                )

    def _new_slots(self) -> asyncio.Semaphore:
        return asyncio.Semaphore(self._in_flight)

    def _count(self, ok: int = 0, failed: int = 0, late: int = 0) -> None:
        self._metrics.tasks.labels(outcome="ok").inc(ok)
        self._metrics.tasks.labels(outcome="failed").inc(failed)
        self._metrics.tasks.labels(outcome="late").inc(late)


class _Call:
    """What is known of one call while its tasks are worked on."""

    def __init__(self, body: PredictBody, labelling: Labelling, pipeline: Predicts) -> None:
        self.labelling = labelling
        self.pipeline = pipeline
        self.context = body.params.context
        self.project = body.project
        self.is_alone = len(body.tasks) == 1
        self.remaining: Iterator[tuple[int, Any]] = enumerate(body.tasks)
        self.answered: dict[int, dict[str, Any]] = {}
        self.problems: dict[int, str] = {}
        self.ended: set[int] = set()

    @property
    def is_interactive(self) -> bool:
        return self.context is not None


def _missing(body: PredictBody, pipeline: Predicts) -> Any:
    """What a task without an answer gets."""
    return [] if body.params.context is None else empty_result(pipeline.model_version)


def _log_failure(raw: object, error: BaseException) -> None:
    task_id = raw.get("id") if isinstance(raw, dict) else None
    fields = {
        "task": task_id if isinstance(task_id, int) else None,
        "error": type(error).__name__,
        "reason": str(error) if isinstance(error, SegZeroError) else "see the traceback",
    }
    _log.warning("predict.task_failed", extra={"fields": fields})
