"""How Label Studio's API is called: one request, its errors translated, its reply checked.

Foreign errors become `LabelStudioError` here and nowhere else; no message holds a token, a
password or a header.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final, TypeVar

import httpx
from pydantic import SecretStr, TypeAdapter, ValidationError

from backend.tokens import TokenAuth
from segzero_ml.errors import LabelStudioAuthError, LabelStudioError, LabelStudioUnreachableError

_BLOCKED: Final = "reserved network address"
_DETAIL_LENGTH: Final = 500
_COPY_AGAIN: Final = (
    "Copy it again from Label Studio: Account & Settings, Personal Access Token. "
    "(Legacy tokens are switched off in new organisations.)"
)
_MARKUP = re.compile(r"<[^<>]*>")

T = TypeVar("T")


class LabelStudioApiError(LabelStudioError):
    """Label Studio answered, and refused.

    Args:
        message: What is wrong, in one sentence.
        remedy: What the user can do about it.
        status: HTTP status of the answer.
        detail: Label Studio's own words, without markup; may be empty.
    """

    def __init__(self, message: str, remedy: str = "", *, status: int, detail: str = "") -> None:
        super().__init__(message, remedy)
        self.status = status
        self.detail = detail

    @property
    def is_blocked_address(self) -> bool:
        """Whether Label Studio refused because the address is on a private network."""
        return self.status == httpx.codes.FORBIDDEN and _BLOCKED in self.detail


class LabelStudioTooLargeError(LabelStudioError):
    """The answer is larger than it may be; asking for less may help."""


class Api:
    """One server and one token; see `backend.label_studio.LabelStudio` for what it raises.

    Args:
        url: Address of Label Studio without a trailing slash.
        token: Personal access token or legacy token.
        timeout_s: Longest wait for one answer, in seconds.
        transport: How requests travel; None for the network.
    """

    def __init__(
        self,
        url: str,
        token: SecretStr | str,
        timeout_s: float,
        transport: httpx.BaseTransport | None,
    ) -> None:
        self.url = url
        self._http = httpx.Client(
            auth=TokenAuth(url, token),
            timeout=timeout_s,
            transport=transport,
            follow_redirects=False,
        )

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def read(
        self,
        kind: type[T],
        method: str,
        path: str,
        *,
        most_bytes: int | None = None,
        **options: Any,
    ) -> T:
        """Make a call and read its JSON reply as `kind`.

        Args:
            kind: What the reply is checked to be.
            method: GET, POST and so on.
            path: Path below Label Studio's address.
            most_bytes: Largest reply that is read, unpacked; None for any.
            options: httpx's.

        Raises:
            LabelStudioTooLargeError: The reply is larger.
        """
        response = self.request(method, path, most_bytes=most_bytes, **options)
        try:
            body = response.json()
        except (ValueError, RecursionError):
            raise self._foreign(path) from None
        return self.check(kind, body, path)

    def check(self, kind: type[T], body: object, path: str) -> T:
        """Read a part of a reply as `kind`; `path` is for the message."""
        try:
            return TypeAdapter(kind).validate_python(body)
        except ValidationError as error:
            fields = {".".join(str(part) for part in item["loc"]) for item in error.errors()}
            raise LabelStudioError(
                f"Label Studio's answer to {path} is not as expected: {', '.join(sorted(fields))}.",
                "This is made for Label Studio 1.23; check the version of yours.",
            ) from None

    def request(
        self, method: str, path: str, *, most_bytes: int | None = None, **options: Any
    ) -> httpx.Response:
        """Make a call that succeeds or raises; the arguments are those of `read`."""
        try:
            response = self._send(method, path, most_bytes, options)
        except httpx.TimeoutException:
            raise LabelStudioUnreachableError(
                f"Label Studio at {self.url} did not answer in time.",
                "See whether it is overloaded or still starting, and try again.",
            ) from None
        except (httpx.TransportError, httpx.InvalidURL) as error:
            raise LabelStudioUnreachableError(
                f"No Label Studio answers at {self.url} ({error}).",
                "Start it, or correct the address (--url or SEGZERO_LABEL_STUDIO_URL).",
            ) from None
        except httpx.DecodingError:
            raise self._foreign(path) from None
        if response.is_redirect:
            raise LabelStudioError(
                f"{self.url} redirects to {response.headers.get('location', 'elsewhere')}.",
                "Give the address that Label Studio itself has, with the right http or https.",
            )
        if not response.is_success:
            raise self._refusal(response, method, path)
        return response

    def _send(
        self, method: str, path: str, most_bytes: int | None, options: dict[str, Any]
    ) -> httpx.Response:
        if most_bytes is None:
            return self._http.request(method, self.url + path, **options)
        body = bytearray()
        with self._http.stream(method, self.url + path, **options) as response:
            for chunk in response.iter_bytes():
                body += chunk
                if len(body) > most_bytes:
                    raise LabelStudioTooLargeError(
                        f"Label Studio's answer to {path} is over {most_bytes // 2**20} MiB."
                    )
        kept = {"location": response.headers["location"]} if response.has_redirect_location else {}
        return httpx.Response(response.status_code, headers=kept, content=bytes(body))

    def _refusal(self, response: httpx.Response, method: str, path: str) -> LabelStudioError:
        detail = _detail(response)
        status = response.status_code
        if detail is None and status < httpx.codes.INTERNAL_SERVER_ERROR:
            return self._foreign(path)
        detail = detail or ""
        if status == httpx.codes.UNAUTHORIZED:
            return LabelStudioAuthError("Label Studio does not accept the token.", _COPY_AGAIN)
        if status == httpx.codes.FORBIDDEN and _BLOCKED not in detail:
            return LabelStudioAuthError(
                f"The token's user may not do this: {method} {path}. {detail}".strip(),
                "Use the token of a user who administers the project.",
            )
        return LabelStudioApiError(
            f"Label Studio refused {method} {path} ({status}): {detail or 'no reason given'}",
            status=status,
            detail=detail,
        )

    def _foreign(self, path: str) -> LabelStudioError:
        return LabelStudioError(
            f"What answers at {self.url}{path} is not Label Studio.",
            "Check the address (--url or SEGZERO_LABEL_STUDIO_URL), including a path prefix.",
        )


def _detail(response: httpx.Response) -> str | None:
    """Label Studio's reason as plain text; None if the body is not in its form."""
    try:
        body = response.json()
    except ValueError:
        return None
    if not isinstance(body, dict):
        return None
    parts = list(_texts(body.get("validation_errors")))
    parts = parts or list(_texts(body.get("detail")))
    plain = " ".join(" ".join(_MARKUP.sub("", part).split()) for part in parts)
    return plain[:_DETAIL_LENGTH]


def _texts(value: object) -> Iterator[str]:
    """Every text inside a JSON value, in order."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
