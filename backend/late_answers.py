"""Answers that come after their call was answered: the work goes on, and Label Studio gets them.

Label Studio gives up a call after 100 s, so a call is answered before that with what there is.
What is still missing then is worked on behind it, and written through the API of predictions.
Whoever asks for such a task meanwhile, or for one that another call is answering, does not have
it done a second time: Label Studio would store it twice.

All of it belongs to the event loop; only the writing runs in a thread.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from backend.preannotate.book import Book
from backend.preannotate.pushing import push
from backend.reconcile.projects import open_label_studio
from backend.redis_access import open_redis, redis_address
from backend.settings import Settings
from segzero_ml.errors import LabelStudioError, SegZeroError, StoreError

_log = logging.getLogger(__name__)

_PAUSES_S: Final = (2.0, 5.0, 15.0, 30.0, 60.0)
"""Between tries to write; after the last one the answers are let go."""

Push = Callable[[int, str, Mapping[int, Mapping[str, Any]]], Mapping[int, str]]
"""Writes predictions of a project in a version: task → prediction; gives task → problem."""


def item_key(
    project: int | None, task: object, version: str, asked: object
) -> tuple[Hashable, ...] | None:
    """What makes two tasks of calls the same work; None where Label Studio cannot be told apart.

    Args:
        project: Id of the project.
        task: Id of the task.
        version: Model version that answers.
        asked: What else the answer depends on: data, requests, labelling config; JSON.
    """
    if project is None or not isinstance(task, int):
        return None
    text = json.dumps(asked, sort_keys=True, default=str)
    return project, task, version, hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()


@dataclass(slots=True)
class _Late:
    """One answer to be written."""

    project: int
    version: str
    task: int
    prediction: Mapping[str, Any]
    key: Hashable | None


class LateAnswers:
    """Keeps track of work in hand, and writes what comes too late.

    Args:
        settings: Where Label Studio and Redis are, and how much may be late.
        write: Writes predictions, in a thread; by default through Label Studio's API.
        pauses_s: Seconds between tries to write.
    """

    def __init__(
        self,
        settings: Settings,
        write: Push | None = None,
        pauses_s: tuple[float, ...] = _PAUSES_S,
    ) -> None:
        self._settings = settings
        self._write = write or self._through_api
        self._pauses_s = pauses_s
        self._in_hand: dict[Hashable, asyncio.Event] = {}
        self._late_keys: set[Hashable] = set()
        self._calls: set[asyncio.Task[None]] = set()
        self._ready: list[_Late] = []
        self._writer: asyncio.Task[None] | None = None
        self._closing = False
        self.estimated_s = 0.0

    @property
    def is_on(self) -> bool:
        """Whether late answers can be written at all."""
        settings = self._settings
        if self._closing or settings.late_work_s <= 0 or settings.label_studio_token is None:
            return False
        return redis_address(settings) is not None  # where tasks are reserved while writing

    # The same work, once

    def elsewhere(self, key: Hashable | None, *, only_late: bool) -> asyncio.Event | None:
        """What is set when somebody else is done with a piece of work; None if nobody does it.

        Args:
            key: From `item_key`.
            only_late: Whether not to wait for calls whose answers are still to come: an
                annotator who opens a task should not wait for a hundred others.
        """
        if only_late and key not in self._late_keys:
            return None
        return self._in_hand.get(key)

    def begin(self, key: Hashable | None, *, late: bool) -> bool:
        """Take a piece of work in hand, until `done`; False if somebody has, or it has no key."""
        if key is None or key in self._in_hand:
            return False
        self._in_hand[key] = asyncio.Event()
        if late:
            self._late_keys.add(key)
        return True

    def no_longer_awaited(self, keys: Iterable[Hashable]) -> None:
        """Wake those who wait for pieces of work that go with the next reply.

        They stay in hand until `done`: Label Studio does not have them yet.
        """
        for key in keys:
            found = self._in_hand.get(key)
            if found is not None:
                found.set()

    def done(self, keys: Iterable[Hashable | None]) -> None:
        """Pieces of work are over."""
        for key in keys:
            self._late_keys.discard(key)
            found = self._in_hand.pop(key, None)
            if found is not None:
                found.set()

    # Behind a call

    def fits(self, seconds_each: float, tasks: int) -> int:
        """How many more tasks may be late, given how long one takes."""
        left = self._settings.late_work_s - self.estimated_s
        return max(0, min(tasks, int(left / max(seconds_each, 1e-6))))

    def go_on(
        self,
        workers: set[asyncio.Task[Any]],
        keys: Iterable[Hashable],
        estimated_s: float,
        finish: Callable[[], object],
    ) -> None:
        """Let the workers of a call end behind it.

        Args:
            workers: They answer its tasks; `add` takes their answers.
            keys: What they have in hand.
            estimated_s: How long they will take.
            finish: Called when all have ended.
        """
        self.estimated_s += estimated_s
        self._late_keys.update(keys)

        async def see_to_its_end() -> None:
            try:
                await asyncio.gather(*workers, return_exceptions=True)
            finally:
                for worker in workers:
                    worker.cancel()
                self.estimated_s = max(0.0, self.estimated_s - estimated_s)
                finish()

        call = asyncio.create_task(see_to_its_end())
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)

    def add(
        self,
        project: int,
        version: str,
        task: int,
        prediction: Mapping[str, Any],
        key: Hashable | None,
    ) -> None:
        """Have an answer written soon; its work is over when that was done, or was given up."""
        self._ready.append(_Late(project, version, task, prediction, key))
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write_all())

    async def aclose(self, timeout_s: float) -> None:
        """End the work; what is answered already is written, if that takes no longer than told."""
        self._closing = True
        for call in self._calls:
            call.cancel()
        await asyncio.gather(*self._calls, return_exceptions=True)
        if self._writer is not None and not self._writer.done():
            await asyncio.wait({self._writer}, timeout=timeout_s)
            self._writer.cancel()
            await asyncio.gather(self._writer, return_exceptions=True)

    async def _write_all(self) -> None:
        while self._ready:
            first = self._ready[0]
            same = (first.project, first.version)
            group = [one for one in self._ready if (one.project, one.version) == same]
            self._ready = [one for one in self._ready if (one.project, one.version) != same]
            try:
                await self._write_group(group)
            finally:
                self.done(one.key for one in group)

    async def _write_group(self, group: list[_Late]) -> None:
        project, version = group[0].project, group[0].version
        predictions = {one.task: one.prediction for one in group}
        for pause in (*self._pauses_s, None):
            try:
                problems = await asyncio.to_thread(self._write, project, version, predictions)
            except (LabelStudioError, StoreError) as error:
                if pause is None or self._closing:
                    self._give_up(project, predictions, str(error))
                    return
                await asyncio.sleep(pause)
            except SegZeroError as error:
                self._give_up(project, predictions, str(error))
                return
            else:
                for task, reason in problems.items():
                    self._give_up(project, {task: predictions[task]}, reason)
                fields = {"project": project, "tasks": len(predictions) - len(problems)}
                _log.info("predict.late_written", extra={"fields": fields})
                return

    def _give_up(
        self, project: int, predictions: Mapping[int, Mapping[str, Any]], reason: str
    ) -> None:
        fields = {"project": project, "tasks": list(predictions)[:20], "reason": reason}
        _log.error("predict.late_lost", extra={"fields": fields})

    def _through_api(
        self, project: int, version: str, predictions: Mapping[int, Mapping[str, Any]]
    ) -> Mapping[int, str]:
        name = self._settings.label_studio_name
        with (
            open_label_studio(self._settings) as client,
            open_redis(self._settings, "segzero-late") as redis,
        ):
            book = Book(redis, name, project, version)
            return push(client, book, project, version, predictions)
