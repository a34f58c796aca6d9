"""Fetching images: limits, redirects, addresses and tokens, up to the network seam."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable

import httpx
import pytest

from backend.addresses import Resolver
from backend.fetch import MAX_REDIRECTS, ImageFetcher
from backend.settings import Settings, load_settings
from segzero_ml.errors import (
    FetchError,
    ForbiddenAddressError,
    ImageError,
    ImageHostError,
    LabelStudioAuthError,
)

LEGACY = "0123456789abcdef0123456789abcdef01234567"
PERSONAL = "eyJhbGciOi.eyJ0eXAiOi.c2lnbmF0dXJl"
STUDIO = load_settings(
    label_studio_url="http://ls:8080",
    label_studio_token=LEGACY,
    allowed_hosts="minio:9000",
    max_image_bytes=1000,
    fetch_timeout_s=0.5,
)
HOSTS = {"example.org": ["93.184.216.34"], "six.example": ["2606:4700::1"], "lan": ["10.0.0.7"]}
Handler = Callable[[httpx.Request], httpx.Response]


async def resolver(host: str, _port: int) -> list[str]:
    return HOSTS.get(host, [])


class Web:
    """Notes every request that reaches the network, and answers from a table."""

    def __init__(self, answers: dict[str, Handler]) -> None:
        self.answers = answers
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        return self.answers[f"{request.headers['Host']}{request.url.path}"](request)


def fetch(
    value: object, web: Handler, settings: Settings = STUDIO, resolve: Resolver = resolver
) -> bytes:
    async def run() -> bytes:
        fetcher = ImageFetcher(settings, transport=httpx.MockTransport(web), resolver=resolve)
        try:
            return await fetcher.fetch(value)
        finally:
            await fetcher.aclose()

    return asyncio.run(run())


def ok(_: httpx.Request) -> httpx.Response:
    return httpx.Response(200, content=b"picture")


def to(location: str, status: int = 302) -> Handler:
    return lambda _: httpx.Response(status, headers={"Location": location})


def test_upload_is_fetched_with_the_token() -> None:
    web = Web({"ls:8080/data/upload/a.png": ok})
    assert fetch("/data/upload/a.png", web) == b"picture"
    assert web.requests[0].headers["Authorization"] == f"Token {LEGACY}"


def test_personal_token_is_exchanged_before_the_upload_is_fetched() -> None:
    web = Web(
        {
            "ls:8080/api/token/refresh/": lambda _: httpx.Response(200, json={"access": "acc"}),
            "ls:8080/data/upload/a.png": ok,
        }
    )
    settings = load_settings(label_studio_url="http://ls:8080", label_studio_token=PERSONAL)
    assert fetch("/data/upload/a.png", web, settings) == b"picture"
    assert web.requests[-1].headers["Authorization"] == "Bearer acc"


def test_refused_personal_token_is_told_as_such() -> None:
    web = Web({"ls:8080/api/token/refresh/": lambda _: httpx.Response(401)})
    settings = load_settings(label_studio_url="http://ls:8080", label_studio_token=PERSONAL)
    with pytest.raises(LabelStudioAuthError):
        fetch("/data/upload/a.png", web, settings)


@pytest.mark.parametrize("host", ["example.org", "six.example"])
def test_public_host_is_asked_at_the_checked_address_under_its_own_name(host: str) -> None:
    web = Web({f"{host}/a.png": ok})
    assert fetch(f"https://{host}/a.png", web) == b"picture"
    request = web.requests[0]
    assert request.url.host == HOSTS[host][0]
    assert request.headers["Host"] == host
    assert request.extensions["sni_hostname"] == host
    assert "Authorization" not in request.headers


def test_name_is_looked_up_once_so_that_it_cannot_change_between_check_and_call() -> None:
    answers = [["93.184.216.34"], ["127.0.0.1"]]

    async def rebinding(_host: str, _port: int) -> list[str]:
        return answers.pop(0)

    web = Web({"example.org/a.png": ok})
    fetch("http://example.org/a.png", web, resolve=rebinding)
    assert web.requests[0].url.host == "93.184.216.34"


@pytest.mark.parametrize(
    "url",
    [
        "http://lan/a.png",
        "http://127.0.0.1/a.png",
        "http://127.1/a.png",
        "http://2130706433/a.png",
        "http://0x7f000001/a.png",
        "http://[::1]/a.png",
        "http://[::ffff:127.0.0.1]/a.png",
        "http://[64:ff9b::7f00:1]/a.png",
        "http://169.254.169.254/latest/meta-data/",
        "http://localhost:8080/data/upload/a.png",
    ],
)
def test_private_network_is_never_asked(url: str) -> None:
    from backend.addresses import SystemResolver

    async def real(host: str, port: int) -> list[str]:
        return HOSTS.get(host) or await SystemResolver()(host, port)

    web = Web({})
    with pytest.raises(ForbiddenAddressError, match="SEGZERO_ALLOWED_HOSTS"):
        fetch(url, web, resolve=real)
    assert web.requests == []


def test_allowed_host_may_lie_on_a_private_network_and_gets_no_token() -> None:
    web = Web({"minio:9000/a.png": ok})
    assert fetch("http://minio:9000/a.png", web) == b"picture"
    assert "Authorization" not in web.requests[0].headers


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirect_from_label_studio_to_storage_is_followed_without_the_token(status: int) -> None:
    web = Web(
        {
            "ls:8080/tasks/1/resolve/": to("http://minio:9000/a.png?sig=1", status),
            "minio:9000/a.png": ok,
        }
    )
    assert fetch("/tasks/1/resolve/?fileuri=x", web) == b"picture"
    assert "Authorization" in web.requests[0].headers
    assert "Authorization" not in web.requests[1].headers


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_every_hop_of_a_redirect_is_checked(status: int) -> None:
    web = Web({"example.org/a.png": to("http://lan/a.png", status)})
    with pytest.raises(ForbiddenAddressError):
        fetch("http://example.org/a.png", web)
    assert len(web.requests) == 1


def test_stranger_that_redirects_to_label_studio_does_not_lend_the_token() -> None:
    web = Web(
        {
            "example.org/a.png": to("http://ls:8080/data/upload/a.png"),
            "ls:8080/data/upload/a.png": lambda _: httpx.Response(401),
        }
    )
    with pytest.raises(FetchError, match="answered 401"):
        fetch("http://example.org/a.png", web)
    assert all("Authorization" not in request.headers for request in web.requests)


def test_redirects_end() -> None:
    web = Web({"example.org/a.png": to("/a.png")})
    with pytest.raises(FetchError, match=f"more than {MAX_REDIRECTS} times"):
        fetch("http://example.org/a.png", web)
    assert len(web.requests) == MAX_REDIRECTS + 1


@pytest.mark.parametrize("value", [None, "", "  ", 7, ["/data/a.png"], {"url": "x"}])
def test_task_without_an_image_says_so(value: object) -> None:
    with pytest.raises(FetchError, match="image field is missing or empty"):
        fetch(value, Web({}))


def test_image_inside_the_task_needs_no_network() -> None:
    assert fetch("data:image/png;base64,aGVsbG8=", Web({})) == b"hello"


def test_declared_size_over_the_limit_is_refused_unread() -> None:
    async def never() -> AsyncIterator[bytes]:
        raise AssertionError("the body must not be read")
        yield b""  # type: ignore[unreachable]

    web = Web(
        {
            "example.org/a.png": lambda _: httpx.Response(
                200, headers={"Content-Length": "1001"}, content=never()
            )
        }
    )
    with pytest.raises(ImageError, match="over the limit of 1000 bytes"):
        fetch("http://example.org/a.png", web)


@pytest.mark.parametrize("declared", [None, "7", "-1", "x", "9" * 5000])
def test_body_over_the_limit_is_cut_off_whatever_was_declared(declared: str | None) -> None:
    read = []

    async def endless() -> AsyncIterator[bytes]:
        while True:
            read.append(1)
            yield b"x" * 100

    headers = {} if declared is None else {"Content-Length": declared}
    web = Web(
        {"example.org/a.png": lambda _: httpx.Response(200, headers=headers, content=endless())}
    )
    with pytest.raises(ImageError, match="over the limit"):
        fetch("http://example.org/a.png", web)
    assert len(read) < 20


def test_compressed_reply_is_refused_before_it_can_expand() -> None:
    web = Web(
        {
            "example.org/a.png": lambda _: httpx.Response(
                200, headers={"Content-Encoding": "gzip"}, stream=httpx.ByteStream(b"x")
            )
        }
    )
    with pytest.raises(FetchError, match="compressed"):
        fetch("http://example.org/a.png", web)
    assert web.requests[0].headers["Accept-Encoding"] == "identity"


def test_slow_host_is_given_up_after_the_time_limit() -> None:
    async def drip() -> AsyncIterator[bytes]:
        while True:
            await asyncio.sleep(0.05)
            yield b"x"

    web = Web({"example.org/a.png": lambda _: httpx.Response(200, content=drip())})
    with pytest.raises(FetchError, match=r"did not arrive within 0\.5 s"):
        fetch("http://example.org/a.png", web)


def test_unreachable_host_is_named_without_the_query() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    with pytest.raises(FetchError, match=r"http://example\.org/a\.png cannot be reached") as caught:
        fetch("http://example.org/a.png?signature=abc", refuse)
    assert "abc" not in str(caught.value)


def test_next_address_of_a_host_is_tried_when_one_does_not_answer() -> None:
    async def two(_host: str, _port: int) -> list[str]:
        return ["2606:4700::1", "93.184.216.34"]

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.host == "2606:4700::1":
            raise httpx.ConnectError("no IPv6 here", request=request)
        return httpx.Response(200, content=b"picture")

    assert fetch("http://example.org/a.png", answer, resolve=two) == b"picture"


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_host_that_is_busy_or_broken_says_nothing_about_the_image(status: int) -> None:
    web = Web({"minio:9000/a.png": lambda _: httpx.Response(status)})
    with pytest.raises(ImageHostError, match=str(status)) as caught:
        fetch("http://minio:9000/a.png", web)
    assert caught.value.host == "minio:9000"


@pytest.mark.parametrize("status", [400, 403, 404, 410, 424])
def test_host_that_refuses_this_image_is_not_at_fault(status: int) -> None:
    web = Web({"minio:9000/a.png": lambda _: httpx.Response(status)})
    with pytest.raises(FetchError, match=str(status)) as caught:
        fetch("http://minio:9000/a.png", web)
    assert not isinstance(caught.value, ImageHostError)


@pytest.mark.parametrize(
    "answer",
    [
        lambda _: httpx.Response(401),  # a token that has expired
        lambda _: httpx.Response(424),  # the storage behind Label Studio is away
        to("/user/login/?next=/data/upload/a.png"),
    ],
)
def test_label_studio_that_gives_nothing_to_anybody_is_at_fault(answer: Handler) -> None:
    with pytest.raises(ImageHostError) as caught:
        fetch("/data/upload/a.png", Web({"ls:8080/data/upload/a.png": answer}))
    assert caught.value.host == "ls:8080"


def test_host_that_is_away_slow_or_not_looked_up_is_at_fault() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    async def hang(_: httpx.Request) -> httpx.Response:
        await asyncio.sleep(60)
        return httpx.Response(200)

    async def no_name_server(_host: str, _port: int) -> list[str]:
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    async def no_such_name(_host: str, _port: int) -> list[str]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    for web in (refuse, hang):
        with pytest.raises(ImageHostError) as caught:
            fetch("http://minio:9000/a.png", web)  # type: ignore[arg-type]
        assert caught.value.host == "minio:9000"
    with pytest.raises(ImageHostError, match="cannot be looked up at present"):
        fetch("http://example.org/a.png", Web({}), resolve=no_name_server)
    with pytest.raises(FetchError, match="There is no host") as lasting:
        fetch("http://example.org/a.png", Web({}), resolve=no_such_name)
    assert not isinstance(lasting.value, ImageHostError)


def test_cookie_of_a_host_reaches_no_other_host_on_its_address() -> None:
    async def shared(_host: str, _port: int) -> list[str]:
        return ["93.184.216.34"]

    def sets_cookie(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers={"Set-Cookie": "session=1"}, content=b"picture")

    web = Web({f"{host}/a.png": sets_cookie for host in ("one.example", "two.example")})

    async def run() -> None:
        fetcher = ImageFetcher(STUDIO, transport=httpx.MockTransport(web), resolver=shared)
        for host in ("one.example", "two.example", "one.example"):
            await fetcher.fetch(f"http://{host}/a.png")
        await fetcher.aclose()

    asyncio.run(run())
    assert len(web.requests) == 3
    assert not [request for request in web.requests if "Cookie" in request.headers]


def test_unknown_host_is_said_not_to_exist() -> None:
    with pytest.raises(FetchError, match=r"There is no host nowhere\.example"):
        fetch("http://nowhere.example/a.png", Web({}))


def test_certificate_that_is_not_trusted_is_named() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED] self-signed", request=request)

    with pytest.raises(FetchError, match=r"certificate of .* is not trusted.*SSL_CERT_FILE"):
        fetch("https://example.org/a.png", refuse)


@pytest.mark.parametrize(
    ("settings", "remedy"),
    [
        (STUDIO, "Label Studio does not accept it"),
        (load_settings(label_studio_url="http://ls:8080"), "Set SEGZERO_LABEL_STUDIO_TOKEN"),
    ],
)
def test_wrong_token_says_what_to_check(settings: Settings, remedy: str) -> None:
    web = Web({"ls:8080/data/upload/a.png": lambda _: httpx.Response(401)})
    with pytest.raises(FetchError, match=remedy) as caught:
        fetch("/data/upload/a.png", web, settings)
    assert LEGACY not in str(caught.value)
