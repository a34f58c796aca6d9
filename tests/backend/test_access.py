"""Who may call, and how much they may send: over HTTP, against a running backend."""

from __future__ import annotations

import base64
import gzip
import socket
from collections.abc import Iterator

import httpx
import pytest

from backend.access import SECRET_HEADER
from tests.backend.serving import CONFIG, Running, Serve

LOGIN = ("adä", "pass wörd:1")
SECRET = "hook-secret-1"
HOOK = {"action": "ANNOTATION_CREATED"}
GUARDED = [
    ("POST", "/setup"),
    ("POST", "/predict"),
    ("POST", "/webhook"),
    ("GET", "/versions"),
    ("GET", "/metrics"),
]


@pytest.fixture(scope="module")
def guarded(serve: Serve) -> Iterator[Running]:
    """A backend with a login and a webhook secret, and with a small limit on bodies."""
    with serve(
        user=LOGIN[0], password=LOGIN[1], webhook_secret=SECRET, max_body_bytes=10_000
    ) as running:
        yield running


def basic(login: str, encoding: str = "utf-8") -> str:
    return "Basic " + base64.b64encode(login.encode(encoding)).decode()


@pytest.mark.parametrize(("method", "path"), GUARDED)
@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Basic",
        "Basic ???",
        basic("adä:wrong"),
        basic("wrong:pass wörd:1"),
        basic("adä"),
        basic("adä:pass wörd:1").replace("Basic", "Bearer"),
        f"Bearer {SECRET}",
    ],
)
def test_call_without_the_login_is_refused(
    guarded: Running, method: str, path: str, header: str | None
) -> None:
    headers = {} if header is None else {"Authorization": header}
    reply = guarded.client.request(method, path, headers=headers, json={})
    assert reply.status_code == 401
    assert "detail" in reply.json()


@pytest.mark.parametrize("path", ["/health", "/ready", "/"])
def test_health_and_ready_are_open_to_probes(guarded: Running, path: str) -> None:
    assert guarded.get(path).status_code in {200, 503}


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_login_is_accepted_in_either_encoding_of_the_clients(
    guarded: Running, encoding: str
) -> None:
    headers = {"Authorization": basic(":".join(LOGIN), encoding)}
    assert guarded.post("/setup", {"schema": CONFIG}, headers=headers).status_code == 200
    assert guarded.get("/versions", headers=headers).status_code == 200


def test_refusal_asks_for_the_login(guarded: Running) -> None:
    assert guarded.post("/setup", {}).headers["WWW-Authenticate"].startswith("Basic")


def test_webhook_is_accepted_with_the_secret_or_with_the_login(guarded: Running) -> None:
    assert guarded.post("/webhook", HOOK, headers={SECRET_HEADER: SECRET}).status_code == 200
    # Start training comes with the login that the backend was registered with.
    login = {"Authorization": basic(":".join(LOGIN))}
    assert guarded.post("/webhook", HOOK, headers=login).status_code == 200


@pytest.mark.parametrize("secret", ["", "wrong", SECRET + "1", SECRET[:-1], SECRET.upper()])
def test_webhook_with_a_wrong_secret_is_refused(guarded: Running, secret: str) -> None:
    assert guarded.post("/webhook", HOOK, headers={SECRET_HEADER: secret}).status_code == 401


def test_secret_opens_nothing_but_the_webhook(guarded: Running) -> None:
    reply = guarded.post("/predict", {}, headers={SECRET_HEADER: SECRET})
    assert reply.status_code == 401


def test_webhook_secret_alone_guards_the_webhook_alone(serve: Serve) -> None:
    with serve(webhook_secret=SECRET) as running:
        assert running.post("/webhook", HOOK).status_code == 401
        assert running.post("/webhook", HOOK, headers={SECRET_HEADER: SECRET}).status_code == 200
        assert running.post("/setup", {"schema": CONFIG}).status_code == 200


def test_nobody_is_asked_for_a_login_that_is_not_set(running: Running) -> None:
    assert running.post("/webhook", HOOK).status_code == 200


def test_login_is_checked_before_the_body_is_read(guarded: Running) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(1000):
            yield b" " * 10_000

    headers = {"Content-Type": "application/json"}
    try:
        reply = guarded.client.post("/predict", content=endless(), headers=headers)
    except httpx.TransportError:
        return  # the backend hung up on the rest of the body
    assert reply.status_code == 401


AUTHORISED = {"Authorization": basic(":".join(LOGIN)), "Content-Type": "application/json"}


def test_body_over_the_limit_is_refused_by_its_declared_length(guarded: Running) -> None:
    address = guarded.client.base_url
    request = (
        f"POST /predict HTTP/1.1\r\nHost: {address.host}\r\nContent-Type: application/json\r\n"
        f"Authorization: {AUTHORISED['Authorization']}\r\nContent-Length: 100000000\r\n\r\n"
    )
    with socket.create_connection((address.host, address.port or 80), timeout=60) as connection:
        connection.sendall(request.encode())
        assert connection.recv(1000).startswith(b"HTTP/1.1 413")


def test_body_over_the_limit_is_refused_while_it_arrives(guarded: Running) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(20):
            yield b" " * 1000

    reply = guarded.client.post("/predict", content=chunks(), headers=AUTHORISED)
    assert reply.status_code == 413
    assert "10000 bytes" in reply.json()["detail"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"null",
        b"[" * 5000,
        b'{"tasks": NaN}',
        b"\xff\xfe",
        gzip.compress(b"{}", mtime=0),
    ],
)
@pytest.mark.parametrize("path", ["/predict", "/setup", "/webhook"])
def test_bad_json_is_refused_with_a_reason(guarded: Running, path: str, content: bytes) -> None:
    reply = guarded.client.post(path, content=content, headers=AUTHORISED)
    assert reply.status_code == 400
    assert "The body" in reply.json()["detail"]


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""]
)
def test_form_that_a_web_page_could_send_is_refused(running: Running, content_type: str) -> None:
    headers = {"Content-Type": content_type}
    reply = running.client.post("/predict", content=b"{}", headers=headers)
    assert reply.status_code == 415


def test_unknown_path_and_method_get_json(running: Running) -> None:
    assert running.get("/no").json() == {"detail": "Not Found"}
    assert running.get("/predict").json() == {"detail": "Method Not Allowed"}
    assert running.get("/docs").status_code == 404
    assert running.get("/openapi.json").status_code == 404


def test_slow_clients_do_not_keep_others_waiting(running: Running) -> None:
    address = running.client.base_url
    slow = []
    try:
        for _ in range(100):
            connection = socket.create_connection((address.host, address.port or 80), timeout=60)
            connection.sendall(
                b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                b"Content-Length: 100\r\n\r\n{"
            )
            slow.append(connection)
        assert running.get("/health").status_code == 200
        # Answered while all of them were still being waited for.
        for connection in slow:
            connection.setblocking(False)
            with pytest.raises(BlockingIOError):
                connection.recv(1)
    finally:
        for connection in slow:
            connection.close()
