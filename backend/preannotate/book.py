"""What is known of a project's pre-annotation in one version: what waits, what failed.

Redis keys, for a Label Studio, a project and a version:

- `segzero:preannotate:{label studio}:{project}:{version}:pending`, a hash: task → id of the job
  that has it.
- `segzero:preannotate:{label studio}:{project}:{version}:failed`, a hash: task → the reason.
- `segzero:writing:{label studio}:{version}:{task}`, a string: whoever is writing the task's
  prediction just now; expires by itself.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from redis import Redis

from training_hooks.failures import reason_line
from training_hooks.redis_client import redis_errors

WRITING_S: Final = 90
"""For how long a task's prediction is nobody else's to write; longer than any call."""

_KEPT_S: Final = 14 * 24 * 3600
_RELEASE: Final = """
for _, key in ipairs(KEYS) do
    if redis.call('get', key) == ARGV[1] then redis.call('del', key) end
end
"""
_RENEW: Final = """
for _, key in ipairs(KEYS) do
    if redis.call('get', key) ~= ARGV[1] then return 0 end
end
for _, key in ipairs(KEYS) do redis.call('expire', key, ARGV[2]) end
return 1
"""


@dataclass(slots=True)
class Reserved:
    """Tasks whose predictions nobody else writes.

    Args:
        tasks: Their ids.
        renew: Keeps them for another `WRITING_S`; False where they were lost meanwhile.
        is_unsure: Whether a write is on its way of which nobody knows whether it arrived.
    """

    tasks: list[int]
    renew: Callable[[], bool]
    is_unsure: bool = False


class Book:
    """One project in one version.

    Args:
        redis: Replies must be bytes.
        label_studio: The name of this Label Studio.
        project: The project's id.
        version: The model version.

    Every method raises:
        StoreError: Redis does not answer or has no room.
    """

    def __init__(self, redis: Redis, label_studio: str, project: int, version: str) -> None:
        self._redis = redis
        base = f"segzero:preannotate:{label_studio}:{project}:{version}"
        self._pending, self._failed = f"{base}:pending", f"{base}:failed"
        self._writing = f"segzero:writing:{label_studio}:{version}"

    def claim(self, tasks: Iterable[int], job_id: str) -> list[int]:
        """Note which job has which tasks.

        Returns:
            Those of the tasks that no job had; they are this job's now.
        """
        wanted = list(tasks)
        with redis_errors("noting tasks"), self._redis.pipeline() as pipe:
            for task in wanted:
                pipe.hsetnx(self._pending, str(task), job_id)
            pipe.expire(self._pending, _KEPT_S)
            *taken, _ = pipe.execute()
        return [task for task, is_new in zip(wanted, taken, strict=True) if is_new]

    def release(self, tasks: Sequence[int]) -> None:
        """Let go of tasks whose job will not do them."""
        self.settle(tasks, {})

    def settle(self, done: Iterable[int], failed: Mapping[int, str]) -> None:
        """Note how tasks ended.

        Args:
            done: They have a prediction, or need none.
            failed: Task → why it has none.
        """
        finished = [str(task) for task in done]
        with redis_errors("noting what became of tasks"), self._redis.pipeline() as pipe:
            if finished:
                pipe.hdel(self._pending, *finished)
                pipe.hdel(self._failed, *finished)
            if failed:
                reasons: dict[Any, Any] = {
                    str(task): reason_line(reason) for task, reason in failed.items()
                }
                pipe.hdel(self._pending, *reasons)
                pipe.hset(self._failed, mapping=reasons)
                pipe.expire(self._failed, _KEPT_S)
            pipe.execute()

    def forget_failures(self, tasks: Iterable[int]) -> None:
        """Strike out earlier failures of tasks that are tried again."""
        names = [str(task) for task in tasks]
        if names:
            with redis_errors("noting tasks"):
                self._redis.hdel(self._failed, *names)

    def pending(self) -> dict[int, str]:
        """Task → id of the job that has it."""
        return self._read(self._pending)

    def failed(self) -> dict[int, str]:
        """Task → why it has no prediction."""
        return self._read(self._failed)

    def _read(self, key: str) -> dict[int, str]:
        with redis_errors("being asked what became of tasks"):
            found: Any = self._redis.hgetall(key)
        return {int(task): value.decode("utf-8", "replace") for task, value in found.items()}

    @contextmanager
    def writing(self, tasks: Sequence[int]) -> Iterator[Reserved]:
        """Keep others from writing predictions of tasks, for the time of the `with`.

        Gives those of the tasks that are ours; another process writes the rest just now. Where
        it ends unsure whether something was written, they stay ours for `WRITING_S`.
        """
        token = uuid.uuid4().hex
        keys = [f"{self._writing}:{task}" for task in tasks]
        with redis_errors("reserving tasks"), self._redis.pipeline() as pipe:
            for key in keys:
                pipe.set(key, token, nx=True, ex=WRITING_S)
            ours = [bool(one) for one in pipe.execute()]
        mine = [key for key, is_ours in zip(keys, ours, strict=True) if is_ours]

        def renew() -> bool:
            with redis_errors("reserving tasks"):
                return bool(self._redis.eval(_RENEW, len(mine), *mine, token, str(WRITING_S)))

        reserved = Reserved(
            [task for task, is_ours in zip(tasks, ours, strict=True) if is_ours], renew
        )
        try:
            yield reserved
        finally:
            if mine and not reserved.is_unsure:
                with redis_errors("letting go of tasks"):
                    self._redis.eval(_RELEASE, len(mine), *mine, token)
