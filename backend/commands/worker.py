"""`segzero worker`: runs the jobs of one queue."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Final

import typer

from segzero_ml.errors import ConfigError

if TYPE_CHECKING:
    from training_hooks.queues import QueueName

_JOBS: Final[Mapping[str, tuple[str, ...]]] = {
    "ingest": ("ingest", "reconcile"),
    "predict": ("predict",),
    "train": ("train",),
}
"""Queue -> its jobs, whose modules are imported once instead of in every job's process."""


def worker(
    queue: Annotated[
        str,
        typer.Argument(
            metavar="ingest|predict|train",
            help="ingest: turns events from Label Studio into corrections. predict: "
            "gives tasks of segzero preannotate their predictions. train: runs rounds of "
            "training, one at a time; train needs the extra `train` and the backend's data "
            "folder.",
            show_default=False,
        ),
    ],
    burst: Annotated[
        bool, typer.Option("--burst", help="Stop when no job waits, instead of at Ctrl-C.")
    ] = False,
) -> None:
    """Run the jobs of one queue until Ctrl-C.

    `segzero up` starts the workers that one machine needs; this is for more of them, here or on
    other machines that reach the same Redis (SEGZERO_REDIS_URL). The settings are the same
    SEGZERO_* variables as those of the backend, and need the same values.

    While Redis is away it waits. Ctrl-C lets the running job finish, for 20 seconds at most;
    a job that does not make it starts anew elsewhere.
    """
    from training_hooks.worker import run_worker

    name = find_queue(queue)
    if name == "train":
        _check_training()
    # Its jobs fork, and a fork copies none of the threads that numpy would start.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    os.environ.setdefault("OMP_NUM_THREADS", "1")

    import sys

    from backend.jobs import ALLOWED
    from backend.logs import configure_logging
    from backend.redis_access import open_redis
    from backend.settings import load_settings
    from training_hooks.redis_client import probe

    settings = load_settings()
    with open_redis(settings, f"segzero-{name}") as client:
        if burst:  # a worker that stays can wait for Redis; this one has nothing to wait for
            probe(client)
    configure_logging(for_people=sys.stderr.isatty())
    run_worker(
        name,
        lambda: open_redis(settings, f"segzero-{name}"),
        ALLOWED,
        preload=[ALLOWED[job].rpartition(".")[0] for job in _JOBS.get(name, ())],
        burst=burst,
    )


def _check_training() -> None:
    from backend.data_folder import check_data_folder
    from backend.learning.installed import check_can_train
    from backend.settings import load_settings

    check_can_train()
    check_data_folder(load_settings())


def find_queue(text: str) -> QueueName:
    """The queue of that name.

    Raises:
        ConfigError: There is none.
    """
    from training_hooks.queues import QueueName

    try:
        return QueueName(text)
    except ValueError:
        known = ", ".join(QueueName)
        raise ConfigError(f"There is no queue {text!r}.", f"Choose one of: {known}.") from None
