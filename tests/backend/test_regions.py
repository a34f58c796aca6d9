"""Which of the regions that show an object say what its mask is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from backend.labelling import parse_config
from backend.regions import Region, read_regions
from backend.translate import Shown, to_regions
from segzero_ml import masks
from segzero_ml.types import BoolMask
from tests.backend.annotated import RING, STAR, kept

TWINS = parse_config(
    '<View><Image name="image" value="$image"/>'
    '<BrushLabels name="one" toName="image"><Label value="Car"/></BrushLabels>'
    '<BrushLabels name="two" toName="image"><Label value="Car"/></BrushLabels></View>'
)
POLYGONS = parse_config(
    '<View><Image name="image" value="$image"/>'
    '<PolygonLabels name="outline" toName="image"><Label value="Car"/></PolygonLabels></View>'
)


def shown(mask: BoolMask, region_id: str = "x") -> Shown:
    return Shown(region_id, "Car", masks.encode(mask), 0.9, "", "", "v")


def twins() -> tuple[dict[str, Any], dict[str, Any]]:
    """One object as two controls of the same kind show it."""
    first, second = to_regions(shown(RING), TWINS)
    assert (first["from_name"], second["from_name"]) == ("one", "two")
    return first, second


def half(mask: BoolMask) -> BoolMask:
    around = masks.bounding_box_px(mask)
    assert around is not None
    left = mask.copy()
    left[:, : int(around.center.x)] = False
    return left


def read(*results: dict[str, Any]) -> Region:
    [region] = read_regions(results, "image")
    return region


@pytest.mark.parametrize("changed", [0, 1])
def test_what_was_erased_in_one_of_two_controls_of_a_kind_stays_erased(changed: int) -> None:
    regions = list(twins())
    regions[changed] = kept(regions[changed], half(RING))
    region = read(*regions)
    assert np.array_equal(masks.decode(region.rle), half(RING))
    assert (region.id, region.origin) == ("x", "prediction-changed")


def test_two_controls_of_a_kind_are_not_joined() -> None:
    first, second = twins()
    second = kept(second, STAR, origin="prediction")
    assert np.array_equal(masks.decode(read(first, second).rle), RING)
    assert np.array_equal(masks.decode(read(second, first).rle), STAR)


def test_part_beside_one_that_was_changed_is_still_a_part_of_the_object() -> None:
    """Predictions of earlier versions have a polygon for each part of an object."""
    [first], [second] = (
        to_regions(shown(part, name), POLYGONS) for name, part in (("x", RING), ("x-2", STAR))
    )
    second["meta"]["object"] = "x"
    first["value"]["points"] = [[0, 0], [50, 0], [50, 50], [0, 50]]
    first["origin"] = "prediction-changed"
    mask = masks.decode(read(first, second).rle)
    assert mask[:12, :20].all()
    assert masks.iou(mask[:, 20:], STAR[:, 20:]) > 0.9
