"""What a process writes, and what is shown of it."""

from __future__ import annotations

import io
import json
import logging
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.logs import JsonFormatter
from backend.supervisor.console import Console, log_to
from backend.supervisor.lines import for_machines, for_people, printable

RECORD = (
    '{"time": "2026-11-22T15:04:05+0000", "level": "warning", "logger": "backend", '
    '"message": "predict.task_failed", "task": 7, "reason": "It is empty.", "big": 1e400}'
)
# What a pipe may bring: no line feed, as that ends a line.
LINES = st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"]))


def test_json_passes_unharmed_with_its_process() -> None:
    shown = for_machines("serve", RECORD)
    assert shown.startswith(RECORD[:-1])
    assert json.loads(shown) == {**json.loads(RECORD), "process": "serve"}


@pytest.mark.parametrize(
    "line",
    ["Traceback (most recent call last):", "{not json}", "{}", "[1]", '{"a": 1}', "{" * 9999],
)
def test_what_is_no_record_becomes_the_message_of_one(line: str) -> None:
    shown = json.loads(for_machines("serve", line))
    assert (shown["message"], shown["process"], shown["level"]) == (line, "serve", "info")


@given(LINES)
def test_machines_get_one_object_a_line_whatever_was_written(line: str) -> None:
    shown = for_machines("serve", line)
    assert "\n" not in shown
    assert json.loads(shown)["process"] == "serve"


@given(st.one_of(LINES, st.text().map(lambda text: json.dumps({"message": text}))))
def test_nothing_that_is_shown_to_people_can_steer_their_terminal(line: str) -> None:
    assert all(c.isprintable() or c == "\t" for part in for_people(line) for c in part)


def test_people_read_time_level_message_and_fields() -> None:
    (line,) = for_people(RECORD.replace(', "big": 1e400', ""))
    assert line.endswith('warning  predict.task_failed  task=7  reason="It is empty."')


def test_people_read_a_traceback_on_lines_of_its_own() -> None:
    try:
        raise ValueError("inside")
    except ValueError as error:
        record = logging.makeLogRecord({"msg": "m", "exc_info": (ValueError, error, None)})
    first, *rest = for_people(JsonFormatter().format(record))
    assert first.endswith("m")
    assert rest == ["ValueError: inside"]


def test_of_a_progress_bar_its_last_state_is_shown() -> None:
    assert printable("loading 1%\rloading 50%\rloaded\r\n") == "loaded"


def test_names_stand_in_a_column_and_have_colours_of_their_own() -> None:
    stream = io.StringIO()
    console = Console(stream, people=True, colour=True, names=("redis", "ingest"))
    console.write("redis", "one")
    console.write("ingest", "two")
    first, second = stream.getvalue().splitlines()
    assert first == "\x1b[33mredis  |\x1b[0m one"
    assert second == "\x1b[32mingest |\x1b[0m two"


def test_lines_of_many_threads_stay_whole() -> None:
    stream = io.StringIO()
    console = Console(stream, people=False, colour=False)

    def write(name: str) -> None:
        for _ in range(200):
            console.write(name, name * 50)

    threads = [threading.Thread(target=write, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    records = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert len(records) == 800
    assert all(record["message"] == record["process"] * 50 for record in records)


def test_a_reader_that_is_gone_stops_nobody(tmp_path: object) -> None:
    class Gone(io.StringIO):
        def write(self, text: str, /) -> int:
            raise BrokenPipeError

    Console(Gone(), people=True, colour=False).write("serve", "a line")


def test_the_supervisors_own_log_goes_the_same_way() -> None:
    stream, root = io.StringIO(), logging.getLogger()
    before = root.handlers[:], root.level
    try:
        log_to(Console(stream, people=False, colour=False))
        logging.getLogger("backend.supervisor").warning("it %s", "happened")
    finally:
        root.handlers, root.level = before[0], before[1]
        logging.captureWarnings(False)
    record = json.loads(stream.getvalue())
    assert (record["message"], record["process"], record["level"]) == (
        "it happened",
        "up",
        "warning",
    )
