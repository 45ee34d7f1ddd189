"""An agent with routes of its own: it records what comes in, and answers what a test wants."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import TracebackType

from aiohttp import web

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class OwnRequest:
    """A request as it arrived; `target` is the path and query as they were sent."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


async def _ok(_: web.Request) -> web.StreamResponse:
    return web.json_response({"ok": True})


class OwnServer:
    """An agent on 127.0.0.1. `answer` says what it answers; `hang` waits for `release`."""

    def __init__(self) -> None:
        self.requests: list[OwnRequest] = []
        self.answer: Answer = _ok
        self.is_hanging = asyncio.Event()
        self.has_dropped = asyncio.Event()
        self.released = asyncio.Event()
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        """Its acp_url, with a path, which stays in front of all that is asked."""
        assert self._runner is not None
        return f"http://127.0.0.1:{self._runner.addresses[0][1]}/base"

    async def __aenter__(self) -> OwnServer:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._take)
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.released.set()
        if self._runner is not None:
            await self._runner.cleanup()

    async def hang(self) -> None:
        """Waits until it is released; notes when the caller goes away before that."""
        self.is_hanging.set()
        try:
            await self.released.wait()
        except asyncio.CancelledError:
            self.has_dropped.set()
            raise

    async def _take(self, request: web.Request) -> web.StreamResponse:
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.requests.append(OwnRequest(request.method, request.path_qs, headers, await request.read()))
        return await self.answer(request)
