"""From what a task says about its image to an address that may be asked for: no network.

Label Studio names its own files by path (`/data/upload/...`, `/data/local-files/?d=...`,
`/tasks/7/resolve/?...`), and hands out those in cloud storage; other images have an http(s)
address. Nothing else is fetched.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

import httpx

from backend.settings import Settings
from backend.tokens import origin_of
from segzero_ml.errors import FetchError, ImageError, ImageHostError

LABEL_STUDIO_PATHS: Final = ("/data/", "/storage-data/", "/tasks/", "/projects/", "/static/")
"""Where Label Studio keeps files; nothing else of it is asked for with the token."""

_MAX_URL_LENGTH = 8192
_MAX_PORT = 65535
_DATA_URL = re.compile(r"data:image/[\w.+-]+;base64,")
_CLOUD_URI = re.compile(r"(s3s?|gs|azure-blob)://.+", re.DOTALL)
_NEEDS_LABEL_STUDIO = (
    "Set SEGZERO_LABEL_STUDIO_URL and SEGZERO_LABEL_STUDIO_TOKEN, so that the backend can "
    "fetch files from Label Studio."
)


@dataclass(frozen=True, slots=True)
class Target:
    """One address to ask for.

    Args:
        url: http or https, without user name and fragment.
        is_label_studio: At the configured origin and a path of files: the token may go along.
        is_trusted: Named in the settings, so that a private address is fine.
    """

    url: httpx.URL
    is_label_studio: bool
    is_trusted: bool


def inline_image(value: str, max_bytes: int) -> bytes | None:
    """The bytes of a `data:` image, or None if the value is no such thing.

    Raises:
        ImageError: It is too large or is not valid base64.
    """
    if not value.startswith("data:"):
        return None
    header = _DATA_URL.match(value)
    if header is None:
        raise ImageError("The task's data: address does not hold a base64 image.")
    if (len(value) - header.end()) * 3 // 4 > max_bytes:
        raise ImageError(f"The image in the task is over the limit of {max_bytes} bytes.")
    try:
        return base64.b64decode(value[header.end() :], validate=True)
    except (binascii.Error, ValueError):
        raise ImageError("The image in the task is not valid base64.") from None


def is_upload(value: str) -> bool:
    """Whether a value names a file uploaded to Label Studio: its name is never used again."""
    return value.strip().startswith(("/data/upload/", "upload/"))


def is_in_cloud(value: str) -> bool:
    """Whether a value names a file that only Label Studio knows how to get, by its storages."""
    return _CLOUD_URI.fullmatch(value.strip()) is not None


def first_target(value: str, settings: Settings, task_id: int | None = None) -> Target:
    """The address of a task's image.

    A file in cloud storage (`s3://...`) is asked of Label Studio, which holds the keys to it.

    Args:
        value: What the task's data holds for the image.
        settings: Label Studio's address and the allowed hosts.
        task_id: The task's id in Label Studio, if it has one.

    Raises:
        FetchError: The value is no address that images are fetched from.
    """
    value = value.strip()
    if is_in_cloud(value) and task_id is not None:
        value = f"/tasks/{task_id}/resolve/?fileuri={_encoded(value)}"
    if value.startswith("upload/"):
        value = f"/data/{value}"
    if value.startswith("/") and not value.startswith(("//", "/\\")):
        if settings.label_studio_url is None:
            raise FetchError(
                "The image lies in Label Studio, whose address is not set.", _NEEDS_LABEL_STUDIO
            )
        value = _under_label_studio(value, settings.label_studio_url)
    return target(value, settings)


def next_target(current: Target, location: str, settings: Settings) -> Target:
    """The address that a redirect points to.

    Raises:
        FetchError: It is no address that images are fetched from.
        ImageHostError: Label Studio asks for a login.
    """
    try:
        following = str(current.url.join(location))
    except (httpx.InvalidURL, ValueError):
        raise FetchError(
            f"{printable(current.url)} redirects to something that is no address."
        ) from None
    if current.is_label_studio and "/user/login" in following:
        raise ImageHostError(
            "Label Studio asks for a login instead of giving the image.",
            "Check SEGZERO_LABEL_STUDIO_TOKEN.",
            host=current.url.netloc.decode(),
        )
    found = target(following, settings)
    # The token never travels along a redirect that came from somewhere else.
    with_token = current.is_label_studio and found.is_label_studio
    return Target(found.url, is_label_studio=with_token, is_trusted=found.is_trusted)


def target(value: str, settings: Settings) -> Target:
    """Check an absolute address and say how far it is trusted.

    Args:
        value: The address.
        settings: Label Studio's address and the allowed hosts.

    Raises:
        FetchError: It is not http(s), is malformed, or is not a file of Label Studio.
    """
    url = _parse(value)
    is_label_studio = False
    if settings.label_studio_url is not None:
        is_label_studio = origin_of(url) == origin_of(settings.label_studio_url)
        if is_label_studio:
            _check_is_file(url, settings.label_studio_url)
    _, host, port = origin_of(url)
    allowed = host in settings.allowed_hosts or f"{host}:{port}" in settings.allowed_hosts
    return Target(url, is_label_studio, is_label_studio or allowed)


def printable(url: httpx.URL) -> str:
    """An address fit for messages: without its query, which may hold a signature."""
    return str(url.copy_with(query=None, fragment=None, userinfo=b""))


def _parse(value: str) -> httpx.URL:
    if len(value) > _MAX_URL_LENGTH:
        raise FetchError("The image's address is too long.")
    if "\\" in value or any(ord(character) <= ord(" ") for character in value):
        raise FetchError("The image's address holds characters that no address has.")
    try:
        url = httpx.URL(value)
    except (httpx.InvalidURL, ValueError):
        raise FetchError("The image's address is malformed.") from None
    if url.scheme not in {"http", "https"} or not url.host:
        raise FetchError(
            "The image must be a file in Label Studio or have an http(s) address.",
            "Upload it, or serve it by http.",
        )
    if not 0 < origin_of(url)[2] <= _MAX_PORT:
        raise FetchError("The image's address names a port that does not exist.")
    if url.userinfo:
        raise FetchError("The image's address must not hold a user name or a password.")
    return url.copy_with(fragment=None)


def _encoded(uri: str) -> str:
    return base64.urlsafe_b64encode(uri.encode("utf-8", "replace")).decode("ascii")


def _under_label_studio(path: str, base: str) -> str:
    """A path that Label Studio gave, which may or may not hold the prefix it is served under."""
    base_url = httpx.URL(base)
    prefix = base_url.path.rstrip("/")
    if prefix and path.startswith(f"{prefix}/"):
        path = path.removeprefix(prefix)
    return base.rstrip("/") + path


def _check_is_file(url: httpx.URL, base: str) -> None:
    path = unquote(unquote(url.path)).removeprefix(httpx.URL(base).path.rstrip("/"))
    if not path.startswith(LABEL_STUDIO_PATHS) or ".." in path.split("/"):
        raise FetchError(f"{printable(url)} is not an image file of Label Studio.")
