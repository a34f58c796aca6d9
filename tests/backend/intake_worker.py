"""A worker process with short waits: `python -m tests.backend.intake_worker`."""

from __future__ import annotations

from backend.jobs import ALLOWED
from backend.logs import configure_logging
from backend.redis_access import open_redis
from backend.settings import load_settings
from training_hooks.queues import QueueName
from training_hooks.worker import run_worker
from training_hooks.worker_options import WorkerOptions

OPTIONS = WorkerOptions(
    heartbeat_s=1, abandon_after_s=3, poll_s=1, tidy_every_s=1, stop_grace_s=1.0
)


def main() -> None:
    settings = load_settings()
    configure_logging()
    run_worker(
        QueueName.INGEST,
        lambda: open_redis(settings, "segzero-ingest", timeout_s=2, retries=1),
        ALLOWED,
        options=OPTIONS,
        preload=["backend.intake.ingest_job"],
    )


if __name__ == "__main__":
    main()
