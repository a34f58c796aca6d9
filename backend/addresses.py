"""Which network addresses may be fetched on behalf of a task: public ones only.

An address can reach this machine without looking like it: `::ffff:127.0.0.1`,
`64:ff9b::7f00:1` and `2002:7f00:1::` all carry 127.0.0.1. Every IPv4 address inside an IPv6
one is therefore checked as well. Host names are resolved first and never judged by their
spelling, so that `127.1` or `0x7f000001` are what the resolver makes of them.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final

from segzero_ml.errors import FetchError, ForbiddenAddressError, ImageHostError

Resolver = Callable[[str, int], Awaitable[list[str]]]
"""Host name and port to the texts of its addresses; raises OSError when there are none."""

LOOKUP_TIMEOUT_S: Final = 10.0
"""Longest wait for one lookup; a second name server is asked after 5 s."""

_LOOKUPS_AT_ONCE: Final = 32  # as many as connections: names that hang keep no others back
_NAT64: Final = IPv6Network("64:ff9b::/96")
_V4_COMPATIBLE: Final = IPv6Network("::/96")
_ISATAP: Final = frozenset({0x00005EFE, 0x02005EFE})
_SPECIAL_V4: Final = (IPv4Network("192.0.0.0/24"), IPv4Network("192.88.99.0/24"))
_LOCAL_V6: Final = (
    IPv6Network("fc00::/7"),  # unique local
    IPv6Network("fe80::/9"),  # link local, site local
    IPv6Network("ff00::/8"),  # multicast
    IPv6Network("64:ff9b:1::/48"),  # NAT64 of the local network
)


class SystemResolver:
    """Looks host names up with the system's resolver, in threads of its own.

    One that does not answer keeps a thread for half a minute. In the event loop's own pool it
    would keep back everything else that runs there, such as the answer to a click.

    Args:
        timeout_s: Longest wait for one lookup, in seconds.
    """

    def __init__(self, timeout_s: float = LOOKUP_TIMEOUT_S) -> None:
        self._timeout_s = timeout_s
        # Starts no thread before the first lookup.
        self._threads = ThreadPoolExecutor(_LOOKUPS_AT_ONCE, "segzero-lookup")

    def close(self) -> None:
        """Look nothing up any more; what is being looked up is not waited for."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def __call__(self, host: str, port: int) -> list[str]:
        """The texts of a host's addresses.

        Raises:
            OSError: There is no such host; `EAI_AGAIN` where no name server answers in time.
            ValueError: That is no name.
        """
        look_up = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
        looking = asyncio.get_running_loop().run_in_executor(self._threads, look_up)
        try:
            async with asyncio.timeout(self._timeout_s):
                found = await looking
        except TimeoutError:
            raise socket.gaierror(socket.EAI_AGAIN, "No name server answers.") from None
        return list(dict.fromkeys(str(entry[4][0]) for entry in found))


async def public_addresses(host: str, port: int, resolver: Resolver) -> list[str]:
    """The addresses of a host, all of them public.

    Raises:
        FetchError: The name has no address.
        ImageHostError: No name can be looked up at present, or the resolver does not answer.
        ForbiddenAddressError: One of its addresses is not public.
    """
    try:
        addresses = await resolver(host, port)
    except (OSError, ValueError) as error:  # ValueError: no name that DNS could know
        if isinstance(error, socket.gaierror) and error.errno == socket.EAI_AGAIN:
            raise ImageHostError(
                f"The host {host} cannot be looked up at present.",
                "Check this machine's name server.",
                host=host,
            ) from None
        addresses = []
    if not addresses:
        raise FetchError(f"There is no host {host}.", "Check the image's address.")
    if not all(is_public(address) for address in addresses):
        raise ForbiddenAddressError(
            f"The host {host} is on a private network, where images are not fetched from.",
            "If it is meant to be, name it in SEGZERO_ALLOWED_HOSTS (host or host:port).",
        )
    return addresses


def is_public(address: str) -> bool:
    """Whether an address, and every IPv4 address it carries inside, is a public one."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    if isinstance(parsed, IPv4Address):
        return _is_public_v4(parsed)
    if parsed.scope_id is not None or any(parsed in network for network in _LOCAL_V6):
        return False
    inside = embedded_v4(parsed)
    if inside:
        return all(_is_public_v4(one) for one in inside)
    return parsed.is_global and not parsed.is_reserved


def embedded_v4(address: IPv6Address) -> list[IPv4Address]:
    """The IPv4 addresses that an IPv6 address carries: traffic may end at any of them."""
    number = int(address)
    low = IPv4Address(number & 0xFFFFFFFF)
    found = []
    if address.ipv4_mapped is not None:
        found.append(address.ipv4_mapped)
    if address.sixtofour is not None:
        found.append(address.sixtofour)
    if address.teredo is not None:
        found.extend(address.teredo)
    if address in _NAT64 or address in _V4_COMPATIBLE:
        found.append(low)
    if number >> 32 & 0xFFFFFFFF in _ISATAP:
        found.append(low)
    return found


def _is_public_v4(address: IPv4Address) -> bool:
    return (
        address.is_global
        and not address.is_multicast
        and not address.is_reserved
        and not any(address in network for network in _SPECIAL_V4)
    )
