"""Whose word on a client's address counts: the nearest hops' only, as far as they are trusted."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from agentex.web.proxies import Proxies

PROXIES = Proxies([ip_network("10.0.0.0/8"), ip_network("fd00::/8")])


def unveiled(proxies: Proxies, peer: str, *headers: tuple[str, str]) -> tuple[str, str]:
    given = [(name.encode(), value.encode("latin-1")) for name, value in headers]
    scope = {"type": "http", "client": (peer, 4711), "scheme": "http", "headers": given}
    proxies.unveil(scope, dict(given))
    return scope["client"][0], scope["scheme"]  # pyright: ignore[reportReturnType] - of a scope, which is untyped


FOR = "x-forwarded-for"


@pytest.mark.parametrize(
    ("peer", "headers", "client"),
    [
        ("10.0.0.1", [(FOR, "203.0.113.9")], "203.0.113.9"),
        # What the client wrote itself stands to the left.
        ("10.0.0.1", [(FOR, "127.0.0.1, 203.0.113.9")], "203.0.113.9"),
        ("10.0.0.1", [(FOR, "10.9.9.9, 203.0.113.9, 10.0.0.2")], "203.0.113.9"),
        ("10.0.0.1", [(FOR, "1.1.1.1"), (FOR, "203.0.113.9")], "203.0.113.9"),
        ("10.0.0.1", [(FOR, "10.0.0.3, 10.0.0.2")], "10.0.0.3"),
        ("10.0.0.1", [(FOR, "203.0.113.9:4711")], "203.0.113.9"),
        ("10.0.0.1", [(FOR, "[2001:db8::1]:4711")], "2001:db8::1"),
        ("10.0.0.1", [(FOR, "2001:db8::1")], "2001:db8::1"),
        ("10.0.0.1", [(FOR, "203.0.113.9, ::ffff:10.0.0.2")], "203.0.113.9"),
        ("::ffff:10.0.0.1", [(FOR, "203.0.113.9")], "203.0.113.9"),
        ("fd00::1", [(FOR, "203.0.113.9")], "203.0.113.9"),
        # No address: the last hop that is known.
        ("10.0.0.1", [(FOR, "203.0.113.9, unknown")], "10.0.0.1"),
        ("10.0.0.1", [(FOR, "203.0.113.9, <script>, 10.0.0.2")], "10.0.0.2"),
        ("10.0.0.1", [(FOR, "203.0.113.9,")], "10.0.0.1"),
        ("10.0.0.1", [(FOR, "")], "10.0.0.1"),
        ("10.0.0.1", [], "10.0.0.1"),
        # Nobody asked this peer.
        ("192.0.2.1", [(FOR, "203.0.113.9")], "192.0.2.1"),
        ("127.0.0.1", [(FOR, "203.0.113.9")], "127.0.0.1"),
    ],
)
def test_the_right_most_address_that_is_no_proxys_is_the_client(
    peer: str, headers: list[tuple[str, str]], client: str
) -> None:
    assert unveiled(PROXIES, peer, *headers)[0] == client


@pytest.mark.parametrize(
    ("peer", "proto", "scheme"),
    [
        ("10.0.0.1", "https", "https"),
        ("10.0.0.1", "HTTPS", "https"),
        ("10.0.0.1", "https, http", "http"),
        ("10.0.0.1", "javascript", "http"),
        ("192.0.2.1", "https", "http"),
    ],
)
def test_the_nearest_proxy_says_the_scheme(peer: str, proto: str, scheme: str) -> None:
    assert unveiled(PROXIES, peer, ("x-forwarded-proto", proto))[1] == scheme


def test_without_proxies_nobody_is_believed() -> None:
    headers = [(FOR, "203.0.113.9"), ("x-forwarded-proto", "https")]
    assert unveiled(Proxies([]), "127.0.0.1", *headers) == ("127.0.0.1", "http")


def test_hops_without_end_are_not_followed() -> None:
    many = ", ".join(["203.0.113.9"] + ["10.0.0.2"] * 10_000)
    assert unveiled(PROXIES, "10.0.0.1", (FOR, many))[0] == "10.0.0.2"
