"""From the tasks of a call to their results: in time, as many as there were tasks."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Hashable, Sequence
from contextlib import ExitStack
from typing import Any, Final

from PIL import Image

from backend.call import Call, Reply, log_failure, missing
from backend.champions import Champions
from backend.errors import UnavailableError
from backend.image_cache import Fetches
from backend.images import load_task_image
from backend.interactive.memory import Memory
from backend.interactive.session import Interactive, Turn
from backend.labelling import parse_config
from backend.late_answers import LateAnswers
from backend.metrics import Metrics
from backend.model_thread import ModelState, ModelThread, Predicts
from backend.protocol import Context, PredictBody, Results, Task, check
from backend.settings import Settings
from backend.task_requests import LabelRequest, task_requests
from backend.translate import Labelled, to_task_result
from segzero_ml.errors import LabellingConfigError, ModelError, SegZeroError
from segzero_ml.images import ImageLimits
from segzero_ml.reasoner.prompts import normalise_request

_log = logging.getLogger(__name__)
_LOOK_S: Final = 0.25
_MAX_RETRY_S: Final = 600


class Predictor:
    """Answers calls to /predict, several at the same time, with one model thread.

    Args:
        model: Answers the requests.
        champions: Which version answers for which project.
        fetcher: Fetches the images.
        settings: Limits and deadlines.
        metrics: Where tasks are counted.
        clock: Seconds on a clock that never goes back.
        late: Sees to what is late at the deadline.
    """

    def __init__(
        self,
        model: ModelThread,
        champions: Champions,
        fetcher: Fetches,
        settings: Settings,
        metrics: Metrics,
        clock: Callable[[], float] = time.monotonic,
        late: LateAnswers | None = None,
    ) -> None:
        self.late = late or LateAnswers(settings)
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
        interactive call, where Label Studio expects an object); the log says why. What is not
        finished in time is worked on behind the call; see `backend.late_answers`.

        Raises:
            UnavailableError: The model is still loading, failed to load, or has too much to do.
        """
        started = self._clock()
        self._check_available()
        self._calls += 1
        try:
            await self._wait_until_loaded()
            deadline = started + self._settings.predict_deadline_s
            with ExitStack() as lease:
                pipeline = lease.enter_context(self._champions.lease(body.project))
                return await self._predict(body, pipeline, deadline, lease)
        finally:
            self._calls -= 1
            self._metrics.predict_seconds.observe(self._clock() - started)

    async def _predict(
        self, body: PredictBody, pipeline: Predicts, deadline: float, lease: ExitStack
    ) -> Reply:
        try:
            call = Call(body, parse_config(body.label_config), pipeline)
        except LabellingConfigError as error:
            _log.error("predict.config_unusable", extra={"fields": {"reason": str(error)}})
            self._count(failed=len(body.tasks))
            results: Results = [missing(body, pipeline) for _ in body.tasks]
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
        if not self._goes_on(call, workers, lease):
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
            self.late.done(call.in_hand)
        late = len(body.tasks) - len(call.ended)
        if late:
            _log.warning("predict.late", extra={"fields": {"tasks": late, "of": len(body.tasks)}})
        self._count(ok=len(call.answered), failed=len(call.ended) - len(call.answered), late=late)
        nothing = missing(body, pipeline)
        indices = range(len(body.tasks))
        return Reply(
            [call.answered.get(index, nothing) for index in indices],
            pipeline.model_version,
            tuple(call.problems.get(index) for index in indices),
        )

    def _goes_on(self, call: Call, workers: set[asyncio.Task[None]], lease: ExitStack) -> bool:
        """Whether the rest of a call is worked on behind it, and its answers are written."""
        if not workers or self.is_draining or not call.may_be_late or not self.late.is_on:
            return False
        each = self._model.seconds_per_request
        fits = self.late.fits(each, call.total - len(call.ended))
        call.limit_late(fits)
        call.is_late = fits > 0
        if call.is_late:
            self.late.go_on(workers, call.in_hand, fits * each, lease.pop_all().close)
        return call.is_late

    async def _work(self, call: Call) -> None:
        """Answer tasks of a call until none is left."""
        for index, raw in call.remaining:
            if index >= call.stop_at:
                return
            key = call.key(raw)
            elsewhere = self.late.elsewhere(key, only_late=call.is_alone)
            if elsewhere is not None and key not in call.in_hand:
                await elsewhere.wait()  # Label Studio has it then, or can ask again
                continue
            if self.late.begin(key, late=call.is_late):
                call.in_hand.add(key)
            try:
                async with self._slots[call.is_interactive]:
                    call.answered[index] = await self._answer(raw, call)
            except SegZeroError as error:
                log_failure(raw, error)
                call.problems[index] = str(error)
            except Exception as error:  # noqa: BLE001 - one task must not fail the others
                log_failure(raw, error)
                call.problems[index] = "An error of the backend; its log has it."
                _log.exception("predict.task_error")
            call.ended.add(index)
            if call.is_late:
                self._hand_over(call, index, raw, key)

    def _hand_over(self, call: Call, index: int, raw: Any, key: Hashable | None) -> None:
        """Have a late answer written; a late failure is in the log already."""
        answer = call.answered.get(index)
        if answer is None or call.project is None or not isinstance(raw.get("id"), int):
            self.late.done([key])
        else:
            self.late.add(call.project, call.pipeline.model_version, raw["id"], answer, key)

    async def _answer(self, raw: Any, call: Call) -> dict[str, Any]:
        task = check(Task, raw)
        if call.context is not None:
            return await self._interactive.answer(self._turn(task, raw, call, call.context))
        requests = self._requests(task, call)
        for request in requests:
            normalise_request(request.text)  # refused before anything is fetched
        answers = await self._ask(await self._image(task, call), requests, call, raw)
        return await asyncio.to_thread(to_task_result, answers, call.labelling)

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
            log_failure(raw, problem)
        return answers

    def _requests(self, task: Task, call: Call) -> tuple[LabelRequest, ...]:
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
