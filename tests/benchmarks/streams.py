"""What streams cost and how late they are: memory, messages through Postgres, token deltas through Redis."""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from typing import Any, cast

import aiohttp
import psutil
from redis.asyncio import Redis

from tests.benchmarks.requests import connect
from tests.benchmarks.stack import Stack
from tests.support.redis import StreamWriter
from tests.support.sse import Following, follow

Json = dict[str, Any]
IDLE_STREAMS = 1_000
# Of these one process's clients connect at once; more would measure the backlog of the socket.
CONNECTS_AT_ONCE = 50
REPEATS = 200
# What 1,000 streams cost while nothing happens but signs of life: two rounds of them.
IDLE_SECONDS = 30
TEXT: Json = {"type": "text", "author": "agent", "content": "a few words of an answer"}


@dataclass(frozen=True)
class Streams:
    """Kilobytes of an idle stream, CPU seconds a minute of 1,000 of them, and delays in milliseconds."""

    idle_kilobytes: float
    idle_cpu_a_minute: float
    full_p50: float
    full_p95: float
    # POST /messages alone, until it is answered, in the same run.
    post_p50: float
    # None without a redis-server.
    delta_p50: float | None = None
    delta_p95: float | None = None
    direct_p50: float | None = None

    def as_json(self) -> dict[str, object]:
        """For the result file."""
        return asdict(self)


async def measure_streams(stack: Stack, redis_url: str | None) -> Streams:
    """All of it, on a stack that reads this Redis."""
    async with aiohttp.ClientSession() as http:
        task_id = await _new_task(http, stack)
        kilobytes, cpu = await _idle(http, stack)
        full, post = await _full_delays(http, stack, task_id)
        if redis_url is None:
            return Streams(kilobytes, cpu, statistics.median(full), _p95(full), statistics.median(post))
        delta, direct = await _delta_delays(http, stack, redis_url)
    return Streams(
        kilobytes,
        cpu,
        statistics.median(full),
        _p95(full),
        statistics.median(post),
        statistics.median(delta),
        _p95(delta),
        statistics.median(direct),
    )


async def _idle(http: aiohttp.ClientSession, stack: Stack) -> tuple[float, float]:
    """Kilobytes (RSS) for each of many streams, a hundred tasks with ten readers each; CPU of them all."""
    api = psutil.Process(stack.pids["API"])
    tasks = [await _new_task(http, stack) for _ in range(IDLE_STREAMS // 10)]
    async with AsyncExitStack() as opened:
        # What the first streams cost once: modules, the listening connection.
        for task_id in tasks[:20]:
            await (await opened.enter_async_context(follow(stack.api, task_id))).next()
        before = api.memory_info().rss
        for start in range(0, IDLE_STREAMS, CONNECTS_AT_ONCE):
            ids = [tasks[number % len(tasks)] for number in range(start, start + CONNECTS_AT_ONCE)]
            streams = [await opened.enter_async_context(follow(stack.api, task_id)) for task_id in ids]
            await asyncio.gather(*[stream.next() for stream in streams])
        kilobytes = (api.memory_info().rss - before) / IDLE_STREAMS / 1000
        spent = sum(api.cpu_times()[:2])
        await asyncio.sleep(IDLE_SECONDS)
        cpu = (sum(api.cpu_times()[:2]) - spent) * 60 / IDLE_SECONDS
    return kilobytes, cpu


async def _full_delays(
    http: aiohttp.ClientSession, stack: Stack, task_id: str
) -> tuple[list[float], list[float]]:
    """From before POST /messages until the reader has the message, and until the POST is answered."""
    full: list[float] = []
    post: list[float] = []
    async with follow(stack.api, task_id) as stream:
        await stream.next()
        for _ in range(REPEATS):
            started = time.perf_counter()
            posted = asyncio.create_task(_post(http, stack, task_id, TEXT))
            posted.add_done_callback(lambda _, at=started: post.append((time.perf_counter() - at) * 1000))
            await stream.next()
            full.append((time.perf_counter() - started) * 1000)
            await posted
    return full, post


async def _delta_delays(
    http: aiohttp.ClientSession, stack: Stack, redis_url: str
) -> tuple[list[float], list[float]]:
    """From before XADD until the reader has the delta, and until one who reads Redis itself has it."""
    task_id, writer = await _new_task(http, stack), StreamWriter(redis_url)
    reading: Any = cast("Any", Redis).from_url(redis_url)
    async with follow(stack.api, task_id) as stream:
        await stream.next()
        message = await _post(http, stack, task_id, TEXT, streaming_status="IN_PROGRESS")
        await stream.next()
        piece = {"type": "text", "text_delta": "word "}
        update = {"type": "delta", "parent_task_message": message, "delta": piece}
        relayed: list[float] = []
        direct: list[float] = []
        for _ in range(REPEATS):
            relayed.append(await _milliseconds(lambda: _relayed(writer, task_id, update, stream)))
            direct.append(await _milliseconds(lambda: _direct(writer, task_id, update, reading)))
            await stream.next()
    await writer.aclose()
    await reading.aclose()
    return relayed, direct


async def _relayed(writer: StreamWriter, task_id: str, update: Json, stream: Following) -> None:
    written = asyncio.create_task(writer.write(task_id, update))
    await stream.next()
    await written


async def _direct(writer: StreamWriter, task_id: str, update: Json, reading: Any) -> None:
    read = asyncio.create_task(reading.xread({f"task:{task_id}": "$"}, block=5_000))
    # XREAD must wait before the entry is there, or `$` would be behind it.
    await reading.ping()
    await writer.write(task_id, update)
    [[_, [[_, fields]]]] = [[key, entries] for key, entries in await read]
    assert json.loads(fields[b"data"])["type"] == "delta"


async def _new_task(http: aiohttp.ClientSession, stack: Stack) -> str:
    """A task of a sync agent that nobody calls: its task/create goes to no agent."""
    body = {"name": "silent", "description": "", "acp_url": "http://127.0.0.1:9", "acp_type": "sync"}
    async with http.post(f"{stack.api}/agents/register", json=body) as response:
        response.raise_for_status()
        agent_id = (await response.json())["id"]
    bare = await connect(stack.database_url)
    [row] = await bare.fetch(
        """
        INSERT INTO tasks (id, account_id, owner, agent_id, status, created_at, updated_at)
        SELECT gen_random_uuid(), account_id, owner, id, 'RUNNING', now(), now() FROM agents WHERE id = $1
        RETURNING id::text
        """,
        agent_id,
    )
    await bare.close()
    return row["id"]


async def _post(http: aiohttp.ClientSession, stack: Stack, task_id: str, content: Json, **more: str) -> Json:
    body = {"task_id": task_id, "content": content, **more}
    async with http.post(f"{stack.api}/messages", json=body) as response:
        response.raise_for_status()
        return await response.json()


async def _milliseconds(call: Callable[[], Awaitable[object]]) -> float:
    started = time.perf_counter()
    await call()
    return (time.perf_counter() - started) * 1000


def _p95(taken: list[float]) -> float:
    return sorted(taken)[int(len(taken) * 0.95) - 1]
