"""Logging for machines, one JSON object a line, and for people at a terminal."""

from __future__ import annotations

import json
import logging
import logging.config
import sys
from typing import Any, Final

_LIBRARIES: Final = frozenset({"huggingface_hub", "torch", "transformers"})


class JsonFormatter(logging.Formatter):
    """Writes a record as one line of JSON.

    Values given as `extra={"fields": {...}}` become keys of their own. JSON escapes line
    breaks, so that text from outside cannot forge a line.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The record as a line."""
        line: dict[str, Any] = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        fields = getattr(record, "fields", None)
        if isinstance(fields, dict):
            line.update(fields)
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


class TextFormatter(logging.Formatter):
    """Writes a record as one line for people; a traceback follows on lines of its own.

    Values are written as JSON, so that text from outside cannot forge a line.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The record as a line."""
        fields = getattr(record, "fields", None)
        parts = [
            self.formatTime(record, "%H:%M:%S"),
            f"{record.levelname.lower():<7}",
            json.dumps(record.getMessage(), ensure_ascii=False)[1:-1].replace('\\"', '"'),
        ]
        if isinstance(fields, dict):
            parts += [
                f"{name}={json.dumps(value, default=str, ensure_ascii=False)}"
                for name, value in fields.items()
            ]
        line = "  ".join(parts)
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def configure_logging(level: str = "INFO", *, for_people: bool = False) -> None:
    """Send every log and warning to standard error. Called once, by the process that serves.

    Args:
        level: The least level that is written.
        for_people: As text instead of JSON.
    """
    # httpx logs whole addresses with their queries, which may hold signatures: it is quiet.
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {"chosen": {"()": TextFormatter if for_people else JsonFormatter}},
            "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "chosen"}},
            "root": {"level": level, "handlers": ["stderr"]},
            "loggers": {
                "httpx": {"level": "WARNING"},
                "httpcore": {"level": "WARNING"},
                "uvicorn.access": {"level": "WARNING"},
            },
        }
    )
    logging.captureWarnings(True)


def adopt_library_logs() -> None:
    """Let the model libraries log like everything else; call it once they are imported.

    While they are imported, they give themselves handlers that write plain text to standard
    error.
    """
    for name, logger in tuple(logging.root.manager.loggerDict.items()):
        if name.partition(".")[0] in _LIBRARIES and isinstance(logger, logging.Logger):
            plain = [one for one in logger.handlers if getattr(one, "stream", None) is sys.stderr]
            for handler in plain:
                logger.removeHandler(handler)
                logger.propagate = True
