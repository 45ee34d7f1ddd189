"""A client of the app in process whose connection can end: what httpx's transport cannot do.

async with Connection(app, "/agents/…/rpc", body) as connection:
    line = await connection.line()
    connection.close()
    await connection.ended()
"""

from __future__ import annotations

import asyncio
import json
from types import TracebackType

from starlette.types import ASGIApp, Message

from tests.support.api import Json


class Connection:
    """One POST of JSON; its answer is read line by line."""

    def __init__(self, app: ASGIApp, path: str, body: Json, headers: dict[str, str] | None = None) -> None:
        self.status: int | None = None
        self.headers: dict[str, str] = {}
        self._app = app
        self._body = json.dumps(body).encode()
        self._sent_body = False
        self._closed = asyncio.Event()
        self._lines: asyncio.Queue[bytes] = asyncio.Queue()
        self._scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 80),
            "headers": [
                (b"content-type", b"application/json"),
                *[(name.encode(), value.encode("latin-1")) for name, value in (headers or {}).items()],
            ],
        }

    async def __aenter__(self) -> Connection:
        self._serving = asyncio.create_task(self._serve())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        await self.ended()

    async def line(self) -> Json:
        """The next line of the answer."""
        return json.loads(await self._lines.get())

    async def rest(self) -> list[Json]:
        """The lines up to the answer's end."""
        await self.ended()
        return [json.loads(self._lines.get_nowait()) for _ in range(self._lines.qsize())]

    def close(self) -> None:
        """The client goes away."""
        self._closed.set()

    def stop(self) -> None:
        """The server ends the request, as at the end of its drain."""
        self._serving.cancel()

    async def ended(self) -> None:
        """Return when the server is through with the request."""
        await asyncio.wait([self._serving])

    async def _serve(self) -> None:
        await self._app(self._scope, self._receive, self._send)

    async def _receive(self) -> Message:
        if not self._sent_body:
            self._sent_body = True
            return {"type": "http.request", "body": self._body, "more_body": False}
        await self._closed.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
        elif message.get("body"):
            for line in message["body"].splitlines():
                self._lines.put_nowait(line)
