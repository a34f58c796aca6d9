"""Reading what reasoners write, leniently and strictly, and writing it."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segzero_ml.answer import MAX_OBJECTS, MAX_TEXT, AnswerSchema, format_is_strict, parse, render
from segzero_ml.errors import InputError
from segzero_ml.geometry import Frame
from segzero_ml.types import Answer, AnswerObject, Box, Point

FRAME = Frame(840, 840)
SEG_ZERO, VISION_REASONER = AnswerSchema.SEG_ZERO, AnswerSchema.VISION_REASONER
ONE = AnswerObject(Box(1, 2, 30, 40), (Point(5, 6),))
ONE_TEXT = '<think>R</think><answer>[{"bbox_2d":[1,2,30,40],"point_2d":[5,6]}]</answer>'

WHOLE = st.integers(0, 840)
SPANS = st.tuples(WHOLE, WHOLE).filter(lambda span: span[0] != span[1]).map(sorted)
OBJECTS = st.builds(
    lambda x, y, px, py: AnswerObject(Box(x[0], y[0], x[1], y[1]), (Point(px, py),)),
    SPANS,
    SPANS,
    WHOLE,
    WHOLE,
)
THOUGHTS = st.text(st.characters(exclude_categories=["C"]), min_size=1).map(str.strip)
REASONING = THOUGHTS.filter(lambda text: bool(text) and "<" not in text)


def _answer(body: str) -> str:
    return f"<think>because</think>\n<answer>{body}</answer>"


@given(REASONING, st.lists(OBJECTS, max_size=5))
def test_a_rendered_list_is_strict_and_reads_as_what_was_written(
    reasoning: str, objects: list[AnswerObject]
) -> None:
    answer = Answer(reasoning=reasoning, objects=tuple(objects))
    text = render(answer, VISION_REASONER)
    assert format_is_strict(text, VISION_REASONER)
    assert not format_is_strict(text, SEG_ZERO)
    assert parse(text, FRAME) == answer


@given(REASONING, OBJECTS, WHOLE, WHOLE)
def test_a_rendered_object_is_strict_and_reads_as_what_was_written(
    reasoning: str, item: AnswerObject, x: int, y: int
) -> None:
    both = AnswerObject(item.box, (*item.points, Point(x, y)))
    answer = Answer(reasoning=reasoning, objects=(both,))
    text = render(answer, SEG_ZERO)
    assert format_is_strict(text, SEG_ZERO)
    assert not format_is_strict(text, VISION_REASONER)
    assert parse(text, FRAME) == answer


@given(st.text(max_size=300))
def test_any_text_is_answered_by_objects_or_a_problem(text: str) -> None:
    for candidate in (text, _answer(text), _answer(f'[{{"bbox_2d":{text}}}]')):
        answer = parse(candidate, FRAME)
        assert answer.problem is None or not answer.objects
        for item in answer.objects:
            assert 0 <= item.box.x1 < item.box.x2 <= FRAME.width
            assert 0 <= item.box.y1 < item.box.y2 <= FRAME.height
            assert all(0 <= p.x <= FRAME.width and 0 <= p.y <= FRAME.height for p in item.points)
        for schema in AnswerSchema:
            if format_is_strict(candidate, schema):
                assert "<think>" in candidate


@given(st.data())
def test_a_text_that_is_damaged_anywhere_never_raises(data: st.DataObject) -> None:
    text = render(Answer("why", (ONE, ONE)), data.draw(st.just(VISION_REASONER)))
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, len(text)))
    junk = data.draw(st.text("<>/[]{}\"',:0129.-eE \\tn", max_size=12))
    parse(text[:start] + junk + text[end:], FRAME)


def test_the_compact_form_is_exact() -> None:
    answer = Answer(
        "R", (AnswerObject(Box(1, 2.4, 2.5, 4), (Point(4.5, 6.49),)), AnswerObject(Box(0, 0, 8, 6)))
    )
    assert render(answer, VISION_REASONER) == (
        '<think>R</think><answer>[{"bbox_2d":[1,2,3,4],"point_2d":[5,6]},'
        '{"bbox_2d":[0,0,8,6],"point_2d":[4,3]}]</answer>'
    )
    assert render(Answer("R"), VISION_REASONER) == "<think>R</think><answer>[]</answer>"


def test_the_form_of_one_object_is_exact() -> None:
    assert render(Answer("R", (ONE,)), SEG_ZERO) == (
        '<think>R</think><answer>{"bbox":[1,2,30,40],"points_1":[5,6],"points_2":[5,6]}</answer>'
    )
    assert render(Answer("R"), SEG_ZERO) == "<think>R</think><answer>{}</answer>"


@pytest.mark.parametrize(
    ("answer", "schema"),
    [
        (Answer("R", problem="broken"), VISION_REASONER),
        (Answer("a </think> b"), VISION_REASONER),
        (Answer("a <ANSWER> b"), VISION_REASONER),
        (Answer("R", (ONE, ONE)), SEG_ZERO),
        (Answer("R", (ONE,) * (MAX_OBJECTS + 1)), VISION_REASONER),
    ],
)
def test_what_the_schema_cannot_hold_is_not_written(answer: Answer, schema: AnswerSchema) -> None:
    with pytest.raises(InputError):
        render(answer, schema)


@pytest.mark.parametrize(
    "text",
    [
        ONE_TEXT,
        ONE_TEXT.replace('"', "'"),
        ONE_TEXT.replace("}]", ",},]"),
        ONE_TEXT.replace("[{", "```json\n[{").replace("}]", "}]\n```"),
        ONE_TEXT.replace("<think>", ""),
        ONE_TEXT.replace("</answer>", ""),
        ONE_TEXT.replace("<answer>", "").replace("</answer>", ""),
        ONE_TEXT.replace("</think>", ""),
        ONE_TEXT.replace("answer>", "ANSWER>"),
        ONE_TEXT.replace("[1,2,30,40]", "[30.0,40.0,1.0,2.0]"),
        ONE_TEXT.replace("[1,2,30,40]", "[30,2,1,40]"),
        ONE_TEXT.replace("[1,2,30,40]", "[[1,2],[30,40]]"),
        ONE_TEXT.replace("[1,2,30,40]", '["1","2","30","40"]'),
        ONE_TEXT.replace("[1,2,30,40]", "(1, 2, 30, 40)"),
        ONE_TEXT.replace("bbox_2d", "bbox").replace("point_2d", "points_1"),
        ONE_TEXT.replace("[{", "{").replace("}]", "}"),
        ONE_TEXT.replace("point_2d", 'label":"a dog\'s","point_2d'),
        ONE_TEXT.replace("[5,6]", "[[5,6]]"),
        ONE_TEXT.replace("[5,6]}]", '[5,6]},{"bbox_2d":[7,'),
        "<think>R</think><answer>[]</answer> or rather " + ONE_TEXT[16:],
        ONE_TEXT.replace("[{", "The answer is [1]: [{"),
    ],
)
def test_the_habits_of_models_are_understood(text: str) -> None:
    assert parse(text, FRAME) == Answer("R", (ONE,))


def test_bare_boxes_are_understood() -> None:
    assert parse(_answer("[1,2,30,40]"), FRAME).objects == (AnswerObject(ONE.box),)
    assert parse(_answer("[[1,2,30,40],[2,2,9,9]]"), FRAME).objects == (
        AnswerObject(ONE.box),
        AnswerObject(Box(2, 2, 9, 9)),
    )


def test_the_text_of_a_plain_model_without_tags_is_understood() -> None:
    text = 'It\'s on the left.\n```json\n[{"bbox_2d": [1, 2, 30, 40], "label": "x"}]\n```'
    assert parse(text, FRAME) == Answer("It's on the left.", (AnswerObject(ONE.box),))


def test_both_points_of_the_first_schema_are_kept() -> None:
    text = _answer('{"bbox":[1,2,30,40],"points_1":[5,6],"points_2":[7,8]}')
    assert parse(text, FRAME).objects[0].points == (Point(5, 6), Point(7, 8))


@pytest.mark.parametrize("body", ["[]", "{}", "```json\n[]\n```", "[{}]", " [ ] "])
def test_an_empty_answer_means_that_nothing_matches(body: str) -> None:
    assert parse(_answer(body), FRAME) == Answer("because")


def test_what_leaves_the_frame_is_clipped() -> None:
    text = _answer('[{"bbox_2d":[-5,10,900,2000],"point_2d":[1000,-3]}]')
    assert parse(text, FRAME).objects == (AnswerObject(Box(0, 10, 840, 840), (Point(840, 0),)),)


def test_a_box_outside_the_frame_is_dropped_and_the_others_are_kept() -> None:
    far = '{"bbox_2d":[900,900,950,950],"point_2d":[901,901]}'
    near = '{"bbox_2d":[1,2,30,40],"point_2d":[5,6]}'
    assert parse(_answer(f"[{far},{near}]"), FRAME).objects == (ONE,)
    alone = parse(_answer(f"[{far}]"), FRAME)
    assert alone.problem is not None
    assert "usable box" in alone.problem


def test_a_box_without_extent_is_widened_to_one_unit() -> None:
    text = _answer('[{"bbox_2d":[5,6,5,6]},{"bbox_2d":[840,3,840,9]}]')
    assert parse(text, FRAME).objects == (
        AnswerObject(Box(4.5, 5.5, 5.5, 6.5)),
        AnswerObject(Box(839.5, 3, 840, 9)),
    )


def test_objects_beyond_the_limit_are_left_out() -> None:
    text = _answer("[" + ",".join(['{"bbox_2d":[1,2,3,4]}'] * (MAX_OBJECTS + 20)) + "]")
    assert len(parse(text, FRAME).objects) == MAX_OBJECTS


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "no answer"),
        ("   ", "no answer"),
        ("<think>only a thought [1,2,3,4]", "no answer"),
        ("<think>a</think>", "no answer"),
        ("<think>a</think><answer></answer>", "no answer"),
        ("I cannot see it.", "no list"),
        (_answer("none"), "no list"),
        (_answer("[nothing]"), "no list"),
        (_answer("[1,2,3]"), "usable box"),
        (_answer('[{"point_2d":[5,6]}]'), "usable box"),
        (_answer('[{"bbox_2d":[1,2,3]}]'), "usable box"),
        (_answer('[{"bbox_2d":[1,2,3,true]}]'), "usable box"),
        (_answer('[{"bbox_2d":[1,2,3,1e999]}]'), "usable box"),
        (_answer('[{"bbox_2d":"left"}]'), "usable box"),
        ("x" * (MAX_TEXT + 1), "longer than"),
    ],
)
def test_a_text_that_cannot_be_used_says_why(text: str, problem: str) -> None:
    answer = parse(text, FRAME)
    assert answer.problem is not None
    assert problem in answer.problem
    assert answer.objects == ()


def test_the_reasoning_is_kept_when_the_answer_is_bad() -> None:
    assert parse("<think> I looked. </think><answer>?</answer>", FRAME).reasoning == "I looked."
    assert parse("<think> I looked", FRAME).reasoning == "I looked"


@pytest.mark.parametrize(
    "text",
    [
        ONE_TEXT,
        f"  {ONE_TEXT}\n",
        ONE_TEXT.replace("</think>", "</think>\n"),
        ONE_TEXT.replace(",", ", ").replace("[{", "\n[ {"),
        ONE_TEXT.replace("30,40", "30.5,40.25"),
        ONE_TEXT.replace("R", "a < b, so it is c"),
        "<think>R</think><answer>[]</answer>",
    ],
)
def test_texts_that_follow_the_schema_are_strict(text: str) -> None:
    assert format_is_strict(text, VISION_REASONER)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ONE_TEXT.replace("R", ""),
        ONE_TEXT.replace("R", " \n "),
        ONE_TEXT.replace("R", "<think>R"),
        ONE_TEXT.replace("R", "R</think> <think>"),
        ONE_TEXT + "!",
        "Well: " + ONE_TEXT,
        ONE_TEXT + ONE_TEXT,
        ONE_TEXT.replace("</think>", "</think> so "),
        ONE_TEXT.replace("think>", "THINK>"),
        ONE_TEXT.replace('"', "'"),
        ONE_TEXT.replace("}]", "},]"),
        ONE_TEXT.replace("[{", "```json[{").replace("}]", "}]```"),
        ONE_TEXT.replace("[{", "{").replace("}]", "}"),
        ONE_TEXT.replace("bbox_2d", "bbox"),
        ONE_TEXT.replace("point_2d", "point"),
        ONE_TEXT.replace("[5,6]", "[5]"),
        ONE_TEXT.replace("[5,6]", "[5,6,7]"),
        ONE_TEXT.replace("[5,6]", '[5,6],"label":"x"'),
        ONE_TEXT.replace("[5,6]", '[5,6],"point_2d":[5,6]'),
        ONE_TEXT.replace("[5,6]", "[5,true]"),
        ONE_TEXT.replace("[5,6]", '[5,"6"]'),
        ONE_TEXT.replace("[5,6]", "[5,NaN]"),
        ONE_TEXT.replace("[5,6]", "[5,1e999]"),
        ONE_TEXT.replace("[1,2,30,40]", "[30,2,1,40]"),
        ONE_TEXT.replace("[1,2,30,40]", "[1,2,30]"),
        ONE_TEXT.replace("[1,2,30,40]", "[[1,2],[30,40]]"),
        "<think>R</think><answer>{}</answer>",
        "<think>R</think><answer>[{}]</answer>",
        "<think>R</think><answer>null</answer>",
        "<think>R</think><answer>" + "[" * 20_000 + "</answer>",
        "<think>" + "R" * MAX_TEXT + "</think><answer>[]</answer>",
        "<think>R</think><answer>["
        + ",".join(['{"bbox_2d":[1,2,3,4],"point_2d":[2,3]}'] * (MAX_OBJECTS + 1))
        + "]</answer>",
    ],
)
def test_texts_that_do_not_follow_the_schema_are_not_strict(text: str) -> None:
    assert not format_is_strict(text, VISION_REASONER)


def test_the_first_schema_has_its_own_strict_form() -> None:
    right = _answer('{"bbox": [1, 2, 30, 40], "points_1": [5, 6], "points_2": [7, 8]}')
    assert format_is_strict(right, SEG_ZERO)
    assert format_is_strict(_answer("{}"), SEG_ZERO)
    assert not format_is_strict(right.replace("points_2", "points_3"), SEG_ZERO)
    assert not format_is_strict(ONE_TEXT, SEG_ZERO)
    assert not format_is_strict(_answer("[]"), SEG_ZERO)


@pytest.mark.parametrize(
    "text",
    [
        "<answer>" * 12_000,
        "<think>" * 14_000,
        "<think>a" + "<" * 99_000,
        "<think>a" + "</think" * 14_000,
        " " * 99_000 + "x",
        _answer("'\\" * 49_000),
        _answer("[" + "9" * 99_000),
        _answer('{"bbox_2d":[' * 8_000),
        _answer("[" + "{}," * 33_000),
    ],
)
def test_hostile_text_is_read_in_time(text: str) -> None:
    began = time.process_time()
    parse(text, FRAME)
    format_is_strict(text, VISION_REASONER)
    assert time.process_time() - began < 5
