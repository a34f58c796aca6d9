from __future__ import annotations

import dataclasses
import json
import math
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segzero_ml import masks
from segzero_ml.corrections import (
    FORMAT,
    Correction,
    CorrectionKey,
    LabelledSegment,
    Revision,
    Verdict,
    choose_target,
)
from segzero_ml.errors import InputError
from segzero_ml.types import ImageSize, Rle

WHEN = datetime(2026, 3, 4, 5, 6, 7, 891234, tzinfo=UTC)
HASH = "0123456789abcdef" * 4
SIZE = ImageSize(width=7, height=5)


def rle(*pixels: tuple[int, int]) -> Rle:
    mask = np.zeros((SIZE.height, SIZE.width), dtype=np.bool_)
    for row, column in pixels:
        mask[row, column] = True
    return masks.encode(mask)


def segment(request: str = "the ring", label: str = "Object") -> LabelledSegment:
    return LabelledSegment(rle((1, 2), (3, 4)), label, request)


def correction(**changes: Any) -> Correction:
    values: dict[str, Any] = {
        "key": CorrectionKey("http://label-studio.example", 7, 11),
        "revision": Revision(WHEN, HASH),
        "task": 3,
        "image": "/data/upload/7/a.png",
        "image_sha256": None,
        "size": SIZE,
        "requests": ("the ring",),
        "predicted": (segment(),),
        "corrected": (segment(), segment()),
        "note_shown": "A ring.",
        "note_edited": "A ring, and another.",
        "verdict": Verdict.EDITED,
        "edit_iou": 0.5,
        "lead_time_s": 12.25,
        "model_version": "tiny-1",
        "annotator": 2,
    }
    return Correction(**{**values, **changes})


# --- JSON ---------------------------------------------------------------------------------

times = st.datetimes(
    min_value=datetime(2000, 1, 1),
    max_value=datetime(2100, 1, 1),
    timezones=st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=30))]),
)
names = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
requests = names.filter(str.strip)


@st.composite
def corrections(draw: st.DrawFn) -> Correction:
    asked = tuple(draw(st.lists(requests, min_size=1, max_size=3, unique=True)))
    shapes = [(), ((0, 0),), ((1, 2), (3, 4), (4, 6))]
    segments = st.lists(
        st.builds(
            LabelledSegment,
            st.sampled_from(shapes).map(lambda pixels: rle(*pixels)),
            names,
            st.sampled_from(asked),
        ),
        min_size=1,
        max_size=3,
    ).map(tuple)
    return correction(
        revision=Revision(draw(times), HASH),
        requests=asked,
        predicted=draw(segments),
        corrected=draw(segments),
        note_shown=draw(names),
        note_edited=draw(names),
        verdict=draw(st.sampled_from([Verdict.ACCEPTED, Verdict.EDITED, Verdict.REJECTED])),
        edit_iou=draw(st.none() | st.floats(0, 1)),
        lead_time_s=draw(st.none() | st.floats(0, 1e6)),
        image_sha256=draw(st.sampled_from([None, HASH])),
        model_version=draw(st.none() | requests),
        annotator=draw(st.none() | st.integers(1, 2**63 - 1)),
        ground_truth=draw(st.booleans()),
    )


@given(corrections())
def test_a_correction_comes_back_from_json_text_as_it_went_in(one: Correction) -> None:
    text = json.dumps(one.to_json(), allow_nan=False)
    assert Correction.from_json(json.loads(text)) == one


def test_the_json_form_says_its_format_and_has_the_time_in_utc() -> None:
    east = WHEN.astimezone(timezone(timedelta(hours=9)))
    value = correction(revision=Revision(east, HASH)).to_json()
    assert value["format"] == FORMAT == 1
    assert value["updated_at"] == "2026-03-04T05:06:07.891234+00:00"


def test_a_correction_of_a_large_mask_takes_kilobytes() -> None:
    rows, columns = np.ogrid[:2000, :2000]
    disc = (rows - 900) ** 2 + (columns - 1100) ** 2 < 700**2
    one = LabelledSegment(masks.encode(disc), "Object", "the ring")
    size = ImageSize(2000, 2000)
    text = json.dumps(correction(size=size, predicted=(one,), corrected=(one,)).to_json())
    assert len(text) < 20_000


@pytest.mark.parametrize("name", list(correction().to_json()))
def test_a_missing_key_is_refused(name: str) -> None:
    value = correction().to_json()
    del value[name]
    with pytest.raises(InputError):
        Correction.from_json(value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("surplus", 1),
        ("format", 2),
        ("format", True),
        ("format", "1"),
        ("project", 0),
        ("project", True),
        ("annotation", 2**63),
        ("annotation", "11"),
        ("task", 1.0),
        ("label_studio", " "),
        ("label_studio", "a\nb"),
        ("label_studio", "x" * 501),
        ("updated_at", "2026-03-04T05:06:07"),
        ("updated_at", "yesterday"),
        ("updated_at", 5),
        ("content_hash", HASH.upper()),
        ("content_hash", HASH[:-1]),
        ("image", ""),
        ("image", None),
        ("image_sha256", "x"),
        ("size", None),
        ("size", [5]),
        ("size", [5, 7.0]),
        ("size", [5, 0]),
        ("size", [7, 5]),
        ("requests", []),
        ("requests", "the ring"),
        ("requests", ["the ring", "the ring"]),
        ("requests", ["another"]),
        ("requests", [None]),
        ("requests", ["the ring", "x" * 10_001]),
        ("requests", ["the ring", *map(str, range(1000))]),
        ("predicted", None),
        ("predicted", [1]),
        ("predicted", [{"label": "", "request": "the ring"}]),
        ("corrected", [{"label": 1, "request": "the ring", "mask": {"size": [5, 7]}}]),
        ("note_shown", None),
        ("note_edited", "\ud800"),
        ("note_edited", "x" * 20_001),
        ("verdict", "good"),
        ("verdict", ["edited"]),
        ("verdict", "nothing_here"),
        ("verdict", "drawn_by_hand"),
        ("edit_iou", 1.01),
        ("edit_iou", math.nan),
        ("edit_iou", "0.5"),
        ("lead_time_s", -1),
        ("lead_time_s", math.inf),
        ("lead_time_s", True),
        ("model_version", ""),
        ("annotator", 0),
        ("ground_truth", 1),
    ],
)
def test_a_wrong_value_is_refused(name: str, value: object) -> None:
    with pytest.raises(InputError):
        Correction.from_json({**correction().to_json(), name: value})


