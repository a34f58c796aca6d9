from __future__ import annotations

from dataclasses import replace
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.regions import Region
from backend.verdicts import judge
from segzero_ml import masks
from segzero_ml.corrections import Verdict
from segzero_ml.types import BoolMask


def bar(left: int, right: int) -> BoolMask:
    mask = np.zeros((10, 200), dtype=np.bool_)
    mask[:, left:right] = True
    return mask


def region(left: int, right: int, name: str = "", origin: str = "", label: str = "A") -> Region:
    return Region(id=name, label=label, rle=masks.encode(bar(left, right)), origin=origin)


def clicked(left: int, right: int, name: str, request: str | None = None) -> Region:
    """What clicks made of nothing, or of the answer to a request."""
    made = region(left, right, name, "prediction")
    return replace(made, request=request, is_clicked=True)


ONE, TWO = region(0, 100, "one"), region(120, 180, "two")


def test_without_a_prediction_it_is_drawn_by_hand() -> None:
    found = judge(None, [region(0, 50, "x", "manual")])
    assert (found.verdict, found.shown, found.edit_iou) == (Verdict.DRAWN_BY_HAND, (), None)


def test_nothing_without_a_prediction_is_nothing_here() -> None:
    found = judge(None, [])
    assert (found.verdict, found.edit_iou) == (Verdict.NOTHING_HERE, None)


def test_all_deleted_and_nothing_drawn_is_nothing_here() -> None:
    found = judge([ONE, TWO], [])
    assert (found.verdict, found.edit_iou) == (Verdict.NOTHING_HERE, 0.0)


def test_nothing_predicted_and_nothing_drawn_is_accepted() -> None:
    found = judge([], [])
    assert (found.verdict, found.edit_iou) == (Verdict.ACCEPTED, 1.0)


@pytest.mark.parametrize("names", [("one", "two"), ("", ""), ("x", "y")])
@pytest.mark.parametrize("origin", ["prediction", "manual", ""])
def test_the_same_masks_are_accepted_in_any_order_and_by_any_name(
    names: tuple[str, str], origin: str
) -> None:
    drawn = [region(120, 180, names[1], origin), region(0, 100, names[0], origin)]
    found = judge([ONE, TWO], drawn)
    assert (found.verdict, found.edit_iou) == (Verdict.ACCEPTED, 1.0)
    assert found.shown == (ONE, TWO)


@pytest.mark.parametrize(("right", "verdict"), [(98, Verdict.ACCEPTED), (97, Verdict.EDITED)])
def test_from_an_iou_of_098_on_a_mask_is_the_same(right: int, verdict: Verdict) -> None:
    found = judge([ONE], [region(0, right, "one", "prediction-changed")])
    assert found.verdict is verdict
    assert found.edit_iou == right / 100


def test_another_label_is_an_edit_of_the_same_pixels() -> None:
    found = judge([ONE], [region(0, 100, "one", "prediction", label="B")])
    assert (found.verdict, found.edit_iou) == (Verdict.EDITED, 1.0)


@pytest.mark.parametrize(
    "drawn",
    [
        [ONE],
        [ONE, TWO, region(190, 200, "three", "manual")],
        [ONE, ONE],
        [region(0, 120, "one"), TWO],
    ],
)
def test_deleting_adding_doubling_or_changing_is_an_edit(drawn: list[Region]) -> None:
    assert judge([ONE, TWO], drawn).verdict is Verdict.EDITED


def test_all_deleted_and_another_drawn_is_rejected() -> None:
    found = judge([ONE], [region(150, 200, "x", "manual")])
    assert (found.verdict, found.edit_iou) == (Verdict.REJECTED, 0.0)


def test_drawing_where_nothing_was_predicted_is_rejected() -> None:
    found = judge([], [region(150, 200, "x", "manual")])
    assert (found.verdict, found.edit_iou) == (Verdict.REJECTED, 0.0)


@pytest.mark.parametrize(
    ("left", "right", "verdict"), [(50, 100, Verdict.EDITED), (51, 100, Verdict.REJECTED)]
)
def test_a_mask_drawn_anew_over_half_of_the_old_one_is_an_edit(
    left: int, right: int, verdict: Verdict
) -> None:
    assert judge([ONE], [region(left, right, "x", "manual")]).verdict is verdict


@pytest.mark.parametrize("origin", ["prediction-changed", "manual", ""])
def test_a_region_that_kept_its_id_is_an_edit_however_far_it_moved(origin: str) -> None:
    found = judge([ONE], [region(150, 200, "one", origin)])
    assert (found.verdict, found.shown, found.edit_iou) == (Verdict.EDITED, (ONE,), 0.0)


# --- Asked for while working: no prediction keeps these ------------------------------------


