"""A schedule as cron writes it: five fields, read in the time zone of the moment asked about."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

from segzero_ml.errors import ConfigError

_FIELDS: Final = 5
_SOME_MOMENT: Final = datetime(2026, 1, 1, tzinfo=UTC)
_REMEDY: Final = (
    "Five fields: minute, hour, day of month, month, day of week. "
    "Every night at two: 0 2 * * *. Mondays at six: 0 6 * * mon."
)


def check_schedule(text: str) -> None:
    """Refuse what is no schedule, never comes, or comes at random.

    Raises:
        ConfigError: As above.
    """
    fields = text.split()
    # croniter takes seconds, years and fields by chance too ("r", "h"): not meant here.
    if len(fields) != _FIELDS or any(field[0] in "rRhH" for field in fields):
        raise ConfigError(f"{text[:100]!r} is no schedule.", _REMEDY)
    last_due(text, _SOME_MOMENT)


def last_due(text: str, now: datetime) -> datetime:
    """The last moment up to `now`, itself included, at which the schedule was due.

    Args:
        text: Such as `0 2 * * *`.
        now: With its time zone, in which the schedule is read.

    Raises:
        ConfigError: It is no schedule.
    """
    return _near(text, now + timedelta(microseconds=1), forward=False)


def next_due(text: str, now: datetime) -> datetime:
    """The first moment after `now` at which the schedule is due.

    Args:
        text: Such as `0 2 * * *`.
        now: With its time zone, in which the schedule is read.

    Raises:
        ConfigError: It is no schedule.
    """
    return _near(text, now, forward=True)


def _near(text: str, moment: datetime, *, forward: bool) -> datetime:
    from croniter import CroniterError, croniter

    try:
        steps = croniter(text, moment)
        found: datetime = (steps.get_next if forward else steps.get_prev)(datetime)
    except CroniterError as error:
        raise ConfigError(f"{text[:100]!r} is no schedule, or never due.", _REMEDY) from error
    return found
