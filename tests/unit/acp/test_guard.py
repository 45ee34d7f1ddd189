"""Which addresses agents may have, in every form that one can be written or hidden in."""

from __future__ import annotations

import socket
from ipaddress import IPv4Address, ip_address, ip_network
from typing import Any

import pytest

from agentex.acp.guard import AddressRefusedError, Guard, guard_of, literal
from agentex.settings import LOCAL_NETWORKS, Settings

UNSPECIFIED = str(IPv4Address(0))
PUBLIC = Guard(())
LOCAL = Guard(tuple(ip_network(network) for network in LOCAL_NETWORKS.split(",")))
EVERY_NETWORK = Guard((ip_network("0.0.0.0/0"), ip_network("::/0")))

REFUSED = {
    # Every spelling that the system's resolver takes for an IPv4 address.
    "127.0.0.1": "a loopback address",
    "127.255.255.254": "a loopback address",
    "127.1": "a loopback address",
    "2130706433": "a loopback address",
    "017700000001": "a loopback address",
    "0177.0.0.1": "a loopback address",
    "0x7f.1": "a loopback address",
    "0x7f000001": "a loopback address",
    "0x7f.0.0.0x1": "a loopback address",
    "0xa9fea9fe": "a cloud's metadata address",
    # What stands in the registries.
    "0": "an unspecified address",
    UNSPECIFIED: "an unspecified address",
    "0.1.2.3": "an address of this network",
    "10.1.2.3": "a private address",
    "172.16.0.1": "a private address",
    "172.31.255.255": "a private address",
    "192.168.1.1": "a private address",
    "169.254.0.1": "a link-local address",
    "100.64.0.1": "an address of a carrier's NAT",
    "100.127.255.255": "an address of a carrier's NAT",
    "198.18.0.1": "a benchmarking address",
    "198.19.255.255": "a benchmarking address",
    "192.0.2.1": "a documentation address",
    "198.51.100.1": "a documentation address",
    "203.0.113.1": "a documentation address",
    "192.0.0.8": "a reserved address",
    "192.88.99.1": "a 6to4 address",
    "224.0.0.1": "a multicast address",
    "239.255.255.250": "a multicast address",
    "240.0.0.1": "a reserved address",
    "255.255.255.255": "a broadcast address",
    "::": "an unspecified address",
    "::1": "a loopback address",
    "0:0:0:0:0:0:0:1": "a loopback address",
    "fc00::1": "a private address",
    "fd12:3456::1": "a private address",
    "fe80::1": "a link-local address",
    "fe80::1%eth0": "a link-local address",
    "febf::1": "a link-local address",
    "fec0::1": "a site-local address",
    "ff02::1": "a multicast address",
    "2001:db8::1": "a documentation address",
    "3fff:fff::1": "a documentation address",
    "2001:2::1": "a benchmarking address",
    "2001:10::1": "a reserved address",
    "100::1": "a reserved address",
    "5f00::1": "a reserved address",
    "4000::1": "a reserved address",
    "2606:4700:4700::1111%eth0": "an address with a zone",
    # What clouds give credentials at.
    "169.254.169.254": "a cloud's metadata address",
    "169.254.170.2": "a cloud's metadata address",
    "168.63.129.16": "a cloud's metadata address",
    "100.100.100.200": "a cloud's metadata address",
    "192.0.0.192": "a cloud's metadata address",
    "fd00:ec2::254": "a cloud's metadata address",
    "fd20:ce::254": "a cloud's metadata address",
    # IPv4 within IPv6, written as either.
    "::ffff:127.0.0.1": "a loopback address",
    "::ffff:7f00:1": "a loopback address",
    "::ffff:a9fe:a9fe": "a cloud's metadata address",
    "::ffff:10.0.0.1": "a private address",
    "::127.0.0.1": "another form of 127.0.0.1, a loopback address",
    "::8.8.8.8": "an IPv4-compatible address",
    "::ffff:0:127.0.0.1": "another form of 127.0.0.1, a loopback address",
    "64:ff9b::127.0.0.1": "another form of 127.0.0.1, a loopback address",
    "64:ff9b::169.254.169.254": "another form of 169.254.169.254, a cloud's metadata address",
    "64:ff9b::8.8.8.8": "a NAT64 address",
    "64:ff9b:1::10.0.0.1": "another form of 10.0.0.1, a private address",
    "2002:7f00:1::": "another form of 127.0.0.1, a loopback address",
    "2002:808:808::1": "a 6to4 address",
    # Teredo keeps the client's address inverted; this one is 127.0.0.1 behind the server 8.8.8.8.
    "2001:0:808:808:0:0:80ff:fffe": "another form of 127.0.0.1, a loopback address",
    "2001:0:808:808:0:0:f7f7:f7f7": "a Teredo address",
    "2606:4700::5efe:10.0.0.1": "another form of 10.0.0.1, a private address",
    "2606:4700::200:5efe:10.0.0.1": "another form of 10.0.0.1, a private address",
}


