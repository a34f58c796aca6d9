"""What is known of a project when it is asked whether a round of training shall start."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from itertools import islice
from typing import Final

from backend.settings import Settings
from segzero_ml.corrections import Verdict
from training_hooks.loop_reader import (
    GONE,
    ROUND_ENDED,
    ROUND_FAILED,
    ROUND_STARTED,
    START_TRAINING,
    LoopReader,
    Row,
)
from training_hooks.policy import LoopFacts, PolicyOptions, Quality
from training_hooks.snapshot_options import SnapshotOptions
from training_hooks.store_values import ProjectKey

MOST_NEW: Final = 10_000
"""New corrections that are looked at; more change no decision."""

_WINDOWS_BEFORE: Final = 4
"""Quality falls against so many windows before the newest one."""

_LOOKED_AT: Final = 10
"""Windows of corrections among which those of shown predictions are sought."""


def gather(
    reader: LoopReader,
    project: ProjectKey,
    options: PolicyOptions,
    *,
    running: bool,
    by_hand: bool = False,
) -> LoopFacts:
    """Read the facts from the store.

    Args:
        reader: The store.
        project: Which project.
        options: The window over which quality is taken.
        running: Whether a round of the project runs or waits to.
        by_hand: Whether a person asks right now.

    Raises:
        StoreError: Redis does not answer.
    """
    trained = reader.trained_until(project)
    rows = reader.learnt_after(project, trained, MOST_NEW)
    new_at = [row.learnt_at for row in rows if row.verdict is not Verdict.ACCEPTED]
    recent, before = _quality(
        reader.saved_last(project, _LOOKED_AT * options.quality_window),
        trained,
        options.quality_window,
    )
    started = reader.watermark(project, ROUND_STARTED)
    ended = reader.watermark(project, ROUND_ENDED)
    failed = ended is not None and reader.watermark(project, ROUND_FAILED) == ended
    if started is not None and (ended is None or ended < started) and not running:
        ended, failed = started, True  # it was killed, and could not say so
    # Counted last: what comes meanwhile may be among all, but not among the new ones only.
    verdicts = reader.statistics(project).verdicts
    to_learn = sum(number for verdict, number in verdicts.items() if verdict != Verdict.ACCEPTED)
    return LoopFacts(
        to_learn=max(to_learn, len(new_at)),
        new_at=tuple(new_at),
        recent=recent,
        before=before,
        started_at=started,
        ended_at=ended,
        failed=failed,
        running=running,
        gone=reader.watermark(project, GONE) is not None,
        pressed_at=reader.watermark(project, START_TRAINING),
        by_hand=by_hand,
    )


def policy_options(settings: Settings) -> PolicyOptions:
    """When rounds start, as it was set."""
    return PolicyOptions(
        every_corrections=settings.train_every_corrections,
        min_corrections=settings.train_min_corrections,
        min_new=settings.train_min_new,
        max_age_h=settings.train_max_age_h,
        schedule=settings.train_schedule or "",
        quality_drop=settings.train_quality_drop,
        quality_window=settings.train_quality_window,
        debounce_s=settings.train_debounce_s,
        after_failure_s=settings.train_after_failure_s,
    )


def snapshot_options(settings: Settings, mark: int) -> SnapshotOptions:
    """What a round learns from, as it was set.

    Args:
        settings: They say it.
        mark: The store's when the round began to read the corrections: each draws its own.

    Raises:
        ConfigError: The shares leave nothing for new corrections.
    """
    return SnapshotOptions(
        held_out_share=settings.train_held_out_share,
        held_out_most=settings.train_held_out_most,
        older_share=settings.train_older_share,
        accepted_share=settings.train_accepted_share,
        small=settings.train_small_round,
        seed=mark + (settings.train_seed or 0),
    )


def local_now() -> datetime:
    """The present in this machine's time zone, in which schedules are read."""
    return datetime.now().astimezone()


def _quality(
    rows: Iterable[Row], trained: int | None, window: int
) -> tuple[Quality | None, Quality | None]:
    """Of the newest shown predictions since the last round, and of those before.

    Args:
        rows: Newest first.
        trained: The mark up to which the last round knew the corrections.
        window: How many are enough to tell.
    """
    shown = iter([row for row in rows if row.was_shown])
    recent = list(islice(shown, window))
    if len(recent) < window or any(row.number <= (trained or 0) for row in recent):
        return None, None
    before = list(islice(shown, _WINDOWS_BEFORE * window))
    return _summed_up(recent), _summed_up(before) if before else None


def _summed_up(rows: list[Row]) -> Quality:
    ious = [row.edit_iou for row in rows if row.edit_iou is not None]
    accepted = sum(row.verdict is Verdict.ACCEPTED for row in rows)
    mean = min(1.0, sum(ious) / len(ious)) if ious else None
    return Quality(len(rows), accepted / len(rows), mean)
