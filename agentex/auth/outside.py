"""Questions to somebody else's server about who calls: small, short, and to that server alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp

from agentex.database import JsonObject
from agentex.errors import AuthorizerUnavailable

CHUNK_BYTES = 65_536


@dataclass(frozen=True)
class OutsideAnswer:
    """What was answered, whatever it means."""

    status: int
    body: bytes

    def json_object(self, about: str) -> JsonObject:
        """The object in its body; raises AuthorizerUnavailable for anything else."""
        try:
            found: Any = json.loads(self.body)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise AuthorizerUnavailable(f"{about} answered something else than a JSON object; repeat later")
        return found  # pyright: ignore[reportUnknownVariableType] - JSON


class Outside:
    """One pool of connections. No redirects, no proxies of the environment, nothing is asked twice."""

    def __init__(self, about: str, *, timeout_seconds: float, max_bytes: int) -> None:
        self._about = about
        self._timeout = aiohttp.ClientTimeout(total=timeout_seconds)
        self._max_bytes = max_bytes
        self._session: aiohttp.ClientSession | None = None

    async def get(self, url: str) -> OutsideAnswer:
        """GET; raises AuthorizerUnavailable when nothing is answered."""
        return await self._ask("GET", url, {}, None)

    async def post(
        self, url: str, *, headers: Mapping[str, str] | None = None, body: JsonObject | None = None
    ) -> OutsideAnswer:
        """POST of a JSON body; raises AuthorizerUnavailable when nothing is answered."""
        return await self._ask("POST", url, headers or {}, body)

    async def aclose(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()

    async def _ask(
        self, method: str, url: str, headers: Mapping[str, str], body: JsonObject | None
    ) -> OutsideAnswer:
        try:
            # Compressed, a short answer could be a long one.
            async with self._open_session().request(
                method,
                url,
                headers={**headers, "accept": "application/json", "accept-encoding": "identity"},
                json={} if body is None and method == "POST" else body,
                allow_redirects=False,
            ) as response:
                return OutsideAnswer(response.status, await self._body(response))
        except (aiohttp.ClientError, OSError, ValueError) as error:
            # The kind of error alone: its words may hold the address with all that is in it.
            raise AuthorizerUnavailable(
                f"{self._about} does not answer just now ({type(error).__name__}); repeat the request"
            ) from error

    async def _body(self, response: aiohttp.ClientResponse) -> bytes:
        read = bytearray()
        async for chunk in response.content.iter_chunked(CHUNK_BYTES):
            read += chunk
            if len(read) > self._max_bytes:
                raise AuthorizerUnavailable(f"{self._about} answered more than {self._max_bytes} bytes")
        return bytes(read)

    def _open_session(self) -> aiohttp.ClientSession:
        # Made with the first question: a session belongs to a running loop.
        if self._session is None:
            self._session = aiohttp.ClientSession(
                timeout=self._timeout, auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar()
            )
        return self._session
