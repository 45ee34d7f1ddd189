"""Where agents may live: the public internet, and the networks that an operator names (docs/security.md).

Whoever registers an agent says where this service sends requests, so an address is judged when a connection
is made to it. `GuardedResolver` keeps of a name's addresses those that are allowed, and `Guard.open_socket`
looks at the very address that is dialled next, whatever it came from: a name, or a literal, for which aiohttp
asks no resolver. Nothing is resolved in between, so a name whose answers change gains nothing by it. What is
kept alive has been judged when it was opened.

The tables are the registries of special-purpose addresses of IANA (RFC 6890 and its successors), and what
clouds serve credentials at.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import aiohttp
from aiohttp.abc import ResolveResult

from agentex.settings import Address, Network, Settings

log = logging.getLogger(__name__)

ALLOWED = "agents may live on the public internet and in the networks of AGENTEX_AGENT_NETWORKS"


# aiohttp.AddrInfoType, with a type for what stands in the last.
_AddrInfo = tuple[int | socket.AddressFamily, int | socket.SocketKind, int, str, tuple[object, ...]]


@dataclass(frozen=True)
class _Special:
    network: Network
    what: str
    # Only a network of its own size or a smaller one allows it, not one that happens to go round it.
    by_name: bool = False


def _specials(by_what: dict[str, str], *, by_name: bool = False) -> tuple[_Special, ...]:
    return tuple(
        _Special(ip_network(network), what, by_name)
        for what, networks in by_what.items()
        for network in networks.split()
    )


# Credentials without a question. They come first, for some stand within what is private, or even public:
# AWS, GCP, Azure, Oracle and others; AWS for containers; Azure's host; Alibaba; Oracle, formerly; and the
# IPv6 ones of AWS, GCP and Scaleway.
_METADATA = (
    "169.254.169.254/32 169.254.170.0/24 168.63.129.16/32 100.100.100.200/32 192.0.0.192/32 "
    "fd00:ec2::/32 fd20:ce::254/128 fd00:42::42/128"
)
_SPECIALS = _specials({"a cloud's metadata address": _METADATA}, by_name=True) + _specials(
    {
        "a loopback address": "127.0.0.0/8 ::1/128",
        "a private address": "10.0.0.0/8 172.16.0.0/12 192.168.0.0/16 fc00::/7",
        "a link-local address": "169.254.0.0/16 fe80::/10",
        "an unspecified address": "0.0.0.0/32 ::/128",
        "an address of this network": "0.0.0.0/8",
        "an address of a carrier's NAT": "100.64.0.0/10",
        "a broadcast address": "255.255.255.255/32",
        "a multicast address": "224.0.0.0/4 ff00::/8",
        "a benchmarking address": "198.18.0.0/15 2001:2::/48",
        "a documentation address": "192.0.2.0/24 198.51.100.0/24 203.0.113.0/24 2001:db8::/32 3fff::/20",
        "a 6to4 address": "192.88.99.0/24 2002::/16",
        "a Teredo address": "2001::/32",
        "a NAT64 address": "64:ff9b::/96 64:ff9b:1::/48",
        "an IPv4-compatible address": "::/96",
        "an IPv4-translated address": "::ffff:0:0:0/96",
        "a site-local address": "fec0::/10",
        "a reserved address": "192.0.0.0/24 240.0.0.0/4 2001::/23",
    }
)
# Of IPv6 only this has been given out to the public.
_GLOBAL_UNICAST = ip_network("2000::/3")
_OTHER_IPV6 = _Special(ip_network("::/0"), "a reserved address")
_SCOPED = _Special(ip_network("::/0"), "an address with a zone")

# Where the IPv4 address stands at the end.
_ENDS_IN_IPV4 = tuple(
    ip_network(network) for network in ("::/96", "::ffff:0:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48")
)
# RFC 5214: an interface id that says so, in any network; the bit says whether the IPv4 address is unique.
_ISATAP = frozenset({0x0000_5EFE, 0x0200_5EFE})


class AddressRefusedError(OSError):
    """Where agents may not live: an address, or a name with no other; nothing was connected to.

    An OSError, for these are what aiohttp passes on from its resolver and from the opening of sockets.
    """


@dataclass(frozen=True)
class Guard:
    """Decides about addresses; `networks` are allowed besides the public internet."""

    networks: tuple[Network, ...]

    def refusal(self, address: Address) -> str | None:
        """What forbids an address, e.g. "a loopback address"; None where agents may live.

        What carries an IPv4 address is judged by that one as well; what is only another spelling of it
        (IPv4-mapped), by that one alone.
        """
        if isinstance(address, IPv6Address):
            if address.ipv4_mapped is not None:
                return self.refusal(address.ipv4_mapped)
            for inner in _carried(address):
                why = self.refusal(inner)
                if why is not None:
                    return f"another form of {inner}, {why}"
        special = _special(address)
        return None if special is None or self._allows(address, special) else special.what

    def refusal_of_host(self, host: str) -> str | None:
        """The same for a URL's host; names are not resolved: None."""
        address = literal(host)
        return None if address is None else self.refusal(address)

    def refusal_of_answer(self, answer: str) -> str | None:
        """The same for what a resolver has answered, or a literal as it is dialled: never a name."""
        address = _numeric(answer)
        return "no IP address" if address is None else self.refusal(address)

    def open_socket(self, info: _AddrInfo) -> socket.socket:
        """A socket for the address that is to be dialled with it; raises AddressRefusedError for others."""
        family, kind, protocol, _, where = info
        address = str(where[0])
        why = self.refusal_of_answer(address)
        if why is not None:
            _log_refused(address, [f"{address} is {why}"])
            raise AddressRefusedError(why)
        return socket.socket(family, kind, protocol)

    def _allows(self, address: Address, special: _Special) -> bool:
        return any(
            address in network and not (special.by_name and network.prefixlen < special.network.prefixlen)
            for network in self.networks
        )


