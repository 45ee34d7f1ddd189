"""A stream as an answer of HTTP: text/event-stream, one chunk for each event and one for its id."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, suppress
from functools import partial

from fastapi import Response
from starlette.types import Receive, Scope, Send

from agentex.streams.frames import PING, Frame
from agentex.streams.reader import Reason
from agentex.streams.service import TaskStream

# Of what is in flight to a client that reads no more; then its connection is given up.
LAST_WORDS_SECONDS = 30.0
NOT_KEPT = {"cache-control": "no-store"}


class EventStreamResponse(Response):
    """Sends a stream until it ends or its client leaves, and closes it then."""

    media_type = "text/event-stream"

    def __init__(self, stream: TaskStream) -> None:
        super().__init__(headers={**NOT_KEPT, "x-accel-buffering": "no"})
        # Its end is the stream's.
        del self.headers["content-length"]
        self._stream = stream

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send everything; two coroutines, and a timer only at its end, for there may be thousands."""
        start = {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
        leaving = asyncio.create_task(self._until_left(receive))
        try:
            # A client that reads no more must not keep what is over, wherever its sending stands.
            with suppress(TimeoutError):
                async with asyncio.timeout(None) as limit:
                    self._stream.reader.when_ended(partial(_limit, limit))
                    await send(start)
                    await self._send_all(send)
        finally:
            self._stream.reader.when_ended(None)
            self._stream.close()
            leaving.cancel()
            with suppress(asyncio.CancelledError):
                await leaving

    async def _send_all(self, send: Send) -> None:
        reader, loop = self._stream.reader, asyncio.get_running_loop()
        async with aclosing(self._stream.updates()) as updates:
            async for told in updates:
                if reader.ended is Reason.CLIENT_LEFT:
                    return
                if told is not None:
                    await _send_frame(send, told)
                else:
                    await send(_chunk(PING))
                reader.quiet_since = loop.time()
                # What waits is sent without a pause otherwise, and the loop would see no client leave.
                await asyncio.sleep(0)
        await send(_chunk(b"", more=False))

    async def _until_left(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._stream.reader.end(Reason.CLIENT_LEFT)


def _limit(sending: asyncio.Timeout) -> None:
    sending.reschedule(asyncio.get_running_loop().time() + LAST_WORDS_SECONDS)


async def _send_frame(send: Send, told: Frame) -> None:
    if told.id is not None:
        await send(_chunk(told.id))
    await send(_chunk(told.data))


def _chunk(body: bytes, *, more: bool = True) -> dict[str, object]:
    return {"type": "http.response.body", "body": body, "more_body": more}