@pytest.mark.parametrize("value", [None, [], "text", 1, {}])
def test_what_is_no_object_is_refused(value: object) -> None:
    with pytest.raises(InputError, match="format"):
        Correction.from_json(value)


def test_a_thousand_segments_are_the_limit() -> None:
    with pytest.raises(InputError, match="1000"):
        correction(corrected=(segment(),) * 1001)
    value = correction().to_json()
    value["predicted"] *= 1001
    with pytest.raises(InputError, match="1000"):
        Correction.from_json(value)


# --- What fits together -------------------------------------------------------------------

ANY, NONE = (segment(),), ()


@pytest.mark.parametrize(
    ("verdict", "predicted", "corrected"),
    [
        (Verdict.ACCEPTED, ANY, NONE),
        (Verdict.ACCEPTED, NONE, ANY),
        (Verdict.EDITED, ANY, NONE),
        (Verdict.EDITED, NONE, NONE),
        (Verdict.REJECTED, ANY, NONE),
        (Verdict.NOTHING_HERE, ANY, ANY),
        (Verdict.DRAWN_BY_HAND, ANY, ANY),
        (Verdict.DRAWN_BY_HAND, NONE, NONE),
    ],
)
def test_a_verdict_that_contradicts_the_segments_is_refused(
    verdict: Verdict,
    predicted: tuple[LabelledSegment, ...],
    corrected: tuple[LabelledSegment, ...],
) -> None:
    with pytest.raises(InputError, match="contradicts"):
        correction(verdict=verdict, predicted=predicted, corrected=corrected)


def test_nothing_here_needs_no_size_and_no_segments() -> None:
    one = correction(verdict=Verdict.NOTHING_HERE, predicted=(), corrected=(), size=None)
    assert Correction.from_json(json.loads(json.dumps(one.to_json()))) == one


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(InputError, match="zone"):
        Revision(WHEN.replace(tzinfo=None), HASH)


def test_the_truth_of_a_request_is_its_segments_alone() -> None:
    ring, star = segment("the ring"), LabelledSegment(rle((0, 0)), "Object", "the star")
    one = correction(requests=("the ring", "the star", "the cross"), corrected=(ring, star))
    assert one.truth("the ring") == (ring.rle,)
    assert one.truth("the star") == (star.rle,)
    assert one.truth("the cross") == ()
    assert one.request == "the ring; the star; the cross"


# --- Order --------------------------------------------------------------------------------


def test_the_later_revision_is_greater_whatever_its_hash_and_zone() -> None:
    zone = timezone(timedelta(hours=-8))
    early = Revision(WHEN.astimezone(zone), "f" * 64)
    late = Revision(WHEN + timedelta(microseconds=1), "0" * 64)
    assert early < late


def test_of_two_revisions_at_one_time_the_hash_decides() -> None:
    assert Revision(WHEN, "a" * 64) < Revision(WHEN, "b" * 64)
    assert Revision(WHEN, HASH) == Revision(WHEN.astimezone(timezone(timedelta(hours=1))), HASH)


def by(annotation: int, minutes: int, ground_truth: bool = False) -> Correction:
    key = CorrectionKey("http://label-studio.example", 7, annotation)
    saved = Revision(WHEN + timedelta(minutes=minutes), HASH)
    return correction(key=key, revision=saved, ground_truth=ground_truth)


def test_the_target_is_the_one_that_was_saved_last() -> None:
    assert choose_target([by(1, 5), by(2, 9), by(3, 7)]) == by(2, 9)


def test_ground_truth_goes_before_what_was_saved_later() -> None:
    assert choose_target([by(1, 5, True), by(2, 9), by(3, 4, True)]) == by(1, 5, True)


def test_of_two_saved_at_one_time_the_higher_annotation_is_the_target() -> None:
    assert choose_target([by(4, 5), by(3, 5)]) == by(4, 5)


@given(st.permutations([by(1, 5), by(2, 9), by(3, 9), by(4, 1), by(5, 1, True), by(6, 0, True)]))
def test_the_target_does_not_depend_on_the_order(given_in: list[Correction]) -> None:
    assert choose_target(given_in) == by(5, 1, True)


def test_without_corrections_there_is_no_target() -> None:
    assert choose_target([]) is None


@pytest.mark.parametrize(
    "other",
    [
        correction(task=4),
        correction(key=CorrectionKey("http://label-studio.example", 8, 1)),
        correction(key=CorrectionKey("http://other.example", 7, 1)),
    ],
)
def test_a_target_among_several_tasks_is_refused(other: Correction) -> None:
    with pytest.raises(InputError, match="one task"):
        choose_target([correction(), other])


def test_a_correction_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        correction().task = 9  # type: ignore[misc]
