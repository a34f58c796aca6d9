"""A reasoner's text and what it says.

Two schemas are in use. Seg-Zero answers with one object and two points,
`<think>…</think><answer>{"bbox":[x1,y1,x2,y2],"points_1":[x,y],"points_2":[x,y]}</answer>`;
VisionReasoner with a list of objects, one point each,
`<think>…</think><answer>[{"bbox_2d":[x1,y1,x2,y2],"point_2d":[x,y]}, …]</answer>`.
`[]`, or `{}` in the first schema, says that nothing matches.

`parse` takes what models really write and never raises on it; `format_is_strict` tells
whether a text is exactly what the schema asks for, and `render` writes such a text.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from enum import StrEnum
from typing import Any

from segzero_ml import loose_json
from segzero_ml.errors import GeometryError, InputError
from segzero_ml.geometry import Frame, clip_box, clip_point
from segzero_ml.types import Answer, AnswerObject, Box, Point

MAX_OBJECTS = 100
"""Objects of an answer beyond these are left out."""

MAX_TEXT = 100_000
"""Longest text that is read, in characters."""

_MAX_TRIES = 8  # places of a text at which a value is looked for
_MAX_POINTS = 16  # points of one object

_THINK_OPEN = re.compile(r"<think>", re.IGNORECASE)
_THINK_CLOSE = re.compile(r"</think>", re.IGNORECASE)
_ANSWER_OPEN = re.compile(r"<answer>", re.IGNORECASE)
_ANSWER_CLOSE = re.compile(r"</answer>", re.IGNORECASE)
_TAG = re.compile(r"</?(?:think|answer)>", re.IGNORECASE)
_STRICT = re.compile(
    r"\s*<think>(?P<reasoning>[^<]*(?:<(?!/?(?:think|answer)>)[^<]*)*)</think>"
    r"\s*<answer>(?P<body>[^<]*)</answer>\s*"
)

_BOX_KEYS = ("bbox_2d", "bbox", "box_2d", "box")
_POINT_KEYS = ("point_2d", "points_1", "points_2", "point_1", "point_2", "point", "points")


class AnswerSchema(StrEnum):
    """What the text between the answer tags looks like."""

    SEG_ZERO = "seg-zero"
    """One object: `{"bbox", "points_1", "points_2"}`."""

    VISION_REASONER = "vision-reasoner"
    """A list of objects: `{"bbox_2d", "point_2d"}`."""


def parse(text: str, frame: Frame) -> Answer:
    """Read a reasoner's text leniently.

    Either schema is taken, with single quotes, trailing commas, code fences, missing tags,
    fractions and swapped corners. Boxes and points are clipped to the frame; a box wholly
    outside it is dropped, one without width or height is widened to one unit. Objects that
    have no usable box are left out, and so are those after the first `MAX_OBJECTS`.

    Args:
        text: What the reasoner wrote; anything at all.
        frame: The frame that its coordinates are in.

    Returns:
        The answer in `frame`. When nothing usable is found, `problem` says why and there
        are no objects.
    """
    if len(text) > MAX_TEXT:
        return Answer(reasoning="", problem=f"The text is longer than {MAX_TEXT:,} characters.")
    reasoning, body = _split(text)
    if not body.strip():
        return Answer(reasoning=reasoning, problem="The text contains no answer.")
    problem = "The answer contains no list of objects."
    for value in loose_json.values(body, _MAX_TRIES):
        try:
            return Answer(reasoning=reasoning, objects=_read_objects(value, frame))
        except _UnusableError as unusable:
            problem = str(unusable)
    return Answer(reasoning=reasoning, problem=problem)


def format_is_strict(text: str, schema: AnswerSchema) -> bool:
    """Tell whether a text is exactly what the schema asks for.

    Reasoning that is not blank between think tags, then valid JSON between answer tags, and
    nothing else but white space: exactly the schema's keys, boxes of four numbers with
    ordered corners, points of two, at most `MAX_OBJECTS` objects. `[]` (`{}` for
    `SEG_ZERO`) is in order: nothing matches.
    """
    if len(text) > MAX_TEXT:
        return False
    found = _STRICT.fullmatch(text)
    if found is None or not found["reasoning"].strip():
        return False
    try:
        value = json.loads(
            found["body"], parse_constant=_refuse, object_pairs_hook=_without_duplicates
        )
    except (ValueError, RecursionError):
        return False
    if schema is AnswerSchema.SEG_ZERO:
        return value == {} or _is_strict_object(value, "bbox", ("points_1", "points_2"))
    return (
        isinstance(value, list)
        and len(value) <= MAX_OBJECTS
        and all(_is_strict_object(item, "bbox_2d", ("point_2d",)) for item in value)
    )


def render(answer: Answer, schema: AnswerSchema) -> str:
    """Write the text a reasoner should produce: compact JSON with whole numbers.

    An object without a point gets its box's centre; `SEG_ZERO` repeats a single point.

    Args:
        answer: An answer without a problem, in the model's frame.
        schema: How to write it.

    Raises:
        InputError: The answer has a problem, its reasoning contains a tag, or there are
            more objects than the schema can hold (one for `SEG_ZERO`).
    """
    if answer.problem is not None:
        raise InputError(f"An answer with a problem cannot be written: {answer.problem}")
    if _TAG.search(answer.reasoning):
        raise InputError("The reasoning contains a think or answer tag.")
    most = 1 if schema is AnswerSchema.SEG_ZERO else MAX_OBJECTS
    if len(answer.objects) > most:
        raise InputError(f"The schema {schema} holds at most {most} objects.")
    value: object
    if schema is AnswerSchema.SEG_ZERO:
        value = _seg_zero_json(answer.objects[0]) if answer.objects else {}
    else:
        value = [_vision_reasoner_json(item) for item in answer.objects]
    body = json.dumps(value, separators=(",", ":"))
    return f"<think>{answer.reasoning}</think><answer>{body}</answer>"


class _UnusableError(Exception):
    """A value that is not an answer; the message says why."""


def _split(text: str) -> tuple[str, str]:
    """Part a text into the reasoning and what should hold the answer."""
    opened = _THINK_OPEN.search(text)
    closed = _THINK_CLOSE.search(text, opened.end() if opened else 0)
    start = opened.end() if opened else 0
    after = closed.end() if closed else start
    answers = list(_ANSWER_OPEN.finditer(text, after))
    if answers:  # the last one counts: models correct themselves
        begin = answers[-1].end()
        end = _ANSWER_CLOSE.search(text, begin)
        body = text[begin : end.start() if end else len(text)]
        reasoning = text[start : closed.start() if closed else answers[0].start()]
        return reasoning.strip(), body
    if closed:
        return text[start : closed.start()].strip(), text[after:]
    if opened:  # cut off while thinking: numbers in the thought are no answer
        return text[start:].strip(), ""
    body_start = re.search(r"```|[\[{]", text)
    return (text[: body_start.start()].strip() if body_start else text.strip()), text


def _read_objects(value: object, frame: Frame) -> tuple[AnswerObject, ...]:
    """Objects of a parsed value in the frame; raises when there are some but none usable."""
    items = [value] if isinstance(value, dict) or _is_box(value) else value
    if not isinstance(items, list):
        raise _UnusableError("The answer contains no list of objects.")
    items = [item for item in items if item != {}]
    objects = [found for item in items[:MAX_OBJECTS] if (found := _read_object(item, frame))]
    if items and not objects:
        raise _UnusableError("No object of the answer has a usable box in the frame.")
    return tuple(objects)


def _read_object(item: object, frame: Frame) -> AnswerObject | None:
    """One object, or None when it has no usable box."""
    if isinstance(item, dict):
        numbers = next((item[key] for key in _BOX_KEYS if key in item), None)
        points = tuple(_read_points(item, frame))[:_MAX_POINTS]
    else:
        numbers, points = item, ()
    box = _read_box(numbers, frame)
    return None if box is None else AnswerObject(box=box, points=points)


def _read_box(value: object, frame: Frame) -> Box | None:
    numbers = _numbers(value, 4)
    if numbers is None:
        return None
    (x1, x2), (y1, y2) = sorted(numbers[0::2]), sorted(numbers[1::2])
    if x1 > frame.width or y1 > frame.height or x2 < 0 or y2 < 0:
        return None
    x1, x2 = _at_least_one_unit(x1, x2)
    y1, y2 = _at_least_one_unit(y1, y2)
    return clip_box(Box(x1, y1, x2, y2), frame.width, frame.height)


def _at_least_one_unit(low: float, high: float) -> tuple[float, float]:
    return (low - 0.5, high + 0.5) if low == high else (low, high)


def _read_points(item: dict[Any, Any], frame: Frame) -> Iterator[Point]:
    for key in _POINT_KEYS:
        value = item.get(key)
        one = _numbers(value, 2)
        many = [one] if one else [_numbers(entry, 2) for entry in _as_list(value)]
        for numbers in many:
            if numbers:
                yield clip_point(Point(*numbers), frame.width, frame.height)


def _as_list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _is_box(value: object) -> bool:
    return (
        isinstance(value, list)
        and not any(isinstance(entry, dict | list) for entry in value)
        and _numbers(value, 4) is not None
    )


def _numbers(value: object, count: int) -> list[float] | None:
    """Read `count` finite numbers, also in pairs or written as text; None when it is not so."""
    flat: list[object] = []
    for entry in _as_list(value):
        flat.extend(entry if isinstance(entry, list) else [entry])
    if len(flat) != count:
        return None
    numbers = [_number(entry) for entry in flat]
    return [n for n in numbers if n is not None] if None not in numbers else None


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) and abs(number) < 1e9 else None


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) != len(pairs):
        raise ValueError("a key occurs twice")
    return dict(pairs)


def _is_strict_object(item: object, box_key: str, point_keys: tuple[str, ...]) -> bool:
    if not isinstance(item, dict) or set(item) != {box_key, *point_keys}:
        return False
    if not all(_is_strict_list(item[key], 2) for key in point_keys):
        return False
    if not _is_strict_list(item[box_key], 4):
        return False
    x1, y1, x2, y2 = item[box_key]
    try:
        Box(x1, y1, x2, y2)
    except GeometryError:
        return False
    return True


def _is_strict_list(value: object, count: int) -> bool:
    return (
        isinstance(value, list)
        and len(value) == count
        and all(not isinstance(entry, str) and _number(entry) is not None for entry in value)
    )


def _whole(*values: float) -> list[int]:
    return [math.floor(value + 0.5) for value in values]


def _vision_reasoner_json(item: AnswerObject) -> dict[str, list[int]]:
    point = item.points[0] if item.points else item.box.center
    return {"bbox_2d": _whole(*item.box.as_tuple()), "point_2d": _whole(point.x, point.y)}


def _seg_zero_json(item: AnswerObject) -> dict[str, list[int]]:
    points = item.points or (item.box.center,)
    first, second = points[0], points[min(1, len(points) - 1)]
    return {
        "bbox": _whole(*item.box.as_tuple()),
        "points_1": _whole(first.x, first.y),
        "points_2": _whole(second.x, second.y),
    }
