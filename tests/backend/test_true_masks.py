from __future__ import annotations

import base64
import math
import time
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from PIL import Image

from backend.brush import encode_rle
from backend.shapes import fill_polygon
from backend.true_masks import is_mask_region, region_size, true_mask
from segzero_ml.errors import MaskError
from segzero_ml.types import BoolMask, ImageSize

SIZE = ImageSize(width=40, height=24)


def region(kind: str, size: ImageSize = SIZE, **value: Any) -> dict[str, Any]:
    """A region as Label Studio 1.23 sends it."""
    return {
        "id": "Dx_aB3f2Lq",
        "from_name": "shape",
        "to_name": "image",
        "type": kind,
        "origin": "manual",
        "original_width": size.width,
        "original_height": size.height,
        "image_rotation": 0,
        "value": value,
    }


def rectangle(x: float, y: float, width: float, height: float, rotation: float) -> dict[str, Any]:
    return region(
        "rectanglelabels",
        x=x,
        y=y,
        width=width,
        height=height,
        rotation=rotation,
        rectanglelabels=["Object"],
    )


def polygon(*points: tuple[float, float], size: ImageSize = SIZE) -> dict[str, Any]:
    """A polygon with corners in pixels."""
    percent = [[100 * x / size.width, 100 * y / size.height] for x, y in points]
    return region("polygonlabels", size, points=percent, closed=True, polygonlabels=["Object"])


def mask_of(one: dict[str, Any]) -> BoolMask:
    return true_mask(one, region_size(one))


