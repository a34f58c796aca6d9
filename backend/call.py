"""One call to /predict while its tasks are worked on."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from backend.labelling import Labelling
from backend.late_answers import item_key
from backend.model_thread import Predicts
from backend.protocol import PredictBody, Results
from segzero_ml.errors import SegZeroError

_log = logging.getLogger("backend.predictor")

_TOO_LATE: Final = "The answer was not ready in time. Ask again in a moment."


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

    Attributes:
        is_opened: Whether an annotator has just opened its one task.
        stop_at: Index of the first task that is left out.
        answered: Index → prediction.
        problems: Index → why there is none.
        ended: Indices of the tasks that were answered or failed.
        in_hand: Key → index of the tasks that others leave to it.
        elsewhere: Index → what is set when the call that has the task in hand is done with it.
    """

    def __init__(self, body: PredictBody, labelling: Labelling, pipeline: Predicts) -> None:
        self.labelling = labelling
        self.pipeline = pipeline
        self.context = body.params.context
        self.project = body.project
        self.asks_again = body.params.for_worker
        self.is_opened = len(body.tasks) == 1 and self.context is None and not self.asks_again
        self.is_late = False
        self.total = self.stop_at = len(body.tasks)
        self.remaining: Iterator[tuple[int, Any]] = enumerate(body.tasks)
        self.answered: dict[int, dict[str, Any]] = {}
        self.problems: dict[int, str] = {}
        self.ended: set[int] = set()
        self.in_hand: dict[Hashable, int] = {}
        self.elsewhere: dict[int, asyncio.Event] = {}
        self._config = body.label_config

    @property
    def is_interactive(self) -> bool:
        """Whether an annotator waits for it in the editor, having typed or clicked."""
        return self.context is not None

    @property
    def is_urgent(self) -> bool:
        """Whether somebody waits for it and sees nothing meanwhile: it goes before the others."""
        return self.is_interactive or self.is_opened

    @property
    def may_be_late(self) -> bool:
        """Whether what is late can be written through the API."""
        return not self.is_interactive and not self.asks_again and self.project is not None

    @property
    def left(self) -> int:
        """How many of its tasks are still to be answered by it."""
        return max(0, self.stop_at - len(self.ended) - len(self.elsewhere))

    def ended_keys(self) -> list[Hashable]:
        """Keys of the tasks that it had in hand and that have ended."""
        return [key for key, index in self.in_hand.items() if index in self.ended]

    def why(self, index: int) -> str:
        """Why a task has no answer."""
        return self.problems.get(index, _TOO_LATE)

    def key(self, raw: Any) -> Hashable | None:
        """What makes a task of another call the same work; None where that is not known."""
        if self.is_interactive or not isinstance(raw, dict):
            return None
        version = self.pipeline.model_version
        return item_key(self.project, raw.get("id"), version, [raw.get("data"), self._config])

    def limit_late(self, most: int) -> None:
        """Leave out all but the first so many of the tasks that have not ended."""
        over = self.ended | self.elsewhere.keys()
        left = [index for index in range(self.total) if index not in over]
        if most < len(left):
            self.stop_at = left[most]


def log_failure(raw: object, error: BaseException) -> None:
    """Say why a task has no answer, without what it holds."""
    task_id = raw.get("id") if isinstance(raw, dict) else None
    fields = {
        "task": task_id if isinstance(task_id, int) else None,
        "error": type(error).__name__,
        "reason": str(error) if isinstance(error, SegZeroError) else "see the traceback",
    }
    _log.warning("predict.task_failed", extra={"fields": fields})
