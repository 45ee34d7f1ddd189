"""How often somebody may ask: buckets in this process's memory, by address and by principal.

Each process counts for itself, so N processes let through N times as much, and a restart forgets. That keeps
one caller from taking a process for itself, which is what it is for; it is no quota.
"""

from __future__ import annotations

import os
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from hashlib import blake2b
from ipaddress import IPv6Address, IPv6Network, ip_address
from typing import Self

from agentex.auth.principal import Principal
from agentex.edge_settings import BY_AUTH, Rate
from agentex.errors import RateLimited
from agentex.settings import Settings
from agentex.telemetry.metrics import RATE_LIMITED

# Where a request's scope has what its credential is known by.
CREDENTIAL_MARK = "agentex.credential_mark"
# An address of its own for each guess costs nothing with IPv6, so a household's network counts as one.
_HOUSEHOLD_BITS = 64
# Keys that are remembered, some 200 bytes each; what was used longest ago is forgotten, and full again.
MAX_KEYS = 50_000
# What a request costs an address that does not fail: so a hundred times as many of these are allowed.
ORDINARY_COST = 0.01
# 200 agents with a stale key, each of which tries every 20 s, stay below.
ADDRESS_DEFAULT = Rate(10, 200)
# A process answers some 700 requests a second; an agent in 200 conversations makes 50.
PRINCIPAL_DEFAULT = Rate(200, 1_000)


class Buckets:
    """Token buckets, each as the instant at which it is full again (GCRA); at most `max_keys` of them."""

    def __init__(
        self, rate: Rate, *, clock: Callable[[], float] = time.monotonic, max_keys: int = MAX_KEYS
    ) -> None:
        self._seconds_each = 1 / rate.per_second
        self._depth = rate.burst / rate.per_second
        self._clock = clock
        self._max_keys = max_keys
        self._full_at: OrderedDict[Hashable, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._full_at)

    def take(self, key: Hashable, tokens: float = 1.0) -> float:
        """0 when there were so many, which are gone now; else the seconds until there are."""
        now = self._clock()
        full_at = max(self._full_at.get(key, now), now) + tokens * self._seconds_each
        wait = full_at - now - self._depth
        # The rounding of an instant in float must not refuse the last token.
        if wait > 1e-6:
            return wait
        self._put(key, full_at)
        return 0.0

    def charge(self, key: Hashable, tokens: float) -> None:
        """Take so many even where there are none: what came in at once has to be waited for later."""
        now = self._clock()
        full_at = max(self._full_at.get(key, now), now) + tokens * self._seconds_each
        self._put(key, min(full_at, now + 2 * self._depth))

    def _put(self, key: Hashable, full_at: float) -> None:
        self._full_at[key] = full_at
        self._full_at.move_to_end(key)
        if len(self._full_at) > self._max_keys:
            self._full_at.popitem(last=False)


class Rates:
    """What one process lets through.

    An address pays for what it fails to open (401) and, a hundredth, for all else. A credential that has
    opened something pays as its principal instead: so whoever guesses behind a shared address keeps out
    nobody who has a key.
    """

    def __init__(self, per_address: Rate | None, per_principal: Rate | None) -> None:
        self._addresses = Buckets(per_address) if per_address else None
        self._principals = Buckets(per_principal) if per_principal else None
        # By a keyed hash that only this process can make, so that memory holds nothing to search for.
        self._opened: OrderedDict[bytes, None] = OrderedDict()
        self._salt = os.urandom(16)

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """As the settings say."""
        return cls(
            _rate(settings, settings.rate_limit_per_address, ADDRESS_DEFAULT),
            _rate(settings, settings.rate_limit_per_principal, PRINCIPAL_DEFAULT),
        )

    @property
    def by_address(self) -> bool:
        """Whether addresses are counted at all."""
        return self._addresses is not None

    def mark(self, credential: bytes) -> bytes:
        """By what this process knows a credential again; empty for none."""
        return blake2b(credential, key=self._salt, digest_size=16).digest() if credential else b""

    def admit(self, address: str, mark: bytes) -> None:
        """Let a request in, or raise RateLimited; before anything of it is looked at."""
        if self._addresses is None or mark in self._opened:
            return
        wait = self._addresses.take(_household(address), ORDINARY_COST)
        if wait:
            raise _limited("address", wait)

    def failed(self, address: str, mark: bytes) -> None:
        """The request has opened nothing: 401."""
        self._opened.pop(mark, None)
        if self._addresses is not None:
            self._addresses.charge(_household(address), 1 - ORDINARY_COST)

    def opened(self, principal: Principal, mark: bytes) -> None:
        """The request is this principal's; raises RateLimited when that has asked too often."""
        if mark:
            self._opened[mark] = None
            self._opened.move_to_end(mark)
            if len(self._opened) > MAX_KEYS:
                self._opened.popitem(last=False)
        if self._principals is None:
            return
        wait = self._principals.take((principal.account_id, principal.principal_type, principal.creator))
        if wait:
            raise _limited("principal", wait)


def _limited(by: str, wait_seconds: float) -> RateLimited:
    RATE_LIMITED.labels(by=by).inc()
    return RateLimited(
        f"too many requests of this {by}; wait as long as Retry-After says", retry_after_seconds=wait_seconds
    )


def _rate(settings: Settings, given: str, default: Rate) -> Rate | None:
    if given == BY_AUTH:
        return None if settings.auth == "none" else default
    return Rate.parse(given) if given else None


def _household(address: str) -> str:
    """An IPv4 address, or the network of an IPv6 one that a household or machine gets as a whole."""
    if ":" not in address:
        return address
    try:
        found = ip_address(address)
    except ValueError:
        return address
    if isinstance(found, IPv6Address):
        return str(IPv6Network((int(found), _HOUSEHOLD_BITS), strict=False))
    return address
