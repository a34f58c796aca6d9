"""What became of an object where Label Studio's clock and the backend's are not alike."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.interactive.on_screen import AUTOSAVE, Screen, Showing
from segzero_ml.pipeline import Pipeline
from segzero_ml.tiny.scenes import Scene
from segzero_ml.types import Point
from tests.backend.test_interactive_refining import TASK, Annotator, draft, moments_later

START = datetime(2026, 5, 6, 7, 8, 9, tzinfo=UTC)
HALF_A_DAY = 12 * 3600


@pytest.fixture
def annotator(tiny_pipeline: Pipeline, scenes: list[Scene]) -> Annotator:
    return Annotator(tiny_pipeline, scenes[0])


def after(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def as_if_shown(annotator: Annotator, seconds_ago: float) -> None:
    """Let time pass since everything was shown."""
    passed = timedelta(seconds=seconds_ago)
    for one in annotator.memory.of((1, 1)).objects.values():
        when = one.showing
        then = Showing(when.asked_at - passed, when.at - passed, when.saved_at)
        annotator.memory.remember((1, 1), replace(one, showing=then))


@pytest.mark.parametrize("ahead", [-3600, -60, -20, 20, 30, 3600])
def test_an_object_shown_just_now_is_refined_whatever_label_studios_clock_says(
    annotator: Annotator, ahead: float
) -> None:
    """The draft is one that was saved while the call was answered."""
    at = annotator.scene.objects[0].point_px
    first = annotator.click(TASK, at)
    as_if_shown(annotator, 4)
    again = annotator.click(draft(at=moments_later(ahead - 3)), Point(at.x + 3, at.y + 3))
    assert again["id"] == first["id"]


@pytest.mark.parametrize("ahead", [-3600, -60, 0, 60, 3600])
def test_an_object_that_was_deleted_stays_deleted_whatever_label_studios_clock_says(
    annotator: Annotator, ahead: float
) -> None:
    at = annotator.scene.objects[0].point_px
    first = annotator.click(TASK, at)
    as_if_shown(annotator, 20)
    again = annotator.click(draft(at=moments_later(ahead - 5)), Point(at.x + 3, at.y + 3))
    assert again["id"] != first["id"]


@pytest.mark.parametrize("ahead", [-60, 0, 60])
def test_a_draft_that_the_call_knew_already_tells_nothing_of_its_answer(
    annotator: Annotator, ahead: float
) -> None:
    at, saved = annotator.scene.objects[0].point_px, moments_later(ahead - 30)
    first = annotator.click(draft(at=saved), at)
    as_if_shown(annotator, 600)
    again = annotator.click(draft(at=saved), Point(at.x + 3, at.y + 3))
    assert again["id"] == first["id"]


@given(
    ahead=st.floats(-HALF_A_DAY, HALF_A_DAY),
    answered=st.floats(0, 60),
    saved=st.floats(-60, 120),
    passed=st.floats(0, 4),
)
def test_nothing_is_decided_within_seconds_of_being_shown(
    ahead: float, answered: float, saved: float, passed: float
) -> None:
    now = answered + passed
    screen = Screen(saved_at=after(min(saved, now) + ahead))
    assert not screen.tells_of(Showing(after(0), after(answered)), after(now))


@given(ahead=st.floats(-HALF_A_DAY, HALF_A_DAY), saved=st.floats(-600, 0), now=st.floats(0, 600))
def test_what_was_saved_before_it_was_asked_for_decides_nothing(
    ahead: float, saved: float, now: float
) -> None:
    known = after(saved + ahead)
    showing = Showing(after(0), after(0), known)
    assert not Screen(saved_at=known).tells_of(showing, after(now))
    assert not Screen(saved_at=None).tells_of(showing, after(now))


@given(answered=st.floats(0, 60), saved=st.floats(0, 600))
def test_where_the_clocks_are_alike_a_later_draft_decides(answered: float, saved: float) -> None:
    """One of a change before the answer is saved within seconds of it."""
    showing = Showing(after(0), after(answered), after(-10))
    tells = Screen(saved_at=after(saved)).tells_of(showing, after(max(answered, saved)))
    assert tells == (after(saved) > showing.at + AUTOSAVE)


def test_a_time_that_cannot_be_read_decides_nothing() -> None:
    never = datetime.min.replace(tzinfo=UTC)
    assert not Screen(saved_at=never).tells_of(Showing(after(0), after(0)), after(60))
