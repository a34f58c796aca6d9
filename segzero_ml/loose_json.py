"""JSON as language models write it: single quotes, trailing commas, bare words, fences.

A small reader of its own instead of `eval` or a chain of text replacements: it takes time
in proportion to the text, refuses deep nesting, and never runs anything.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

MAX_DEPTH = 6
"""Values nested deeper than this are not read."""

_TOKEN = re.compile(
    r"""
    (?P<string>"(?:[^"\\\n]|\\.)*"?|'(?:[^'\\\n]|\\.)*'?)  # may be cut off: never backtracks
    |(?P<number>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)
    |(?P<word>[^\W\d]\w*)
    |(?P<mark>[\[\](){}:,])
    |(?P<other>\S)
    """,
    re.VERBOSE,
)
_OPENING = re.compile(r"[\[{]")
_CLOSING = {"[": "]", "(": ")", "{": "}"}
_WORDS: dict[str, Any] = {"true": True, "false": False, "null": None, "none": None}

_Token = tuple[str, str]


class _NotAValueError(Exception):
    """There is no value at this place."""


class _CutOffError(_NotAValueError):
    """The text ends in the middle of a value."""


class _Tokens:
    """Tokens of a text from a place on, found as they are asked for."""

    def __init__(self, text: str, start: int) -> None:
        self._matches = _TOKEN.finditer(text, start)
        self._length = len(text)
        self._found: list[_Token] = []
        self._ends: list[int] = []

    def __len__(self) -> int:
        """How many have been found so far."""
        return len(self._found)

    def __getitem__(self, place: int) -> _Token:
        while place >= len(self._found):
            match = next(self._matches, None)
            if match is None:
                raise _CutOffError
            kind, text = match.lastgroup or "other", match.group()
            if kind == "string" and (len(text) < 2 or text[-1] != text[0]):
                kind = "other"
            if kind == "other" and match.end() == self._length:
                raise _CutOffError  # half a string or number
            self._found.append((kind, text))
            self._ends.append(match.end())
        return self._found[place]

    def end(self, place: int) -> int:
        """Where in the text the token at `place` ends."""
        return self._ends[place]


def values(text: str, tries: int) -> Iterator[Any]:
    """Find lists and objects in a text.

    Args:
        text: Anything; what stands before, between and after the values is skipped.
        tries: At how many opening brackets a value is looked for.

    Yields:
        Lists, dicts, strings, floats, booleans and None as in JSON, outermost first, in
        order of appearance. Round brackets count as square ones. Of a list of dicts that
        the end of the text cuts off, the complete dicts are given.
    """
    text = text.rstrip()
    begin = 0
    for _ in range(tries):
        opening = _OPENING.search(text, begin)
        if opening is None:
            return
        # Only from here on: an apostrophe in the prose before is no quote.
        tokens = _Tokens(text, opening.start())
        try:
            value, place = _value(tokens, 0, 0)
        except _NotAValueError:
            begin = opening.end()
        else:
            begin = tokens.end(place - 1)
            yield value


def _value(tokens: _Tokens, place: int, depth: int) -> tuple[Any, int]:
    """Value that begins at `place`, and the place after it."""
    kind, text = tokens[place]
    if kind == "number":
        return float(text), place + 1
    if kind == "string":
        return text[1:-1], place + 1
    if kind == "word" and text.lower() in _WORDS:
        return _WORDS[text.lower()], place + 1
    if kind == "mark" and text in _CLOSING and depth < MAX_DEPTH:
        read = _dict if text == "{" else _list
        return read(tokens, place, depth + 1)
    raise _NotAValueError


def _list(tokens: _Tokens, place: int, depth: int) -> tuple[list[Any], int]:
    closing: _Token = ("mark", _CLOSING[tokens[place][1]])
    items: list[Any] = []
    place += 1
    try:
        while tokens[place] != closing:
            item, place = _value(tokens, place, depth)
            items.append(item)
            place = _after_comma(tokens, place)
    except _CutOffError:
        if depth > 1 or not items or not all(isinstance(item, dict) for item in items):
            raise
        return items, len(tokens)
    return items, place + 1


def _dict(tokens: _Tokens, place: int, depth: int) -> tuple[dict[str, Any], int]:
    pairs: dict[str, Any] = {}
    place += 1
    while tokens[place] != ("mark", "}"):
        kind, text = tokens[place]
        if kind not in ("string", "word") or tokens[place + 1] != ("mark", ":"):
            raise _NotAValueError
        key = text[1:-1] if kind == "string" else text
        pairs[key], place = _value(tokens, place + 2, depth)
        place = _after_comma(tokens, place)
    return pairs, place + 1


def _after_comma(tokens: _Tokens, place: int) -> int:
    """Skip a comma; one may be missing between two values, and may follow the last."""
    return place + (tokens[place] == ("mark", ","))
