"""How fast messages are stored: one client after the other, and 32 in flight, beside bare inserts.

The bare limit inserts the same rows by asyncpg: on one open connection, and on as many as the API's pool has.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import cycle
from typing import Any, Protocol, cast
from uuid import UUID

import aiohttp
import asyncpg

from agentex.ids import new_id
from agentex.settings import Settings
from tests.benchmarks.stack import Stack

IN_FLIGHT = 32
ONE_AFTER_THE_OTHER = 300
AT_ONCE = 3_000
# The first requests build routes and prepare statements, on each connection of the pool.
WARM_UP = 500
CONTENT = {"type": "text", "author": "agent", "content": "A sentence or two, as agents say them. " * 5}

_INSERT_SQL = """
    INSERT INTO messages (id, account_id, task_id, content, created_at, updated_at)
    VALUES ($1, 'default', $2, $3, $4, $4)
"""


@dataclass(frozen=True)
class Stored:
    """What POST /messages took, in ms and requests a second, and what bare inserts of the same rows did."""

    p50: float
    p95: float
    bare_p50: float
    per_second: float
    bare_per_second: float

    def as_json(self) -> dict[str, object]:
        """For the result file."""
        return asdict(self)


class _Connection(Protocol):
    async def execute(self, query: str, *arguments: object) -> str: ...


class _Pool(_Connection, Protocol):
    async def close(self) -> None: ...


_create_pool = cast("Callable[..., AbstractAsyncContextManager[_Pool]]", asyncpg.create_pool)  # pyright: ignore[reportUnknownMemberType] - asyncpg tells no types


async def stored(http: aiohttp.ClientSession, stack: Stack) -> Stored:
    """Store messages in 32 tasks, over HTTP and bare."""
    tasks = await _make_tasks(http, stack)

    async def post(task_id: UUID) -> None:
        body = {"task_id": str(task_id), "content": CONTENT}
        async with http.post(f"{stack.api}/messages", json=body) as response:
            response.raise_for_status()
            await response.read()

    settings = Settings()
    size = settings.database_pool_size + settings.database_max_overflow
    async with _create_pool(stack.database_url, min_size=size, max_size=size) as pool:

        async def insert(task_id: UUID) -> None:
            await pool.execute(_INSERT_SQL, new_id(), task_id, json.dumps(CONTENT), datetime.now(UTC))

        await _at_once(post, tasks, WARM_UP)
        await _at_once(insert, tasks, WARM_UP)
        single, bare = await _milliseconds(post, tasks), await _milliseconds(insert, tasks)
        return Stored(
            p50=statistics.median(single),
            p95=statistics.quantiles(single, n=20)[-1],
            bare_p50=statistics.median(bare),
            per_second=await _at_once(post, tasks, AT_ONCE),
            bare_per_second=await _at_once(insert, tasks, AT_ONCE),
        )


async def _milliseconds(store: Callable[[UUID], Awaitable[None]], tasks: list[UUID]) -> list[float]:
    taken: list[float] = []
    for task_id, _ in zip(cycle(tasks), range(ONE_AFTER_THE_OTHER), strict=False):
        started = time.perf_counter()
        await store(task_id)
        taken.append((time.perf_counter() - started) * 1000)
    return taken


async def _at_once(store: Callable[[UUID], Awaitable[None]], tasks: list[UUID], count: int) -> float:
    """So many, each task's one after the other and all tasks side by side; returns how many a second."""

    async def converse(task_id: UUID) -> None:
        for _ in range(count // len(tasks)):
            await store(task_id)

    started = time.perf_counter()
    await asyncio.gather(*[converse(task_id) for task_id in tasks])
    return count // len(tasks) * len(tasks) / (time.perf_counter() - started)


async def _make_tasks(http: aiohttp.ClientSession, stack: Stack) -> list[UUID]:
    """As many tasks as requests are in flight, of a sync agent, which is not told of them."""
    agent = {"name": "bench-messages", "description": "", "acp_url": "http://127.0.0.1:9", "acp_type": "sync"}
    agent_id = (await _post(http, f"{stack.api}/agents/register", agent))["id"]
    create: dict[str, Any] = {"jsonrpc": "2.0", "method": "task/create", "params": {}, "id": 1}
    made = [await _post(http, f"{stack.api}/agents/{agent_id}/rpc", create) for _ in range(IN_FLIGHT)]
    return [UUID(answer["result"]["id"]) for answer in made]


async def _post(http: aiohttp.ClientSession, url: str, body: dict[str, Any]) -> dict[str, Any]:
    async with http.post(url, json=body) as response:
        response.raise_for_status()
        return await response.json()
