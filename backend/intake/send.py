"""Puts changes into the queue."""

from __future__ import annotations

from collections.abc import Iterable

from backend.intake.handover import Order, parcels
from training_hooks.queues import QueueName, Queues


def send(queues: Queues, orders: Iterable[Order]) -> None:
    """Enqueue the jobs that carry some changes. Safe to repeat.

    Raises:
        StoreError: Redis does not answer or has no room; some jobs may be there already.
    """
    for parcel in parcels(orders):
        queues.enqueue(
            QueueName.INGEST,
            "ingest",
            parcel.job_id,
            {"changes": parcel.changes},
            timeout_s=parcel.timeout_s,
        )