def centers(size: ImageSize = SIZE) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return x and y of the centre of every pixel, each (height, width)."""
    y, x = np.mgrid[: size.height, : size.width] + 0.5
    return x, y


def box(left: int, top: int, right: int, bottom: int) -> BoolMask:
    mask = np.zeros((SIZE.height, SIZE.width), dtype=np.bool_)
    mask[top:bottom, left:right] = True
    return mask


# --- Brush --------------------------------------------------------------------------------


@given(arrays.arrays(np.bool_, arrays.array_shapes(min_dims=2, max_dims=2, max_side=40)))
def test_a_brush_region_becomes_the_mask_it_was_made_of(mask: BoolMask) -> None:
    height, width = mask.shape
    one = region("brushlabels", ImageSize(width, height), format="rle", rle=encode_rle(mask))
    assert np.array_equal(mask_of(one), mask)


def alpha_rle(alpha: NDArray[np.uint8]) -> list[int]:
    """RLE of an image whose four channels are `alpha`, as an editor writes smooth edges.

    One packet of single values with 16-bit lengths, from the format's description.
    """
    values = np.repeat(alpha.reshape(-1), 4)
    bits = f"{len(values):032b}" + f"{7:05b}" + "".join(f"{n - 1:04b}" for n in (3, 4, 8, 16))
    bits += "0" + "11" + f"{len(values) - 1:016b}" + "".join(f"{value:08b}" for value in values)
    bits += "0" * (-len(bits) % 8)
    return [int(bits[i : i + 8], 2) for i in range(0, len(bits), 8)]


def test_the_smooth_edge_of_a_brush_counts_from_an_alpha_of_128_on() -> None:
    alpha = np.array([[0, 1, 127, 128], [129, 255, 64, 200]], dtype=np.uint8)
    one = region("brushlabels", ImageSize(4, 2), format="rle", rle=alpha_rle(alpha))
    assert np.array_equal(mask_of(one), alpha >= 128)


def test_a_hole_in_a_brush_region_stays_a_hole() -> None:
    ring = box(2, 2, 12, 12) & ~box(5, 5, 9, 9)
    one = region("brush", format="rle", rle=encode_rle(ring))
    assert np.array_equal(mask_of(one), ring)


# --- Bitmask ------------------------------------------------------------------------------


def png_url(image: Image.Image, file_format: str = "PNG") -> str:
    buffer = BytesIO()
    image.save(buffer, file_format)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def bitmask(url: str, size: ImageSize = SIZE) -> dict[str, Any]:
    return region("bitmasklabels", size, imageDataURL=url, bitmasklabels=["Object"])


@given(arrays.arrays(np.uint8, (SIZE.height, SIZE.width)), st.sampled_from(["black", "red"]))
def test_a_bitmask_is_its_alpha_from_128_on_whatever_its_colour(
    alpha: NDArray[np.uint8], colour: str
) -> None:
    image = Image.new("RGBA", (SIZE.width, SIZE.height), colour)
    image.putalpha(Image.fromarray(alpha))
    assert np.array_equal(mask_of(bitmask(png_url(image))), alpha >= 128)


def clear(width: int = SIZE.width, height: int = SIZE.height) -> Image.Image:
    return Image.new("RGBA", (width, height), (0, 0, 0, 0))


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        (png_url(clear(20, 12)), "20 x 12"),
        (png_url(clear(24, 40)), "24 x 40"),
        (png_url(Image.new("L", (40, 24), 255)), "without transparency"),
        (png_url(clear())[:-40], "cannot be read"),
        (png_url(clear().convert("RGB"), "BMP"), "cannot be read"),
        (png_url(clear(4000, 4000)), "cannot be read"),
        ("data:image/png;base64,", "cannot be read"),
        ("data:image/png;base64,!!!!", "cannot be read"),
        ("data:image/jpeg;base64,AAAA", "imageDataURL"),
        ("https://elsewhere.example/mask.png", "imageDataURL"),
        (None, "imageDataURL"),
    ],
)
def test_a_bitmask_that_no_editor_writes_is_refused(url: object, problem: str) -> None:
    one = bitmask("")
    one["value"]["imageDataURL"] = url
    with pytest.raises(MaskError, match=problem):
        true_mask(one, SIZE)


# --- Rectangle ----------------------------------------------------------------------------


def test_an_upright_rectangle_covers_its_pixels_exactly() -> None:
    one = rectangle(x=10, y=25, width=50, height=50, rotation=0)
    assert np.array_equal(mask_of(one), box(4, 6, 24, 18))


def test_a_rectangle_without_rotation_is_upright() -> None:
    one = rectangle(10, 25, 50, 50, 0)
    del one["value"]["rotation"]
    assert np.array_equal(mask_of(one), box(4, 6, 24, 18))


def test_a_rectangle_turns_clockwise_around_its_top_left_corner() -> None:
    # 10 x 4 pixels from (20, 5); turned by 90 degrees it hangs down and to the left.
    one = rectangle(x=50, y=100 * 5 / 24, width=25, height=100 * 4 / 24, rotation=90)
    assert np.array_equal(mask_of(one), box(16, 5, 20, 15))


percent = st.floats(-50, 150)
sides = st.floats(0, 120)
degrees = st.floats(-360, 720)


@given(percent, percent, sides, sides, degrees)
def test_a_rectangle_covers_the_pixels_whose_centre_it_holds(
    x: float, y: float, width: float, height: float, rotation: float
) -> None:
    # Independently: turn every centre back into the rectangle's own axes.
    cx, cy = centers()
    u, v = cx - x * SIZE.width / 100, cy - y * SIZE.height / 100
    turn = math.radians(rotation)
    along = u * math.cos(turn) + v * math.sin(turn)
    across = v * math.cos(turn) - u * math.sin(turn)
    slack_px = 1e-4
    margin = np.minimum.reduce(
        [along, width * SIZE.width / 100 - along, across, height * SIZE.height / 100 - across]
    )
    mask = mask_of(rectangle(x, y, width, height, rotation))
    assert mask[margin > slack_px].all()
    assert not mask[margin < -slack_px].any()


# --- Ellipse ------------------------------------------------------------------------------


@given(percent, percent, sides, sides, degrees)
def test_an_ellipse_covers_the_pixels_whose_centre_it_holds(
    x: float, y: float, radius_x: float, radius_y: float, rotation: float
) -> None:
    one = region("ellipse", x=x, y=y, radiusX=radius_x, radiusY=radius_y, rotation=rotation)
    mask = mask_of(one)
    side, up = radius_x * SIZE.width / 100, radius_y * SIZE.height / 100
    if min(side, up) < 0.01:
        assert np.count_nonzero(mask) <= SIZE.width + SIZE.height
        return
    cx, cy = centers()
    u, v = cx - x * SIZE.width / 100, cy - y * SIZE.height / 100
    turn = math.radians(rotation)
    along = (u * math.cos(turn) + v * math.sin(turn)) / side
    across = (v * math.cos(turn) - u * math.sin(turn)) / up
    distance = np.hypot(along, across)
    slack = 1e-3 / min(side, up)
    assert mask[distance < 1 - slack].all()
    assert not mask[distance > 1 + slack].any()


def test_an_ellipse_has_the_area_of_an_ellipse() -> None:
    size = ImageSize(1000, 800)
    one = region("ellipselabels", size, x=50, y=50, radiusX=30, radiusY=20, rotation=33)
    assert np.count_nonzero(mask_of(one)) == pytest.approx(math.pi * 300 * 160, rel=1e-3)


# --- Polygon ------------------------------------------------------------------------------


def winding(points: list[tuple[float, float]]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Turns of an outline around each pixel's centre, and how near the outline comes."""
    cx, cy = centers()
    turns, nearest = np.zeros_like(cx), np.full_like(cx, np.inf)
    for (x1, y1), (x2, y2) in zip(points, points[1:] + points[:1], strict=True):
        first = np.arctan2(y1 - cy, x1 - cx)
        second = np.arctan2(y2 - cy, x2 - cx)
        turns += (second - first + math.pi) % (2 * math.pi) - math.pi
        dx, dy = x2 - x1, y2 - y1
        length = dx * dx + dy * dy
        along = ((cx - x1) * dx + (cy - y1) * dy) / length if length else np.zeros_like(cx)
        along = along.clip(0, 1)
        distance = np.hypot(x1 + along * dx - cx, y1 + along * dy - cy)
        nearest = np.minimum(nearest, distance)
    return np.round(turns / (2 * math.pi)), nearest


