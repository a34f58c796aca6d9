"""Schedules: what is taken, what is refused, and when they are due."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segzero_ml.errors import ConfigError
from training_hooks.schedule import check_schedule, last_due, next_due

NIGHTLY = "0 2 * * *"
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)  # a Sunday


def test_a_schedule_is_due_at_its_last_moment_up_to_now_and_next_after_it() -> None:
    assert last_due(NIGHTLY, NOON) == datetime(2026, 3, 1, 2, tzinfo=UTC)
    assert next_due(NIGHTLY, NOON) == datetime(2026, 3, 2, 2, tzinfo=UTC)
    assert last_due("0 6 * * mon", NOON) == datetime(2026, 2, 23, 6, tzinfo=UTC)


def test_the_moment_itself_is_due() -> None:
    two = datetime(2026, 3, 1, 2, tzinfo=UTC)
    assert last_due(NIGHTLY, two) == two
    assert next_due(NIGHTLY, two) == two + timedelta(days=1)


def test_a_schedule_is_read_in_the_time_zone_of_now() -> None:
    tokyo = timezone(timedelta(hours=9))
    due = last_due(NIGHTLY, NOON.astimezone(tokyo))
    assert due == datetime(2026, 3, 1, 2, tzinfo=tokyo)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "daily",
        "@daily",
        "0 2 * *",
        "0 2 * * * *",  # with seconds
        "0 25 * * *",
        "0 0 30 2 *",  # never comes
        "r 2 * * *",  # at random
        "h 2 * * *",
        "0 2 * * nosuchday",
        "99999999999999999999 * * * *",
    ],
)
def test_what_is_no_schedule_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ConfigError, match=r"0 2 \* \* \*"):
        check_schedule(text)


@given(st.text(max_size=30))
def test_any_text_is_a_schedule_or_refused(text: str) -> None:
    try:
        check_schedule(text)
    except ConfigError:
        return
    assert last_due(text, NOON) <= NOON < next_due(text, NOON)
