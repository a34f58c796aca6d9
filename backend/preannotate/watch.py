"""Looks on while workers go through the tasks of a plan."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from typing import Final

from redis import Redis

from backend.jobs import ALLOWED
from backend.preannotate.book import Book
from backend.preannotate.plan import QUEUE, Plan, orphans
from training_hooks.dead_letters import DeadLetters
from training_hooks.queues import Queues

_LOOK_S: Final = 0.5
_LOOK_AT_JOBS_S: Final = 3.0
_LETTERS: Final = 500


@dataclass(frozen=True, slots=True)
class Standing:
    """How far a plan is.

    Args:
        total: Tasks of the plan.
        waiting: Those that are not settled yet.
        failed: Task → why it has no prediction.
        workers: Living workers of the queue.
    """

    total: int
    waiting: int
    failed: Mapping[int, str]
    workers: int

    @property
    def done(self) -> int:
        """Tasks that have their prediction, or are gone."""
        return self.total - self.waiting - len(self.failed)


def watch(
    plan: Plan,
    redis: Redis,
    label_studio: str,
    show: Callable[[Standing], None],
    sleep: Callable[[float], None] = time.sleep,
) -> Standing:
    """Wait until every task of a plan has its prediction or failed.

    Args:
        plan: Its jobs are in the queue.
        redis: Where queues and claims are.
        label_studio: The name of this Label Studio.
        show: Told how far it is, twice a second.
        sleep: Waits some seconds.

    Raises:
        StoreError: Redis does not answer.
    """
    queues = Queues(redis, ALLOWED)
    book = Book(redis, label_studio, plan.project, plan.version)
    ours = set(plan.tasks)
    looked_at = float("-inf")
    workers = 0
    dead: set[int] = set()
    while True:
        if time.monotonic() - looked_at >= _LOOK_AT_JOBS_S:
            looked_at = time.monotonic()
            workers = queues.depth(QUEUE).workers
            # Twice in a row: between a task's claim and its job there is a moment.
            seen = set(orphans(queues, book, plan.tasks))
            _give_up(queues, book, dead & seen)
            dead = seen
        waiting = ours & book.pending().keys()
        failed = {task: why for task, why in book.failed().items() if task in ours - waiting}
        standing = Standing(len(ours), len(waiting), failed, workers)
        show(standing)
        if not waiting:
            return standing
        sleep(_LOOK_S)


def _give_up(queues: Queues, book: Book, tasks: Set[int]) -> None:
    """Tasks whose job is a dead letter have failed, for the reason it has."""
    if not tasks:
        return
    letters = {
        letter.job_id: letter
        for letter in DeadLetters(queues.connection, ALLOWED).list(_LETTERS, QUEUE)
    }
    jobs = book.pending()
    reasons = {}
    for task in tasks:
        letter = letters.get(jobs.get(task, ""))
        reasons[task] = "Its job was lost." if letter is None else letter.reason
    book.settle((), reasons)
