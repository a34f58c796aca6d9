"""Checks of plain values that come from outside: type first, then range."""

from __future__ import annotations

import math
import re
from collections.abc import Set
from datetime import datetime
from typing import Any, Final

from segzero_ml.errors import InputError

MAX_NAME_LENGTH: Final = 500
"""Greatest number of characters of a name."""

MAX_ID: Final = 2**63 - 1
"""Ids beyond this do not fit into a database's column."""

_SHA256: Final = re.compile(r"[0-9a-f]{64}")


def check_text(name: str, value: object, longest: int, may_be_blank: bool = True) -> None:
    """Refuse what is no text, too long, not encodable, or blank where it must say something.

    Args:
        name: What the value is called in the message.
        value: Anything.
        longest: Greatest number of characters.
        may_be_blank: Whether nothing but whitespace is fine.

    Raises:
        InputError: As above.
    """
    if not isinstance(value, str):
        raise InputError(f"{name} must be text, not {type(value).__name__}.")
    if len(value) > longest:
        raise InputError(f"{name} is {len(value)} characters long; the limit is {longest}.")
    if not may_be_blank and not value.strip():
        raise InputError(f"{name} is blank.")
    if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
        raise InputError(f"{name} holds half of a character (a lone surrogate).")


def check_id(name: str, value: object) -> int:
    """Return a whole number from 1 to `MAX_ID`.

    Raises:
        InputError: Anything else.
    """
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MAX_ID:
        raise InputError(f"{name} must be a whole number above 0.")
    return value


def check_number(name: str, value: object, greatest: float) -> None:
    """Refuse what is neither None nor a finite number from 0 to `greatest`.

    Raises:
        InputError: As above.
    """
    if value is None:
        return
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise InputError(f"{name} must be a number, not {type(value).__name__}.")
    if not 0 <= value <= greatest or value == math.inf:
        limit = "" if greatest == math.inf else f" to {greatest:g}"
        raise InputError(f"{name} must be a finite number from 0{limit}.")


def check_sha256(name: str, value: object) -> None:
    """Refuse what is no SHA-256 in 64 small hexadecimal digits.

    Raises:
        InputError: As above.
    """
    if not isinstance(value, str) or _SHA256.fullmatch(value) is None:
        raise InputError(f"{name} must be a SHA-256 in 64 small hexadecimal digits.")


def check_list(name: str, value: object, longest: int) -> list[Any]:
    """Return a list that is no longer than `longest`; its items are not looked at.

    Raises:
        InputError: No list, or too long.
    """
    if not isinstance(value, list):
        raise InputError(f"{name} must be a list, not {type(value).__name__}.")
    if len(value) > longest:
        raise InputError(f"{name} has {len(value)} items; the limit is {longest}.")
    return value


def check_keys(name: str, value: object, keys: Set[str]) -> dict[str, Any]:
    """Return a dict that has exactly these keys; its values are not looked at.

    Raises:
        InputError: No dict, or a key is missing or unknown.
    """
    if not isinstance(value, dict):
        raise InputError(f"{name} must be an object, not {type(value).__name__}.")
    odd = value.keys() ^ keys
    if odd:
        listed = ", ".join(sorted(map(repr, odd)))[:200]
        raise InputError(f"{name} has missing or unknown keys: {listed}.")
    return value


def read_time(name: str, value: object) -> datetime:
    """Read a time in ISO 8601 that says its zone, `Z` or an offset.

    Raises:
        InputError: No text, no time, or without a zone.
    """
    try:
        time = datetime.fromisoformat(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise InputError(f"{name} must be a time in ISO 8601.") from None
    if time.utcoffset() is None:
        raise InputError(f"{name} must say its time zone.")
    return time
