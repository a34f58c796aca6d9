"""How the way of the corrections does at this moment: one value, for people and for programs.

Every part is asked by itself, each within a short time, so that what is broken does not hide
what works. Looking changes nothing, except that dead letters nobody can read are buried.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from redis import Redis

from backend.jobs import ALLOWED
from backend.learning.folders import loop_name_of
from backend.learning.round_state import RoundState, read_state
from backend.ready import BackendView, ask_backend
from backend.redis_access import open_redis, redis_address, spool_folder
from backend.settings import Settings
from segzero_ml.corrections import Correction
from segzero_ml.errors import ConfigError, SpoolError, StoreError
from training_hooks.dead_letters import DeadLetter, DeadLetters
from training_hooks.queues import QueueDepth, QueueName, Queues
from training_hooks.redis_client import probe, redacted
from training_hooks.spool import SpoolSurvey, survey
from training_hooks.store_reader import CorrectionReader
from training_hooks.store_values import ProjectKey, Statistics

RECONCILED: Final = "reconcile"
"""Name of the watermark that says when a project was last compared with Label Studio."""

LETTERS: Final = 10
"""Dead letters of a report, the newest."""

RECENT: Final = 5
"""Corrections of a report, the newest."""

NEARLY_FULL: Final = 0.9
"""Share of the spool's room from which on there is an alarm."""

OLD_S: Final = 600.0
"""Seconds that a webhook may wait in the spool before there is an alarm."""

_TIMEOUT_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class RedisView:
    """Whether Redis can be used.

    Attributes:
        up: It answers.
        address: Where, without its password; None where there never was one.
        problem: Why not; empty when it is up.
        remedy: What to do about it; empty when it is up.
        warnings: What about its settings may lose data.
    """

    up: bool
    address: str | None
    problem: str = ""
    remedy: str = ""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ProjectView:
    """One project.

    Attributes:
        key: Which.
        statistics: Its corrections in numbers.
        reconciled_at: When it was last compared with Label Studio.
        round: Its newest round of training; None where there was none.
    """

    key: ProjectKey
    statistics: Statistics
    reconciled_at: datetime | None
    round: RoundState | None = None


@dataclass(frozen=True, slots=True)
class SpoolView:
    """What waits on disk.

    Attributes:
        survey: What lies there; None where it cannot be read.
        capacity_bytes: Most bytes it may take.
        folder: Where.
        alarm: What is wrong, in one sentence; empty when nothing is.
        remedy: What to do about it.
    """

    survey: SpoolSurvey | None
    capacity_bytes: int
    folder: Path
    alarm: str = ""
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Numbers:
    """What Redis knows in numbers."""

    queues: Mapping[QueueName, QueueDepth]
    projects: tuple[ProjectView, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """All of it, as of one moment.

    Attributes:
        at: When.
        redis: Whether Redis can be used.
        backend: Whether the backend runs here, and predicts.
        spool: What waits on disk.
        numbers: Queues and projects; None while Redis is away.
        dead_letters: The newest ones, newest first.
        recent: The corrections saved last, newest first.
    """

    at: datetime
    redis: RedisView
    backend: BackendView
    spool: SpoolView
    numbers: Numbers | None = None
    dead_letters: tuple[DeadLetter, ...] = ()
    recent: tuple[Correction, ...] = ()

    @property
    def is_healthy(self) -> bool:
        """Whether corrections get to where they belong."""
        return self.redis.up and not self.spool.alarm


def collect(settings: Settings, project: int | None = None) -> Report:
    """Look at everything once; returns within seconds whatever is broken.

    Args:
        settings: Where everything is.
        project: Only this project of this Label Studio; all there are if None.
    """
    at = datetime.now(UTC)
    backend, spool = ask_backend(settings), look_at_spool(settings)
    address = redis_address(settings)
    shown = None if address is None else redacted(address)
    try:
        with open_redis(settings, "segzero-status", timeout_s=_TIMEOUT_S, retries=1) as client:
            warnings = probe(client)
            reader = CorrectionReader(client)
            projects = _projects(reader, settings, project)
            return Report(
                at,
                RedisView(True, shown, warnings=warnings),
                backend,
                spool,
                count(client, projects),
                tuple(DeadLetters(client, ALLOWED).list(LETTERS)),
                _recent(reader, projects),
            )
    except (ConfigError, StoreError) as error:
        return Report(at, RedisView(False, shown, error.message, error.remedy), backend, spool)


def count(
    client: Redis, projects: tuple[ProjectKey, ...] | None = None, limit_s: float = 60.0
) -> Numbers:
    """Ask Redis for the numbers.

    Args:
        client: From `open_redis`.
        projects: Which ones; all there are if None.
        limit_s: Seconds after which no further question is asked.

    Raises:
        StoreError: Redis does not answer, or not in this time.
    """
    give_up = time.monotonic() + limit_s
    queues, reader = Queues(client, ALLOWED), CorrectionReader(client)
    depths = {name: queues.depth(name) for name in QueueName}
    views = []
    for key in reader.projects() if projects is None else projects:
        if time.monotonic() > give_up:
            raise StoreError(f"Redis did not give all numbers within {limit_s:g} s.")
        views.append(
            ProjectView(
                key,
                reader.statistics(key),
                reader.watermark(key, RECONCILED),
                read_state(client, loop_name_of(key)),
            ),
        )
    return Numbers(depths, tuple(views))


def look_at_spool(settings: Settings, look: Callable[[], SpoolSurvey] | None = None) -> SpoolView:
    """What waits on disk, and whether that is a reason to worry.

    Args:
        settings: Where it is, and how large it may be.
        look: For the process that has the spool open, which knows without reading it all.
    """
    capacity, folder = settings.spool_bytes, spool_folder(settings)
    try:
        found = survey(folder) if look is None else look()
    except SpoolError as error:
        return SpoolView(None, capacity, folder, error.message, error.remedy)
    return SpoolView(found, capacity, folder, *_spool_alarm(found, capacity))


def _spool_alarm(found: SpoolSurvey, capacity: int) -> tuple[str, str]:
    if found.bytes >= NEARLY_FULL * capacity and found.depth:
        return (
            f"The spool is nearly full: {found.bytes:,} of {capacity:,} bytes. When it is full, "
            "webhooks are refused and have to be brought back from Label Studio.",
            "Start Redis and the backend, which empty it, or raise SEGZERO_SPOOL_BYTES.",
        )
    if found.oldest_age_s is not None and found.oldest_age_s > OLD_S:
        return (
            f"The oldest webhook has waited for {found.oldest_age_s / 60:.0f} minutes.",
            "The backend hands them over while it runs and Redis answers: see its log.",
        )
    return "", ""


def _projects(
    reader: CorrectionReader, settings: Settings, project: int | None
) -> tuple[ProjectKey, ...]:
    if project is not None:
        return (ProjectKey(settings.label_studio_name, project),)
    return reader.projects()


def _recent(reader: CorrectionReader, projects: tuple[ProjectKey, ...]) -> tuple[Correction, ...]:
    found = [one for project in projects for one in reader.recent(project, RECENT)]
    found.sort(key=lambda one: (one.revision.updated_at, one.key.annotation), reverse=True)
    return tuple(found[:RECENT])
