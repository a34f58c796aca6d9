"""The wire between Label Studio and this backend: bodies read leniently, checked strictly.

Unknown keys are ignored and not kept: the logins and access tokens that Label Studio puts
into its calls are never read, so that they cannot be logged or used.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Final, TypeVar

import pydantic_core
from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError, field_validator

from backend.errors import BodyError

MAX_TASKS: Final = 10_000
"""Tasks of one call to /predict; Label Studio sends at most a page of them."""

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
        value = pydantic_core.from_json(data, allow_inf_nan=False, cache_strings="keys")
    except ValueError as error:
        raise BodyError(f"The body is not JSON: {error}.") from None
    if not isinstance(value, Mapping):
        raise BodyError("The body must be a JSON object.")
    return check(model, value)


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
