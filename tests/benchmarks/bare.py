"""The bare limit: the same POSTs to the same agent from a plain loop, with nothing in between."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence

import aiohttp

from tests.benchmarks.stack import AgentProcess
from tests.support.acp_server import RecordedRequest

IN_FLIGHT = 32
# What the agent recorded and a client sets itself; the rest is aiohttp's.
_SENT_HEADERS = frozenset(
    {"content-type", "accept", "accept-encoding", "user-agent", "x-request-id", "idempotency-key"}
)


async def bare_seconds(agent: AgentProcess, recorded: Sequence[RecordedRequest]) -> float:
    """Seconds to send once more what a stampede sent, body for body, 32 in flight."""
    window = asyncio.Semaphore(IN_FLIGHT)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def post(request: RecordedRequest) -> None:
            body = {"jsonrpc": "2.0", "method": request.method, "id": request.id, "params": request.params}
            headers = {name: value for name, value in request.headers.items() if name in _SENT_HEADERS}
            async with (
                window,
                session.post(f"{agent.url}/api", data=json.dumps(body), headers=headers) as response,
            ):
                response.raise_for_status()
                await response.read()

        started = time.monotonic()
        await asyncio.gather(*[post(request) for request in recorded])
        return time.monotonic() - started
