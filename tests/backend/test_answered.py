"""Which request a region answers where labels are requests and others were typed."""

from __future__ import annotations

from typing import Any

from backend.labelling import parse_config
from backend.templates import labelling_config
from segzero_ml.corrections import Correction, Verdict
from tests.backend.annotated import (
    CLASSES,
    RING,
    STAR,
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
