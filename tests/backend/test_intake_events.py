"""What webhooks tell, as Label Studio sends them and as nobody should."""

from __future__ import annotations

import json
import random
import time
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.errors import BodyError
from backend.intake.changes import (
    LONGEST_TEXT,
    AnnotationsGone,
    Saved,
    SavedElsewhere,
    TasksGone,
    TrainingAsked,
    Unsure,
    pack,
    unpack,
)
from backend.intake.events import read_event
from backend.intake.handover import MOST_CHANGES, Order, order, parcels, plan
from segzero_ml.errors import InputError
from tests.backend.annotated import annotation, brush, disc, task
from tests.backend.intake_world import PROJECT, encode, project, saved
from training_hooks.queue_jobs import LARGEST_PAYLOAD, is_job_id
from training_hooks.spool import Record

NOON = datetime(2026, 3, 4, 12, tzinfo=UTC)


def told(event: object) -> Any:
    return read_event(encode(event), lambda: NOON).changes


def record(event: object, seq: int = 1) -> Record:
    return Record(seq, NOON.timestamp(), encode(event))


def planned(event: object, seq: int = 1) -> list[Order]:
    return list(plan(record(event, seq)).orders)


@pytest.mark.parametrize(
    "action",
    ["ANNOTATION_CREATED", "ANNOTATION_UPDATED", "ANNOTATIONS_CREATED", "ANNOTATIONS_UPDATED"],
)
def test_saved_annotation_is_told_with_its_task_and_config(action: str) -> None:
    event = saved(5, action=action)
    [change] = told(event)
    assert isinstance(change, Saved)
    assert change.project == PROJECT
    assert change.annotation == event["annotation"]
    assert change.task == {"id": 1005, "data": event["task"]["data"], "project": PROJECT}
    assert change.label_config == project()["label_config"]


@pytest.mark.parametrize("plural", [False, True])
def test_several_saved_annotations_find_their_tasks_in_any_order(plural: bool) -> None:
    """Label Studio sends lists under the singular names."""
    events = [saved(number) for number in (5, 6, 7)]
    ending = "s" if plural else ""
    bulk = {
        "action": "ANNOTATIONS_CREATED",
        f"annotation{ending}": [one["annotation"] for one in events],
        f"task{ending}": [one["task"] for one in reversed(events)],
        "project": project(),
    }
    changes = told(bulk)
    assert [one.annotation["id"] for one in changes] == [5, 6, 7]
    assert [one.task["id"] for one in changes] == [1005, 1006, 1007]


def test_two_annotations_of_one_task_share_it() -> None:
    one, two = saved(5, of_task=31), saved(6, of_task=31)
    bulk = {**one, "annotation": [one["annotation"], two["annotation"]], "task": [one["task"]]}
    assert [change.task["id"] for change in told(bulk)] == [31, 31]


def test_annotation_without_its_task_has_to_be_asked_for() -> None:
    event = saved(5)
    del event["task"]
    assert told(event) == (SavedElsewhere(PROJECT, 1005, 5),)


@pytest.mark.parametrize("action", ["ANNOTATION_DELETED", "ANNOTATIONS_DELETED"])
@pytest.mark.parametrize("name", ["annotation", "annotations"])
@pytest.mark.parametrize("value", [{"id": 5}, [{"id": 5}], [5], 5])
def test_deleted_annotation_is_told_in_any_spelling(action: str, name: str, value: object) -> None:
    event = {"action": action, name: value, "project": {"id": PROJECT}}
    assert told(event) == (AnnotationsGone(PROJECT, (5,)),)


@pytest.mark.parametrize("action", ["TASK_DELETED", "TASKS_DELETED"])
def test_deleted_tasks_are_told_with_or_without_a_project(action: str) -> None:
    event: dict[str, Any] = {"action": action, "tasks": [{"id": 5}, {"id": 6}, {"id": 5}]}
    assert told(event) == (TasksGone(None, (5, 6)),)
    assert told({**event, "project": project(9)}) == (TasksGone(9, (5, 6)),)


