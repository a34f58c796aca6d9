"""One call to /predict while its tasks are worked on."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import Any

from backend.labelling import Labelling
from backend.late_answers import item_key
from backend.model_thread import Predicts
from backend.protocol import PredictBody, Results
from backend.translate import empty_result
from segzero_ml.errors import SegZeroError

_log = logging.getLogger("backend.predictor")


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


class Call:
    """What is known of one call.

    Args:
        body: As it came.
        labelling: What its labelling config offers.
        pipeline: Answers it, from its first task to its last.
    """

    def __init__(self, body: PredictBody, labelling: Labelling, pipeline: Predicts) -> None:
        self.labelling = labelling
        self.pipeline = pipeline
        self.context = body.params.context
        self.project = body.project
        self.is_alone = len(body.tasks) == 1
        self.is_late = False
        self.asks_again = body.params.for_worker
        self.total = self.stop_at = len(body.tasks)
        self.remaining: Iterator[tuple[int, Any]] = enumerate(body.tasks)
        self.answered: dict[int, dict[str, Any]] = {}
        self.problems: dict[int, str] = {}
        self.ended: set[int] = set()
        self.in_hand: set[Hashable] = set()
        self._config = body.label_config

    @property
    def is_interactive(self) -> bool:
        """Whether an annotator waits for it in the editor."""
        return self.context is not None

    @property
    def may_be_late(self) -> bool:
        """Whether what is late can be written through the API."""
        return not self.is_interactive and not self.asks_again and self.project is not None

    def key(self, raw: Any) -> Hashable | None:
        """What makes a task of another call the same work; None where that is not known."""
        if self.is_interactive or not isinstance(raw, dict):
            return None
        version = self.pipeline.model_version
        return item_key(self.project, raw.get("id"), version, [raw.get("data"), self._config])

    def limit_late(self, most: int) -> None:
        """Leave out all but the first so many of the tasks that have not ended."""
        left = [index for index in range(self.total) if index not in self.ended]
        if most < len(left):
            self.stop_at = left[most]


def missing(body: PredictBody, pipeline: Predicts) -> Any:
    """What a task without an answer gets."""
    return [] if body.params.context is None else empty_result(pipeline.model_version)


def log_failure(raw: object, error: BaseException) -> None:
    """Say why a task has no answer, without what it holds."""
    task_id = raw.get("id") if isinstance(raw, dict) else None
    fields = {
        "task": task_id if isinstance(task_id, int) else None,
        "error": type(error).__name__,
        "reason": str(error) if isinstance(error, SegZeroError) else "see the traceback",
    }
    _log.warning("predict.task_failed", extra={"fields": fields})
