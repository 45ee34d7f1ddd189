"""What is refused before a route is looked for: too large, too slow, too often, from a foreign page."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from agentex.errors import (
    AgentexError,
    Forbidden,
    HeadersTooLarge,
    PayloadTooLarge,
    RequestTimeout,
    UriTooLong,
)
from agentex.rates import CREDENTIAL_MARK, Rates
from agentex.settings import Settings
from agentex.web.problems import client_address, problem_of

# An agent takes 64 x-* headers (acp/headers.py); browsers and proxies add some 30.
MAX_HEADERS = 128
# Names and values. The largest of ours is a stream's cursor in Last-Event-ID, 24,000.
MAX_HEADER_BYTES = 65_536
# The longest of ours has two names of 255 characters, and an agent's own route behind it.
MAX_PATH_BYTES = 8_192
# JSON of 10,000 characters (MAX_QUERY_OBJECT_CHARACTERS), each of up to three bytes once it is encoded.
MAX_QUERY_BYTES = 32_768

# Who restarts or watches a process must not be kept out by its callers.
_NEVER_LIMITED = frozenset({"/healthz", "/readyz"})
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_CREDENTIALS = (b"authorization", b"x-api-key", b"x-agent-api-key", b"cookie")


@dataclass(frozen=True)
class Guard:
    """Wraps the app within the edge; what it refuses is a problem like any other."""

    app: ASGIApp
    settings: Settings
    rates: Rates
    body_limit: Callable[[str], int]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse it, or let it through with a body that has to arrive in time."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers: dict[bytes, bytes] = dict(scope["headers"])
        try:
            self._check(scope, headers)
        except AgentexError as error:
            await problem_of(scope["path"], error)(scope, receive, send)
            return
        if b"content-length" in headers or b"transfer-encoding" in headers:
            receive = _InTime(receive, self.settings.request_body_timeout_seconds)
        await self.app(scope, receive, send)

    def _check(self, scope: Scope, headers: dict[bytes, bytes]) -> None:
        _check_head(scope)
        path = scope["path"]
        if self.rates.by_address and path not in _NEVER_LIMITED:
            given = b"\0".join([headers[name] for name in _CREDENTIALS if name in headers])
            scope[CREDENTIAL_MARK] = self.rates.mark(given)
            self.rates.admit(client_address(scope), scope[CREDENTIAL_MARK])
        if b"origin" in headers and scope["method"] not in _SAFE_METHODS:
            self._check_origin(headers[b"origin"].decode("latin-1"), headers.get(b"host", b""))
        length, max_bytes = headers.get(b"content-length", b""), self.body_limit(path)
        if length.isdigit() and int(length) > max_bytes:
            raise PayloadTooLarge(f"the request's body is larger than {max_bytes} bytes")

    def _check_origin(self, origin: str, host: bytes) -> None:
        """A page of another site makes a browser send what its user may do; only named ones may."""
        own = (f"http://{host.decode('latin-1')}", f"https://{host.decode('latin-1')}")
        if origin not in own and origin not in self.settings.cors_origins:
            raise Forbidden(
                "a page of another origin may do that only if AGENTEX_CORS_ORIGINS names its origin"
            )


class _InTime:
    """A request's messages, with an end to waiting for its body; behind that, as they come."""

    def __init__(self, receive: Receive, seconds: float) -> None:
        self._receive = receive
        self._seconds = seconds
        self._deadline: float | None = None
        self._is_whole = False

    async def __call__(self) -> Message:
        if self._is_whole:
            return await self._receive()
        if self._deadline is None:
            # From when somebody waits for it: what we do before is not the client's fault.
            self._deadline = asyncio.get_running_loop().time() + self._seconds
        try:
            async with asyncio.timeout_at(self._deadline):
                message = await self._receive()
        except TimeoutError:
            raise RequestTimeout(
                f"the request's body did not arrive within {self._seconds:g} s "
                "(AGENTEX_REQUEST_BODY_TIMEOUT_SECONDS)"
            ) from None
        self._is_whole = not message.get("more_body", False)
        return message


def _check_head(scope: Scope) -> None:
    headers: list[tuple[bytes, bytes]] = scope["headers"]
    if len(headers) > MAX_HEADERS:
        raise HeadersTooLarge(f"the request has {len(headers)} headers; {MAX_HEADERS} are accepted")
    size = sum([len(name) + len(value) for name, value in headers])
    if size > MAX_HEADER_BYTES:
        raise HeadersTooLarge(f"the request's headers have {size} bytes; {MAX_HEADER_BYTES} are accepted")
    path: bytes | str = scope.get("raw_path") or scope["path"]
    if len(path) > MAX_PATH_BYTES:
        raise UriTooLong(f"the path has {len(path)} bytes; {MAX_PATH_BYTES} are accepted")
    query: bytes = scope.get("query_string", b"")
    if len(query) > MAX_QUERY_BYTES:
        raise UriTooLong(f"the query has {len(query)} bytes; {MAX_QUERY_BYTES} are accepted")