corners = st.tuples(st.floats(-20, 60), st.floats(-20, 44))


@given(st.lists(corners, max_size=12))
def test_a_polygon_covers_the_centres_that_its_outline_goes_around(
    points: list[tuple[float, float]],
) -> None:
    turns, nearest = winding(points)
    clear_cut = nearest > 1e-4
    assert np.array_equal(mask_of(polygon(*points))[clear_cut], (turns != 0)[clear_cut])


def test_what_a_polygon_encloses_twice_is_filled() -> None:
    # A five-pointed star in one stroke: its middle lies on the left of every edge.
    points = [
        (20 + 11 * math.sin(4 * math.pi * k / 5), 12 - 11 * math.cos(4 * math.pi * k / 5))
        for k in range(5)
    ]
    mask = mask_of(polygon(*points))
    assert mask[12, 20]
    assert mask[3, 20]


def test_a_loop_the_other_way_round_is_a_hole() -> None:
    outer = [(5.0, 2.0), (35.0, 2.0), (35.0, 22.0), (5.0, 22.0), (5.0, 2.0)]
    inner = [(15.0, 8.0), (15.0, 16.0), (25.0, 16.0), (25.0, 8.0), (15.0, 8.0)]
    mask = mask_of(polygon(*outer, *inner))
    assert np.array_equal(mask, box(5, 2, 35, 22) & ~box(15, 8, 25, 16))


def test_two_polygons_with_a_common_edge_share_no_pixel_and_leave_none_out() -> None:
    left = mask_of(polygon((3, 3), (20.5, 3), (11.25, 20), (3, 20)))
    right = mask_of(polygon((20.5, 3), (36, 3), (36, 20), (11.25, 20)))
    assert not (left & right).any()
    assert np.array_equal(left | right, box(3, 3, 36, 20))


@pytest.mark.parametrize("points", [[], [(5, 5)], [(5, 5), (9, 9)], [(5, 5), (9, 9), (7, 7)]])
def test_an_unfinished_polygon_covers_nothing(points: list[tuple[float, float]]) -> None:
    assert not mask_of(polygon(*points)).any()


def test_a_large_polygon_with_many_corners_is_quick() -> None:
    size = ImageSize(4000, 3000)
    turn = np.linspace(0, 2 * np.pi, 20_000, endpoint=False)
    waves = 1000 + 50 * np.sin(80 * turn)
    points = np.stack([2000 + waves * np.cos(turn), 1500 + waves * np.sin(turn)], axis=1)
    started = time.perf_counter()
    mask = fill_polygon(points, size)
    assert time.perf_counter() - started < 10
    assert np.count_nonzero(mask) == pytest.approx(math.pi * (1000**2 + 50**2 / 2), rel=1e-3)


# --- Which regions there are --------------------------------------------------------------


@pytest.mark.parametrize(
    "kind",
    ["brush", "brushlabels", "magicwand", "bitmask", "bitmasklabels", "polygon", "polygonlabels",
     "rectangle", "rectanglelabels", "ellipse", "ellipselabels"],
)  # fmt: skip
def test_every_region_with_an_area_is_a_mask(kind: str) -> None:
    assert is_mask_region(region(kind))


@pytest.mark.parametrize("kind", ["textarea", "keypointlabels", "labels", "relation", "", None, 3])
def test_what_has_no_area_is_no_mask(kind: Any) -> None:
    one = region("brush")
    one["type"] = kind
    assert not is_mask_region(one)
    with pytest.raises(MaskError, match="no mask"):
        true_mask(one, SIZE)


