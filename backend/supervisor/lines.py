"""What a process wrote, and what is shown of it: one line in, one line out.

Our own processes write a JSON object a line (`backend.logs`); interpreters and C libraries
write text. Machines get JSON throughout, with the name of the process as `process`; people get
text throughout, with the name in front.
"""

from __future__ import annotations

import json
import logging
from datetime import datetime
from typing import Any

from backend.logs import JsonFormatter, TextFormatter

_SHOWN_ELSEWHERE = frozenset({"time", "level", "logger", "message", "traceback"})


def for_machines(name: str, line: str) -> str:
    """One JSON object: the line itself with its process added, or an object around the text."""
    if as_object(line) is not None:
        return f'{line.rstrip()[:-1]}, "process": {json.dumps(name)}}}'
    record = logging.makeLogRecord({"name": name, "levelname": "INFO", "msg": printable(line)})
    record.__dict__["fields"] = {"process": name}
    return JsonFormatter().format(record)


def for_people(line: str) -> list[str]:
    """What a person reads of it: one line, and those of a traceback if there is one."""
    fields = as_object(line)
    if fields is None:
        return [printable(line)]
    record = logging.makeLogRecord(
        {
            "msg": str(fields["message"]),
            "levelname": str(fields.get("level", "info")),
            "fields": {key: fields[key] for key in fields if key not in _SHOWN_ELSEWHERE},
        }
    )
    record.created = _seconds(fields.get("time"), record.created)
    traceback = str(fields.get("traceback", ""))
    return [printable(TextFormatter().format(record)), *map(printable, traceback.splitlines())]


def as_object(line: str) -> dict[str, Any] | None:
    """The log record that a line of JSON is; None if it is something else."""
    if not line.startswith("{"):
        return None
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and "message" in found else None


def printable(line: str) -> str:
    """Text that cannot play tricks on a terminal; of a progress bar, its last state."""
    shown = line.rstrip().rpartition("\r")[2]
    return "".join(c if c.isprintable() or c == "\t" else _escaped(c) for c in shown)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def _seconds(text: object, otherwise: float) -> float:
    try:
        return datetime.fromisoformat(str(text)).timestamp()
    except ValueError:
        return otherwise
