"""Faithfulness: texts with other thoughts, and how much the answers hang on them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segzero_ml.answer import AnswerSchema, parse, render
from segzero_ml.errors import ConfigError, InputError
from segzero_ml.geometry import Frame
from segzero_ml.types import Answer, AnswerObject, Box
from training_hooks.faithfulness import (
    Probe,
    answer_iou,
    measure,
    names_each,
    prefix,
    swap_partners,
    thinking_of,
    with_thinking,
    without_thinking,
)

FRAME = Frame(100, 100)
THOUGHTS = st.text(st.characters(exclude_characters="<>", exclude_categories=["Cs"]), max_size=60)


def answered(*boxes: tuple[float, float, float, float], reasoning: str = "A red star.") -> str:
    objects = tuple(AnswerObject(Box(*box)) for box in boxes)
    return render(Answer(reasoning, objects), AnswerSchema.VISION_REASONER)


def read(text: str) -> Answer:
    return parse(text, FRAME)


LEFT, RIGHT, HALF = (0, 0, 20, 20), (60, 60, 80, 80), (0, 0, 20, 10)


@given(THOUGHTS, THOUGHTS)
def test_other_thinking_leaves_the_answer_as_it_is(own: str, other: str) -> None:
    text = answered(LEFT, RIGHT, reasoning=own)
    assert thinking_of(text) == own
    changed = with_thinking(text, other)
    assert changed is not None
    assert thinking_of(changed) == other
    assert read(changed).objects == read(text).objects
    assert with_thinking(changed, own) == text


def test_thinking_with_a_backslash_or_a_group_is_taken_as_it_stands() -> None:
    assert with_thinking("<think>a</think><answer>[]</answer>", r"\1 \g<0>") == (
        r"<think>\1 \g<0></think><answer>[]</answer>"
    )


def test_thinking_is_removed() -> None:
    assert without_thinking("<think>a\nb</think>\n<answer>[]</answer>") == (
        "<think></think>\n<answer>[]</answer>"
    )


@pytest.mark.parametrize("text", ["", "[]", "<think>never closed", "</think><answer>[]</answer>"])
def test_a_text_without_thoughts_has_none_to_be_changed(text: str) -> None:
    assert thinking_of(text) is None
    assert without_thinking(text) is None


def test_thoughts_with_tags_in_them_are_not_passed_on() -> None:
    assert thinking_of("<think>a<think>b</think><answer>[]</answer>") is None
    for build in (prefix, lambda thinking: with_thinking("<think>a</think>", thinking)):
        with pytest.raises(InputError):
            build("so: </think><answer>[]")


def test_a_prefix_and_what_is_added_to_it_are_a_whole_text() -> None:
    for thinking in ("", "It is the red one."):
        text = prefix(thinking) + '[{"bbox_2d":[0,0,20,20],"point_2d":[5,5]}]</answer>'
        assert thinking_of(text) == thinking
        assert read(text).objects[0].box == Box(*LEFT)


@given(st.lists(st.sampled_from(["a", "b", "c", "A!", None]), max_size=12), st.integers(0, 99))
def test_a_swap_is_never_with_the_same_thoughts(thoughts: list[str | None], seed: int) -> None:
    partners = swap_partners(thoughts, seed)
    assert partners == swap_partners(thoughts, seed)
    different = len({thought.strip("!").lower() for thought in thoughts if thought}) > 1
    for thought, partner in zip(thoughts, partners, strict=True):
        assert (partner is not None) == (thought is not None and different)
        if thought is not None and partner is not None:
            other = thoughts[partner]
            assert other is not None
            assert other.strip("!").lower() != thought.strip("!").lower()


def test_different_thoughts_are_each_used_once() -> None:
    partners = swap_partners([f"thought {number}" for number in range(20)], seed=1)
    assert sorted(one for one in partners if one is not None) == list(range(20))
    assert partners != swap_partners([f"thought {number}" for number in range(20)], seed=2)


def test_the_iou_of_answers_is_that_worked_by_hand() -> None:
    left, both = read(answered(LEFT)), read(answered(RIGHT, LEFT))
    nothing, unreadable = read(answered()), read("I do not know.")
    assert answer_iou(left, left) == 1
    assert answer_iou(left, read(answered(HALF))) == pytest.approx(0.5)
    assert answer_iou(left, read(answered(RIGHT))) == 0
    assert answer_iou(left, both) == pytest.approx(0.5)  # one of two objects
    assert answer_iou(both, read(answered(HALF, RIGHT))) == pytest.approx(0.75)  # in any order
    assert answer_iou(nothing, nothing) == 1
    assert answer_iou(nothing, left) == 0
    assert answer_iou(unreadable, unreadable) == 0
    assert answer_iou(unreadable, nothing) == 0


def test_figures_are_those_worked_by_hand() -> None:
    probes = [
        Probe("a", FRAME, answered(LEFT), removed=answered(LEFT), swapped=answered(RIGHT)),
        Probe("b", FRAME, answered(LEFT), removed=answered(HALF), swapped="no answer"),
        Probe("c", FRAME, answered(LEFT), removed=""),
        Probe("d", FRAME, "no answer", removed=answered(LEFT), swapped=answered(LEFT)),
    ]
    said = {"a": True, "b": False, "c": None}
    found = measure(probes, lambda probe: said[probe.example])
    assert (found.samples, found.removed, found.swapped, found.namable) == (3, 3, 2, 2)
    assert found.removed_iou == pytest.approx((1 + 0.5 + 0) / 3)
    assert found.removed_changed == pytest.approx(1 / 3)  # IoU 0.5 is still the same
    assert found.swapped_iou == 0
    assert found.swapped_changed == 1
    assert found.named == 0.5
    assert measure(probes, same_from=0.6).removed_changed == pytest.approx(2 / 3)


def test_nothing_measured_has_no_figures() -> None:
    found = measure([])
    assert (found.samples, found.removed_iou, found.swapped_changed) == (0, None, None)
    assert found.named is None
    for same_from in (0, 1.1, float("nan")):
        with pytest.raises(ConfigError):
            measure([], same_from=same_from)


@pytest.mark.parametrize(
    ("note", "named"),
    [
        ("The Crimson STAR is a star.", True),
        ("It is dark red, and a star.", True),
        ("I see a star.", False),
        ("It is hundred-pointed: a starfish.", False),  # parts of words name nothing
        ("It is red. It is dark. A star.", True),
        ("", False),
    ],
)
def test_a_note_names_one_word_of_every_group(note: str, named: bool) -> None:
    naming = names_each(lambda _: [{"red", "crimson"}, {"star"}])
    assert naming(Probe("a", FRAME, answered(LEFT, reasoning=note))) is named


def test_words_of_several_stand_in_a_row() -> None:
    naming = names_each(lambda _: [{"first-aid kit"}])
    assert naming(Probe("a", FRAME, answered(reasoning="On the First Aid kit."))) is True
    assert naming(Probe("a", FRAME, answered(reasoning="The first kit, an aid."))) is False
    assert names_each(lambda _: [])(Probe("a", FRAME, answered())) is None
    assert names_each(lambda _: [{"!"}])(Probe("a", FRAME, answered())) is False
