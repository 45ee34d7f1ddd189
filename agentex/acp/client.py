"""The outgoing ACP client: one request, one attempt, and a typed answer to "may the agent have begun?".

No call is repeated, by us or by aiohttp: it repeats idempotent methods only, such as the health check's GET
when its connection is lost, and calls are POSTs. Who repeats what is the caller's decision
(docs/architecture.md, "What is sent again").

Which side of the line a transport failure is on:

ClientConnectorError (refused, DNS, TLS)   raised while a connection is made, so not a byte was sent
ConnectionTimeoutError                     the same, by our own limit on connecting
AddressRefusedError, within the first      our guard, which every new connection passes (acp/guard.py)
InvalidURL                                 a host that aiohttp does not dial, e.g. 127.1
everything else                            a connection was there and bytes may have left: OutcomeUnknown;
                                           but a peer that answers something else than HTTP, or a broken
                                           content encoding, has answered: AgentProtocolError
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from types import TracebackType

import aiohttp
from aiohttp.http_exceptions import ContentEncodingError
from pydantic_core import to_json
from yarl import URL

from agentex.acp.answers import about, base_url, http_failure, last_updates_of, result_of, updates_of
from agentex.acp.guard import ALLOWED, AddressRefusedError, GuardedResolver, guard_of
from agentex.acp.headers import ACCEPT_JSON, ACCEPT_STREAM, USER_AGENT, request_headers
from agentex.acp.messages import AcpCall, Json, StreamUpdate
from agentex.auth.keys import AGENT_KEY_HEADER
from agentex.errors import (
    AgentAddressRefused,
    AgentCallFailed,
    AgentProtocolError,
    AgentUnreachable,
    OutcomeUnknown,
)
from agentex.sealing import unseal
from agentex.settings import Settings

# An agent that moves is found again within this; a page of 200 still resolves once.
DNS_CACHE_SECONDS = 10
# The body of a refusal, or of a health check, is read beside its status: it may not cost much.
BEGINNING_BYTES = 65_536
BEGINNING_SECONDS = 2
# Agents that are called with a key of theirs; of more, some keys are opened for each call.
OPENED_KEYS = 1_024
# aiohttp writes up to this at once; larger bodies go out in pieces, so the event loop is not held.
WHOLE_BODY_BYTES = 1_048_576


@dataclass(frozen=True)
class HttpAnswer:
    """An answer that is no JSON-RPC: its status, and at most the first 64 KiB of its body."""

    status: int
    body: bytes


# 304 redirects nowhere.
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


@dataclass(frozen=True)
class OwnCall:
    """Somebody's own request to a route of the agent's own; path and query are percent-encoded already.

    timeout_seconds: for the whole answer.
    """

    acp_url: str
    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes
    timeout_seconds: float

    @property
    def as_call(self) -> AcpCall:
        """For the messages of failures, which name neither path nor query."""
        return AcpCall(self.acp_url, f"{self.method} of its own", {}, "own", None, self.timeout_seconds)


class OwnAnswer:
    """What the agent answers to it: the status and headers, then the body as it arrives. To be closed."""

    def __init__(self, response: aiohttp.ClientResponse, body: _Body) -> None:
        self.status = response.status
        self.headers: Mapping[str, str] = response.headers
        self._response = response
        self._body = body

    async def chunk(self) -> bytes:
        """What has arrived, empty at the end; raises AgentProtocolError over the limit, or OutcomeUnknown."""
        return await self._body.chunk()

    def close(self) -> None:
        """Drop the connection, unless the answer is complete."""
        self._response.close()


class AcpClient:
    """Calls agents over one shared pool of connections; limits on calls in flight are the caller's.

    async with AcpClient(settings) as client:
        result = await client.call(call)
        async with client.stream(call) as updates:
            async for update in updates: ...
    """

    def __init__(self, settings: Settings) -> None:
        self._connect_seconds = settings.agent_connect_timeout_seconds
        self._idle_seconds = settings.agent_idle_connection_seconds
        self._max_answer_bytes = settings.agent_max_answer_bytes
        self._host_rewrites = tuple(settings.agent_host_rewrites.items())
        self._guard = guard_of(settings)
        # By what is sealed, which is another text each time: opening takes 0.05 ms, and the first one 10 MB.
        self._opened = lru_cache(maxsize=OPENED_KEYS)(partial(unseal, settings))
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> AcpClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Closes every connection; calls in flight end as OutcomeUnknown."""
        if self._session is not None:
            await self._session.close()

    def url(self, acp_url: str) -> URL:
        """Where an agent is called that has registered this address: the one place that rewrites hosts.

        Ours is a path behind it, e.g. `client.url(acp_url) / "api"`. Raises AgentUnreachable for no address.
        """
        return _called_url(acp_url, self._host_rewrites)

    def refusal(self, acp_url: str) -> str | None:
        """Why an address is not called, as far as it shows without resolving its name; None otherwise."""
        try:
            host = self.url(acp_url).raw_host
        except AgentUnreachable as failure:
            return failure.message
        why = self._guard.refusal_of_host(host) if self._guard and host else None
        # Of the host that was given: what it is rewritten to is ours alone.
        return f"{base_url(acp_url).raw_host} is {why}; {ALLOWED}" if why else None

    async def health(self, acp_url: str, timeout_seconds: float) -> HttpAnswer:
        """What the agent answers to GET /healthz, whatever that means; raises AgentCallFailed's classes."""
        call = AcpCall(acp_url, "GET /healthz", {}, "healthz", None, timeout_seconds)
        headers = {"accept": ACCEPT_JSON, "user-agent": USER_AGENT}
        try:
            response = await self._open_session().get(
                self.url(acp_url) / "healthz",
                headers=headers,
                allow_redirects=False,
                timeout=_timeout(timeout_seconds, self._connect_seconds),
            )
        except (aiohttp.ClientError, OSError) as error:
            raise _transport_failure(call, error) from error
        try:
            return HttpAnswer(response.status, await _beginning(response))
        finally:
            response.close()

    def check_key(self, sealed_key: str | None) -> None:
        """Raise SecretUnreadable where an agent could not be called, before anything is written for it."""
        if sealed_key is not None:
            self._opened(sealed_key)

    async def call(self, call: AcpCall) -> Json:
        """The result of the agent's answer, which may be None; raises one of AgentCallFailed's classes."""
        # Not through _answer: a context manager of its own costs a tenth of a request.
        response = await self._post(call, ACCEPT_JSON)
        try:
            return result_of(await (await self._body(call, response)).whole(), call)
        finally:
            response.close()

    @asynccontextmanager
    async def stream(self, call: AcpCall) -> AsyncGenerator[AsyncGenerator[StreamUpdate]]:
        """The updates of a message/send as they arrive; leaving the block early drops the connection.

        Entering raises what stands before the first update, iterating what comes after it: both
        AgentCallFailed's classes. What was iterated stays with the caller.
        """
        async with self._answer(call, ACCEPT_STREAM) as body, aclosing(_updates(body)) as updates:
            yield updates

    async def open_own(self, call: OwnCall) -> OwnAnswer:
        """Pass a request on, and return when the answer begins; no redirect is followed.

        Raises AgentUnreachable, AgentProtocolError or OutcomeUnknown; any status but a redirect's is an
        answer.
        """
        about_it = call.as_call
        try:
            response = await self._open_session().request(
                call.method,
                _own_url(self.url(call.acp_url), call),
                data=call.body or None,
                headers=call.headers,
                skip_auto_headers=("user-agent", "accept", "content-type"),
                allow_redirects=False,
                timeout=_timeout(call.timeout_seconds, self._connect_seconds),
            )
        except (aiohttp.ClientError, OSError) as error:
            raise _transport_failure(about_it, error) from error
        answer = OwnAnswer(response, _Body(about_it, response, self._max_answer_bytes))
        problem = None
        if response.status in _REDIRECTS:
            problem = f"answered HTTP {response.status}; redirects are not followed"
        elif (response.content_length or 0) > self._max_answer_bytes:
            problem = f"the answer is larger than {self._max_answer_bytes} bytes"
        if problem is not None:
            answer.close()
            raise AgentProtocolError(about(about_it, problem))
        return answer

    @asynccontextmanager
    async def _answer(self, call: AcpCall, accept: str) -> AsyncGenerator[_Body]:
        response = await self._post(call, accept)
        try:
            yield await self._body(call, response)
        finally:
            # After the last byte the connection is back in the pool already; before it, this drops it.
            response.close()

    async def _body(self, call: AcpCall, response: aiohttp.ClientResponse) -> _Body:
        """The body of a 2xx answer; raises what another status means."""
        if 200 <= response.status < 300:
            return _Body(call, response, self._max_answer_bytes)
        refusal = await _beginning(response)
        raise http_failure(call, response.status, response.headers.get("retry-after"), refusal)

    async def _post(self, call: AcpCall, accept: str) -> aiohttp.ClientResponse:
        url, headers = self.url(call.acp_url) / "api", request_headers(call, accept)
        if call.sealed_key is not None:
            headers[AGENT_KEY_HEADER] = self._opened(call.sealed_key)
        body = _request_body(call)
        try:
            return await self._open_session().post(
                url,
                data=aiohttp.BytesPayload(body) if len(body) <= WHOLE_BODY_BYTES else io.BytesIO(body),
                headers=headers,
                allow_redirects=False,
                timeout=_timeout(call.timeout_seconds, self._connect_seconds),
            )
        except (aiohttp.ClientError, OSError) as error:
            raise _transport_failure(call, error) from error

    def _open_session(self) -> aiohttp.ClientSession:
        # Not in __init__: aiohttp needs the running loop.
        if self._session is None:
            guard = self._guard
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=0,
                    keepalive_timeout=self._idle_seconds,
                    ttl_dns_cache=DNS_CACHE_SECONDS,
                    resolver=GuardedResolver(guard),
                    socket_factory=guard.open_socket if guard else None,
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
            )
        return self._session


