"""A client of streams, as browsers and the agents' SDK are: events, comments and chunks as they come.

async with serving(resources) as url, follow(url, task["id"]) as stream:
    assert await stream.next() == {"type": "connected", "taskId": task["id"]}
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping, MutableMapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import httpx2
import uvicorn
from fastapi import FastAPI

from agentex.app import uvicorn_config
from agentex.dev.ports import free_port

Json = dict[str, Any]
# What is awaited comes within milliseconds; a loaded machine may take its time.
GIVE_UP_SECONDS = 20.0


@dataclass
class Following:
    """One open stream."""

    response: aiohttp.ClientResponse
    last_id: str | None = None
    comments: int = 0
    _buffer: bytes = b""
    _events: list[tuple[str | None, Json]] = field(default_factory=list[tuple[str | None, Json]])

    async def next(self) -> Json:
        """The next update. Fails at the end of the stream, or when none comes in time."""
        update = await self.next_or_end()
        assert update is not None, "the stream has ended"
        return update

    async def next_or_end(self) -> Json | None:
        """The next update, or None at the end of the stream."""
        async with asyncio.timeout(GIVE_UP_SECONDS):
            while not self._events:
                data = await self.response.content.readany()
                if not data:
                    return None
                self._take(data)
        self.last_id, update = self._events.pop(0)
        return update

    async def some(self, count: int) -> list[Json]:
        """So many updates."""
        return [await self.next() for _ in range(count)]

    async def rest(self) -> list[Json]:
        """All updates until the stream ends."""
        found: list[Json] = []
        while (update := await self.next_or_end()) is not None:
            found.append(update)
        return found

    async def until_comments(self, count: int) -> None:
        """Return when so many comments have come."""
        async with asyncio.timeout(GIVE_UP_SECONDS):
            while self.comments < count:
                self._take(await self.response.content.readany())

    def _take(self, data: bytes) -> None:
        self._buffer += data
        while b"\n\n" in self._buffer:
            block, _, self._buffer = self._buffer.partition(b"\n\n")
            self._event(block.decode().split("\n"))
        while self._buffer.startswith(b":") and b"\n" in self._buffer:
            self.comments += 1
            self._buffer = self._buffer.partition(b"\n")[2]

    def _event(self, lines: list[str]) -> None:
        identity = self._events[-1][0] if self._events else self.last_id
        for line in lines:
            name, _, value = line.partition(": ")
            if name == "id":
                identity = value
            elif name == "data":
                self._events.append((identity, json.loads(value)))
            else:
                assert line.startswith(":"), lines
                self.comments += 1


async def until(condition: Callable[[], Awaitable[bool]] | Callable[[], bool]) -> None:
    """Return when the condition holds."""
    async with asyncio.timeout(GIVE_UP_SECONDS):
        while True:
            held = condition()
            if await held if isinstance(held, Awaitable) else held:
                return
            await asyncio.sleep(0.01)


@asynccontextmanager
async def follow(
    url: str, path: str, *, last_event_id: str | None = None, read_bufsize: int = 2**16
) -> AsyncGenerator[Following]:
    """A stream by the task's id, or by a whole path; must be answered 200."""
    headers = {"last-event-id": last_event_id} if last_event_id is not None else {}
    target = path if path.startswith("/") else f"/tasks/{path}/stream"
    timeout = aiohttp.ClientTimeout(total=None, connect=GIVE_UP_SECONDS)
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    async with (
        aiohttp.ClientSession(connector=connector, timeout=timeout, read_bufsize=read_bufsize) as session,
        session.get(f"{url}{target}", headers=headers) as response,
    ):
        assert response.status == 200, await response.text()
        yield Following(response)


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Generator[None]:
        """None: they are the test process's."""
        yield


@asynccontextmanager
async def serving(app: FastAPI) -> AsyncGenerator[str]:
    """The app behind the server that it has, in this event loop: tests' own transport buffers answers."""
    port = free_port()
    config = uvicorn_config(app.state.settings, app)
    config.port, config.lifespan = port, "off"
    server = _Server(config)
    task = asyncio.create_task(server.serve())
    try:
        await until(lambda: server.started)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = server.force_exit = True
        await task


async def first_update(app: FastAPI, path: str, headers: Mapping[str, str] | None = None) -> httpx2.Response:
    """A stream's first update as if it were the whole answer, in process; its client leaves then."""
    begun, parts = asyncio.Event(), list[dict[str, Any]]()

    async def receive() -> dict[str, Any]:
        if not parts:
            return {"type": "http.request", "body": b"", "more_body": False}
        await begun.wait()
        return {"type": "http.disconnect"}

    async def send(message: MutableMapping[str, Any]) -> None:
        parts.append(dict(message))
        if b"\n\n" in message.get("body", b""):
            begun.set()

    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "GET",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [
            (b"host", b"agentex.test"),
            *[
                (name.encode(), value.encode())
                for name, value in (headers or {}).items()
                if name in {"authorization", "x-api-key"}
            ],
        ],
        "client": ("127.0.0.1", 1),
    }
    async with asyncio.timeout(GIVE_UP_SECONDS):
        await app(scope, receive, send)
    body = b"".join(part.get("body", b"") for part in parts)
    _, is_stream, data = body.partition(b"data: ")
    return httpx2.Response(parts[0]["status"], content=data.split(b"\n")[0] if is_stream else body)
