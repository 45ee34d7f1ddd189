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
from rich.console import Console

from agentex.database import JsonObject
from tests.benchmarks.stack import (
    FAST_AGENT,
    SDK_AGENT,
    USUAL_AGENT,
    AgentProcess,
    Stack,
    running_agent,
    running_sdk_agent,
)
from tests.support.acp_server import RecordedRequest, read_record
from tests.support.contract_env import PYTHON_SETTING, find_sdk_python, sdk_python

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
    """An agent of the SDK, one on bare FastAPI and the fastest one, answers taken whole and as a stream.

    The SDK's is left out, and a line says so, where there is no Python for it.
    """
    with running_agent(directory, "rpc-recorder") as recorder:
        sent = await _what_is_sent(stack, recorder)
    measured: list[Relayed] = []
    base = find_sdk_python()
    if base is None:
        Console().print(f"no agentex-sdk agent: there is no Python for it; {PYTHON_SETTING} names one")
    else:
        with running_sdk_agent(directory, stack, sdk_python(base)) as url:
            measured += await _measure(stack, _Agent("an agentex-sdk agent", url, SDK_AGENT.name), sent)
    for name, module in (("a FastAPI agent", USUAL_AGENT), ("the fastest agent", FAST_AGENT)):
        with running_agent(directory, f"rpc-{name.split()[1]}", module) as agent:
            registered = _Agent(name, agent.url, await _register(stack, agent))
            measured += await _measure(stack, registered, sent)
    return measured


@dataclass(frozen=True)
class _Agent:
    """One that is measured: what it is, where it listens, and as what the server knows it."""

    what: str
    url: str
    name: str


async def _what_is_sent(stack: Stack, recorder: AgentProcess) -> RecordedRequest:
    """What the server sends an agent for this message, whole or as a stream, headers included."""
    recorded = _Agent("the recorder", recorder.url, await _register(stack, recorder))
    async with aiohttp.ClientSession() as http:
        await _through(http, stack, recorded, stream=False)()
    return read_record(recorder.record)[-1]


async def _measure(stack: Stack, agent: _Agent, sent: RecordedRequest) -> list[Relayed]:
    body = {"jsonrpc": "2.0", "method": sent.method, "id": sent.id, "params": sent.params}
    headers = {key: sent.headers[key] for key in ("accept", "x-request-id", "idempotency-key")}
    measured: list[Relayed] = []
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
        direct = _posts(http, f"{agent.url}/api", json.dumps(body), headers)
        for kind in ("whole", "stream"):
            through = _through(http, stack, agent, stream=kind == "stream")
            measured.append(await _compare(f"{agent.what}, {kind}", direct, through))
    return measured


async def _compare(name: str, direct: Post, through: Post) -> Relayed:
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


def _through(http: aiohttp.ClientSession, stack: Stack, agent: _Agent, *, stream: bool) -> Post:
    request: JsonObject = {
        "id": 1,
        "method": "message/send",
        "params": {"content": CONTENT, "stream": stream},
    }
    return _posts(http, f"{stack.api}/agents/name/{agent.name}/rpc", json.dumps(request), {})


async def _register(stack: Stack, agent: AgentProcess) -> str:
    """Its name."""
    name = f"rpc-{agent.url.rpartition(':')[2]}"
    body = {"name": name, "description": "", "acp_url": agent.url, "acp_type": "sync"}
    async with aiohttp.ClientSession(raise_for_status=True) as http:
        await http.post(f"{stack.api}/agents/register", json=body)
    return name


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
