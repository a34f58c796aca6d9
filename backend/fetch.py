"""Fetches a task's image: bounded in bytes, time and redirects.

Never from a private network, unless the settings name the host; never with the token to
any other place than Label Studio.
"""

from __future__ import annotations

import asyncio
import logging
import re
import ssl
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Final

import certifi
import httpx

from backend.addresses import Resolver, SystemResolver, public_addresses
from backend.image_urls import Target, first_target, inline_image, next_target, printable
from backend.settings import Settings
from backend.tokens import TokenAuth, origin_of
from segzero_ml.errors import FetchError, ImageError, ImageHostError

MAX_REDIRECTS: Final = 5

_log = logging.getLogger(__name__)
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_HEADERS: Final = {
    # Compressed replies are refused: they can hold far more than they weigh.
    "Accept-Encoding": "identity",
    "Accept": "image/*,*/*;q=0.5",
    "User-Agent": "segzero",
}
_MAX_ADDRESSES = 3
_BUSY: Final = frozenset({408, 425, 429})
_STUDIO_AT_FAULT: Final = frozenset({401, 424})
"""It takes nobody's token, or the cloud storage behind it gives it nothing."""


class ImageFetcher:
    """Fetches images for tasks. Use `aclose` when done.

    Args:
        settings: Limits, Label Studio's address and token, allowed hosts.
        transport: Where requests go instead of the network.
        resolver: Looks up host names; None for the system's.

    Raises:
        ConfigError: The token is malformed.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
        resolver: Resolver | None = None,
    ) -> None:
        self._settings = settings
        self._lookups = SystemResolver()
        self._resolver = resolver or self._lookups
        self._auth: TokenAuth | None = None
        if settings.label_studio_url and settings.label_studio_token:
            self._auth = TokenAuth(settings.label_studio_url, settings.label_studio_token)
        # Connections to strangers are not kept: they are made to an address, and another
        # host name on the same address must show its own certificate.
        context = ssl.create_default_context()  # the system's authorities, and Mozilla's
        context.load_verify_locations(certifi.where())
        self._strangers = _client(transport, context, settings.fetch_timeout_s, kept=0)
        self._label_studio = _client(transport, context, settings.fetch_timeout_s, kept=8)

    async def aclose(self) -> None:
        """Close the connections."""
        self._lookups.close()
        await self._strangers.aclose()
        await self._label_studio.aclose()

    async def fetch(self, value: object, task_id: int | None = None) -> bytes:
        """The bytes of the image that a task names.

        Args:
            value: What the task's data holds for the image.
            task_id: The task's id in Label Studio, if it has one.

        Raises:
            FetchError: It cannot be fetched; the message says why.
            ImageHostError: The same, through no fault of the image.
            ForbiddenAddressError: It lies on a private network.
            ImageError: It is over the limit of bytes.
            LabelStudioError: The token could not be exchanged.
        """
        if not isinstance(value, str) or not value.strip():
            raise FetchError("The task has no image: its image field is missing or empty.")
        inline = inline_image(value, self._settings.max_image_bytes)
        if inline is not None:
            return inline
        target = first_target(value, self._settings, task_id)
        shown = printable(target.url)
        try:
            async with asyncio.timeout(self._settings.fetch_timeout_s):
                return await self._follow(target)
        except TimeoutError:
            raise ImageHostError(
                f"{shown} did not arrive within {self._settings.fetch_timeout_s:g} s.",
                "If the host is slow, raise SEGZERO_FETCH_TIMEOUT_S.",
                host=_host(target),
            ) from None

    async def _follow(self, target: Target) -> bytes:
        for _ in range(MAX_REDIRECTS + 1):
            found = await self._ask(target)
            if isinstance(found, bytes):
                return found
            target = next_target(target, found, self._settings)
        raise FetchError(f"{printable(target.url)} redirects more than {MAX_REDIRECTS} times.")

    async def _ask(self, target: Target) -> bytes | str:
        """The image, or where a redirect points to."""
        if target.is_trusted:
            client = self._label_studio if target.is_label_studio else self._strangers
            return await self._get(client, target, target.url, {})
        _, host, port = origin_of(target.url)
        addresses = await public_addresses(host, port, self._resolver)
        failure: FetchError | None = None
        for address in addresses[:_MAX_ADDRESSES]:
            pinned = target.url.copy_with(host=address)
            try:
                return await self._get(
                    self._strangers, target, pinned, {"sni_hostname": target.url.raw_host.decode()}
                )
            except _UnreachableError as error:
                failure = error
        raise failure or FetchError(f"Nothing answers at {printable(target.url)}.")

    async def _get(
        self,
        client: httpx.AsyncClient,
        target: Target,
        url: httpx.URL,
        extensions: dict[str, str],
    ) -> bytes | str:
        headers = {**_HEADERS, "Host": target.url.netloc.decode()}
        request = client.build_request("GET", url, headers=headers, extensions=extensions)
        auth = self._auth if target.is_label_studio else None
        try:
            response = await client.send(request, auth=auth, stream=True)
            try:
                return await self._read(response, target)
            finally:
                await response.aclose()
        except httpx.TransportError as error:
            _log.info("fetch of %s failed: %s", printable(target.url), type(error).__name__)
            raise _unreachable(target, error) from None

    async def _read(self, response: httpx.Response, target: Target) -> bytes | str:
        if response.status_code in _REDIRECTS:
            return str(response.headers.get("Location", ""))
        if not response.is_success:
            raise _refused(response.status_code, target, has_token=self._auth is not None)
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise FetchError(f"{printable(target.url)} came compressed, which was not asked for.")
        limit = self._settings.max_image_bytes
        body = bytearray()
        if _declared_bytes(response) <= limit:
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > limit:
                    break
            else:
                return bytes(body)
        raise ImageError(
            f"{printable(target.url)} is over the limit of {limit} bytes.",
            "Use a smaller file or raise SEGZERO_MAX_IMAGE_BYTES.",
        )


class _UnreachableError(ImageHostError):
    """Nothing answered; another address of the host may."""


def _client(
    transport: httpx.AsyncBaseTransport | None,
    context: ssl.SSLContext,
    timeout_s: float,
    kept: int,
) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        transport=transport,
        # None are kept: hosts on the same pinned address would get each other's.
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
        verify=context,
        trust_env=False,  # a proxy would resolve names itself, past the check of addresses
        follow_redirects=False,
        timeout=timeout_s,
        limits=httpx.Limits(max_connections=32, max_keepalive_connections=kept),
    )


def _declared_bytes(response: httpx.Response) -> int:
    declared = response.headers.get("Content-Length", "")
    return int(declared) if re.fullmatch(r"[0-9]{1,18}", declared) else 0


def _unreachable(target: Target, error: httpx.TransportError) -> _UnreachableError:
    shown = printable(target.url)
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return _UnreachableError(
            f"The certificate of {shown} is not trusted.",
            "Name the file of your certificate authority in SSL_CERT_FILE.",
            host=_host(target),
        )
    return _UnreachableError(
        f"{shown} cannot be reached.",
        "Check that the image's host runs and that this machine can reach it.",
        host=_host(target),
    )


def _refused(status: int, target: Target, *, has_token: bool) -> FetchError:
    remedy = ""
    if target.is_label_studio and status in {401, 403}:
        remedy = (
            "Check SEGZERO_LABEL_STUDIO_TOKEN: Label Studio does not accept it."
            if has_token
            else "Set SEGZERO_LABEL_STUDIO_TOKEN."
        )
    message = f"{printable(target.url)} answered {status}."
    if _is_host_at_fault(status, target):
        return ImageHostError(message, remedy, host=_host(target))
    return FetchError(message, remedy)


def _is_host_at_fault(status: int, target: Target) -> bool:
    if target.is_label_studio and status in _STUDIO_AT_FAULT:
        return True
    return status in _BUSY or status >= httpx.codes.INTERNAL_SERVER_ERROR


def _host(target: Target) -> str:
    return target.url.netloc.decode()
