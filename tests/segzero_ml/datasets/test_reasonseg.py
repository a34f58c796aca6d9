"""ReasonSeg's pairs of images and polygons."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segzero_ml.datasets.reasonseg import rasterise, read_reasonseg
from segzero_ml.errors import DatasetError
from segzero_ml.types import ImageSize

WIDTH, HEIGHT = 20, 16
SIZE = ImageSize(WIDTH, HEIGHT)


def _rectangle(x1: int, y1: int, x2: int, y2: int) -> list[list[int]]:
    return [[x1, y1], [x2, y1], [x2, y2], [x1, y2]]


def _annotation(**changes: object) -> dict[str, Any]:
    annotation = {
        "text": ["the cup", "another wording"],
        "is_sentence": False,
        "shapes": [
            {"label": "ignore", "points": _rectangle(4, 4, 6, 6)},
            {"label": "target", "points": _rectangle(2, 2, 9, 9)},
            {"label": "flag", "points": _rectangle(0, 0, 19, 15)},
        ],
    }
    return {**annotation, **changes}


def _write(root: Path, name: str = "a", **changes: object) -> Path:
    Image.new("RGB", (WIDTH, HEIGHT), "red").save(root / f"{name}.jpg")
    text = json.dumps(_annotation(**changes), ensure_ascii=False)
    (root / f"{name}.json").write_text(text, encoding="utf-8")
    return root


def test_targets_ignored_places_and_the_first_request_are_read(tmp_path: Path) -> None:
    (sample,) = read_reasonseg(_write(tmp_path))
    assert (sample.request, sample.kind, sample.sample_id) == ("the cup", "phrase", "a")
    assert sample.image().size == (WIDTH, HEIGHT)
    target, ignore = np.zeros((HEIGHT, WIDTH), bool), np.zeros((HEIGHT, WIDTH), bool)
    # Corners belong to a polygon. The smaller shape lies on the larger, in any order.
    target[2:10, 2:10] = True
    ignore[4:7, 4:7] = True
    target &= ~ignore
    np.testing.assert_array_equal(sample.masks, [target])
    np.testing.assert_array_equal(sample.ignore, ignore)


def test_a_flag_is_dropped_and_no_target_means_no_mask(tmp_path: Path) -> None:
    shapes = [{"label": "Flag", "points": _rectangle(1, 1, 5, 5)}]
    (sample,) = read_reasonseg(_write(tmp_path, shapes=shapes, is_sentence=True))
    assert sample.masks == ()
    assert sample.ignore is None
    assert sample.kind == "sentence"


def test_several_targets_are_one_mask(tmp_path: Path) -> None:
    shapes = [
        {"label": "target", "points": _rectangle(1, 1, 2, 2)},
        {"label": "target", "points": _rectangle(8, 8, 10, 10)},
    ]
    (sample,) = read_reasonseg(_write(tmp_path, shapes=shapes))
    assert len(sample.masks) == 1
    assert sample.masks[0].sum() == 4 + 9


def test_files_in_cp1252_are_read(tmp_path: Path) -> None:
    root = _write(tmp_path)
    text = json.dumps(_annotation(text=["the café\u2019s sign"]), ensure_ascii=False)
    (root / "a.json").write_bytes(text.encode("cp1252"))
    assert read_reasonseg(root)[0].request == "the café\u2019s sign"


def test_samples_come_in_order_of_their_names_and_a_part_by_seed(tmp_path: Path) -> None:
    for name in ("c", "a", "b", "d", "e", "f"):
        _write(tmp_path, name)
    assert [sample.sample_id for sample in read_reasonseg(tmp_path)] == list("abcdef")
    part = [sample.sample_id for sample in read_reasonseg(tmp_path, limit=2, seed=3)]
    assert len(part) == 2
    assert part == [sample.sample_id for sample in read_reasonseg(tmp_path, limit=2, seed=3)]


def test_the_fraction_of_a_corner_is_cut_off(tmp_path: Path) -> None:
    points = [[2.9, 2.9], [9.9, 2.0], [9.2, 9.9], [2.0, 9.0]]
    (sample,) = read_reasonseg(_write(tmp_path, shapes=[{"label": "target", "points": points}]))
    expected = np.zeros((HEIGHT, WIDTH), bool)
    expected[2:10, 2:10] = True
    np.testing.assert_array_equal(sample.masks[0], expected)


def test_polygons_may_leave_the_image_and_be_a_line_or_a_dot() -> None:
    outside = rasterise([(((-5, -5), (3, -5), (3, 3), (-5, 3)), 1)], SIZE)
    assert outside.sum() == 16
    line = rasterise([(((1, 1), (4, 1)), 1)], SIZE)
    assert line.sum() == line[1, 1:5].sum() == 4
    dot = rasterise([(((7, 5),), 255)], SIZE)
    assert dot[5, 7] == dot.max() == 255
    assert np.count_nonzero(dot) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"text": []}, "at least one request"),
        ({"text": "the cup"}, "at least one request"),
        ({"text": [""]}, "empty"),
        ({"text": [None]}, "must be text"),
        ({"shapes": None}, "shapes must be a list"),
        ({"shapes": [3]}, "shape 1: must have a label"),
        ({"shapes": [{"points": [[1, 1]]}]}, "shape 1: must have a label"),
        ({"shapes": [{"label": "cup", "points": [[1, 1]]}]}, "unknown label 'cup'"),
        ({"shapes": [{"label": "target", "points": []}]}, "must be a list"),
        ({"shapes": [{"label": "target", "points": [[1, 2, 3]]}]}, "is not a point"),
        ({"shapes": [{"label": "target", "points": [["1", 2]]}]}, "is not a point"),
        ({"shapes": [{"label": "target", "points": [[1, 1e9]]}]}, "is not a point"),
        ({"shapes": [{"label": "target", "points": [[float("nan"), 1]]}]}, "is not a point"),
    ],
)
def test_a_wrong_annotation_is_named(
    tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    _write(tmp_path, "wrong", **changes)
    with pytest.raises(DatasetError, match=r"wrong\.json") as caught:
        read_reasonseg(tmp_path)
    assert message in str(caught.value)


@pytest.mark.parametrize("text", ["{", "[]", "[" * 5000])
def test_an_annotation_that_is_no_json_object_is_named(tmp_path: Path, text: str) -> None:
    _write(tmp_path)
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(DatasetError, match=r"a\.json"):
        read_reasonseg(tmp_path)


def test_text_in_neither_encoding_is_refused(tmp_path: Path) -> None:
    _write(tmp_path)
    (tmp_path / "a.json").write_bytes(b'{"text": ["\x81\xff"]}')
    with pytest.raises(DatasetError, match=r"a\.json: not JSON"):
        read_reasonseg(tmp_path)


def test_an_annotation_without_its_image_is_named(tmp_path: Path) -> None:
    _write(tmp_path)
    (tmp_path / "a.jpg").unlink()
    with pytest.raises(DatasetError, match=r"a\.json: .*a\.jpg cannot be read"):
        read_reasonseg(tmp_path)


def test_the_folder_above_the_splits_says_where_to_look(tmp_path: Path) -> None:
    for split in ("val", "train"):
        (tmp_path / split).mkdir()
        _write(tmp_path / split)
    with pytest.raises(DatasetError, match="Give one of its folders: train, val"):
        read_reasonseg(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="has no pairs"):
        read_reasonseg(tmp_path / "empty")
