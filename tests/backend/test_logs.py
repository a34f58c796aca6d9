"""Log lines: one JSON object each, or text for people."""

from __future__ import annotations

import json
import logging
import subprocess
import sys

from backend.logs import JsonFormatter, TextFormatter


def record_of(message: str, **fields: object) -> logging.LogRecord:
    record = logging.LogRecord("backend", logging.WARNING, __file__, 1, message, (), None)
    record.fields = fields
    return record


def line(message: str, **fields: object) -> str:
    return JsonFormatter().format(record_of(message, **fields))


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


def test_text_for_people_has_time_level_message_and_fields() -> None:
    shown = TextFormatter().format(record_of('it said "no"', task=7, reason="It is empty."))
    time, level, message, task, reason = shown.split("  ")
    assert len(time) == len("12:00:00")
    assert (level, message) == ("warning", 'it said "no"')
    assert (task, reason) == ("task=7", 'reason="It is empty."')


def test_text_for_people_cannot_be_forged_either() -> None:
    shown = TextFormatter().format(record_of("a\nb", reason="x\n12:00:00  error  forged"))
    assert "\n" not in shown


def test_a_traceback_for_people_follows_on_its_own_lines() -> None:
    try:
        raise ValueError("inside")
    except ValueError:
        record = logging.LogRecord("b", logging.ERROR, __file__, 1, "m", (), sys.exc_info())
    first, *rest = TextFormatter().format(record).splitlines()
    assert first.endswith("error    m")
    assert rest[-1] == "ValueError: inside"


def test_warnings_and_the_logs_of_libraries_are_json_lines_too() -> None:
    code = (
        "import logging, warnings\n"
        "from backend.logs import adopt_library_logs, configure_logging\n"
        "configure_logging()\n"
        "warnings.warn('from python')\n"
        "from huggingface_hub.utils import logging as hub\n"
        "from transformers.utils import logging as transformers\n"
        "models = transformers.get_logger('transformers.models')\n"
        "adopt_library_logs()\n"
        "models.warning('from transformers')\n"
        "hub.get_logger('huggingface_hub.x').warning('from the hub')\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    messages = [json.loads(line)["message"] for line in ran.stderr.splitlines()]
    assert "from python" in messages[0]
    assert messages[1:] == ["from transformers", "from the hub"]
