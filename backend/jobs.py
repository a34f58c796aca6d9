"""Every function that a job may call: the allow-list of all workers."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

ALLOWED: Final[Mapping[str, str]] = MappingProxyType(
    {
        "predict": "backend.preannotate.job.run",
        "ingest": "backend.intake.ingest_job.run",
        "reconcile": "backend.reconcile.job.run",
        "train": "backend.learning.train_job.run",
    }
)
"""Name of a function, as jobs carry it -> its dotted path."""
