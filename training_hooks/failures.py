"""What is kept of a job's failure: short, readable, and free of secrets.

A raw traceback quotes source lines and messages, and messages quote what came from outside:
addresses with signatures, headers with tokens. Kept are the kind of error, its message with
secrets struck out, and where it happened.
"""

from __future__ import annotations

import re
import traceback
from pathlib import PurePath
from typing import Final

LONGEST_REASON: Final = 300
"""Characters of the first line of a summary, at most."""
_FRAMES: Final = 6
_STRUCK: Final = "***"

_SECRETS: Final = (
    # user:password@ in an address
    (re.compile(r"(\w://)[^/\s@]+@"), rf"\1{_STRUCK}@"),
    # the query of an address: signatures and keys live there
    (re.compile(r"(\w://[^\s?\"'<>]+)\?[^\s\"'<>]*"), rf"\1?{_STRUCK}"),
    # Bearer abc, Token abc, Basic abc
    (re.compile(r"(?i)\b(bearer|token|basic)\s+[\w.~+/=-]{8,}"), rf"\1 {_STRUCK}"),
    # password=abc, "api_key": "abc", X-Secret: abc
    (
        re.compile(
            r"(?i)((?:authorization|token|api[_-]?key|password|passwd|secret|access|refresh)"
            r"[\w-]*[\"']?\s*[:=]\s*[\"']?)(?!\*\*\*|bearer\b|token\b|basic\b)[^\s\"',;&}]+"
        ),
        rf"\1{_STRUCK}",
    ),
    # JSON web tokens, Hugging Face tokens, Label Studio's legacy tokens
    (re.compile(r"\beyJ[\w-]{8,}\.[\w-]+\.?[\w-]*"), _STRUCK),
    (re.compile(r"\bhf_\w{16,}"), _STRUCK),
    (re.compile(r"\b[0-9a-f]{40}\b"), _STRUCK),
)


def redact(text: str) -> str:
    """Strike out what looks like a password, a token or a signature."""
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    return text


def reason_line(text: str) -> str:
    """`text` as one line without secrets or control characters, `LONGEST_REASON` at most."""
    # Shortened before the patterns see it: a hostile message may be megabytes long. A token
    # cut in two at the end is still struck out or dropped with the tail.
    head = redact(text[: 4 * LONGEST_REASON])
    line = " ".join("".join(c if c.isprintable() else " " for c in head).split())
    return line if len(line) <= LONGEST_REASON else line[: LONGEST_REASON - 1] + "…"


def summarise(error: BaseException) -> str:
    """An exception as a reason and the places it came through, innermost last.

    Returns:
        `Kind: message`, then up to six lines `  package/module.py:12 in function`.
    """
    lines = [reason_line(f"{type(error).__name__}: {_message(error)}")]
    cause = error.__cause__
    if cause is not None:
        lines.append(reason_line(f"  because of {type(cause).__name__}: {_message(cause)}"))
    frames = traceback.extract_tb(error.__traceback__)[-_FRAMES:]
    lines += [f"  {_short(frame.filename)}:{frame.lineno} in {frame.name}" for frame in frames]
    return "\n".join(lines)


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as broken:  # noqa: BLE001 - somebody else's __str__ may raise anything
        return f"(its message cannot be shown: {type(broken).__name__})"


def _short(path: str) -> str:
    """The last three parts of a path: enough to find it, without the machine's folders."""
    return "/".join(PurePath(path).parts[-3:])
