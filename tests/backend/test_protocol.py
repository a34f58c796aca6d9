"""Bodies of calls: read as Label Studio sends them, refused with a reason otherwise."""

from __future__ import annotations

import asyncio
import json
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.errors import BodyError
from backend.protocol import (
    MAX_TASKS,
    Context,
    PredictBody,
    SetupBody,
    Task,
    check,
    read_body,
    receive,
)

BATCH = {
    "tasks": [{"id": 7, "data": {"image": "/data/a.png"}, "annotations": [], "project": 1}],
    "project": "1.1700000000",
    "label_config": "<View/>",
    "params": {"login": "ada", "password": "lovelace", "context": None},
}


def encode(value: object) -> bytes:
    return json.dumps(value).encode()


def test_batch_call_is_read_and_its_login_is_not_kept() -> None:
    body = read_body(PredictBody, encode(BATCH))
    assert body.params.context is None
    assert body.label_config == "<View/>"
    assert "lovelace" not in repr(body)


def test_interactive_call_is_known_by_its_context() -> None:
    region = {"from_name": "request", "value": {"text": ["star"]}}
    params = {"context": {"result": [region], "drafts": []}}
    body = read_body(PredictBody, encode({**BATCH, "params": params}))
    assert body.params.context == Context(result=[region])


@pytest.mark.parametrize("params", [None, {}, {"context": {}}, {"context": None}])
def test_call_without_context_is_no_interactive_one(params: object) -> None:
    assert read_body(PredictBody, encode({**BATCH, "params": params})).params.context is None


def test_setup_reads_the_config_and_neither_host_nor_token() -> None:
    body = read_body(
        SetupBody,
        encode({"schema": "<View/>", "hostname": "http://evil", "access_token": "secret"}),
    )
    assert body.schema_ == "<View/>"
    assert set(SetupBody.model_fields) == {"schema_", "project"}
    assert read_body(SetupBody, encode({"schema": None})).schema_ == ""


def test_tasks_are_checked_one_by_one() -> None:
    body = read_body(PredictBody, encode({**BATCH, "tasks": [{"data": {}}, "x", {"id": 1}]}))
    assert len(body.tasks) == 3
    check(Task, body.tasks[0])
    for broken in body.tasks[1:]:
        with pytest.raises(BodyError):
            check(Task, broken)


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b'{"a": NaN}', "not JSON"),
        (b'{"a": -Infinity}', "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b'{"a":' * 100_000, "not JSON"),
        (b'{"a": ' + b"9" * 5000 + b"}", "not JSON"),
        (b'{"a": 1}{"b": 2}', "not JSON"),
        (b"[]", "JSON object"),
        (b'"text"', "JSON object"),
        (b"{}", "tasks: Field required"),
        (encode({**BATCH, "tasks": {"0": 1}}), "tasks: "),
        (encode({**BATCH, "tasks": [1] * (MAX_TASKS + 1)}), f"more than {MAX_TASKS} tasks"),
        (encode({**BATCH, "label_config": 7}), "label_config: "),
        (encode({**BATCH, "params": []}), "params: "),
        (encode({**BATCH, "params": {"context": "x"}}), "params.context: "),
        (encode({**BATCH, "params": {"context": {"result": ["x"]}}}), "params.context.result.0: "),
    ],
)
def test_wrong_body_is_refused_with_the_field_and_without_its_value(
    body: bytes, problem: str
) -> None:
    started = time.process_time()
    with pytest.raises(BodyError, match=problem) as caught:
        read_body(PredictBody, body)
    assert time.process_time() - started < 0.5
    assert "lovelace" not in str(caught.value)


@given(st.binary())
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    with pytest.raises(BodyError):
        read_body(PredictBody, data)


@pytest.mark.parametrize(
    ("sent", "meant"),
    [
        ("7.1700000000", 7),
        ("7", 7),
        (7, 7),
        ("7.", 7),
        ("7.1.2", None),
        ("", None),
        ("\u0667", None),
        ("9" * 5000, None),
        (-7, None),
        (True, None),
        (None, None),
        ([7], None),
        ({"id": 7}, None),
    ],
)
def test_the_project_is_read_from_what_label_studio_sends_and_never_fails_a_call(
    sent: object, meant: int | None
) -> None:
    assert read_body(SetupBody, encode({"project": sent})).project == meant
    body = {"tasks": [], "label_config": "", "project": sent}
    assert read_body(PredictBody, encode(body)).project == meant


