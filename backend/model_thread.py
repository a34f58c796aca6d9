"""One thread that loads the model and answers, batch after batch, while the server serves."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Protocol

from PIL import Image

from segzero_ml.errors import ModelError, SegZeroError
from segzero_ml.types import Prediction

_log = logging.getLogger(__name__)
_SMOOTHING: Final = 0.2


class Predicts(Protocol):
    """The part of `segzero_ml.pipeline.Pipeline` that serving needs."""

    @property
    def model_version(self) -> str:
        """Names the version that answers; never empty."""
        ...

    def predict(
        self, images: Sequence[Image.Image], requests: Sequence[str], *, batch_size: int
    ) -> list[Prediction]:
        """Answer one request about each image, as many at once as `batch_size` says."""
        ...


class ModelState(StrEnum):
    """What the thread does."""

    LOADING = "loading"
    READY = "ready"
    FAILED = "failed"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class _Job:
    image: Image.Image
    request: str
    pipeline: Predicts | None  # None is the one that was loaded
    answer: Future[Prediction] = field(default_factory=Future)


class ModelThread:
    """Loads a pipeline and runs it; everything else may be called from any thread.

    Interactive requests go before the others, and never wait for a batch to fill up. A batch
    is answered by one pipeline; the queue's first request says which.

    Args:
        load: Gives the pipeline; called in the thread.
        batch_size: Requests that are answered at once.
        on_batch: Told the seconds of each batch.
        expect: Gives the version that `load` will have, if it can be known before; called
            first thing in the thread.
        on_load: Given the pipeline, in the thread.
        between: Called in the thread before the first batch, between two, and every `look_s`
            without any.
        look_s: Seconds.
    """

    def __init__(
        self,
        load: Callable[[], Predicts],
        batch_size: int,
        on_batch: Callable[[float], None] = lambda _: None,
        expect: Callable[[], str | None] = lambda: None,
        on_load: Callable[[Predicts], None] = lambda _: None,
        between: Callable[[], None] = lambda: None,
        look_s: float = 1.0,
    ) -> None:
        self._load = load
        self._batch_size = batch_size
        self._on_batch = on_batch
        self._expect = expect
        self._on_load = on_load
        self._between = between
        self._look_s = look_s
        self._wake = threading.Condition()
        self._interactive: deque[_Job] = deque()
        self._others: deque[_Job] = deque()
        self._running = 0
        self._stopping = False
        self._pipeline: Predicts | None = None
        self._thread = threading.Thread(target=self._run, name="segzero-model", daemon=True)
        self.state = ModelState.LOADING
        self.problem: SegZeroError | None = None
        self.expected_version: str | None = None
        self.seconds_per_request = 1.0

    @property
    def model_version(self) -> str | None:
        """The version that answers; None while there is none."""
        return None if self._pipeline is None else self._pipeline.model_version

    @property
    def is_ready(self) -> bool:
        """Whether the model is loaded and the thread takes requests."""
        return self.state is ModelState.READY

    @property
    def waiting(self) -> int:
        """Requests that are queued or being answered."""
        return len(self._interactive) + len(self._others) + self._running

    def start(self) -> None:
        """Begin to load; returns at once."""
        self._thread.start()

    def stop(self, timeout_s: float) -> None:
        """Cancel what is queued, and wait for the batch that runs.

        A model cannot be interrupted: past the time limit, or while it still loads, the
        thread is left to end with the process.
        """
        with self._wake:
            self._stopping = True
            queued = [*self._interactive, *self._others]
            self._interactive.clear()
            self._others.clear()
            self._wake.notify_all()
        for job in queued:
            job.answer.cancel()
        if self._thread.is_alive() and self.state is not ModelState.LOADING:
            self._thread.join(timeout_s)
        self.state = ModelState.STOPPED

    def submit(
        self,
        image: Image.Image,
        request: str,
        *,
        interactive: bool,
        pipeline: Predicts | None = None,
    ) -> Future[Prediction]:
        """Queue a request; cancel the returned future to take it back.

        Args:
            image: Upright, any mode and size.
            request: As the user wrote it.
            interactive: Whether a person waits for it.
            pipeline: Answers; the one that was loaded if None.

        Raises:
            ModelError: The model failed to load, or the thread was stopped.
        """
        job = _Job(image, request, pipeline)
        with self._wake:
            if self._stopping or self.state is ModelState.FAILED:
                raise ModelError("The model does not take requests any more.")
            (self._interactive if interactive else self._others).append(job)
            self._wake.notify_all()
        return job.answer

    def _run(self) -> None:
        pipeline = self._load_pipeline()
        if pipeline is None:
            self.state = ModelState.FAILED
            return
        self._pipeline = pipeline
        self._on_load(pipeline)
        self._look_around()
        self.state = ModelState.READY
        _log.info("model.ready", extra={"fields": {"version": pipeline.model_version}})
        while (jobs := self._next_batch()) is not None:
            if jobs:
                started = time.monotonic()
                self._answer(jobs[0].pipeline or pipeline, jobs)
                self._note_time(time.monotonic() - started, len(jobs))
                self._running = 0
            self._look_around()

    def _look_around(self) -> None:
        try:
            self._between()
        except Exception:  # noqa: BLE001 - the thread goes on with what it has
            _log.exception("model.between_failed")

    def _load_pipeline(self) -> Predicts | None:
        try:
            self.expected_version = self._expect()
            return self._load()
        except SegZeroError as error:
            self.problem = error
            _log.error("model.load_failed", extra={"fields": {"reason": str(error)}})
        except Exception as error:  # noqa: BLE001 - told by /ready, while /health goes on
            self.problem = ModelError(f"The model failed to load: {type(error).__name__}.")
            _log.exception("model.load_failed")
        return None

    def _next_batch(self) -> list[_Job] | None:
        """Jobs that nobody took back; none after a while without any; None at the end."""
        with self._wake:
            if not (self._stopping or self._interactive or self._others):
                self._wake.wait(self._look_s)
            if self._stopping:
                return None
            taken = self._take(self._interactive or self._others)
            jobs = [job for job in taken if job.answer.set_running_or_notify_cancel()]
            self._running = len(jobs)
            return jobs

    def _take(self, queue: deque[_Job]) -> list[_Job]:
        """The first job of a queue, with those behind it that the same pipeline answers."""
        taken: list[_Job] = []
        passed: list[_Job] = []
        while queue and len(taken) < self._batch_size:
            job = queue.popleft()
            is_same = not taken or job.pipeline is taken[0].pipeline
            (taken if is_same else passed).append(job)
        queue.extendleft(reversed(passed))
        return taken

    def _answer(self, pipeline: Predicts, jobs: Sequence[_Job]) -> None:
        """Answer a batch; if it fails as a whole, one by one, so that one cannot fail all."""
        try:
            predictions = pipeline.predict(
                [job.image for job in jobs],
                [job.request for job in jobs],
                batch_size=self._batch_size,
            )
            if len(predictions) != len(jobs):
                raise ModelError(f"{len(jobs)} requests got {len(predictions)} answers.")
        except Exception as error:  # noqa: BLE001 - handed to whoever waits for the answer
            if len(jobs) == 1:
                jobs[0].answer.set_exception(error)
                return
            _log.warning("model.batch_failed", extra={"fields": {"error": type(error).__name__}})
            for job in jobs:
                self._answer(pipeline, [job])
            return
        for job, prediction in zip(jobs, predictions, strict=True):
            job.answer.set_result(prediction)

    def _note_time(self, seconds: float, requests: int) -> None:
        self._on_batch(seconds)
        difference = seconds / requests - self.seconds_per_request
        self.seconds_per_request += _SMOOTHING * difference
