"""Who really asks: the client's address and scheme, as told by proxies that are trusted by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address

from starlette.types import Scope

from agentex.edge_settings import Network

FORWARDED_FOR = b"x-forwarded-for"
FORWARDED_PROTO = b"x-forwarded-proto"
# Hops that are looked at; more proxies than this are nobody's.
MAX_HOPS = 32
# The addresses of a machine's proxies and of the clients that are seen again; 250 bytes each.
_REMEMBERED = 4_096


class Proxies:
    """Whose X-Forwarded-For and X-Forwarded-Proto are believed. None: nobody's, the headers mean nothing."""

    def __init__(self, trusted: Sequence[Network]) -> None:
        self._trusted = tuple(trusted)
        self._is_trusted = lru_cache(_REMEMBERED)(self._look_up)

    def trusts(self, host: str) -> bool:
        """Whether the peer at this address is one of them."""
        return bool(self._trusted) and self._is_trusted(host)

    def unveil(self, scope: Scope, headers: Mapping[bytes, bytes]) -> None:
        """Put the client that a trusted proxy names, and the scheme it was asked by, into the scope."""
        if not self._trusted:
            return
        peer = scope.get("client")
        if peer is None or not self._is_trusted(peer[0]):
            return
        # The last one is by the proxy that is connected; what stands before it came from outside.
        proto = headers.get(FORWARDED_PROTO, b"").rpartition(b",")[2].strip().lower()
        if proto in (b"http", b"https"):
            scope["scheme"] = proto.decode()
        if FORWARDED_FOR in headers:
            given = [value for name, value in scope["headers"] if name == FORWARDED_FOR]
            client = self._client(b",".join(given).decode("latin-1"))
            if client is not None:
                scope["client"] = (client, 0)

    def _client(self, forwarded_for: str) -> str | None:
        """The right-most address that is no trusted proxy's; of several that all are, the left-most.

        Each proxy appends whom it was asked by. What is no address was not written by one, and what stands
        before it is no better: then it is the last hop that is known.
        """
        last = None
        for hop in reversed(forwarded_for.split(",")[-MAX_HOPS:]):
            address = _address(_without_port(hop.strip()))
            if address is None:
                return last
            last = str(address)
            if not self._is_trusted(last):
                return last
        return last

    def _look_up(self, host: str) -> bool:
        address = _address(host)
        return address is not None and any(address in network for network in self._trusted)


def _address(text: str) -> IPv4Address | IPv6Address | None:
    """An address, with an IPv4 one that came in over an IPv6 socket as what it is."""
    try:
        found = ip_address(text)
    except ValueError:
        return None
    return found.ipv4_mapped or found if isinstance(found, IPv6Address) else found


def _without_port(hop: str) -> str:
    if hop.startswith("["):
        return hop[1:].partition("]")[0]
    return hop.partition(":")[0] if hop.count(":") == 1 else hop
