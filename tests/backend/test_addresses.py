"""Which addresses are public, whatever they look like."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.addresses import SystemResolver, embedded_v4, is_public, public_addresses
from segzero_ml.errors import FetchError, ForbiddenAddressError


@pytest.mark.parametrize(
    "address",
    ["8.8.8.8", "93.184.216.34", "2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"],
)
def test_public_addresses_are_allowed(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.255.255.254", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.0.1",  # noqa: S104
        "169.254.169.254", "100.64.0.1", "192.0.0.8", "192.0.2.1", "192.88.99.1", "198.18.0.1",
        "224.0.0.1", "240.0.0.1", "255.255.255.255",
        "::", "::1", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1",
        "64:ff9b:1::808:808", "2002:7f00:1::", "2002:a9fe:a9fe::1", "2001:db8::1",
        "2001:0:4136:e378:8000:63bf:3fff:fdd2", "2606:4700::5efe:127.0.0.1",
        "fe80::1", "fe80::1%eth0", "2606:4700::1%1", "fe80::5efe:8.8.8.8", "fc00::1", "fd00::1",
        "fec0::1", "ff02::1", "ff0e::1",
        "", "localhost", "1.2.3", "not an address",
    ],
)  # fmt: skip
def test_everything_else_is_not(address: str) -> None:
    assert not is_public(address)


@given(st.ip_addresses(v=4, network="10.0.0.0/8"))
def test_private_address_inside_any_ipv6_form_stays_private(inner: IPv4Address) -> None:
    low = int(inner)
    forms = [
        IPv6Address(low),
        IPv6Address(0xFFFF << 32 | low),
        IPv6Address(0x0064FF9B << 96 | low),
        IPv6Address(0x2002 << 112 | low << 80),
        IPv6Address(0x26064700 << 96 | 0x5EFE << 32 | low),
    ]
    for form in forms:
        assert inner in embedded_v4(form)
        assert not is_public(str(form))


def addresses_of(*answers: str) -> list[str]:
    async def resolver(_host: str, _port: int) -> list[str]:
        return list(answers)

    return asyncio.run(public_addresses("host", 80, resolver))


def test_host_with_one_private_address_among_public_ones_is_refused() -> None:
    assert addresses_of("8.8.8.8", "8.8.4.4") == ["8.8.8.8", "8.8.4.4"]
    with pytest.raises(ForbiddenAddressError, match="SEGZERO_ALLOWED_HOSTS"):
        addresses_of("8.8.8.8", "127.0.0.1")


def test_host_without_an_address_is_said_not_to_exist() -> None:
    with pytest.raises(FetchError, match="There is no host"):
        addresses_of()


@pytest.mark.parametrize("spelling", ["127.1", "0", "2130706433", "0x7f000001", "0177.0.0.1"])
def test_odd_spellings_of_this_machine_are_what_the_resolver_makes_of_them(spelling: str) -> None:
    with pytest.raises(FetchError):  # forbidden, or unknown to this system's resolver
        asyncio.run(public_addresses(spelling, 80, SystemResolver()))


@pytest.mark.parametrize("host", ["a" * 300, "a..b", "h\x00st", "\ud800"])
def test_name_that_no_resolver_takes_is_said_not_to_exist(host: str) -> None:
    with pytest.raises(FetchError, match="There is no host"):
        asyncio.run(public_addresses(host, 80, SystemResolver()))


@pytest.fixture
def dead_resolver(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The system's resolver, while its name servers do not answer."""
    gone = threading.Event()

    def hanging(*_: object, **__: object) -> list[object]:
        gone.wait(30)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", hanging)
    yield
    gone.set()


@pytest.mark.usefixtures("dead_resolver")
def test_lookups_that_hang_keep_nothing_else_back() -> None:
    async def work_beside_lookups() -> int:
        resolver = SystemResolver()
        lookups = [asyncio.create_task(resolver(f"{n}.example", 80)) for n in range(64)]
        await asyncio.sleep(0.05)
        async with asyncio.timeout(5):
            found = await asyncio.to_thread(lambda: 7)
        for one in lookups:
            one.cancel()
        resolver.close()
        return found

    started = time.monotonic()
    assert asyncio.run(work_beside_lookups()) == 7
    assert time.monotonic() - started < 5  # nor is the end of the loop kept back


@pytest.mark.usefixtures("dead_resolver")
def test_a_resolver_that_does_not_answer_is_told_apart_from_a_host_that_is_not_there() -> None:
    with pytest.raises(FetchError, match=r"a\.example cannot be looked up at present.*name server"):
        asyncio.run(public_addresses("a.example", 80, SystemResolver(0.05)))


def test_this_machine_is_found_under_its_name() -> None:
    found = asyncio.run(SystemResolver()("localhost", 80))
    assert set(found) <= {"127.0.0.1", "::1"}
    assert found
