"""The picture of a correction: what is tinted where, what is counted, any size and text."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from segzero_ml import masks, side_by_side
from segzero_ml.corrections import Correction, CorrectionKey, LabelledSegment, Revision, Verdict
from segzero_ml.errors import ImageError, MaskError
from segzero_ml.types import BoolMask, ImageSize, Rle

GREY = (120, 120, 120)
SIZE = ImageSize(400, 300)


def box(x1: int, y1: int, x2: int, y2: int, size: ImageSize = SIZE) -> BoolMask:
    mask = np.zeros((size.height, size.width), dtype=bool)
    mask[y1:y2, x1:x2] = True
    return mask


def correction(
    predicted: tuple[BoolMask, ...],
    corrected: tuple[BoolMask, ...],
    *,
    size: ImageSize | None = SIZE,
    text: str = "the cup",
    notes: tuple[str, str] = ("It has a handle.", "It is a cup."),
) -> Correction:
    if predicted and corrected:
        verdict = Verdict.EDITED
    elif corrected:
        verdict = Verdict.DRAWN_BY_HAND
    else:
        verdict = Verdict.NOTHING_HERE
    return Correction(
        key=CorrectionKey("studio", 1, 2),
        revision=Revision(datetime(2026, 1, 2, tzinfo=UTC), "0" * 64),
        task=3,
        image="/a.png",
        image_sha256=None,
        size=size,
        requests=(text,),
        predicted=tuple(LabelledSegment(masks.encode(one), "Cup", text) for one in predicted),
        corrected=tuple(LabelledSegment(masks.encode(one), "Cup", text) for one in corrected),
        note_shown=notes[0],
        note_edited=notes[1],
        verdict=verdict,
        edit_iou=0.5 if predicted else None,
        lead_time_s=4.0,
        model_version="tiny-1",
        annotator=9,
    )


def drawn(given: Correction, size: ImageSize = SIZE) -> NDArray[np.uint8]:
    image = Image.new("RGB", (size.width, size.height), GREY)
    before = image.tobytes()
    picture = side_by_side.draw(given, image)
    assert image.tobytes() == before
    assert picture.mode == "RGB"
    return np.asarray(picture)


def panels(picture: NDArray[np.uint8], width: int, height: int) -> list[NDArray[np.uint8]]:
    """The three panels, found by the grey ground of the first one."""
    rows, columns = np.nonzero((picture == GREY).all(axis=2))
    top, left = int(rows.min()), int(columns.min())
    return [
        picture[top : top + height, left + place * (width + 16) :][:, :width] for place in range(3)
    ]


def near(colour: NDArray[np.uint8], other: Sequence[int]) -> bool:
    return bool(np.abs(colour.astype(int) - other).max() < 3)


def test_each_panel_shows_its_own_masks_and_the_third_where_they_differ() -> None:
    given = correction((box(50, 50, 200, 200),), (box(100, 50, 250, 200),))
    first, second, third = panels(drawn(given), 400, 300)
    assert (first[100, 75] != GREY).any()
    assert (first[100, 225] == GREY).all()
    assert (second[100, 225] != GREY).any()
    assert (second[100, 75] == GREY).all()
    blue, orange = side_by_side.BLUE, side_by_side.ORANGE
    assert any(near(third[100, x], blue) for x in range(60, 90))
    assert any(near(third[100, x], orange) for x in range(210, 240))
    agreed = third[100, 150].astype(int)
    assert agreed.max() - agreed.min() <= 1
    assert agreed.mean() > third[250, 350].mean() + 50


def test_what_is_missed_and_what_is_too_much_differ_without_any_colour() -> None:
    """Stripes rise in one and fall in the other."""
    given = correction((box(20, 20, 120, 120),), (box(220, 20, 320, 120),))
    *_, third = panels(drawn(given), 400, 300)
    grey = third.astype(int).sum(axis=2)
    surplus, missed = grey[30:110, 30:110], grey[30:110, 230:310]
    assert (surplus[1:, 1:] == surplus[:-1, :-1]).all()
    assert (missed[1:, :-1] == missed[:-1, 1:]).all()
    assert len(np.unique(surplus)) == len(np.unique(missed)) == 2


def test_neighbouring_objects_are_told_apart_by_their_outlines() -> None:
    given = correction((box(50, 50, 150, 150), box(150, 50, 250, 150)), (box(0, 0, 9, 9),))
    first, *_ = panels(drawn(given), 400, 300)
    row = first[100, 60:240]
    assert not all(near(pixel, row[0].tolist()) for pixel in row)


@pytest.mark.parametrize(
    "size", [ImageSize(1, 1), ImageSize(7, 900), ImageSize(3000, 20), ImageSize(2000, 1500)]
)
def test_images_of_any_size_make_a_picture_that_can_be_read(size: ImageSize) -> None:
    whole = box(0, 0, size.width, size.height, size)
    picture = drawn(correction((whole,), (whole,), size=size), size)
    assert 400 < picture.shape[1] < 2000
    assert picture.shape[0] < 1200


def test_without_the_image_the_masks_stand_on_a_plain_ground() -> None:
    given = correction((box(50, 50, 200, 200),), ())
    plain = np.asarray(side_by_side.draw(given, None, "The image could not be fetched."))
    silent = np.asarray(side_by_side.draw(given, None))
    assert plain.shape[0] > silent.shape[0]
    assert any(near(pixel, side_by_side.BLUE) for pixel in plain.reshape(-1, 3)[::7])


def test_nothing_at_all_can_be_drawn() -> None:
    picture = side_by_side.draw(correction((), (), size=None, notes=("", "")))
    assert picture.width > 900


def test_an_image_of_another_size_is_refused() -> None:
    with pytest.raises(ImageError, match="400 x 300"):
        side_by_side.draw(correction((box(0, 0, 5, 5),), ()), Image.new("RGB", (300, 400)))


def test_a_damaged_mask_is_refused() -> None:
    text = "x"
    bad = LabelledSegment(Rle(300, 400, "\x7f\x7f"), "Cup", text)
    given = correction((), (box(0, 0, 5, 5),), text=text)
    object.__setattr__(given, "corrected", (bad,))
    with pytest.raises(MaskError):
        side_by_side.draw(given)


@hypothesis_settings(max_examples=25)
@given(st.text(min_size=1, max_size=200).filter(str.strip), st.text(max_size=300))
def test_any_text_can_be_drawn(request: str, note: str) -> None:
    small = ImageSize(20, 10)
    given = correction((), (), size=small, text=request, notes=(note, note[::-1]))
    side_by_side.draw(given)
