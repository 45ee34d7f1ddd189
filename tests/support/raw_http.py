"""A client that speaks HTTP as it likes: slowly, in pieces, without an end.

async with RawClient(url) as client:
    await client.send(b"GET / HTTP/1.1\r\n")
    assert await client.rest() == b""
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from urllib.parse import urlsplit

GIVE_UP_SECONDS = 20.0


class RawClient:
    """One connection."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname, parts.port

    async def __aenter__(self) -> RawClient:
        self._reader, self._writer = await asyncio.open_connection(self._host, self._port)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()

    async def send(self, data: bytes) -> None:
        """Send it; nothing happens where the server has closed."""
        if self._writer.is_closing():
            return
        self._writer.write(data)
        try:
            await self._writer.drain()
        except ConnectionError:
            return

    async def send_on(self, data: bytes) -> None:
        """Send it over and over until the server ends the connection. Fails when it does not."""
        async with asyncio.timeout(GIVE_UP_SECONDS):
            while not self._reader.at_eof() and self._reader.exception() is None:
                await self.send(data)
                await asyncio.sleep(0)

    async def head(self) -> bytes:
        """The answer up to the end of its headers."""
        async with asyncio.timeout(GIVE_UP_SECONDS):
            return await self._reader.readuntil(b"\r\n\r\n")

    async def answer(self) -> tuple[int, bytes]:
        """The status and body of an answer that says how long it is."""
        head = await self.head()
        lines = dict(line.split(b": ", 1) for line in head.strip().split(b"\r\n")[1:])
        async with asyncio.timeout(GIVE_UP_SECONDS):
            body = await self._reader.readexactly(int(lines[b"content-length"]))
        return int(head.split(b" ")[1]), body

    async def rest(self) -> bytes:
        """What comes until the server ends the connection. Fails when it does not."""
        came = b""
        async with asyncio.timeout(GIVE_UP_SECONDS):
            try:
                while data := await self._reader.read(65_536):
                    came += data
            except ConnectionError:
                # It has closed with something of ours unread.
                return came
        return came

    async def drip(self, data: bytes, every_seconds: float) -> bytes:
        """Send it byte by byte, over and over, until the server ends the connection; what came meanwhile."""
        dripping = asyncio.create_task(self._drip(data, every_seconds))
        try:
            return await self.rest()
        finally:
            dripping.cancel()

    async def _drip(self, data: bytes, every_seconds: float) -> None:
        while True:
            for byte in data:
                await self.send(bytes([byte]))
                await asyncio.sleep(every_seconds)
