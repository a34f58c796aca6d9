"""Log lines: one JSON object each."""

from __future__ import annotations

import json
import logging
import sys

from backend.logs import JsonFormatter


def line(message: str, **fields: object) -> str:
    record = logging.LogRecord("backend", logging.WARNING, __file__, 1, message, (), None)
    record.fields = fields
    return JsonFormatter().format(record)


def test_fields_become_keys() -> None:
    shown = json.loads(line("predict.task_failed", task=7, reason="It is empty."))
    assert shown["message"] == "predict.task_failed"
    assert (shown["level"], shown["task"], shown["reason"]) == ("warning", 7, "It is empty.")


def test_text_from_outside_cannot_forge_a_line() -> None:
    assert "\n" not in line("a\nb", reason='x\n{"level": "info"}')


def test_traceback_stays_in_its_line() -> None:
    try:
        raise ValueError("inside")
    except ValueError:
        record = logging.LogRecord("b", logging.ERROR, __file__, 1, "m", (), sys.exc_info())
    shown = JsonFormatter().format(record)
    assert "\n" not in shown
    assert "ValueError: inside" in json.loads(shown)["traceback"]
