"""How an agent's answer leaves over HTTP: whole or as NDJSON while it arrives, while the client is there."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager, suppress

from fastapi import Response
from starlette.types import Receive, Scope, Send

from agentex.errors import AgentexError
from agentex.rpc.answers import BROKEN_OFF, Answering
from agentex.rpc.lines import RequestId, error_line
from agentex.telemetry.metrics import UNEXPECTED_ERRORS

log = logging.getLogger(__name__)

JSON = "application/json"
NDJSON = "application/x-ndjson"
# Nobody gets it; for the metrics, with the number that proxies use for it.
CLIENT_GONE = 499
UNFORESEEN = "an answer ended in an error nobody foresaw"


class ClientGone(Exception):  # noqa: N818 - not an error: nobody is there to whom it would be one
    """The client has closed its connection before it was answered."""


@asynccontextmanager
async def while_connected(receive: Receive) -> AsyncGenerator[None]:
    """Breaks the block off when the client goes away, and raises ClientGone then."""
    working = asyncio.current_task()
    assert working is not None  # noqa: S101 - this is a coroutine
    gone = False

    async def watch() -> None:
        nonlocal gone
        while (await receive())["type"] != "http.disconnect":
            pass
        gone = True
        working.cancel()

    watcher = asyncio.create_task(watch())
    try:
        yield
    except asyncio.CancelledError:
        # Another cancel, of a server that stops, goes first.
        if not gone or working.uncancel() > 0:
            raise
        raise ClientGone from None
    finally:
        watcher.cancel()


async def whole(answering: Answering, receive: Receive, request_id: RequestId) -> Response:
    """The answer as one line of JSON."""
    try:
        async with while_connected(receive):
            return Response(await answering.whole(), media_type=JSON)
    except ClientGone:
        return Response(status_code=CLIENT_GONE)
    except asyncio.CancelledError:
        return Response(_stopped(request_id), media_type=JSON)
    except Exception:
        # The agent has been called, so this is no 500, which clients repeat by themselves.
        log.exception(UNFORESEEN, extra={"action": "rpc.failed"})
        return Response(_unforeseen(request_id), media_type=JSON)


class StreamedAnswer(Response):
    """The answer line by line, each as soon as it is there; a client that reads slowly slows the agent down.

    stalled_seconds: how long all of it may take, however little the client reads.
    """

    media_type = NDJSON

    def __init__(self, answering: Answering, request_id: RequestId, *, stalled_seconds: float) -> None:
        super().__init__()
        del self.headers["content-length"]
        # Proxies that gather an answer before they send it on would hold the first words back.
        self.headers["x-accel-buffering"] = "no"
        self.headers["cache-control"] = "no-cache"
        self._lines = _guarded(answering.lines(), request_id)
        self._request_id = request_id
        self._is_begun = False
        self._stalled_seconds = stalled_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the lines until they end, the client goes away, or the time is over."""
        try:
            await self._send_lines(receive, send)
        except asyncio.CancelledError:
            if not self._is_begun:
                await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            await send({"type": "http.response.body", "body": _stopped(self._request_id), "more_body": False})

    async def _send_lines(self, receive: Receive, send: Send) -> None:
        with suppress(ClientGone, TimeoutError):
            async with (
                asyncio.timeout(self._stalled_seconds),
                aclosing(self._lines) as lines,
                while_connected(receive),
            ):
                async for line in lines:
                    if not line:
                        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
                        self._is_begun = True
                        await send(start)
                    else:
                        await send({"type": "http.response.body", "body": line, "more_body": True})
                await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _guarded(lines: AsyncGenerator[bytes], request_id: RequestId) -> AsyncGenerator[bytes]:
    async with aclosing(lines):
        try:
            async for line in lines:
                yield line
        except Exception:
            log.exception(UNFORESEEN, extra={"action": "rpc.failed"})
            yield _unforeseen(request_id)


def _stopped(request_id: RequestId) -> bytes:
    """This service stops, and its patience with open answers is over: the cancel ends here, in an answer."""
    if (working := asyncio.current_task()) is not None:
        working.uncancel()
    return error_line(request_id, BROKEN_OFF)


def _unforeseen(request_id: RequestId) -> bytes:
    UNEXPECTED_ERRORS.labels(where="rpc").inc()
    return error_line(request_id, AgentexError().message)
