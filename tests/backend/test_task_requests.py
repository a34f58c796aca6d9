"""Where a task's requests come from, and which label they get."""

from __future__ import annotations

import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.controls import Kind, Label, Shape
from backend.label_names import Naming, folded, naming
from backend.labelling import Labelling
from backend.task_requests import LabelRequest, label_for, prompted_request, task_requests
from segzero_ml.errors import RequestError

CUP = Label("Cup", "Cup", ("Cup",))
FIRE = Label("f1", "what puts out a fire", ("Fire", "f1", "what puts out a fire"))
FIELDS = ("request", "prompt")


def labelling(*labels: Label, fields: tuple[str, ...] = ()) -> Labelling:
    brush = Shape(Kind.BRUSH, "brush", labels)
    return Labelling("image", "image", (brush,), request_fields=fields, prompt="ask")


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ({"request": "the red star"}, "the red star"),
        ({"prompt": "the red star"}, "the red star"),
        ({"question": "a", "request": "b"}, "a"),
        ({"question": "  ", "request": "b"}, "b"),
        ({"question": None, "request": "b"}, "b"),
    ],
)
def test_field_that_the_config_shows_goes_before_the_usual_ones(
    data: dict[str, Any], text: str
) -> None:
    config = labelling(CUP, fields=("question",))
    assert task_requests(data, config, FIELDS) == (LabelRequest(text, "Cup"),)


def test_without_a_request_each_label_is_one() -> None:
    found = task_requests({"image": "x"}, labelling(CUP, FIRE), FIELDS)
    assert found == (LabelRequest("Cup", "Cup"), LabelRequest("what puts out a fire", "f1"))


def test_blank_request_with_several_labels_counts_as_none() -> None:
    assert len(task_requests({"request": ""}, labelling(CUP, FIRE), FIELDS)) == 2


@pytest.mark.parametrize("blank", ["", " \n\t"])
def test_blank_request_with_one_label_says_that_it_is_empty(blank: str) -> None:
    with pytest.raises(RequestError, match='request is empty: the field "request"'):
        task_requests({"request": blank}, labelling(CUP), FIELDS)


@pytest.mark.parametrize("value", [7, ["a"], {"a": "b"}, True])
def test_request_that_is_no_text_is_refused(value: object) -> None:
    with pytest.raises(RequestError, match="as text"):
        task_requests({"request": value}, labelling(CUP), FIELDS)


def area(name: str, text: object) -> dict[str, Any]:
    return {"from_name": name, "type": "textarea", "value": {"text": text}}


@pytest.mark.parametrize(
    ("regions", "text"),
    [
        ([area("ask", ["first", "second"])], "second"),
        ([area("ask", "one text")], "one text"),
        ([area("ask", ["older"]), area("ask", ["newer"])], "newer"),
        ([area("ask", ["kept", " "])], "kept"),
        ([area("ask", ["mine"]), area("notes", ["not mine"])], "mine"),
        ([area("notes", ["not mine"])], None),
        ([], None),
        ([{"from_name": "ask", "value": None}, {"from_name": "ask"}], None),
        ([area("ask", [None, 7])], None),
        ([area("ask", {"text": "x"})], None),
    ],
)
def test_typed_request_is_the_newest_line_of_the_prompt_box(
    regions: list[dict[str, Any]], text: str | None
) -> None:
    expected = None if text is None else LabelRequest(text, "Cup")
    assert prompted_request(regions, labelling(CUP)) == expected


@pytest.mark.parametrize(
    ("request_text", "label"),
    [
        ("find the cup", "Cup"),
        ("Fire!", "f1"),
        ("something else", "Cup"),
        ("a campfire", "Cup"),  # a part of a word is not the word
        ("the fire next to the cup", "f1"),  # the longer name wins
    ],
)
def test_label_is_the_one_that_the_request_names_or_else_the_first(
    request_text: str, label: str
) -> None:
    assert label_for(request_text, (CUP, FIRE)) == label


def label(name: str) -> Label:
    return Label(name, name, (name,))


@pytest.mark.parametrize(
    ("request_text", "names", "found"),
    [
        ("all the cars", ["person", "car"], "car"),
        ("ALL BUSES", ["person", "bus"], "bus"),
        ("every battery, or all batteries", ["cell", "battery"], "battery"),
        ("the batteries", ["cell", "battery"], "battery"),
        ("two TVs", ["radio", "TV"], "TV"),
        ("carsharing", ["person", "car"], "person"),
        ("as is", ["person", "a", "i"], "person"),  # no plurals
        ("the cars beside the person", ["car", "person"], "person"),  # written as it is
        ("the cars beside the police cars", ["car", "police car"], "police car"),
        ("glass and glasses", ["glass", "glasses"], "glasses"),
        ("找出所有行人", ["汽车", "行人"], "行人"),
        ("自動車を全部見つけて", ["人", "自動車"], "自動車"),
        ("リンゴを探して", ["みかん", "リンゴ"], "リンゴ"),
        ("หารถยนต์ทั้งหมด", ["คน", "รถยนต์"], "รถยนต์"),
        ("找出所有car和person", ["person", "car"], "person"),
        ("找出所有car", ["person", "car"], "car"),
        ("找出所有carpet", ["person", "car"], "person"),
        ("找出A型汽车", ["行人", "A型汽车"], "A型汽车"),
        ("자동차를 찾아", ["사람", "자동차"], "자동차"),
        ("car를 찾아", ["사람", "car"], "car"),
        ("소방차를 찾아", ["사람", "차"], "사람"),  # within a word
        ("차를 자동차 옆에서", ["차", "자동차"], "자동차"),
        ("the cafe\u0301", ["bar", "caf\u00e9"], "caf\u00e9"),
        ("die STRASSE", ["Haus", "Straße"], "Straße"),
        ("все машины", ["дом", "машины"], "машины"),
    ],
)
def test_label_is_found_in_any_script_and_in_the_plural(
    request_text: str, names: list[str], found: str
) -> None:
    assert label_for(request_text, [label(name) for name in names]) == found


WORDS = st.text(st.characters(categories=["L", "M", "N", "P", "S"]), min_size=1, max_size=8)


@given(WORDS)
def test_a_label_between_spaces_is_named_whatever_it_is_made_of(name: str) -> None:
    text = f"xq {unicodedata.normalize('NFD', name)} xq"
    assert naming(folded(name), folded(text)) is Naming.EXACT


def test_a_label_without_a_name_is_never_named() -> None:
    assert label_for("anything", [label("cup"), label("")]) == "cup"


def test_request_of_millions_of_characters_is_refused_without_being_searched() -> None:
    huge = "a " * 3_000_000
    message = "6000000 characters long; the limit is 2000"
    with pytest.raises(RequestError, match=message):
        task_requests({"request": huge}, labelling(CUP, FIRE), FIELDS)
    with pytest.raises(RequestError, match=message):
        prompted_request([area("ask", [huge])], labelling(CUP, FIRE))


def test_label_names_are_no_patterns() -> None:
    odd = Label("(a+)+$", "x", ("(a+)+$",))
    assert label_for("a" * 2000, (CUP, odd)) == "Cup"
    assert label_for("the (a+)+$ one", (CUP, odd)) == "(a+)+$"