@pytest.mark.parametrize("action", ["TASK_CREATED", "TASKS_CREATED", "PROJECT_UPDATED"])
def test_what_an_event_does_not_tell_has_to_be_looked_up(action: str) -> None:
    assert told({"action": action, "project": project()}) == (Unsure(PROJECT),)


@pytest.mark.parametrize("action", ["ANNOTATION_CREATED", "ANNOTATIONS_DELETED", "TASKS_DELETED"])
def test_webhook_without_payload_has_everything_looked_up(action: str) -> None:
    assert told({"action": action}) == (Unsure(None),)


def test_start_training_is_told_with_the_time_it_was_heard() -> None:
    event = {"action": "START_TRAINING", "project": project()}
    assert told(event) == (TrainingAsked(PROJECT, "2026-03-04T12:00:00+00:00"),)


@pytest.mark.parametrize("action", ["LABEL_LINK_CREATED", "PROJECT_CREATED", "MADE_UP"])
def test_events_that_mean_nothing_here_are_known_as_such(action: str) -> None:
    assert told({"action": action, "annotation": "whatever"}) is None


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"\xff\xfe\x00",
        b'{"action": "TASKS_CREATED"',
        b'{"action": NaN}',
        b'{"action": "A", "n": Infinity}',
        b'{"action": "A", "n": 1e999}',
        b'{"action": "A", "n": ' + b"9" * 10_000 + b"}",
        b"[" * 1_000_000,
        b'{"action": "A", "n": ' + b"[" * 600 + b"]" * 600 + b"}",
        b'{"action": ""}',
        b'{"action": 7}',
        encode({"action": "A" * 101}),
        encode({"action": "ANNOTATION_CREATED", "annotation": "no object"}),
        encode({"action": "ANNOTATION_CREATED", "annotation": {"id": 0}, "project": 7}),
        encode({"action": "ANNOTATION_CREATED", "annotation": {"id": True}, "project": 7}),
        encode({"action": "ANNOTATION_CREATED", "annotation": {"id": 2**63}, "project": 7}),
        encode({"action": "ANNOTATION_CREATED", "annotation": {}, "project": 7}),
        encode({"action": "ANNOTATIONS_DELETED", "annotations": [[5]], "project": 7}),
        encode({"action": "ANNOTATIONS_DELETED", "annotations": [5], "project": "7"}),
        encode({"action": "TASKS_DELETED", "tasks": [{"id": 1.5}]}),
        encode({"action": "START_TRAINING"}),
        encode({**saved(5), "project": {"id": 7, "label_config": 5}}),
    ],
)
def test_hostile_body_is_refused_at_once(body: bytes) -> None:
    started = time.process_time()
    with pytest.raises(BodyError):
        read_event(body)
    assert time.process_time() - started < 1


def test_half_a_character_is_no_reason_to_lose_an_annotation() -> None:
    """Browsers let people type one, and Label Studio passes it on."""
    event = saved(5, last_action="\ud83d")
    [change] = told(event)
    assert unpack(pack(change)) == change


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)
IDS = st.integers(-1, 3) | JSON
OBJECTS = st.fixed_dictionaries(
    {}, optional={"id": IDS, "task": IDS, "project": IDS, "data": JSON, "label_config": JSON}
)
BODIES = st.fixed_dictionaries(
    {"action": st.sampled_from(["ANNOTATION_CREATED", "ANNOTATIONS_DELETED", "TASKS_DELETED"])},
    optional={
        name: OBJECTS | st.lists(OBJECTS, max_size=3) | JSON
        for name in ("annotation", "annotations", "task", "tasks", "project")
    },
)


@given(BODIES)
def test_what_is_accepted_can_be_handed_over(body: dict[str, Any]) -> None:
    try:
        read_event(encode(body))
    except BodyError:
        return
    for one in plan(record(body)).orders:
        assert is_job_id(one.name)
        unpack(one.text)


