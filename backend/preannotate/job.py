"""The job that gives some tasks of a project their predictions; the entry of the allow-list."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final, TypeVar

from backend.label_studio import LabelStudio
from backend.preannotate.asking import (
    Answers,
    Backend,
    BackendAwayError,
    BackendRefusedError,
    BackendTooLargeError,
    patiently,
)
from backend.preannotate.book import Book
from backend.preannotate.pushing import has_version, push
from backend.reconcile.projects import open_label_studio
from backend.redis_access import open_redis
from backend.settings import load_settings
from training_hooks.running_job import RunningJob

PATIENCE_S: Final = 600.0
"""For so long a job waits for a backend that is away, busy, or still loads its model."""

VERSION_PATIENCE_S: Final = 60.0
"""For so long it waits for a backend that answers with another version than was asked for."""

_LOOK_S: Final = 2.0
_FUTILE_CALLS: Final = 5
"""Calls in a row that may end at the backend's deadline without a single answer."""

T = TypeVar("T")


def run(project: int, tasks: Sequence[int], version: str) -> dict[str, Any]:
    """Predict tasks and store what comes of it in Label Studio.

    Args:
        project: Id of the project.
        tasks: Ids of its tasks; those that have a prediction of the version are left alone.
        version: Model version that is to answer.

    Returns:
        How many were predicted, were done already, are gone, and failed.

    Raises:
        ConfigError: A setting is wrong or missing.
        LabelStudioError: Label Studio does not answer; the job may be tried again.
        ModelError: The backend does not answer; the job may be tried again. Or it refuses.
        StoreError: Redis does not answer; the job may be tried again.
    """
    settings = load_settings()
    job = RunningJob.current()
    redis = open_redis(settings, "segzero-predict") if job is None else job.connection
    book = Book(redis, settings.label_studio_name, project, version)
    with open_label_studio(settings) as client, Backend(settings) as backend:
        check = (lambda: None) if job is None else job.check
        work = Work(client, backend, book, project, version, check=check)
        try:
            return work.run(tasks)
        except BackendRefusedError:
            if job is not None:
                job.forgo_tries()
            raise


class Work:
    """What a job does, with its parts given.

    Args:
        client: Label Studio.
        backend: Its model answers.
        book: Where it is noted what became of tasks.
        project: Id of the project.
        version: Model version that is to answer.
        patience_s: Seconds to wait for a backend that is away.
        check: Called now and then; may raise to end the work.
    """

    def __init__(
        self,
        client: LabelStudio,
        backend: Backend,
        book: Book,
        project: int,
        version: str,
        *,
        patience_s: float = PATIENCE_S,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self._client = client
        self._backend = backend
        self._book = book
        self._project = project
        self._version = version
        self._patience_s = patience_s
        self._check = check

    def run(self, tasks: Sequence[int]) -> dict[str, Any]:
        """Do it; see the module's `run`."""
        found = self._client.listing.tasks_of(self._project, tasks)
        todo = [task for task in found if not has_version(task, self._version)]
        here = {int(task["id"]) for task in todo}
        self._book.settle([task for task in tasks if task not in here], {})
        counts = {"predicted": 0, "failed": 0}
        if todo:
            self._wait_for_version()
            config = self._client.project(self._project).label_config
            self._predict(config, todo, counts)
        return {**counts, "done_before": len(found) - len(todo), "gone": len(tasks) - len(found)}

    def _wait_for_version(self) -> None:
        """A version that was promoted a moment ago may still be loading."""
        until = time.monotonic() + VERSION_PATIENCE_S
        while True:
            found = self._patiently(lambda: self._backend.version(self._project))
            if found == self._version or time.monotonic() >= until:
                return
            time.sleep(_LOOK_S)

    def _patiently(self, ask: Callable[[], T]) -> T:
        return patiently(ask, self._patience_s, self._check)

    def _predict(
        self, config: str, todo: Sequence[Mapping[str, Any]], counts: dict[str, int]
    ) -> None:
        """Ask until every task is answered or failed; what is there is written at once."""
        waiting = list(todo)
        most = len(waiting)
        futile = 0
        while waiting:
            asked, rest = waiting[:most], waiting[most:]
            ask = partial(self._backend.predict, self._project, config, asked)
            try:
                answers = self._patiently(ask)
            except BackendTooLargeError as error:
                if len(asked) > 1:
                    most = len(asked) // 2
                    continue
                self._store({}, {asked[0]["id"]: str(error)}, counts)
                waiting = rest
                continue
            ready, failed = self._sorted(asked, answers)
            late = [one for one in asked if one["id"] not in ready and one["id"] not in failed]
            self._store(ready, failed, counts)
            waiting = [*rest, *late]
            futile = futile + 1 if len(late) == len(asked) else 0
            if futile >= _FUTILE_CALLS:
                raise BackendAwayError(
                    f"The backend answered none of {len(late)} tasks in {futile} calls."
                )
            if futile:
                time.sleep(_LOOK_S)  # another call may have them in hand, and be about to end

    def _sorted(
        self, asked: Sequence[Mapping[str, Any]], answers: Answers
    ) -> tuple[dict[int, Mapping[str, Any]], dict[int, str]]:
        """Task → its prediction, and task → why it has none; in neither what is late."""
        ready: dict[int, Mapping[str, Any]] = {}
        failed: dict[int, str] = {}
        for task, result, problem in zip(asked, answers.results, answers.problems, strict=True):
            if problem is not None:
                failed[task["id"]] = problem
            elif answers.version != self._version:
                failed[task["id"]] = (
                    f"{answers.version} answers for this project, not {self._version}."
                )
            elif result is not None:
                ready[task["id"]] = result
        return ready, failed

    def _store(
        self, ready: Mapping[int, Mapping[str, Any]], failed: dict[int, str], counts: dict[str, int]
    ) -> None:
        failed |= push(self._client, self._book, self._project, self._version, ready)
        self._book.settle([task for task in ready if task not in failed], failed)
        counts["predicted"] += len(ready.keys() - failed.keys())
        counts["failed"] += len(failed)
