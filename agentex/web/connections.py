"""Connections that are slow, or too many: what uvicorn has no limits for.

uvicorn waits for the rest of a request without end: its keep-alive timeout ends with the first byte of the
next one (github.com/Kludex/uvicorn/issues/157). Its `limit_concurrency` lets connections be made and answers
each request on them with 503, and knows no addresses; here one too many is refused when it is made.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from enum import StrEnum
from typing import Any, cast

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from agentex.settings import Settings
from agentex.telemetry.metrics import CONNECTIONS_CUT
from agentex.web.guard import MAX_HEADER_BYTES, MAX_PATH_BYTES, MAX_QUERY_BYTES
from agentex.web.proxies import Proxies

# What the guard refuses in words, and some for method, colons and line ends. Above it nobody is answered who
# has not stopped yet.
MAX_HEAD_BYTES = MAX_HEADER_BYTES + MAX_PATH_BYTES + MAX_QUERY_BYTES + 8_192
# A body in chunks of one byte comes in six.
MAX_BYTES_EACH = 8
# A quarter of the connections that a process takes.
MAX_OF_ADDRESS = 1_000
# The guard's own answer to a body that is too slow goes first.
BODY_GRACE_SECONDS = 5

_NO_BODY = b"content-length: 0\r\nconnection: close\r\n\r\n"
_TOO_MANY = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 2\r\n" + _NO_BODY
_HEAD_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\nx-should-retry: false\r\n" + _NO_BODY


class Part(StrEnum):
    """What of a request has not come yet."""

    HEAD = "slow_head"
    BODY = "slow_body"


class Connections:
    """How many connections this process has open, of whom, and what they are held to."""

    def __init__(self, settings: Settings) -> None:
        self._max = settings.max_connections
        given, by_default = settings.max_connections_per_address, settings.auth != "none"
        self._max_of_address = (MAX_OF_ADDRESS if by_default else 0) if given is None else given
        self._proxies = Proxies(settings.trusted_proxies)
        self._of_address: Counter[str] = Counter()
        self._open = 0
        self.seconds = {
            Part.HEAD: settings.request_head_timeout_seconds,
            Part.BODY: settings.request_body_timeout_seconds + BODY_GRACE_SECONDS,
        }

    def enter(self, address: str) -> str | None:
        """Count one more; or why it is refused."""
        if self._max and self._open >= self._max:
            return "too_many"
        # Behind a proxy's address there are many.
        limited = self._max_of_address and not self._proxies.trusts(address)
        if limited and self._of_address[address] >= self._max_of_address:
            return "too_many_of_address"
        self._open += 1
        self._of_address[address] += 1
        return None

    def leave(self, address: str) -> None:
        """One that had entered has ended."""
        self._open -= 1
        self._of_address[address] -= 1
        if not self._of_address[address]:
            del self._of_address[address]


class GuardedProtocol(HttpToolsProtocol):
    """uvicorn's protocol, which ends a connection whose request does not come.

    One timer a connection, armed only while a request has begun and is not whole, so a request that comes in
    one piece has none. Answers may take as long as they like.
    """

    def __init__(
        self,
        connections: Connections,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._connections = connections
        self._has_entered = False
        self._address = ""
        # What of the request has not come, and what the timer waits for.
        self._missing: Part | None = None
        self._awaited: Part | None = None
        self._timer: asyncio.TimerHandle | None = None
        # Since the request began, but for the piece that it began in.
        self._received = 0
        self._of_body = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] - as uvicorn's own
        """Refuse one too many; else its first request has to come."""
        super().connection_made(transport)
        self._address = self.client[0] if self.client else ""
        refused = self._connections.enter(self._address)
        if refused is None:
            self._has_entered = True
            self._await(Part.HEAD)
        else:
            self.connections.discard(self)
            self._end(refused, _TOO_MANY)

    def connection_lost(self, exc: Exception | None) -> None:
        """As uvicorn's, and its place is free again."""
        if self._has_entered:
            self._has_entered = False
            self._connections.leave(self._address)
        self._await(None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """As uvicorn's; what is missing behind it has to come in time."""
        self._received += len(data)
        super().data_received(data)
        missing = self._missing
        if missing is None:
            if self._is_answering():
                if self._awaited is not None:
                    self._await(None)
                return
            # Line ends between two requests are the beginning of none, and end uvicorn's keep-alive timeout.
            missing = Part.HEAD
        if self.transport.is_closing():
            return
        if self._received > MAX_HEAD_BYTES + MAX_BYTES_EACH * self._of_body:
            self._end("head_too_large", _HEAD_TOO_LARGE if self._missing is Part.HEAD else b"")
        elif missing is not self._awaited:
            self._await(missing)

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._missing = Part.HEAD
        self._received = self._of_body = 0

    def on_headers_complete(self) -> None:
        """Its head is there; what comes as a header from now on (trailers) is not put into it."""
        self._missing = Part.BODY
        super().on_headers_complete()
        self.headers = []

    def on_body(self, body: bytes) -> None:
        """A piece of its body."""
        self._of_body += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """It is whole."""
        self._missing = None
        super().on_message_complete()

    def _unsupported_upgrade_warning(self) -> None:
        """Say nothing: there are no WebSockets here, and the request is answered as if it had not asked."""

    def _await(self, part: Part | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._awaited = part
        seconds = None if part is None else self._connections.seconds[part]
        self._timer = None if seconds is None else self.loop.call_later(seconds, self._on_time_over)

    def _on_time_over(self) -> None:
        part = self._awaited
        if part is None or self.transport.is_closing():
            return
        if self.flow.read_paused or (part is Part.HEAD and self._is_answering()):
            # It is us who do not read, or an answer is under way on the same connection.
            self._await(part)
        else:
            self._end(part, b"")

    def _is_answering(self) -> bool:
        # There is none before the first request, whatever its type says.
        cycle = cast("RequestResponseCycle | None", self.cycle)
        return cycle is not None and not cycle.response_complete

    def _end(self, reason: str, answer: bytes) -> None:
        CONNECTIONS_CUT.labels(reason=reason).inc()
        self._await(None)
        if answer:
            self.transport.write(answer)
        self.transport.close()