class _Body:
    """A 2xx answer's body, read within the limit on its unpacked size."""

    def __init__(self, call: AcpCall, response: aiohttp.ClientResponse, max_bytes: int) -> None:
        self.call = call
        self.is_plain_json = response.content_type == "application/json"
        self._content = response.content
        self._max_bytes = max_bytes
        self._bytes = 0

    async def chunk(self) -> bytes:
        """What has arrived, up to the limit; empty at the end."""
        # All bytes within the limit are handed out before the failure, however they were cut into chunks:
        # a stream's partial output must not depend on chance.
        room = self._max_bytes - self._bytes
        chunk = await self._read() if room >= 0 else b""
        if room < 0 or (chunk and room == 0):
            raise AgentProtocolError(about(self.call, f"the answer is larger than {self._max_bytes} bytes"))
        self._bytes += len(chunk)
        return chunk[:room]

    async def _read(self) -> bytes:
        try:
            return await self._content.readany()
        except (aiohttp.ClientError, OSError) as error:
            raise _transport_failure(self.call, error) from error

    async def whole(self) -> bytes:
        chunks: list[bytes] = []
        while chunk := await self.chunk():
            chunks.append(chunk)
        return b"".join(chunks)


async def _updates(body: _Body) -> AsyncGenerator[StreamUpdate]:
    if body.is_plain_json:
        for update in updates_of(await body.whole(), body.call):
            yield update
        return
    rest = bytearray()
    while chunk := await body.chunk():
        rest += chunk
        if b"\n" not in chunk:
            continue
        *lines, rest = rest.split(b"\n")
        for line in lines:
            for update in updates_of(bytes(line), body.call) if line.strip() else ():
                yield update
    for update in last_updates_of(bytes(rest), body.call):
        yield update


