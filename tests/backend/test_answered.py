"""Which request a region answers where labels are requests and others were typed."""

from __future__ import annotations

from typing import Any

import pytest

from backend.labelling import parse_config
from backend.templates import labelling_config
from backend.translate import Labelled, to_task_result
from segzero_ml import masks
from segzero_ml.corrections import Correction, Verdict
from segzero_ml.types import BoolMask, Box, ImageSize, Prediction, Segment
from tests.backend.annotated import (
    CLASSES,
    CROSS,
    HEIGHT,
    RING,
    STAR,
    WIDTH,
    brush,
    correct,
    kept,
    predicted,
    prediction,
    rle,
    task,
    text,
)

SIGNS = parse_config(labelling_config(["extinguisher", "exit sign"], request_field=None))
TYPED = "the green thing above the door"


def relabelled(region: dict[str, Any], label: str) -> dict[str, Any]:
    """A region of the model as submitted with another label."""
    left = kept(region)
    left["value"]["brushlabels"] = [label]
    return left


def unasked() -> dict[str, Any]:
    """A task without a request: each label is one."""
    found = task()
    del found["data"]["request"]
    return found


def typed_answer() -> dict[str, Any]:
    """No label is named, so that the answer got the first one."""
    return predicted(STAR, "extinguisher", request=TYPED)


def extinguisher() -> dict[str, Any]:
    return predicted(RING, "extinguisher", request="extinguisher")


def signs(*results: dict[str, Any], shown: tuple[dict[str, Any], ...]) -> Correction:
    return correct([*results, text("request", TYPED)], prediction(*shown), SIGNS, unasked())


def test_relabelled_answer_to_a_typed_request_answers_it_all_the_same() -> None:
    found = extinguisher()
    one = signs(kept(found), relabelled(typed_answer(), "exit sign"), shown=(found,))
    assert one.truth(TYPED) == (rle(STAR),)
    assert one.truth("extinguisher") == (rle(RING),)


def test_label_that_the_annotator_gave_is_answered_too() -> None:
    """Otherwise it would be learnt that there is no exit sign."""
    found = extinguisher()
    one = signs(kept(found), relabelled(typed_answer(), "exit sign"), shown=(found,))
    assert one.truth("exit sign") == (rle(STAR),)
    assert [s.request for s in one.predicted] == ["extinguisher", TYPED]
    assert (one.verdict, one.edit_iou) == (Verdict.EDITED, 1.0)  # the model missed the sign


def test_label_that_an_answer_got_for_want_of_another_says_nothing() -> None:
    found = extinguisher()
    one = signs(kept(found), kept(typed_answer()), shown=(found,))
    assert one.truth(TYPED) == (rle(STAR),)
    assert one.truth("extinguisher") == (rle(RING),)
    assert one.truth("exit sign") == ()
    assert one.verdict is Verdict.ACCEPTED


def test_typed_request_is_not_learnt_where_what_was_drawn_answers_a_label() -> None:
    found = extinguisher()
    one = signs(kept(found), brush(STAR, "exit sign"), shown=(found,))
    assert one.requests == ("extinguisher", "exit sign")
    assert one.truth("exit sign") == (rle(STAR),)


def test_object_drawn_by_hand_with_the_label_of_the_typed_request_answers_that() -> None:
    found = extinguisher()
    one = signs(kept(found), brush(STAR, "extinguisher"), shown=(found,))
    assert one.truth(TYPED) == (rle(STAR),)
    assert one.truth("extinguisher") == (rle(RING),)


def test_relabelled_answer_to_a_label_answers_the_new_one_alone() -> None:
    found = extinguisher()
    one = correct([relabelled(found, "exit sign")], prediction(found), SIGNS, unasked())
    assert (one.truth("extinguisher"), one.truth("exit sign")) == ((), (rle(RING),))


def test_prediction_of_a_request_is_an_answer_to_it_though_its_details_were_rewritten() -> None:
    found = predicted(STAR, "Cat", request="what purrs")
    dog = predicted(RING, "Dog", request="Dog")
    left = {**relabelled(found, "Dog"), "meta": {"text": ["mine"]}}
    one = correct([left, kept(dog)], prediction(found, dog), CLASSES, task(request=None))
    assert one.truth("what purrs") == (rle(STAR),)


# --- What an empty prediction was asked ---------------------------------------------------------


def answer(request: str, *found: BoolMask, label: str = "Cat") -> Labelled:
    segments = tuple(Segment(Box(0, 0, 1, 1), (), masks.encode(one), 0.9) for one in found)
    said = Prediction(request, ImageSize(WIDTH, HEIGHT), "", segments, 0.5, "tiny@1")
    return Labelled(said, label)


def stored(*answers: Labelled) -> dict[str, Any]:
    return prediction(**to_task_result(answers, CLASSES))


def test_empty_prediction_that_is_accepted_answers_what_it_was_asked() -> None:
    """As where the last request is kept for the next task, which its data does not say."""
    one = correct([], stored(answer("what purrs")), CLASSES, unasked())
    assert (one.verdict, one.requests) == (Verdict.ACCEPTED, ("what purrs",))


def test_what_is_drawn_where_nothing_was_found_answers_what_was_asked() -> None:
    one = correct([brush(CROSS, "Cat")], stored(answer("what purrs")), CLASSES, unasked())
    assert one.verdict is Verdict.REJECTED
    assert (one.requests, one.truth("what purrs")) == (("what purrs",), (rle(CROSS),))


def test_request_without_an_answer_is_told_beside_one_that_has_some() -> None:
    found = stored(answer("what purrs", RING), answer("what barks", label="Dog"))
    left = [kept(one) for one in found["result"] if one["type"] == "brushlabels"]
    one = correct(left, found, CLASSES, unasked())
    assert one.requests == ("what purrs", "what barks")
    assert (one.truth("what purrs"), one.truth("what barks")) == ((rle(RING),), ())


def test_each_label_is_asked_for_though_the_model_answered_only_some() -> None:
    one = correct([], stored(answer("Cat")), CLASSES, unasked())
    assert one.requests == ("Cat", "Dog")


@pytest.mark.parametrize("odd", [None, 3, "Cat", {"a": 1}, [None, 7, "", " ", "x" * 3000, "."]])
def test_requests_of_a_note_that_nobody_wrote_are_left_out(odd: Any) -> None:
    found = stored(answer("what purrs"))
    [note] = found["result"]
    note["meta"] = {"requests": odd}
    assert correct([], found, CLASSES, unasked()).requests == ("Cat", "Dog")


def test_note_of_an_answer_that_was_typed_makes_no_request_of_it() -> None:
    """Nothing was found or drawn for it: it may have been a slip."""
    cat = predicted(RING, "Cat", request="Cat")
    [note] = to_task_result([answer("asdf")], CLASSES)["result"]
    one = correct([kept(cat), text("request", "asdf"), note], prediction(cat), CLASSES, unasked())
    assert one.requests == ("Cat", "Dog")
