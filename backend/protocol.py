"""The wire between Label Studio and this backend: bodies read leniently, checked strictly.

Unknown keys are ignored and not kept: the logins and access tokens that Label Studio puts
into its calls are never read, so that they cannot be logged or used.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping
from typing import Annotated, Any, Final, TypeVar

import pydantic_core
from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError, field_validator

from backend.errors import BodyError

MAX_TASKS: Final = 10_000
"""Tasks of one call to /predict; Label Studio sends at most a page of them."""

_LARGE_BYTES: Final = 1 << 20
_TASKS_FIRST: Final = re.compile(r'\s*\{\s*"tasks"\s*:\s*\[')
_SPACE: Final = re.compile(r"[ \t\r\n]*")
_DECODER: Final = json.JSONDecoder()

_HALF: Final = re.compile(
    r"\\\\"  # an escaped backslash, which begins nothing
    r"|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"  # two halves make one
    r"|(\\u[dD][89a-fA-F][0-9a-fA-F]{2})"
)
"""Half a character in JSON is the group; what must not be taken for one is no group."""

Results = list[dict[str, Any] | list[Any]]
"""One entry a task: a prediction, or `[]` for a task that Label Studio is to skip."""


class _Body(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True)


class Context(_Body):
    """What the annotator just did: the regions that go with an interactive call."""

    result: list[dict[str, Any]] = []


class Params(_Body):
    """Parameters of /predict; the logins in them are not read."""

    context: Context | None = None
    for_worker: bool = False
    """Whether a worker of segzero preannotate asks, which asks again for what is late."""

    @field_validator("context", mode="before")
    @classmethod
    def _empty_context_is_none(cls, value: object) -> object:
        return value or None


def _project_id(value: object) -> int | None:
    """Label Studio's `<id>.<created>`; None for what names no project."""
    if not isinstance(value, str | int) or isinstance(value, bool):
        return None
    found = re.fullmatch(r"([0-9]{1,18})(?:\.[0-9]{0,18})?", str(value), re.ASCII)
    return int(found[1]) if found else None


ProjectId = Annotated[int | None, BeforeValidator(_project_id)]
"""The project that a call is for; None where it does not say."""


class PredictBody(_Body):
    """Body of POST /predict. Tasks are checked one by one, so that one cannot fail all."""

    tasks: list[Any]
    project: ProjectId = None
    label_config: str
    params: Params = Params()

    @field_validator("tasks")
    @classmethod
    def _bounded(cls, value: list[Any]) -> list[Any]:
        if len(value) > MAX_TASKS:
            raise ValueError(f"more than {MAX_TASKS} tasks in one call")
        return value

    @field_validator("params", mode="before")
    @classmethod
    def _params_may_be_null(cls, value: object) -> object:
        return {} if value is None else value


class Task(_Body):
    """One task; its annotations, drafts and predictions are not read."""

    id: int | str | None = None
    data: dict[str, Any]


class SetupBody(_Body):
    """Body of POST /setup; its host name and access token are not read."""

    schema_: str = ""
    project: ProjectId = None

    model_config = ConfigDict(alias_generator=lambda name: name.rstrip("_"))

    @field_validator("schema_", mode="before")
    @classmethod
    def _schema_may_be_null(cls, value: object) -> object:
        return "" if value is None else value


AnyBody = TypeVar("AnyBody", bound=_Body)


def read_body(model: type[AnyBody], data: bytes) -> AnyBody:
    """Parse and check the body of a call.

    Args:
        model: What the call takes.
        data: The body as received.

    Raises:
        BodyError: No JSON, nested too deeply, with NaN or infinity, or not what the call takes.
    """
    try:
        value = _parse(data)
    except ValueError as error:
        raise BodyError(f"The body is not JSON: {error}.") from None
    if not isinstance(value, Mapping):
        raise BodyError("The body must be a JSON object.")
    return check(model, value)


async def receive(model: type[AnyBody], data: bytes) -> AnyBody:
    """`read_body` that does not keep the event loop from other calls while a large body is read.

    Raises:
        BodyError: As `read_body`.
    """
    if len(data) <= _LARGE_BYTES:
        return read_body(model, data)
    return await asyncio.to_thread(_read_in_turns, model, data)


def _read_in_turns(model: type[AnyBody], data: bytes) -> AnyBody:
    """`read_body` task by task: the parser lets other threads run only between two calls of it."""
    try:
        text = data.decode()
        head = _TASKS_FIRST.match(text)
        if head is None:
            return read_body(model, data)
        tasks, end = _tasks(text, head.end())
        rest = _parse(head[0] + text[end:])
    except (ValueError, RecursionError) as error:
        raise BodyError(f"The body is not JSON: {error}.") from None
    rest["tasks"] = rest["tasks"] or tasks
    return check(model, rest)


def _tasks(text: str, start: int) -> tuple[list[Any], int]:
    """The items of a list from behind its bracket on, and where the closing one is."""
    tasks: list[Any] = []
    at = _skip_space(text, start)
    while not text.startswith("]", at):
        if tasks:
            if not text.startswith(",", at):
                raise ValueError(f"expected `,` or `]` behind task {len(tasks)}")
            at = _skip_space(text, at + 1)
        _, end = _DECODER.raw_decode(text, at)
        tasks.append(_parse(text[at:end]))  # stricter, as for small bodies
        at = _skip_space(text, end)
    return tasks, at


def _skip_space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return at if found is None else found.end()


def _parse(data: bytes | str) -> Any:
    """Read JSON strictly, but for halves of characters: U+FFFD takes the place of each.

    Whatever cuts texts by their length leaves them behind; one task with such a text must not
    fail the others.
    """
    try:
        return _strictly(data)
    except ValueError:
        text = data.decode() if isinstance(data, bytes) else data
        mended = _HALF.sub(lambda found: r"\ufffd" if found[1] else found[0], text)
        if mended == text:
            raise
        return _strictly(mended)


def _strictly(data: bytes | str) -> Any:
    return pydantic_core.from_json(data, allow_inf_nan=False, cache_strings="keys")


def check(model: type[AnyBody], value: object) -> AnyBody:
    """Check a parsed value.

    Raises:
        BodyError: It is not what `model` takes; the message names the fields, not their values.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, item['loc'])) or 'body'}: {item['msg']}"
            for item in error.errors(include_input=False, include_url=False)[:5]
        )
        raise BodyError(f"The body is not what this call takes: {problems}.") from None
