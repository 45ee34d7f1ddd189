"""The settings of the API's edge: limits, rates, proxies and origins. `Settings` has them all."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import Field, PositiveFloat, field_validator
from pydantic_settings import BaseSettings, NoDecode

Network = IPv4Network | IPv6Network

# Unset: what the edge takes for right, which depends on AGENTEX_AUTH.
BY_AUTH = "by-auth"
_RATE = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,3})?):([0-9]{1,7})", re.ASCII)
# A browser sends it so: no path, no default port, lower case (RFC 6454 §6.2).
_ORIGIN = re.compile(r"https?://([a-z0-9.-]+|\[[0-9a-f:]+\])(:[0-9]{1,5})?", re.ASCII)
_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Rate:
    """So many requests a second in the long run, and so many at once."""

    per_second: float
    burst: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """`10:100` is 10 a second and 100 at once; raises ValueError for anything else."""
        found = _RATE.fullmatch(text.strip())
        if found is None or float(found[1]) == 0 or int(found[2]) == 0:
            raise ValueError(
                f"{text!r} is not requests per second:burst, both above 0, such as 10:100; empty is off"
            )
        return cls(float(found[1]), int(found[2]))


class EdgeSettings(BaseSettings):
    """What the edge asks of a client before a request gets anywhere."""

    # From the first byte to the end of the headers; browsers and clients need one packet.
    request_head_timeout_seconds: PositiveFloat = 10
    # 16 MiB, the largest body, at 2.5 Mbit/s.
    request_body_timeout_seconds: PositiveFloat = 60
    # Open connections of a process: as many streams as it takes, and as many requests beside them. Above what
    # `ulimit -n` allows it has no effect. 0 is no limit.
    max_connections: Annotated[int, Field(ge=0)] = 4_000
    # Of one address that is no trusted proxy; 0 is no limit. Unset: 1,000 (a quarter), and none without auth.
    max_connections_per_address: Annotated[int | None, Field(ge=0)] = None

    # Requests per second:burst, in each process; empty is off. Unset: on unless AGENTEX_AUTH is none.
    rate_limit_per_address: str = BY_AUTH
    rate_limit_per_principal: str = BY_AUTH

    # Whose X-Forwarded-For and X-Forwarded-Proto are believed: addresses and networks, comma-separated.
    trusted_proxies: Annotated[tuple[Network, ...], NoDecode] = ()
    # Whose pages may call this API from a browser: exact origins, comma-separated.
    cors_origins: Annotated[tuple[str, ...], NoDecode] = ()

    @field_validator("rate_limit_per_address", "rate_limit_per_principal")
    @classmethod
    def _is_rate(cls, value: str) -> str:
        if value.strip() and value != BY_AUTH:
            Rate.parse(value)
        return value.strip()

    @field_validator("max_connections_per_address", mode="before")
    @classmethod
    def _empty_connections_are_unset(cls, value: object) -> object:
        return None if isinstance(value, str) and not value.strip() else value

    @field_validator("trusted_proxies", mode="before")
    @classmethod
    def _split_networks(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        try:
            return tuple(ip_network(part.strip()) for part in value.split(",") if part.strip())
        except ValueError as error:
            raise ValueError(
                f"{error}; give addresses and networks, comma-separated, such as 10.0.0.7,10.1.0.0/16"
            ) from None

    @field_validator("cors_origins", mode="before")
    @classmethod
    def _split_origins(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        origins = tuple(part.strip() for part in value.split(",") if part.strip())
        for origin in origins:
            _check_origin(origin)
        return origins


def _check_origin(origin: str) -> None:
    scheme, port = origin.partition(":")[0], None
    if _ORIGIN.fullmatch(origin):
        port = urlsplit(origin).port
        if port is None or (port != _DEFAULT_PORTS[scheme] and port > 0):
            return
    raise ValueError(
        f"{origin!r} is not one exact origin as a browser sends it, such as https://agents.example.com or "
        "http://localhost:3000: lower case, without path, default port, * or pattern"
    )
