"""The tolerant reader for what language models write instead of JSON."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segzero_ml import loose_json

JSON = st.recursive(
    st.none() | st.booleans() | st.floats(-1e6, 1e6) | st.text("abc xyz{}[]:,'", max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text("abcxyz", min_size=1, max_size=4), inner, max_size=4)
    ),
    max_leaves=12,
)


def _first(text: str) -> Any:
    return next(loose_json.values(text, tries=8), None)


def _depth(value: object) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + max((_depth(entry) for entry in inner), default=0)


@given(st.lists(JSON, max_size=4).filter(lambda value: _depth(value) <= loose_json.MAX_DEPTH))
def test_what_json_writes_is_read_as_json_reads_it(value: list[Any]) -> None:
    text = json.dumps(value)
    assert _first(f"Here it is: {text} as you asked.") == json.loads(text)


@given(st.text(max_size=200))
def test_any_text_is_read_without_an_error(text: str) -> None:
    for value in loose_json.values(text, tries=8):
        assert isinstance(value, list | dict)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("{'a': 1, 'b': (2, 3),}", {"a": 1, "b": [2, 3]}),
        ("[1 2, 3,]", [1, 2, 3]),
        ("{a: None, b: True, c: false}", {"a": None, "b": True, "c": False}),
        ('[{"a": 1} {"a": 2}]', [{"a": 1}, {"a": 2}]),
        ("[-1.5e2, +.5, 3.]", [-150, 0.5, 3]),
        ('{"a": "it\'s"}', {"a": "it's"}),
        ("```json\n[1]\n```", [1]),
        ("it's here: [1]", [1]),
        ("[not this] but [1]", [1]),
    ],
)
def test_the_habits_of_language_models_are_understood(text: str, value: object) -> None:
    assert _first(text) == value


def test_values_come_in_order_and_not_from_inside_each_other() -> None:
    assert list(loose_json.values("[[1], 2] then {'a': [3]}", tries=8)) == [
        [[1], 2],
        {"a": [3]},
    ]


@pytest.mark.parametrize("end", ["", ",", ', {"a"', ', {"a": 2', ', {"a": "tw', ', {"a": [2'])
def test_complete_dicts_of_a_list_that_is_cut_off_are_kept(end: str) -> None:
    assert _first('[{"a": 1}' + end) == [{"a": 1}]


@pytest.mark.parametrize("text", ["[1, 2, 3", '{"a": [1, 2', "[", "[[1, 2], [3"])
def test_numbers_that_are_cut_off_are_not_trusted(text: str) -> None:
    assert _first(text) is None or _first(text) == [1, 2]


def test_deep_nesting_is_refused() -> None:
    assert _first("[" * 6 + "]" * 6) == [[[[[[]]]]]]
    assert list(loose_json.values("[" * 50_000, tries=3)) == []


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "[" + '"' * 99_999, "['" + "'\\" * 50_000, "[1," * 33_000, "[{},"]
)
def test_hostile_text_is_read_in_time(text: str) -> None:
    began = time.process_time()
    list(loose_json.values(text, tries=8))
    assert time.process_time() - began < 5