@pytest.mark.parametrize(
    ("escaped", "meant"),
    [
        (r"\ud83d", "\ufffd"),
        (r"\uDE00 b", "\ufffd b"),
        (r"\ud83d\ud83d\ude00", "\ufffd\U0001f600"),
        (r"\ude00\ud83d", "\ufffd\ufffd"),
        (r"\\ud83d\ud83d", "\\ud83d\ufffd"),
        (r"\ud83d\\ude00", "\ufffd\\ude00"),
        (r"\ud83d\u0041\n\"", '\ufffdA\n"'),
    ],
)
def test_half_a_character_in_one_task_fails_no_call(escaped: str, meant: str) -> None:
    sound = {"id": 7, "data": {"request": "the star", "\ud800": r"C:\ud83d"}}
    data = encode({**BATCH, "tasks": [{"id": 8, "data": {"request": "HERE"}}, sound]})
    body = read_body(PredictBody, data.replace(b"HERE", escaped.encode()))
    assert body.tasks[0]["data"] == {"request": meant}
    assert body.tasks[1]["data"] == {"request": "the star", "\ufffd": r"C:\ud83d"}


@given(st.text(st.characters(categories=None), max_size=20))
def test_any_text_arrives_but_for_halves_of_characters(text: str) -> None:
    body = read_body(SetupBody, encode({"schema": text, "\udc00": 1}))
    assert body.schema_ == re.sub("[\ud800-\udfff]", "\ufffd", json.loads(encode(text)))


@pytest.mark.parametrize("value", ["NaN", "-Infinity", "[" * 1000, "9" * 5000, "'a'"])
def test_half_a_character_opens_no_other_door(value: str) -> None:
    with pytest.raises(BodyError, match="not JSON"):
        read_body(SetupBody, f'{{"schema": "\\ud83d", "a": {value}}}'.encode())


PADDING = {"id": 1, "data": {"image": "x" * (1 << 20)}}


@pytest.mark.parametrize(
    "data",
    [
        encode({**BATCH, "tasks": [PADDING, {"data": {"a": [1.5, None]}}, "x", 3]}),
        json.dumps({**BATCH, "tasks": [PADDING] * 2}, indent=1).encode(),
        encode({**BATCH, "tasks": [PADDING, {"data": {"request": "\ud800"}}], "x": "\udc00"}),
        encode({"label_config": "<View/>", "tasks": [PADDING]}),  # the tasks are not first
        encode({**BATCH, "label_config": "x" * (1 << 20), "tasks": []}),
    ],
)
def test_a_large_body_is_read_as_a_small_one(data: bytes) -> None:
    assert asyncio.run(receive(PredictBody, data)) == read_body(PredictBody, data)


@pytest.mark.parametrize(
    "end",
    ["", ",", "]", ",]}", " 1]}", ', NaN], "label_config": ""}', '], "label_config": ""', "]}", "}",
     ', "\\ud8"], "label_config": ""}', ', "\\ud800", NaN], "label_config": ""}',
     "," + "[" * 100_000],
)  # fmt: skip
def test_a_large_body_is_refused_as_a_small_one(end: str) -> None:
    data = ('{"tasks": [' + json.dumps(PADDING) + end).encode()
    for read in (
        lambda: read_body(PredictBody, data),
        lambda: asyncio.run(receive(PredictBody, data)),
    ):
        with pytest.raises(BodyError):
            read()


def test_other_calls_go_on_while_a_large_body_is_read() -> None:
    task = {"id": 1, "data": {str(key): [1, 2, 3] for key in range(200)}}
    data = encode({**BATCH, "tasks": [task] * 2000})
    turns = 0

    async def read() -> PredictBody:
        nonlocal turns
        reading = asyncio.create_task(receive(PredictBody, data))
        while not reading.done():
            turns += 1
            await asyncio.sleep(0)
        return await reading

    assert len(asyncio.run(read()).tasks) == 2000
    assert turns > 10
