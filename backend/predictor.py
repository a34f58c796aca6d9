"""From the tasks of a call to their results: in time, as many as there were tasks."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Hashable
from contextlib import ExitStack
from typing import Any, Final

from backend.call import Call, Reply, log_failure
from backend.champions import Champions
from backend.errors import UnavailableError
from backend.image_cache import Fetches
from backend.interactive.gesture import is_asked
from backend.labelling import Labelling, parse_config
from backend.late_answers import LateAnswers
from backend.metrics import Metrics
from backend.model_thread import ModelState, ModelThread, Predicts
from backend.protocol import PredictBody, Results
from backend.settings import Settings
from backend.task_answers import TaskAnswers
from segzero_ml.errors import LabellingConfigError, SegZeroError

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
        self._settings = settings
        self._metrics = metrics
        self._clock = clock
        self._answers = TaskAnswers(model, fetcher, settings, clock)
        self._calls = 0
        self._worked_on: set[Call] = set()
        self._drain_until = math.inf
        # Decoded images are large: these bound how many are held, whatever the calls. Those for
        # whom somebody waits have slots of their own.
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

        A task that fails, or is not finished in time, gets `[]`; in an interactive call, where
        Label Studio expects an object, a prediction that says why. What is not finished in time
        is worked on behind the call; see `backend.late_answers`.

        Raises:
            UnavailableError: The model is still loading, failed to load, or has too much to do.
                Where something was typed or clicked, the reply says so instead: Label Studio
                shows no error.
        """
        try:
            return await self._predict_if_available(body)
        except UnavailableError as error:
            told = await self._told(body, error)
            if told is None:
                raise
            return told

    async def _told(self, body: PredictBody, error: UnavailableError) -> Reply | None:
        """The refusal of what was typed or clicked, as an answer."""
        context = body.params.context
        try:
            labelling = parse_config(body.label_config)
        except LabellingConfigError:
            return None
        if context is None or not is_asked(context.result, labelling):
            return None
        return await self._refused(body, labelling, self.version_of(body.project), str(error))

    async def _refused(
        self, body: PredictBody, labelling: Labelling | None, version: str, why: str
    ) -> Reply:
        """What a call gets that has no answers at all."""
        results: Results = [
            await self._answers.missing(raw, body, labelling, version, why) for raw in body.tasks
        ]
        return Reply(results, version, (why,) * len(results))

    async def _predict_if_available(self, body: PredictBody) -> Reply:
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
            return await self._refused(body, None, pipeline.model_version, str(error))
        self._check_in_time(call, deadline)
        await self._work_on(call, deadline, lease)
        late = call.total - len(call.ended)
        if late:
            _log.warning("predict.late", extra={"fields": {"tasks": late, "of": call.total}})
        self._count(ok=len(call.answered), failed=len(call.ended) - len(call.answered), late=late)
        results = [await self._result(body, call, index) for index in range(call.total)]
        problems = tuple(call.problems.get(index) for index in range(call.total))
        return Reply(results, pipeline.model_version, problems)

    async def _result(self, body: PredictBody, call: Call, index: int) -> Any:
        """What a task gets: its answer, else nothing, or why there is none where a person waits."""
        found = call.answered.get(index)
        if found is not None:
            return found
        raw, version = body.tasks[index], call.pipeline.model_version
        return await self._answers.missing(raw, body, call.labelling, version, call.why(index))

    async def _work_on(self, call: Call, deadline: float, lease: ExitStack) -> None:
        """Answer what can be answered in time, and see to the rest."""
        lease.callback(self._worked_on.discard, call)
        self._worked_on.add(call)
        number = min(self._in_flight, call.total)
        waiting: set[asyncio.Task[Any]] = {
            asyncio.create_task(self._work(call)) for _ in range(number)
        }
        try:
            waiting = await self._until(deadline, waiting)
            if waiting:
                self._go_on(call, waiting, lease)
            elif call.elsewhere:
                # The other call may have put aside tasks of this one: neither is to wait for
                # the other's reply.
                self.late.no_longer_awaited(call.in_hand)
                waiting = {asyncio.create_task(one.wait()) for one in call.elsewhere.values()}
                waiting = await self._until(deadline, waiting)
        finally:
            if not call.is_late:
                self.late.done(call.in_hand)
                for worker in waiting:
                    worker.cancel()
                await asyncio.gather(*waiting, return_exceptions=True)

    async def _until(
        self, deadline: float, running: set[asyncio.Task[Any]]
    ) -> set[asyncio.Task[Any]]:
        """Those that have not ended at the deadline, or when the backend stops."""
        while running:
            left = min(deadline, self._drain_until) - self._clock()
            if left <= 0:
                break
            _, running = await asyncio.wait(running, timeout=min(left, _LOOK_S))
        return running

    def _go_on(self, call: Call, workers: set[asyncio.Task[Any]], lease: ExitStack) -> None:
        """Have the rest of a call worked on behind it, as far as its answers can be written."""
        if self.is_draining or not call.may_be_late or not self.late.is_on:
            return
        each = self._model.seconds_per_request
        fits = self.late.fits(each, call.left)
        call.limit_late(fits)
        if fits > 0:
            call.is_late = True
            # What has ended goes with the reply: whoever asks for it later is to get it anew.
            ended = call.ended_keys()
            self.late.done(ended)
            kept = call.in_hand.keys() - set(ended)
            self.late.go_on(workers, kept, fits * each, lease.pop_all().close)

    async def _work(self, call: Call) -> None:
        """Answer tasks of a call until none is left; those that another call has are put aside.

        Never waits for another call: that may wait for this one.
        """
        for index, raw in call.remaining:
            if index >= call.stop_at:
                return
            key = call.key(raw)
            elsewhere = self.late.elsewhere(key, only_late=call.is_opened)
            if elsewhere is not None and key not in call.in_hand:
                call.elsewhere[index] = elsewhere  # Label Studio has it then, or can ask again
                continue
            if key is not None and self.late.begin(key, late=call.is_late):
                call.in_hand[key] = index
            try:
                async with self._slots[call.is_urgent]:
                    call.answered[index] = await self._answers.answer(raw, call)
            except SegZeroError as error:
                log_failure(raw, error)
                call.problems[index] = str(error)
            except Exception as error:  # noqa: BLE001 - one task must not fail the others
                log_failure(raw, error)
                call.problems[index] = "An error of the backend; its log has it."
                _log.exception("predict.task_error")
            call.ended.add(index)
            if call.is_late:
                self._hand_over(call, index, raw, key if call.in_hand.get(key) == index else None)

    def _hand_over(self, call: Call, index: int, raw: Any, key: Hashable | None) -> None:
        """Have a late answer written; a late failure is in the log already."""
        answer = call.answered.get(index)
        if answer is None or call.project is None or not isinstance(raw.get("id"), int):
            self.late.done([key])
        else:
            self.late.add(call.project, call.pipeline.model_version, raw["id"], answer, key)

    def _check_available(self) -> None:
        if self.is_draining:
            raise UnavailableError("The backend is stopping.", retry_after_s=30)
        if self._calls >= self._settings.max_calls:
            raise UnavailableError(
                f"The backend already works on {self._calls} calls.",
                retry_after_s=_retry_after_s(self._ahead_s()),
            )

    def _check_in_time(self, call: Call, deadline: float) -> None:
        """Refuse at once a call whose first task could not be begun before its deadline."""
        ahead_s = self._ahead_s(urgent_only=call.is_urgent)
        each = self._model.seconds_per_request
        may_be_late = call.may_be_late and self.late.is_on and self.late.fits(each, 1)
        if call.total and self._clock() + ahead_s >= deadline and not may_be_late:
            raise UnavailableError(
                f"The backend has work for about {math.ceil(ahead_s)} s before this call.",
                retry_after_s=_retry_after_s(ahead_s),
            )

    def _ahead_s(self, *, urgent_only: bool = False) -> float:
        """Estimated seconds until a new call is begun: calls take turns, with some tasks each."""
        calls = [call for call in self._worked_on if call.is_urgent or not urgent_only]
        tasks = sum(min(self._in_flight, call.left) for call in calls)
        return tasks * self._model.seconds_per_request

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


def _retry_after_s(ahead_s: float) -> int:
    return min(max(1, math.ceil(ahead_s)), _MAX_RETRY_S)
