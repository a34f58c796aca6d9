from __future__ import annotations

from datetime import UTC, datetime

import pytest

from segzero_ml.checks import check_id, check_number, check_text, read_time
from segzero_ml.errors import InputError


@pytest.mark.parametrize("written", ["2026-03-04T05:06:07Z", "2026-03-04T07:06:07+02:00"])
def test_a_time_with_its_zone_is_read(written: str) -> None:
    assert read_time("saved", written) == datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)


@pytest.mark.parametrize("written", ["2026-03-04T05:06:07", "2026-03-04", "", "now", None, 5])
def test_what_is_no_moment_is_refused_by_its_name(written: object) -> None:
    with pytest.raises(InputError, match=r"^saved must"):
        read_time("saved", written)


@pytest.mark.parametrize("number", [1, 2**63 - 1])
def test_an_id_comes_back(number: int) -> None:
    assert check_id("task", number) == number


@pytest.mark.parametrize("value", [0, -1, 2**63, True, 1.0, "1", None])
def test_what_is_no_id_is_refused_by_its_name(value: object) -> None:
    with pytest.raises(InputError, match=r"^task must"):
        check_id("task", value)


@pytest.mark.parametrize("value", [0, 0.5, 1, None])
def test_a_number_in_its_range_is_fine(value: object) -> None:
    check_number("share", value, 1.0)


def test_blank_text_is_refused_only_where_it_must_say_something() -> None:
    check_text("note", "  ", 5)
    with pytest.raises(InputError, match="note is blank"):
        check_text("note", "  ", 5, may_be_blank=False)
