"""Whether rounds of training can run: here, where the extra `train` is, or anywhere at all."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Final

from backend.errors import CannotTrainError
from backend.jobs import ALLOWED
from backend.redis_access import open_redis
from backend.settings import Settings
from segzero_ml.errors import ConfigError, SegZeroError
from training_hooks.queues import QueueName, Queues

HOW_TO_INSTALL: Final = (
    'Install it where segzero up runs: pip install "segzero-label-studio[train]". Then start that '
    "again."
)
_TIMEOUT_S: Final = 2.0


def can_train() -> bool:
    """Whether rounds can run here; imports nothing."""
    return all(find_spec(name) is not None for name in ("trl", "datasets", "accelerate"))


def check_can_train() -> None:
    """Refuse to take train jobs where they could only fail.

    Raises:
        ConfigError: The extra `train` is not installed.
    """
    if not can_train():
        raise ConfigError(
            "What trains is not installed here.",
            'Install it: pip install "segzero-label-studio[train]".',
        )


def check_somebody_trains(queues: Queues) -> None:
    """Refuse a round that somebody asks for where it would only wait, for ever.

    A worker may run elsewhere. Where one could run here it may be started later: that is left
    to those who ask.

    Raises:
        CannotTrainError: No worker of the queue runs, and none could be started here.
        StoreError: Redis does not answer.
    """
    if not can_train() and not queues.depth(QueueName.TRAIN).workers:
        raise CannotTrainError(
            "Nothing trains: what trains is not installed here, and no worker of the queue train "
            "runs elsewhere.",
            HOW_TO_INSTALL,
        )


def check_training_may_be_asked_for(settings: Settings) -> None:
    """The same for *Start training*; where Redis is away nobody knows, and it may be asked for.

    Raises:
        CannotTrainError: No round would ever run.
    """
    if can_train():
        return
    try:
        with open_redis(settings, "segzero-webhook", timeout_s=_TIMEOUT_S, retries=0) as redis:
            check_somebody_trains(Queues(redis, ALLOWED))
    except CannotTrainError:
        raise
    except SegZeroError:
        return
