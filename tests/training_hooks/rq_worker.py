"""A worker process for the tests: `python -m tests.training_hooks.rq_worker URL QUEUE OPTIONS`."""

from __future__ import annotations

import json
import logging
import sys

from tests.training_hooks.rq_jobs import ALLOWED
from training_hooks.queues import QueueName
from training_hooks.redis_client import connect
from training_hooks.worker import run_worker
from training_hooks.worker_options import WorkerOptions


def main() -> None:
    url, queue, options, *burst = sys.argv[1:]
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stdout)
    run_worker(
        QueueName(queue),
        lambda: connect(url, timeout_s=2, retries=1),
        ALLOWED,
        options=WorkerOptions(**json.loads(options)),
        burst=bool(burst),
    )


if __name__ == "__main__":
    main()
