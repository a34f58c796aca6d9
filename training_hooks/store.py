"""The corrections in Redis: the newest revision of each annotation, and nothing that is gone.

Events may come late, twice and in any order; whatever the order, the store ends up the same.
Every change is one script, so that it is seen whole or not at all, and may be sent again.
The keys are described in `training_hooks.store_reader`.

One Redis, not a cluster: the scripts reach more keys than they name.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from datetime import UTC, datetime
from typing import Any

from redis import Redis

from segzero_ml.checks import check_id
from segzero_ml.corrections import Correction, CorrectionKey, Revision
from segzero_ml.errors import InputError
from training_hooks import store_scripts
from training_hooks.redis_client import redis_errors
from training_hooks.store_reader import PREFIX, CorrectionReader, text
from training_hooks.store_values import (
    MILLION,
    WITHDRAWN,
    Outcome,
    ProjectKey,
    microseconds,
    pack,
    prediction_was_shown,
    sortable,
)


class CorrectionStore(CorrectionReader):
    """Reads and writes the corrections of all projects.

    All methods raise `StoreError` when Redis does not answer, refuses or is full; then they
    may be called again with the same arguments.

    Args:
        client: From `redis_client.connect`; must give bytes.
        prefix: What the names of all keys begin with.
    """

    def __init__(self, client: Redis, prefix: str = PREFIX) -> None:
        super().__init__(client, prefix)
        self._put = client.register_script(store_scripts.PUT)
        self._delete = client.register_script(store_scripts.DELETE)
        self._delete_task = client.register_script(store_scripts.DELETE_TASK)

    def upsert(self, correction: Correction, listed_since: int | None = None) -> Outcome:
        """Store a correction, unless a newer revision is known or the annotation is deleted.

        Args:
            correction: What to store.
            listed_since: For a correction read from Label Studio's own list: the `mark` taken
                before that list was asked for. What the store learnt until then yields to
                the list: a deletion that the list disproves, and even a newer revision.

        Raises:
            InputError: The correction is too large to be kept.
        """
        shown = "shown" if prediction_was_shown(correction) else "alone"
        iou = correction.edit_iou
        lead = correction.lead_time_s
        fields = [
            correction.verdict.value,
            shown,
            "" if iou is None else round(iou * MILLION),
            "" if lead is None else repr(float(lead)),
            microseconds(correction.revision.updated_at),
            pack(correction),
        ]
        return self._write(
            correction.key, correction.task, sortable(correction.revision), listed_since, fields
        )

    def withdraw(
        self, key: CorrectionKey, revision: Revision, task: int, listed_since: int | None = None
    ) -> Outcome:
        """Note that an annotation holds no truth in this revision (it was skipped, say).

        Its correction is removed. Unlike a deletion this is not final: a newer revision that
        holds truth again is stored.

        Args:
            key: Which annotation.
            revision: Its state without truth.
            task: Id of its task.
            listed_since: As for `upsert`.
        """
        # A tie with the same content is decided too: withdrawn goes before stored.
        return self._write(key, task, sortable(revision) + WITHDRAWN, listed_since, [""] * 6)

    def delete(self, key: CorrectionKey, known_until: int | None = None) -> bool:
        """Remove an annotation for good: what comes of it later is refused.

        Args:
            key: Which annotation.
            known_until: For a deletion concluded from an annotation's absence in a complete
                list: the `mark` taken before that list was asked for. What the store learnt
                after it stays.

        Returns:
            Whether there was something to remove.
        """
        mark = "" if known_until is None else known_until
        with redis_errors("deleting a correction"):
            keys = [self._base(ProjectKey.of(key))]
            return bool(self._delete(keys=keys, args=[key.annotation, mark]))

    def delete_task(self, project: ProjectKey, task: int) -> int:
        """Remove all annotations of a task for good, also those not heard of yet.

        Returns:
            How many there were.
        """
        check_id("task", task)
        with redis_errors("deleting the corrections of a task"):
            return int(self._delete_task(keys=[self._base(project)], args=[task]))

    def set_watermark(self, project: ProjectKey, name: str, moment: datetime) -> None:
        """Remember a time under a name, such as that of the last reconcile.

        Raises:
            InputError: The time has no zone.
        """
        if moment.utcoffset() is None:
            raise InputError("A watermark must be a time with its zone.")
        value = moment.astimezone(UTC).isoformat()
        with redis_errors("storing a watermark"):
            self._redis.hset(f"{self._base(project)}:watermarks", name, value)

    def set_unseen(self, project: ProjectKey, annotations: Collection[int]) -> None:
        """Remember which annotations a round could not look at, in place of those before."""
        key = f"{self._base(project)}:unseen"
        with (
            redis_errors("storing which corrections were not looked at"),
            self._redis.pipeline() as pipe,
        ):
            pipe.delete(key)
            if annotations:
                pipe.sadd(key, *annotations)
            pipe.execute()

    def forget_watermark(self, project: ProjectKey, name: str) -> None:
        """Forget the time under a name, if there is one."""
        with redis_errors("removing a watermark"):
            self._redis.hdel(f"{self._base(project)}:watermarks", name)

    def _write(
        self,
        key: CorrectionKey,
        task: int,
        revision: str,
        listed_since: int | None,
        fields: list[Any],
    ) -> Outcome:
        check_id("task", task)
        project = ProjectKey.of(key)
        mark = "" if listed_since is None else listed_since
        name = json.dumps([project.label_studio, project.project])
        arguments = [key.annotation, task, revision, mark, *fields, self._name(project), name]
        with redis_errors("storing a correction"):
            keys = [self._base(project), f"{self._prefix}:projects"]
            return Outcome(text(self._put(keys=keys, args=arguments)))