class GuardedResolver(aiohttp.ThreadedResolver):
    """The system's resolver without the addresses that are refused; None refuses none."""

    def __init__(self, guard: Guard | None) -> None:
        super().__init__()
        self._guard = guard

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Of the name's addresses those that may be dialled, in their order.

        Raises AddressRefusedError if none is left of some, OSError for a name without an address.
        """
        try:
            answers = await super().resolve(host, port, family)
        except UnicodeError as error:
            # Python's own, before it asks: an empty label, or one of more than 63 characters.
            raise OSError("no host name") from error
        return answers if self._guard is None else _allowed(self._guard, host, answers)


def _allowed(guard: Guard, host: str, answers: list[ResolveResult]) -> list[ResolveResult]:
    found = [(answer, guard.refusal_of_answer(answer["host"])) for answer in answers]
    refused = [f"{answer['host']} is {why}" for answer, why in found if why is not None]
    if refused:
        _log_refused(host, refused)
    if len(refused) == len(found) > 0:
        raise AddressRefusedError("the name has no address that agents may have")
    return [answer for answer, why in found if why is None]


def guard_of(settings: Settings) -> Guard | None:
    """The guard that the settings ask for; None where they allow every address."""
    networks = settings.allowed_agent_networks
    return None if networks is None else Guard(networks)


def literal(host: str) -> Address | None:
    """The address that a host is, however it is spelled: 127.1, 0x7f000001 and 2130706433 are one, too."""
    address = _numeric(host)
    if address is not None:
        return address
    try:
        return IPv4Address(socket.inet_aton(host))
    except OSError:
        return None


def _numeric(host: str) -> Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None


def _special(address: Address) -> _Special | None:
    found = next((special for special in _SPECIALS if address in special.network), None)
    if found is not None or isinstance(address, IPv4Address):
        return found
    if address not in _GLOBAL_UNICAST:
        return _OTHER_IPV6
    return _SCOPED if address.scope_id is not None else None


def _carried(address: IPv6Address) -> Iterator[IPv4Address]:
    """The IPv4 addresses that something on the way may go on to."""
    low = int(address) & 0xFFFF_FFFF
    if address.sixtofour is not None:
        yield address.sixtofour
    if address.teredo is not None:
        yield from address.teredo
    # ::0 and ::1 have a meaning of their own.
    is_ipv4 = int(address) > 1 and any(address in network for network in _ENDS_IN_IPV4)
    if is_ipv4 or (int(address) >> 32) & 0xFFFF_FFFF in _ISATAP:
        yield IPv4Address(low)


def _log_refused(host: str, why: list[str]) -> None:
    # For the operator: the callers are not told what a name resolves to.
    log.warning(
        "an agent's address is refused", extra={"action": "acp.guard", "agent_host": host, "refused": why}
    )
