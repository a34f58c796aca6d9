"""From a task's image field to an address, or to a refusal that says why."""

from __future__ import annotations

import base64

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.image_urls import first_target, inline_image, next_target, printable, target
from backend.settings import load_settings
from segzero_ml.errors import FetchError, ImageError

STUDIO = load_settings(label_studio_url="http://ls:8080", allowed_hosts="files, minio:9000")
PREFIXED = load_settings(label_studio_url="https://host/studio/")
BARE = load_settings()


@pytest.mark.parametrize(
    ("value", "url"),
    [
        ("/data/upload/1/a.png", "http://ls:8080/data/upload/1/a.png"),
        ("  /data/upload/1/a%20b.png ", "http://ls:8080/data/upload/1/a%20b.png"),
        ("upload/1/a.png", "http://ls:8080/data/upload/1/a.png"),
        ("/data/local-files/?d=x/a.png", "http://ls:8080/data/local-files/?d=x/a.png"),
        ("/tasks/3/resolve/?fileuri=czM", "http://ls:8080/tasks/3/resolve/?fileuri=czM"),
        ("http://LS:8080/data/upload/1/a.png", "http://ls:8080/data/upload/1/a.png"),
    ],
)
def test_label_studios_own_files_go_to_its_address_with_the_token(value: str, url: str) -> None:
    found = first_target(value, STUDIO)
    assert (str(found.url), found.is_label_studio, found.is_trusted) == (url, True, True)


@pytest.mark.parametrize("value", ["/studio/data/upload/a.png", "/data/upload/a.png"])
def test_path_prefix_of_label_studio_is_added_where_it_is_missing(value: str) -> None:
    found = first_target(value, PREFIXED)
    assert str(found.url) == "https://host/studio/data/upload/a.png"
    assert found.is_label_studio


@pytest.mark.parametrize(
    "value",
    [
        "/api/users/",
        "/logout",
        "/user/login/",
        "/data/../api/users/",
        "/data/%2e%2e/api/users/",
        "/data/%252e%252e/api/users/",
        "http://ls:8080/api/projects/",
        "http://ls:8080/",
    ],
)
def test_nothing_but_files_is_asked_of_label_studio(value: str) -> None:
    with pytest.raises(FetchError, match="not an image file of Label Studio"):
        first_target(value, STUDIO)


@pytest.mark.parametrize(
    ("url", "is_trusted"),
    [
        ("http://example.org/a.png", False),
        ("https://ls:8080/data/a.png", False),  # another scheme is another origin
        ("http://ls:8081/data/a.png", False),
        ("http://files:1234/a.png", True),
        ("http://minio:9000/a.png", True),
        ("http://minio/a.png", False),
        ("http://sub.files/a.png", False),
    ],
)
def test_other_hosts_never_get_the_token_and_are_trusted_only_by_name(
    url: str, is_trusted: bool
) -> None:
    found = first_target(url, STUDIO)
    assert not found.is_label_studio
    assert found.is_trusted is is_trusted


@pytest.mark.parametrize("uri", ["s3://bucket/a b/ä?#.png", "gs://b/a.png", "azure-blob://b/a.png"])
def test_file_in_cloud_storage_is_asked_of_label_studio(uri: str) -> None:
    found = first_target(uri, STUDIO, task_id=7)
    assert found.is_label_studio
    assert found.url.path == "/tasks/7/resolve/"
    assert base64.urlsafe_b64decode(found.url.params["fileuri"]).decode() == uri


def test_path_without_a_configured_label_studio_says_what_to_set() -> None:
    with pytest.raises(FetchError, match="SEGZERO_LABEL_STUDIO_URL"):
        first_target("/data/upload/1/a.png", BARE)


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("//evil/a.png", "must be a file in Label Studio"),
        ("/\\evil/a.png", "no address has"),
        ("http:\\\\evil\\a.png", "no address has"),
        ("http://ex ample/a.png", "no address has"),
        ("http://example/a\r\nX: y", "no address has"),
        ("http://a\x00b/", "no address has"),
        ("http://ls:8080@evil/data/a.png", "user name"),
        ("http://user:pw@example/a.png", "user name"),
        ("http://example:0/a.png", "port"),
        ("http://example:99999/a.png", "port"),
        ("http://①②⑦.⓪.⓪.①/", "malformed"),
        ("http://[::1/", "malformed"),
        ("http:///a.png", "must be a file in Label Studio"),
        ("file:///etc/passwd", "must be a file in Label Studio"),
        ("/etc/../../passwd", "not an image file"),
        ("a.png", "must be a file in Label Studio"),
        ("javascript:alert(1)", "must be a file in Label Studio"),
        ("s3://bucket/a.png", "must be a file in Label Studio"),
        ("redis://bucket/a.png", "must be a file in Label Studio"),
        ("http://example/" + "a" * 9000, "too long"),
    ],
)
def test_value_that_is_no_address_is_refused_by_name(value: str, problem: str) -> None:
    with pytest.raises(FetchError, match=problem):
        first_target(value, STUDIO)


@given(st.text())
def test_any_text_is_an_http_address_or_refused(text: str) -> None:
    try:
        found = first_target(text, STUDIO)
    except FetchError:
        return
    assert found.url.scheme in {"http", "https"}
    assert found.url.host


def test_redirect_within_label_studio_keeps_the_token() -> None:
    start = first_target("/tasks/1/resolve/?fileuri=x", STUDIO)
    assert next_target(start, "/data/upload/a.png", STUDIO).is_label_studio


def test_redirect_to_another_host_loses_the_token_and_the_way_back_does_not_regain_it() -> None:
    start = first_target("/tasks/1/resolve/?fileuri=x", STUDIO)
    away = next_target(start, "https://bucket.example/a.png?sig=1", STUDIO)
    assert (away.is_label_studio, away.is_trusted) == (False, False)
    back = next_target(away, "http://ls:8080/data/upload/a.png", STUDIO)
    assert (back.is_label_studio, back.is_trusted) == (False, True)


def test_redirect_to_the_login_page_asks_for_a_token() -> None:
    start = first_target("/data/upload/a.png", STUDIO)
    with pytest.raises(FetchError, match="SEGZERO_LABEL_STUDIO_TOKEN"):
        next_target(start, "/user/login/?next=/data/upload/a.png", STUDIO)


@pytest.mark.parametrize("location", ["file:///etc/passwd", "gopher://x/", "http://u:p@x/", "\x00"])
def test_redirect_to_what_is_no_address_is_refused(location: str) -> None:
    start = target("http://example.org/a.png", STUDIO)
    with pytest.raises(FetchError):
        next_target(start, location, STUDIO)


def test_addresses_in_messages_hold_no_query_and_no_login() -> None:
    url = httpx.URL("https://u:p@bucket.example/a.png?X-Amz-Signature=abc#f")
    assert printable(url) == "https://bucket.example/a.png"


def test_image_inside_the_task_is_read() -> None:
    assert inline_image("data:image/png;base64,aGVsbG8=", 100) == b"hello"
    assert inline_image("http://example.org/a.png", 100) is None


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("data:text/html;base64,aGVsbG8=", "base64 image"),
        ("data:image/png,hello", "base64 image"),
        ("data:image/png;base64,???", "not valid base64"),
        ("data:image/png;base64," + "A" * 1000, "over the limit of 100 bytes"),
    ],
)
def test_image_inside_the_task_that_is_none_is_refused(value: str, problem: str) -> None:
    with pytest.raises(ImageError, match=problem):
        inline_image(value, 100)
