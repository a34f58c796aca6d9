"""When what has ended is started again."""

from __future__ import annotations

from backend.supervisor.restarts import Restarts

CRASH = -9


def pauses(restarts: Restarts, count: int, life_s: float = 0.5) -> list[float | None]:
    return [restarts.after(life_s, CRASH) for _ in range(count)]


def test_pauses_grow_to_half_a_minute_and_no_further() -> None:
    assert pauses(Restarts(), 8) == [1, 2, 4, 8, 16, 30, 30, 30]


def test_who_lived_a_minute_has_the_first_pause_again() -> None:
    restarts = Restarts()
    pauses(restarts, 5)
    assert restarts.after(59, CRASH) == 30
    assert restarts.after(60, CRASH) == 1
    assert restarts.after(0, CRASH) == 2


def test_who_refuses_to_start_three_times_in_a_row_is_given_up() -> None:
    restarts = Restarts()
    assert [restarts.after(2, 1) for _ in range(3)] == [1, 2, None]


def test_a_crash_is_no_refusal_to_start() -> None:
    restarts = Restarts()
    codes = [1, 1, CRASH, 1, 1, 3, 0, None, 1, 1]
    assert None not in [restarts.after(2, code) for code in codes]


def test_who_has_worked_before_is_not_given_up() -> None:
    restarts = Restarts()
    assert restarts.after(3600, 1) == 1
    assert None not in [restarts.after(2, 1) for _ in range(20)]
