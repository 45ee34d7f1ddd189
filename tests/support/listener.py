"""A TCP listener that only counts who comes."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager


class Listener:
    """Where it listens, and how many connections it has seen; each is closed at once."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.seen = 0

    def see(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.seen += 1
        writer.close()


@asynccontextmanager
async def listening(host: str = "127.0.0.1", port: int = 0) -> AsyncGenerator[Listener]:
    """One on this address; IPv6's any address takes IPv4 as well."""
    is_ipv6 = ":" in host
    with socket.socket(socket.AF_INET6 if is_ipv6 else socket.AF_INET) as bound:
        if is_ipv6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
        listener = Listener(bound.getsockname()[1])
        server = await asyncio.start_server(listener.see, sock=bound)
        async with server:
            yield listener