async def _beginning(response: aiohttp.ClientResponse) -> bytes:
    """The beginning of a body that is read beside its status; empty when that does not come."""
    body = b""
    try:
        async with asyncio.timeout(BEGINNING_SECONDS):
            while len(body) < BEGINNING_BYTES and (chunk := await response.content.readany()):
                body += chunk
    except (aiohttp.ClientError, OSError):
        return b""
    return body


@lru_cache(maxsize=1024)
def _called_url(acp_url: str, host_rewrites: tuple[tuple[str, str], ...]) -> URL:
    url = base_url(acp_url)
    instead = dict(host_rewrites).get(url.host or "")
    return url if instead is None else url.with_host(instead)


@lru_cache(maxsize=64)
def _timeout(total_seconds: float, connect_seconds: float) -> aiohttp.ClientTimeout:
    # Connecting (DNS, TCP and TLS) must give up before the total does: only then its error says that
    # nothing was sent.
    return aiohttp.ClientTimeout(total=total_seconds, connect=min(connect_seconds, total_seconds * 0.9))


def _own_url(base: URL, call: OwnCall) -> URL:
    return URL(
        f"{str(base).rstrip('/')}/{call.path}" + (f"?{call.query}" if call.query else ""), encoded=True
    )


def _request_body(call: AcpCall) -> bytes:
    request = {"jsonrpc": "2.0", "method": call.method, "id": call.request_id, "params": call.params}
    return to_json(request)


def _transport_failure(call: AcpCall, error: Exception) -> AgentCallFailed:
    if isinstance(error, aiohttp.ClientConnectorError) and isinstance(error.os_error, AddressRefusedError):
        return AgentAddressRefused(about(call, f"its address is refused: {ALLOWED}"))
    if isinstance(error, aiohttp.InvalidURL):
        return AgentAddressRefused(about(call, "its host is neither a name nor an IP address in full"))
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return AgentUnreachable(about(call, "no connection within the time limit"))
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return AgentUnreachable(about(call, "its host name does not resolve"))
    if isinstance(error, aiohttp.ClientSSLError):
        return AgentUnreachable(about(call, "the TLS handshake failed"))
    if isinstance(error, aiohttp.ClientConnectorError):
        return AgentUnreachable(about(call, f"no connection: {error.os_error.strerror or 'refused'}"))
    if isinstance(error, aiohttp.ClientResponseError):
        return AgentProtocolError(about(call, "the answer is not HTTP"))
    if isinstance(error, aiohttp.ClientPayloadError) and _encoding_is_broken(error):
        return AgentProtocolError(about(call, "the answer's content encoding is broken"))
    if isinstance(error, TimeoutError):
        return OutcomeUnknown(about(call, f"no complete answer within {call.timeout_seconds:g} s"))
    return OutcomeUnknown(about(call, "the connection was lost before the answer was complete"))


def _encoding_is_broken(error: BaseException) -> bool:
    return isinstance(error.__cause__, ContentEncodingError)
