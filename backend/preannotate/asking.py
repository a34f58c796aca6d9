"""Asks a backend for predictions, as Label Studio does, and waits where it would not."""

from __future__ import annotations

import ipaddress
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import httpx
from pydantic import BaseModel, ConfigDict, ValidationError

from backend.settings import Settings
from segzero_ml.errors import ConfigError, ModelError

_OVER_DEADLINE_S: Final = 15.0
"""How much longer than its own deadline a backend may take to answer."""

_PAUSE_S: Final = 2.0
_LONGEST_PAUSE_S: Final = 30.0

_JSON: Final = {"Content-Type": "application/json"}
_MAY_PASS: Final = frozenset({httpx.codes.REQUEST_TIMEOUT, httpx.codes.TOO_MANY_REQUESTS})

T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)


class BackendAwayError(ModelError):
    """The backend does not answer, or not as one; it may later."""


class BackendRefusedError(ModelError):
    """The backend does not take the call, and will not take it later either."""


class BackendTooLargeError(BackendRefusedError):
    """The call is larger than the backend takes, or a proxy before it; fewer tasks may pass."""


@dataclass(frozen=True, slots=True)
class Answers:
    """What a backend made of some tasks.

    Args:
        version: What answered.
        results: Of each task: its prediction as Label Studio takes it, or None.
        problems: Of each task: why it has none; None where it has one, or is only late.
    """

    version: str
    results: tuple[Mapping[str, Any] | None, ...]
    problems: tuple[str | None, ...]


class _Reply(BaseModel):
    model_config = ConfigDict(extra="ignore", protected_namespaces=())

    results: list[dict[str, Any] | list[Any]]
    model_version: str
    problems: list[str | None] = []


class _Setup(BaseModel):
    model_config = ConfigDict(extra="ignore", protected_namespaces=())

    model_version: str


class Backend:
    """The backend whose model answers. Use it as a context manager.

    Args:
        settings: Its address and login, and its deadline.
        transport: How calls travel; None for the network.

    Raises:
        ConfigError: The settings do not say where it is.
    """

    def __init__(self, settings: Settings, transport: httpx.BaseTransport | None = None) -> None:
        self.url = backend_url(settings)
        login = None
        if settings.user is not None and settings.password is not None:
            login = httpx.BasicAuth(settings.user, settings.password.get_secret_value())
        self._http = httpx.Client(
            base_url=self.url,
            auth=login,
            timeout=httpx.Timeout(settings.predict_deadline_s + _OVER_DEADLINE_S, connect=5),
            transport=transport,
            trust_env=False,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._http.close()

    def version(self, project: int) -> str:
        """The version that answers for a project.

        Raises:
            BackendAwayError: The backend does not answer, or still loads its model.
            BackendRefusedError: It does not take the call.
            ConfigError: It refuses the login.
        """
        response = self._post("/setup", {"project": f"{project}.0", "schema": ""})
        found = _read(_Setup, response)
        if found.model_version.endswith("(loading)"):
            raise BackendAwayError(f"The model of {self.url} is still loading.")
        return found.model_version

    def predict(self, project: int, config: str, tasks: Sequence[Mapping[str, Any]]) -> Answers:
        """Ask once.

        Args:
            project: Its id.
            config: Its labelling config.
            tasks: With `id` and `data`; the rest of them is not sent.

        Raises:
            BackendAwayError: The backend does not answer, is busy, or still loads its model.
            BackendRefusedError: It does not take the call.
            BackendTooLargeError: The call is too large; fewer tasks may pass.
            ConfigError: It refuses the login.
            ModelError: It answers with less or more than was asked.
        """
        body = {
            "tasks": [{"id": task["id"], "data": task["data"]} for task in tasks],
            "project": f"{project}.0",
            "label_config": config,
            "params": {"context": None, "for_worker": True},
        }
        reply = _read(_Reply, self._post("/predict", body))
        if len(reply.results) != len(tasks):
            raise ModelError(f"The backend gave {len(reply.results)} results for {len(tasks)}.")
        problems = reply.problems or [None] * len(tasks)
        results = tuple(one if isinstance(one, dict) else None for one in reply.results)
        return Answers(reply.model_version, results, tuple(problems[: len(tasks)]))

    def _post(self, path: str, body: object) -> httpx.Response:
        try:
            response = self._http.post(path, content=_packed(body), headers=_JSON)
        except httpx.TransportError as error:
            raise BackendAwayError(
                f"No backend answers at {self.url} ({type(error).__name__}).",
                "Start it with segzero up, or say where it is: SEGZERO_BACKEND_URL.",
            ) from None
        if response.status_code == httpx.codes.UNAUTHORIZED:
            raise ConfigError(
                f"The backend at {self.url} refuses the login.",
                "Set SEGZERO_USER and SEGZERO_PASSWORD as for the backend.",
            )
        if not response.is_success:
            raise _refusal(response, f"{self.url}{path}")
        return response


def _packed(body: object) -> bytes:
    """JSON in ASCII, as Label Studio sends it: halves of characters have no other form."""
    return json.dumps(body, separators=(",", ":"), allow_nan=False).encode("ascii")


def backend_url(settings: Settings) -> str:
    """Where the backend is that batches ask.

    Raises:
        ConfigError: It listens on any free port, and its address is not set.
    """
    if settings.backend_url is not None:
        return settings.backend_url
    if settings.port == 0:
        raise ConfigError(
            "The backend listens on any free port, so that nobody knows where to ask it.",
            "Give it a port (SEGZERO_PORT), or say where it is (SEGZERO_BACKEND_URL).",
        )
    host = settings.host.strip("[]")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return f"http://{host}:{settings.port}"
    if address.is_unspecified:
        address = ipaddress.ip_address("127.0.0.1" if address.version == 4 else "::1")
    shown = f"[{address}]" if address.version == 6 else str(address)
    return f"http://{shown}:{settings.port}"


def patiently(
    ask: Callable[[], T],
    patience_s: float,
    check: Callable[[], None] = lambda: None,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> T:
    """Ask again, with growing pauses, while the backend is away or busy.

    Args:
        ask: The call.
        patience_s: Seconds after which its error is let through.
        check: Called before each try; may raise to end the waiting.
        sleep: Waits some seconds.
        clock: Seconds on a clock that never goes back.
    """
    until = clock() + patience_s
    pause = _PAUSE_S
    while True:
        check()
        try:
            return ask()
        except BackendAwayError:
            if clock() + pause > until:
                raise
        sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE_S)


def _read(kind: type[M], response: httpx.Response) -> M:
    try:
        return kind.model_validate_json(response.content)
    except ValidationError:
        raise BackendAwayError(
            f"What answers at {response.request.url} is not this project's backend."
        ) from None


def _refusal(response: httpx.Response, where: str) -> ModelError:
    message, status = f"{where} answered {_detail(response)}", response.status_code
    if status == httpx.codes.REQUEST_ENTITY_TOO_LARGE:
        return BackendTooLargeError(
            message, "Raise SEGZERO_MAX_BODY_BYTES, or the limit of a proxy in between."
        )
    if response.is_client_error and status not in _MAY_PASS:
        return BackendRefusedError(message, "Check that SEGZERO_BACKEND_URL names this backend.")
    return BackendAwayError(message)


def _detail(response: httpx.Response) -> str:
    try:
        detail = response.json().get("detail")
    except (ValueError, AttributeError):
        detail = None
    return f"{response.status_code}: {str(detail)[:300]}" if detail else f"{response.status_code}."
