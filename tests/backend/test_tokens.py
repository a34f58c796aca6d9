"""Tokens go to Label Studio and nowhere else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import httpx
import pytest
from pydantic import SecretStr

from backend.tokens import ACCESS_LIFETIME_S, TokenAuth, is_personal_access_token, origin_of
from segzero_ml.errors import ConfigError, LabelStudioAuthError, LabelStudioError

LEGACY = "0123456789abcdef0123456789abcdef01234567"
PERSONAL = "eyJhbGciOi.eyJ0eXAiOi.c2lnbmF0dXJl"


class Studio:
    """Answers as Label Studio's token endpoint does, and notes what it was sent."""

    def __init__(self) -> None:
        self.refreshed = 0
        self.refused_access: set[str] = set()
        self.seen: list[tuple[str, str | None]] = []
        self.refresh_reply: Callable[[], httpx.Response] = lambda: httpx.Response(
            200, json={"access": f"access-{self.refreshed}"}
        )

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/api/token/refresh/"):
            assert request.method == "POST"
            assert PERSONAL in request.content.decode()
            self.refreshed += 1
            return self.refresh_reply()
        header = request.headers.get("Authorization")
        self.seen.append((str(request.url), header))
        refused = header is not None and header.removeprefix("Bearer ") in self.refused_access
        return httpx.Response(401 if refused else 200, text="body")

    def client(self, auth: TokenAuth) -> httpx.Client:
        return httpx.Client(transport=httpx.MockTransport(self), auth=auth)


def test_kinds_are_told_apart() -> None:
    assert is_personal_access_token(PERSONAL)
    assert not is_personal_access_token(LEGACY)


def test_legacy_token_goes_into_the_header_as_it_is() -> None:
    studio = Studio()
    with studio.client(TokenAuth("http://ls:8080", LEGACY)) as client:
        client.get("http://ls:8080/data/1")
    assert studio.seen == [("http://ls:8080/data/1", f"Token {LEGACY}")]
    assert studio.refreshed == 0


def test_personal_token_is_exchanged_once_for_many_calls() -> None:
    studio = Studio()
    with studio.client(TokenAuth("http://ls", SecretStr(PERSONAL))) as client:
        client.get("http://ls/a")
        client.get("http://ls/b")
    assert [header for _, header in studio.seen] == ["Bearer access-1", "Bearer access-1"]


def test_access_token_is_renewed_when_it_gets_old() -> None:
    studio, now = Studio(), [0.0]
    auth = TokenAuth("http://ls", PERSONAL, clock=lambda: now[0])
    with studio.client(auth) as client:
        client.get("http://ls/a")
        now[0] = ACCESS_LIFETIME_S
        client.get("http://ls/a")
    assert studio.seen[-1][1] == "Bearer access-2"


def test_access_token_that_is_refused_is_renewed_once() -> None:
    studio = Studio()
    with studio.client(TokenAuth("http://ls", PERSONAL)) as client:
        client.get("http://ls/a")
        studio.refused_access = {"access-1"}
        assert client.get("http://ls/b").status_code == 200
        studio.refused_access = {"access-2", "access-3"}
        assert client.get("http://ls/c").status_code == 401
    assert studio.refreshed == 3


def test_asynchronous_client_is_served_alike() -> None:
    studio = Studio()
    auth = TokenAuth("http://ls", PERSONAL)

    async def ask() -> None:
        async with httpx.AsyncClient(transport=httpx.MockTransport(studio), auth=auth) as client:
            await client.get("http://ls/a")
            studio.refused_access = {"access-1"}
            assert (await client.get("http://ls/b")).status_code == 200

    asyncio.run(ask())
    assert [header for _, header in studio.seen][-1] == "Bearer access-2"


@pytest.mark.parametrize("token", [LEGACY, PERSONAL])
@pytest.mark.parametrize(
    "url",
    ["http://evil/", "https://ls/", "http://ls:81/", "http://ls.evil/", "http://sub.ls/"],
)
def test_other_origins_never_get_a_token(token: str, url: str) -> None:
    studio = Studio()
    with studio.client(TokenAuth("http://ls", token)) as client:
        client.get(url)
    assert [header for _, header in studio.seen] == [None]
    assert studio.refreshed == 0


def test_path_prefix_of_label_studio_is_kept_when_exchanging() -> None:
    paths = []

    def answer(request: httpx.Request) -> httpx.Response:
        paths.append(request.url.path)
        return httpx.Response(200, json={"access": "a"})

    auth = TokenAuth("http://host/studio/", PERSONAL)
    with httpx.Client(transport=httpx.MockTransport(answer), auth=auth) as client:
        client.get("http://host/studio/x")
    assert paths == ["/studio/api/token/refresh/", "/studio/x"]


@pytest.mark.parametrize("status", [400, 401, 403])
def test_refused_token_says_so_without_showing_it(status: int) -> None:
    studio = Studio()
    studio.refresh_reply = lambda: httpx.Response(status, json={"detail": "no"})
    with (
        studio.client(TokenAuth("http://ls", PERSONAL)) as client,
        pytest.raises(LabelStudioAuthError, match="wrong, expired or revoked") as caught,
    ):
        client.get("http://ls/a")
    assert PERSONAL not in str(caught.value)
    assert not studio.seen


@pytest.mark.parametrize(
    "reply",
    [
        httpx.Response(500, text="oops"),
        httpx.Response(404, text="<html>"),
        httpx.Response(200, text="<html>"),
        httpx.Response(200, json=["access"]),
        httpx.Response(200, json={"access": 7}),
        httpx.Response(200, json={"access": "a\nX-Evil: 1"}),
    ],
)
def test_strange_answer_to_the_exchange_is_label_studios_error(reply: httpx.Response) -> None:
    studio = Studio()
    studio.refresh_reply = lambda: reply
    with (
        studio.client(TokenAuth("http://ls", PERSONAL)) as client,
        pytest.raises(LabelStudioError, match="gave no access token"),
    ):
        client.get("http://ls/a")


@pytest.mark.parametrize("token", ["", "  ", "two words", "new\nline", "schlüssel"])
def test_malformed_token_is_a_wrong_setting(token: str) -> None:
    with pytest.raises(ConfigError, match="empty or malformed"):
        TokenAuth("http://ls", token)


def test_text_of_the_auth_does_not_show_the_token() -> None:
    for token in (LEGACY, PERSONAL):
        assert token not in repr(TokenAuth("http://ls", token))


def test_origins_fill_in_the_port_and_ignore_the_case() -> None:
    assert origin_of("http://LS.example./x") == ("http", "ls.example", 80)
    assert origin_of("https://ls") == ("https", "ls", 443)
