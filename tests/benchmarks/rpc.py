"""What message/send costs through the server, beside the same call straight to the agent in the same run."""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import aiohttp

from agentex.database import JsonObject
from tests.benchmarks.stack import FAST_AGENT, USUAL_AGENT, AgentProcess, Stack, running_agent
from tests.support.acp_server import read_record

IN_FLIGHT = 32
WARM_UP = 100
SINGLE = 400
MANY = 2_000
ADDED_TARGET_MS = 8
RATIO_TARGET = 0.5
CONTENT: JsonObject = {"type": "text", "author": "user", "content": "Hello"}

Post = Callable[[], Awaitable[None]]


@dataclass(frozen=True)
class Relayed:
    """One kind of call: milliseconds with one client, calls a second with 32 in flight."""

    name: str
    direct_p50: float
    through_p50: float
    direct_per_second: float
    through_per_second: float

    @property
    def added_p50(self) -> float:
        """Milliseconds that the server adds."""
        return self.through_p50 - self.direct_p50

    @property
    def ratio(self) -> float:
        """The server's throughput over the agent's own."""
        return self.through_per_second / self.direct_per_second

    def as_json(self) -> dict[str, object]:
        """For the result file."""
        return {**asdict(self), "added_p50": self.added_p50, "ratio": self.ratio}


async def relayed(stack: Stack, directory: Path) -> list[Relayed]:
    """An agent as users have them and the fastest one, answers taken whole and as a stream."""
    measured: list[Relayed] = []
    for name, module in (("a FastAPI agent", USUAL_AGENT), ("the fastest agent", FAST_AGENT)):
        with running_agent(directory, f"rpc-{name.split()[1]}", module) as agent:
            async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
                measured += [
                    await _measure(http, stack, agent, f"{name}, {kind}", stream=stream)
                    for kind, stream in (("whole", False), ("stream", True))
                ]
    return measured


async def _measure(
    http: aiohttp.ClientSession, stack: Stack, agent: AgentProcess, name: str, *, stream: bool
) -> Relayed:
    agent_id = await _register(http, stack, agent)
    request: JsonObject = {
        "id": 1,
        "method": "message/send",
        "params": {"content": CONTENT, "stream": stream},
    }
    through = _posts(http, f"{stack.api}/agents/{agent_id}/rpc", json.dumps(request), {})
    await through()
    # What the server has just sent, byte for byte what it means, headers included.
    sent = read_record(agent.record)[-1]
    body = {"jsonrpc": "2.0", "method": sent.method, "id": sent.id, "params": sent.params}
    headers = {key: sent.headers[key] for key in ("accept", "x-request-id", "idempotency-key")}
    direct = _posts(http, f"{agent.url}/api", json.dumps(body), headers)
    for post in (direct, through):
        await _together(post, WARM_UP)
    singles = [(await _milliseconds(direct), await _milliseconds(through)) for _ in range(SINGLE)]
    return Relayed(
        name,
        statistics.median(one for one, _ in singles),
        statistics.median(other for _, other in singles),
        MANY / await _together(direct, MANY),
        MANY / await _together(through, MANY),
    )


async def _register(http: aiohttp.ClientSession, stack: Stack, agent: AgentProcess) -> str:
    name = f"rpc-{agent.url.rpartition(':')[2]}"
    body = {"name": name, "description": "", "acp_url": agent.url, "acp_type": "sync"}
    async with http.post(f"{stack.api}/agents/register", json=body) as response:
        response.raise_for_status()
        return str((await response.json())["id"])


def _posts(http: aiohttp.ClientSession, url: str, body: str, headers: dict[str, str]) -> Post:
    given = {"content-type": "application/json", **headers}

    async def post() -> None:
        async with http.post(url, data=body, headers=given) as response:
            answer = await response.read()
        assert response.status == 200, answer
        assert b'"error":{' not in answer, answer

    return post


async def _milliseconds(post: Post) -> float:
    started = time.perf_counter()
    await post()
    return (time.perf_counter() - started) * 1000


async def _together(post: Post, count: int) -> float:
    """Seconds for so many, 32 in flight."""
    left = iter(range(count))

    async def one_after_the_other() -> None:
        for _ in left:
            await post()

    started = time.perf_counter()
    await asyncio.gather(*[one_after_the_other() for _ in range(IN_FLIGHT)])
    return time.perf_counter() - started