@pytest.mark.parametrize(("host", "why"), REFUSED.items(), ids=REFUSED)
def test_an_address_that_is_not_of_the_public_internet_is_refused(host: str, why: str) -> None:
    assert PUBLIC.refusal_of_host(host) == why


@pytest.mark.parametrize(
    "host",
    [
        "8.8.8.8",
        "134744072",
        "1.1.1.1",
        "11.0.0.1",
        "100.63.255.255",
        "100.128.0.0",
        "172.32.0.1",
        "192.0.1.1",
        "192.169.0.1",
        "198.20.0.1",
        "223.255.255.255",
        "2606:4700:4700::1111",
        "2a00:1450:4001::1",
        "2001:4860:4860::8888",
        "::ffff:8.8.8.8",
        "2606:4700::5efe:8.8.8.8",
    ],
)
def test_the_public_internet_is_allowed(host: str) -> None:
    assert PUBLIC.refusal_of_host(host) is None


@pytest.mark.parametrize("host", ["localhost", "agent.example", "127.0.0.1.nip.io", "0x7g.1", "1.2.3.4.5"])
def test_a_name_is_not_judged_before_it_is_resolved(host: str) -> None:
    assert (literal(host), PUBLIC.refusal_of_host(host)) == (None, None)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "::1", "10.1.2.3", "172.20.0.1", "192.168.1.1", "fd12::1", "::ffff:127.0.0.1"]
)
def test_local_networks_have_what_is_local(host: str) -> None:
    assert LOCAL.refusal_of_host(host) is None


@pytest.mark.parametrize(
    ("host", "why"),
    [
        # Within a private network, and yet none of it.
        ("fd00:ec2::254", "a cloud's metadata address"),
        ("169.254.169.254", "a cloud's metadata address"),
        ("169.254.1.1", "a link-local address"),
        ("fe80::1", "a link-local address"),
        (UNSPECIFIED, "an unspecified address"),
        ("::", "an unspecified address"),
        ("100.64.0.1", "an address of a carrier's NAT"),
        ("224.0.0.1", "a multicast address"),
        ("255.255.255.255", "a broadcast address"),
        ("64:ff9b::127.0.0.1", "a NAT64 address"),
        ("2002:7f00:1::", "a 6to4 address"),
    ],
)
def test_local_networks_have_neither_metadata_nor_what_is_special(host: str, why: str) -> None:
    assert LOCAL.refusal_of_host(host) == why


@pytest.mark.parametrize(
    "host", ["169.254.169.254", "::ffff:169.254.169.254", "fd00:ec2::254", "168.63.129.16"]
)
def test_metadata_is_not_allowed_by_a_network_around_it(host: str) -> None:
    assert EVERY_NETWORK.refusal_of_host("169.254.0.1") is None
    assert EVERY_NETWORK.refusal_of_host(host) == "a cloud's metadata address"


def test_metadata_is_allowed_by_its_own_network() -> None:
    assert Guard((ip_network("169.254.169.254"),)).refusal(ip_address("169.254.169.254")) is None


def test_a_network_of_nat64_allows_it_only_for_what_is_allowed_without_it() -> None:
    guard = Guard((ip_network("64:ff9b::/96"), ip_network("10.0.0.0/8")))
    found = {
        host: guard.refusal_of_host(f"64:ff9b::{host}")
        for host in ("8.8.8.8", "10.0.0.1", "127.0.0.1", UNSPECIFIED)
    }
    assert found == {
        "8.8.8.8": None,
        "10.0.0.1": None,
        "127.0.0.1": "another form of 127.0.0.1, a loopback address",
        UNSPECIFIED: f"another form of {UNSPECIFIED}, an unspecified address",
    }


@pytest.mark.parametrize(
    "where",
    [("127.0.0.1", 80), ("::1", 80, 0, 0), ("fe80::1%1", 80, 0, 1), ("agent.example", 80), ("127.1", 80)],
)
def test_no_socket_is_opened_for_what_is_refused_or_no_address(
    monkeypatch: pytest.MonkeyPatch, where: tuple[Any, ...]
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", never)
    family = socket.AF_INET if len(where) == 2 else socket.AF_INET6
    with pytest.raises(AddressRefusedError):
        PUBLIC.open_socket((family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", where))


def test_the_guard_is_that_of_the_settings() -> None:
    assert guard_of(Settings(agent_networks="*")) is None
    assert guard_of(Settings(agent_networks=())) == PUBLIC
    assert guard_of(Settings(agent_networks=None)) == LOCAL
