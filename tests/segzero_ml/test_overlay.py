"""The picture of a prediction: what is tinted, what is written, at any size."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from segzero_ml import masks, overlay
from segzero_ml.errors import ImageError, MaskError
from segzero_ml.types import Box, ImageSize, Point, Prediction, Segment

GREY = (120, 120, 120)


def _segment(size: ImageSize, box: Box, score: float = 0.9) -> Segment:
    mask = np.zeros((size.height, size.width), dtype=bool)
    mask[int(box.y1) : int(box.y2), int(box.x1) : int(box.x2)] = True
    return Segment(box, (box.center,), masks.encode(mask), score)


def _prediction(
    size: ImageSize,
    *segments: Segment,
    request: str = "the cup",
    reasoning: str = "It has a handle.",
    problem: str | None = None,
) -> Prediction:
    return Prediction(request, size, reasoning, segments, 0.8, "tiny@1", problem, "", 0.4)


def _drawn(prediction: Prediction) -> NDArray[np.uint8]:
    image = Image.new("RGB", (prediction.size.width, prediction.size.height), GREY)
    before = image.tobytes()
    drawn = overlay.draw(image, prediction)
    assert image.tobytes() == before
    assert drawn.mode == "RGB"
    return np.asarray(drawn)


def test_the_mask_is_tinted_in_its_colour_and_the_rest_is_left() -> None:
    size = ImageSize(640, 480)
    picture = _drawn(_prediction(size, _segment(size, Box(100, 100, 300, 300))))
    towards = np.array(overlay.colour(0)) - GREY
    change = picture[250, 150].astype(int) - GREY
    assert (np.sign(change) == np.sign(towards)).all()
    assert (picture[:480] != GREY).any(axis=2)[100:300, 100:300].all()
    assert (picture[:70] == GREY).all()
    assert (picture[320:480] == GREY).all()
    assert (picture[:480, 320:] == GREY).all()


def test_an_outline_in_the_full_colour_runs_along_the_mask() -> None:
    size = ImageSize(640, 480)
    plain = _segment(size, Box(100, 100, 300, 300))
    elsewhere = Segment(Box(400, 20, 420, 40), (), plain.rle, 0.5)
    picture = _drawn(_prediction(size, elsewhere))
    assert tuple(picture[200, 100]) == overlay.colour(0)
    assert tuple(picture[200, 299]) == overlay.colour(0)
    assert tuple(picture[200, 99]) == (255, 255, 255)
    assert tuple(picture[200, 97]) == GREY


def test_each_point_is_marked_in_its_colour() -> None:
    size = ImageSize(640, 480)
    empty = masks.encode(np.zeros((480, 640), dtype=bool))
    segments = [
        Segment(Box(5, 400, 9, 404), (Point(500, 100), Point(550, 200)), empty, 0.1),
        Segment(Box(5, 400, 9, 404), (Point(600, 300),), empty, 0.1),
    ]
    picture = _drawn(_prediction(size, *segments))
    assert tuple(picture[100, 500]) == tuple(picture[200, 550]) == overlay.colour(0)
    assert tuple(picture[300, 600]) == overlay.colour(1)


def test_the_note_stands_below_the_image_and_grows_with_its_text() -> None:
    size = ImageSize(640, 480)
    short = _drawn(_prediction(size))
    long = _drawn(_prediction(size, reasoning="It has a handle. " * 60))
    assert 480 < short.shape[0] < long.shape[0]
    assert short.shape[1] == long.shape[1] == 640
    assert short[480:].max() > 200


def test_a_prediction_without_segments_says_so_and_one_with_a_problem_says_why() -> None:
    size = ImageSize(640, 480)
    found = _drawn(_prediction(size, _segment(size, Box(10, 10, 30, 30))))
    nothing = _drawn(_prediction(size))
    broken = _drawn(_prediction(size, problem="The text contains no answer."))
    amber = (255, 184, 77)
    assert not (found[480:] == amber).all(axis=2).any()
    assert (nothing[480:] == amber).all(axis=2).any()
    assert (broken[480:] == amber).all(axis=2).any()
    assert nothing.shape != broken.shape or (nothing != broken).any()


@pytest.mark.parametrize("side", [(1, 1), (16, 12), (2, 700), (700, 2), (399, 300), (3000, 2000)])
def test_every_size_is_drawn_and_small_ones_are_enlarged(side: tuple[int, int]) -> None:
    size = ImageSize(*side)
    box = Box(0, 0, max(1, size.width // 2), max(1, size.height // 2))
    picture = _drawn(_prediction(size, _segment(size, box)))
    scale = math.ceil(overlay.MIN_SIDE / max(side)) if max(side) < overlay.MIN_SIDE else 1
    assert picture.shape[0] > size.height * scale
    assert picture.shape[1] >= size.width * scale
    centre = picture[: size.height * scale, picture.shape[1] // 2]
    assert (centre != picture[-1, 0]).any()


def test_a_hundred_segments_on_top_of_each_other_are_drawn() -> None:
    size = ImageSize(480, 360)
    segments = [_segment(size, Box(20 + n, 20, 300 + n, 200), n / 100) for n in range(100)]
    assert _drawn(_prediction(size, *segments)).shape[1] == 480


def test_colours_are_distinct() -> None:
    colours = [overlay.colour(number) for number in range(48)]
    assert len(set(colours)) == 48
    first = np.array(colours[:12], dtype=int)
    apart = np.abs(first[:, None] - first[None]).sum(axis=2) + np.eye(12) * 999
    assert apart.min() > 60
    assert all(0 <= channel <= 255 for c in colours for channel in c)


def test_an_image_or_a_mask_of_another_size_is_refused() -> None:
    size = ImageSize(40, 30)
    with pytest.raises(ImageError, match="40 x 30"):
        overlay.draw(Image.new("RGB", (30, 40)), _prediction(size))
    strange = _segment(ImageSize(30, 40), Box(0, 0, 10, 10))
    with pytest.raises(MaskError, match="does not fit"):
        overlay.draw(Image.new("RGB", (40, 30)), _prediction(size, strange))


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK"])
def test_other_modes_are_drawn_in_rgb(mode: str) -> None:
    drawn = overlay.draw(Image.new(mode, (40, 30)), _prediction(ImageSize(40, 30)))
    assert drawn.mode == "RGB"


@pytest.mark.parametrize("text", ["a\nb\tc", "\x00\x1b[31m", "\ud800", "漢字 🙂", "x" * 9000])
def test_any_request_can_be_drawn(text: str) -> None:
    size = ImageSize(40, 30)
    _drawn(_prediction(size, request=text, reasoning=text, problem=text))
