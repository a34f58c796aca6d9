"""Where the curves of a round go besides its own folder. None of it may end a round."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from transformers import TrainerCallback
from transformers.integrations.integration_utils import (
    MLflowCallback,
    is_mlflow_available,
    is_tensorboard_available,
)

from training_hooks.failures import reason_line

_log = logging.getLogger(__name__)


def curves() -> list[str]:
    """What the trainer keeps curves with in the round's own folder: TensorBoard, where it is."""
    return ["tensorboard"] if is_tensorboard_available() else []  # type: ignore[no-untyped-call]


def trackers() -> list[TrainerCallback]:
    """MLflow, where it is installed and `DISABLE_MLFLOW_INTEGRATION` is not `TRUE`."""
    is_there = is_mlflow_available()  # type: ignore[no-untyped-call]
    return [Tolerant("MLflow", MLflowCallback)] if is_there else []


class Tolerant(TrainerCallback):
    """Passes on to a tracker what the trainer tells, until the tracker fails.

    Its server may be away, or a driver for its database missing: hours of training are worth more
    than one more copy of their curves.

    Args:
        name: The tracker's, for people.
        make: Makes it, at the beginning of the training.
    """

    def __init__(self, name: str, make: Callable[[], Any]) -> None:
        self._name = name
        self._make = make
        self._tracker: Any = None
        self._has_failed = False

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Called by the trainer before its first step."""
        self._pass_on("on_train_begin", args, state, control, kwargs)

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Called by the trainer after each step."""
        self._pass_on("on_log", args, state, control, kwargs)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Called by the trainer after each checkpoint."""
        self._pass_on("on_save", args, state, control, kwargs)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Called by the trainer after its last step."""
        self._pass_on("on_train_end", args, state, control, kwargs)

    def _pass_on(
        self, event: str, args: Any, state: Any, control: Any, kwargs: dict[str, Any]
    ) -> None:
        if self._has_failed:
            return
        try:
            if self._tracker is None:
                self._tracker = self._make()
            getattr(self._tracker, event)(args, state, control, **kwargs)
        except Exception as error:  # noqa: BLE001 - of its HTTP client, its database, anything
            self._has_failed = True
            _log.warning(
                "%s gets nothing more of this round: %s",
                self._name,
                reason_line(f"{type(error).__name__}: {error}"),
            )