def test_a_region_that_came_while_working_and_was_left_alone_is_accepted() -> None:
    asked_for = region(0, 50, "x", "prediction")
    found = judge(None, [asked_for])
    assert (found.verdict, found.shown, found.edit_iou) == (Verdict.ACCEPTED, (asked_for,), 1.0)


def test_a_region_that_came_while_working_counts_beside_the_prediction() -> None:
    asked_for = region(120, 180, "x", "prediction")
    found = judge([ONE], [ONE, asked_for])
    assert (found.verdict, found.shown, found.edit_iou) == (
        Verdict.ACCEPTED, (ONE, asked_for), 1.0
    )  # fmt: skip


def test_a_changed_region_whose_first_form_is_lost_is_an_edit_without_a_number() -> None:
    found = judge(None, [region(0, 50, "x", "prediction-changed")])
    assert (found.verdict, found.shown, found.edit_iou) == (Verdict.EDITED, (), None)


def test_a_region_drawn_beside_one_that_came_while_working_is_an_edit() -> None:
    found = judge(None, [region(0, 50, "x", "prediction"), region(60, 70, "y", "manual")])
    assert found.verdict is Verdict.EDITED
    assert found.edit_iou == 50 / 60


# --- Clicked: the annotator's work, though Label Studio says that it comes from a prediction --


def test_what_was_clicked_without_a_prediction_is_drawn_by_hand() -> None:
    found = judge(None, [clicked(0, 50, "x"), clicked(60, 70, "y")])
    assert (found.verdict, found.shown, found.edit_iou) == (Verdict.DRAWN_BY_HAND, (), None)


def test_what_was_clicked_beside_a_prediction_counts_as_if_it_was_drawn() -> None:
    by_click = judge([ONE], [ONE, clicked(120, 180, "x")])
    by_hand = judge([ONE], [ONE, region(120, 180, "x", "manual")])
    assert by_click == by_hand
    assert (by_click.verdict, by_click.edit_iou) == (Verdict.EDITED, 100 / 160)


def test_what_was_clicked_instead_of_a_prediction_rejects_it() -> None:
    for predicted in ([], [ONE]):
        found = judge(predicted, [clicked(150, 200, "x")])
        assert (found.verdict, found.edit_iou) == (Verdict.REJECTED, 0.0)


def test_an_answer_that_clicks_repaired_is_an_edit_without_a_number() -> None:
    repaired = clicked(120, 180, "x", request="asked")
    for predicted in (None, [], [ONE]):
        found = judge(predicted, [*(predicted or ()), repaired])
        assert (found.verdict, found.edit_iou) == (Verdict.EDITED, None)
        assert repaired not in found.shown


def test_a_prediction_that_clicks_repaired_is_compared_with_what_it_was() -> None:
    found = judge([ONE], [clicked(0, 50, "one", request="asked")])
    assert (found.verdict, found.shown, found.edit_iou) == (Verdict.EDITED, (ONE,), 0.5)


# --- Properties ---------------------------------------------------------------------------

spans = st.tuples(st.integers(0, 190), st.integers(1, 60)).map(lambda s: (s[0], s[0] + s[1]))
origins = st.sampled_from(["", "manual", "prediction", "prediction-changed"])
regions = st.lists(
    st.builds(
        lambda span, name, origin, label, is_clicked, request: replace(
            region(span[0], span[1], name, origin, label), is_clicked=is_clicked, request=request
        ),
        spans,
        st.sampled_from(["", "a", "b", "c"]),
        origins,
        st.sampled_from(["A", "B"]),
        st.booleans(),
        st.sampled_from([None, "asked"]),
    ),
    max_size=4,
)


@given(st.none() | regions, regions)
def test_the_iou_is_that_of_the_joined_masks(
    shown: list[Region] | None, drawn: list[Region]
) -> None:
    found = judge(shown, drawn)
    if found.edit_iou is None:
        return
    sides = []
    for side in (found.shown, drawn):
        joined = np.zeros((10, 200), dtype=np.bool_)
        for one in side:
            joined |= masks.decode(one.rle)
        sides.append(joined)
    assert found.edit_iou == pytest.approx(masks.iou(*sides))


@given(regions)
def test_what_was_predicted_is_accepted_as_it_is(shown: list[Region]) -> None:
    found = judge(shown, shown)
    assert (found.verdict, found.edit_iou) == (Verdict.ACCEPTED, 1.0)


@given(st.none() | regions, regions, st.randoms(use_true_random=False))
def test_the_order_of_the_regions_makes_no_difference(
    shown: list[Region] | None, drawn: list[Region], random: Random
) -> None:
    mixed = list(drawn)
    random.shuffle(mixed)
    one, other = judge(shown, drawn), judge(shown, mixed)
    assert (one.verdict, one.edit_iou) == (other.verdict, other.edit_iou)
