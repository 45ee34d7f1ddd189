"""How long the API takes for each request of a schedule's life, one client after another.

Beside each stands one bare asyncpg statement for the same rows, on a connection that is open: the limit.
"""

from __future__ import annotations

import asyncio
import itertools
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Protocol, cast
from uuid import UUID

import aiohttp
import asyncpg

from agentex.database import JsonObject
from tests.benchmarks.stack import Stack

REPEATS = 200
CREATES_IN_FLIGHT = 8


@dataclass(frozen=True)
class Latency:
    """Milliseconds of one kind of request among so many schedules, and of the bare statement."""

    name: str
    schedules: int
    p50: float
    p95: float
    bare_p50: float
    target: float | None

    def as_json(self) -> dict[str, object]:
        """For the result file."""
        return asdict(self)


class Bare(Protocol):
    """An open asyncpg connection, whose types are not told."""

    async def fetch(self, query: str, *arguments: object) -> list[Any]:
        """The rows of one statement."""
        ...

    async def close(self) -> None:
        """Close it."""
        ...


connect = cast("Callable[[str], Awaitable[Bare]]", asyncpg.connect)  # pyright: ignore[reportUnknownMemberType] - asyncpg tells no types


@dataclass
class Client:
    """One agent's schedules over HTTP, and the bare connection."""

    http: aiohttp.ClientSession
    bare: Bare
    below: str
    agent_id: UUID
    names: Iterator[int]

    async def call(self, method: str, path: str = "", body: JsonObject | None = None) -> JsonObject:
        """The answer's body; raises for anything but 200."""
        async with self.http.request(method, f"{self.below}{path}", json=body) as response:
            response.raise_for_status()
            return await response.json()

    async def create(self) -> JsonObject:
        """A schedule that is due once a year, each on a cadence of its own."""
        number = next(self.names)
        cron = f"{number % 60} {number // 60 % 24} {1 + number // 1440 % 28} 1 *"
        body: JsonObject = {
            "name": f"s-{number}",
            "cron_expression": cron,
            "initial_input": {"content": "Go"},
        }
        return await self.call("POST", body=body)

    async def create_many(self, count: int) -> None:
        """So many more."""
        gate = asyncio.Semaphore(CREATES_IN_FLIGHT)

        async def one() -> None:
            async with gate:
                await self.create()

        await asyncio.gather(*[one() for _ in range(count)])


async def latencies(client: Client, schedules: int) -> list[Latency]:
    """Each kind of request among so many schedules; those made on the way are deleted again."""
    made = [str((await client.create())["id"]) for _ in range(20)]
    ids = itertools.cycle(made)
    notes = itertools.count()

    async def timed(
        name: str,
        target: float | None,
        request: Callable[[], Awaitable[object]],
        bare: Callable[[], Awaitable[object]],
    ) -> Latency:
        taken, limit = await _milliseconds(request), await _milliseconds(bare)
        return Latency(
            name, schedules, statistics.median(taken), _p95(taken), statistics.median(limit), target
        )

    def fetch(sql: str, *arguments: object) -> Callable[[], Awaitable[object]]:
        return lambda: client.bare.fetch(sql, *arguments)

    one = "SELECT * FROM agent_run_schedules WHERE id = $1"
    page = "SELECT * FROM agent_run_schedules WHERE agent_id = $1 ORDER BY created_at DESC LIMIT 100"
    touch = "UPDATE agent_run_schedules SET updated_at = now() WHERE id = $1 RETURNING *"
    first = UUID(made[0])
    new: list[str] = []

    async def create() -> None:
        new.append(str((await client.create())["id"]))

    unpaused = iter(new)
    result = [
        await timed("create", 15, create, fetch(touch, first)),
        await timed("get", 6, lambda: client.call("GET", f"/{next(ids)}"), fetch(one, first)),
        await timed("list 100", 15, lambda: client.call("GET"), fetch(page, client.agent_id)),
        await timed(
            "list 100, include_live",
            20,
            lambda: client.call("GET", "?include_live=true"),
            fetch(page, client.agent_id),
        ),
        await timed(
            "patch",
            None,
            lambda: client.call("PATCH", f"/{next(ids)}", {"description": f"n-{next(notes)}"}),
            fetch(touch, first),
        ),
        await timed(
            "pause", None, lambda: client.call("POST", f"/{next(unpaused)}/pause"), fetch(touch, first)
        ),
        await timed("delete", None, lambda: client.call("DELETE", f"/{new.pop()}"), fetch(touch, first)),
    ]
    for schedule_id in made:
        await client.call("DELETE", f"/{schedule_id}")
    return result


async def open_client(http: aiohttp.ClientSession, stack: Stack, name: str) -> Client:
    """A client of a new agent, which nobody calls: its schedules are due once a year."""
    body = {"name": name, "description": "", "acp_url": "http://127.0.0.1:9", "acp_type": "async"}
    async with http.post(f"{stack.api}/agents/register", json=body) as response:
        response.raise_for_status()
        agent_id = str((await response.json())["id"])
    bare = await connect(stack.database_url)
    return Client(http, bare, f"{stack.api}/agents/{agent_id}/schedules", UUID(agent_id), itertools.count())


async def _milliseconds(call: Callable[[], Awaitable[object]]) -> list[float]:
    taken: list[float] = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        await call()
        taken.append((time.perf_counter() - started) * 1000)
    return taken


def _p95(taken: list[float]) -> float:
    return sorted(taken)[int(len(taken) * 0.95) - 1]