IDS_OF_REAL_THINGS = st.integers(1, 2**63 - 1)
CHANGES = st.one_of(
    st.builds(SavedElsewhere, IDS_OF_REAL_THINGS, IDS_OF_REAL_THINGS, IDS_OF_REAL_THINGS),
    st.builds(
        AnnotationsGone,
        st.none() | IDS_OF_REAL_THINGS,
        st.lists(IDS_OF_REAL_THINGS).map(tuple),
    ),
    st.builds(TasksGone, st.none() | IDS_OF_REAL_THINGS, st.lists(IDS_OF_REAL_THINGS).map(tuple)),
    st.builds(
        TrainingAsked,
        IDS_OF_REAL_THINGS,
        st.datetimes(timezones=st.just(UTC)).map(datetime.isoformat),
    ),
    st.builds(
        Saved,
        IDS_OF_REAL_THINGS,
        st.dictionaries(st.text(), JSON),
        st.dictionaries(st.text(), JSON).map(lambda more: {**more, "id": 3}),
        st.none() | st.text(),
    ),
)


@given(CHANGES)
def test_change_comes_out_of_a_job_as_it_went_in(change: Any) -> None:
    assert unpack(pack(change)) == change


@given(st.text() | st.binary().map(lambda data: data.decode("latin-1")))
def test_any_text_in_a_job_is_read_or_refused(text: str) -> None:
    with pytest.raises(InputError):
        unpack(text)


def test_one_event_is_one_job_however_often_it_comes() -> None:
    event = saved(5)
    names = {planned(event, seq)[0].name for seq in range(1, 6)}
    assert len(names) == 1
    assert planned(saved(5, revision=1))[0].name not in names


def test_deletion_that_comes_again_later_is_a_job_of_its_own() -> None:
    """The annotation may have been found in a list in between."""
    event = {"action": "ANNOTATIONS_DELETED", "annotations": [5], "project": 7}
    assert planned(event, 1) != planned(event, 2)
    assert planned(event, 1) == planned(event, 1)


def test_annotation_too_large_for_a_job_is_looked_up_instead() -> None:
    noise = [brush(disc(8, 8), value={"rle": list(range(200_000))}, meta={"n": number})
             for number in range(3)]  # fmt: skip
    event = saved(5, result=noise, last_action=json.dumps(list(range(300_000))))
    [found] = planned(event)
    assert unpack(found.text) == SavedElsewhere(PROJECT, 1005, 5)
    assert len(found.text) < LONGEST_TEXT


def test_many_deleted_ids_come_in_pieces() -> None:
    event = {"action": "TASKS_DELETED", "tasks": [{"id": n} for n in range(1, 12_001)]}
    changes = [unpack(one.text) for one in planned(event)]
    assert [len(one.tasks) for one in changes if isinstance(one, TasksGone)] == [5000, 5000, 2000]


def test_many_changes_travel_in_few_jobs_and_none_twice() -> None:
    orders = [planned(saved(number))[0] for number in range(1, 121)]
    found = list(parcels([*orders, *orders]))
    assert [len(one.changes) for one in found] == [MOST_CHANGES, MOST_CHANGES, 20]
    assert [text for one in found for text in one.changes] == [one.text for one in orders]
    assert all(is_job_id(one.job_id) for one in found)
    assert found[0].timeout_s > found[2].timeout_s
    assert list(parcels([])) == []


def test_jobs_stay_within_what_the_queue_takes() -> None:
    large = [
        order(Saved(7, {**annotation(), "id": n}, {**task(), "blob": _noise(n)}, None), "1")
        for n in range(1, 8)
    ]
    assert len(large[0].text) > LONGEST_TEXT / 5
    for parcel in parcels(large):
        assert len(json.dumps(parcel.changes)) < LARGEST_PAYLOAD // 2
        assert parcel.changes


def _noise(seed: int) -> str:
    return random.Random(seed).randbytes(75_000).hex()