# --- Hostile ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("width", "height"),
    [(None, 24), (40, "24"), (0, 24), (40, -1), (40.5, 24), (True, 24), (10**9, 10**9),
     (float("nan"), 24), (float("inf"), 24), (10_001, 10_000)],
)  # fmt: skip
def test_an_impossible_size_is_refused(width: object, height: object) -> None:
    one = {**rectangle(0, 0, 10, 10, 0), "original_width": width, "original_height": height}
    with pytest.raises(MaskError):
        true_mask(one, SIZE)


def test_a_whole_number_written_with_a_point_is_a_size() -> None:
    one = {**rectangle(0, 0, 10, 10, 0), "original_width": 40.0}
    assert region_size(one) == SIZE


def test_a_region_of_another_image_size_is_refused() -> None:
    with pytest.raises(MaskError, match="24 x 40"):
        true_mask(region("brush", ImageSize(24, 40), rle=encode_rle(box(0, 0, 1, 1).T)), SIZE)


NUMBERS = [None, "1", True, [1], math.nan, math.inf, -math.inf, 1e9, -1e300, 10**400]


@pytest.mark.parametrize("bad", NUMBERS, ids=lambda bad: str(bad)[:9])
@pytest.mark.parametrize("name", ["x", "y", "width", "height", "rotation"])
def test_a_rectangle_of_impossible_numbers_is_refused(name: str, bad: Any) -> None:
    one = rectangle(1, 2, 3, 4, 5)
    one["value"][name] = [] if name == "rotation" and bad is None else bad
    with pytest.raises(MaskError):
        true_mask(one, SIZE)


@pytest.mark.parametrize("bad", NUMBERS, ids=lambda bad: str(bad)[:9])
@pytest.mark.parametrize("name", ["x", "radiusX", "radiusY"])
def test_an_ellipse_of_impossible_numbers_is_refused(name: str, bad: Any) -> None:
    value = {"x": 50, "y": 50, "radiusX": 10, "radiusY": 10, "rotation": 0, name: bad}
    with pytest.raises(MaskError):
        true_mask(region("ellipse", **value), SIZE)


def test_a_negative_radius_is_refused() -> None:
    with pytest.raises(MaskError, match="negative"):
        mask_of(region("ellipse", x=50, y=50, radiusX=-10, radiusY=10, rotation=0))


@pytest.mark.parametrize("bad", NUMBERS, ids=lambda bad: str(bad)[:9])
def test_a_polygon_of_impossible_numbers_is_refused(bad: Any) -> None:
    with pytest.raises(MaskError):
        mask_of(region("polygon", points=[[1, 2], [3, bad], [5, 6]]))


@pytest.mark.parametrize(
    "points", [None, {}, "1,2", [1, 2, 3], [[1, 2], [3], [4, 5]], [[1, 2, 3]] * 3, [[[1], [2]]] * 3]
)
def test_points_that_are_no_pairs_are_refused(points: Any) -> None:
    with pytest.raises(MaskError):
        mask_of(region("polygon", points=points))


@pytest.mark.parametrize("value", [None, [], "rle", 3])
@pytest.mark.parametrize("kind", ["brush", "bitmask", "polygon", "rectangle", "ellipse"])
def test_a_region_without_a_value_is_refused(kind: str, value: Any) -> None:
    with pytest.raises(MaskError, match="no value"):
        true_mask({**region(kind), "value": value}, SIZE)


@pytest.mark.parametrize("kind", ["brush", "bitmask", "polygon", "rectangle", "ellipse"])
def test_a_region_with_an_empty_value_is_refused(kind: str) -> None:
    with pytest.raises(MaskError):
        mask_of(region(kind))


class Endless(list[Any]):
    """Says that it holds a billion points; whoever looks at one of them has lost."""

    def __len__(self) -> int:
        return 10**9

    def __iter__(self) -> Any:
        raise AssertionError("read without counting first")


def test_a_billion_points_are_refused_unread() -> None:
    with pytest.raises(MaskError, match="100,000"):
        mask_of(region("polygon", points=Endless()))


def test_a_polygon_that_zigzags_beyond_all_measure_is_refused_quickly() -> None:
    size = ImageSize(10_000, 10_000)
    points = [[k % 100, 100 * (k % 2)] for k in range(100_000)]
    one = region("polygon", size, points=points)
    started = time.perf_counter()
    with pytest.raises(MaskError, match="too many edges"):
        true_mask(one, size)
    assert time.perf_counter() - started < 10


def test_a_huge_png_is_refused_undecoded() -> None:
    url = "data:image/png;base64," + "A" * (45 * 1024 * 1024)
    started = time.perf_counter()
    with pytest.raises(MaskError, match="more than"):
        mask_of(bitmask(url))
    assert time.perf_counter() - started < 5
