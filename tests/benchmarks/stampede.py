"""Stampedes: many schedules due at one instant, and how late each run was delivered."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import cast
from uuid import UUID, uuid4

import aiohttp
from sqlalchemy import RowMapping

from agentex.database import Database, rows
from agentex.settings import Settings
from tests.benchmarks.stack import FAST_AGENT, AgentProcess, Stack
from tests.support.acp_server import read_record

CREATES_IN_FLIGHT = 8
# A run that is not delivered by then counts as missing.
GIVE_UP_SECONDS = 90


@dataclass(frozen=True)
class Scenario:
    """One stampede: how many schedules, on which kind of agent, on how many cadences."""

    name: str
    schedules: int
    acp_type: str
    cadences: int
    # What is to be reached: seconds from the instant to the last delivery.
    last_target_seconds: float
    agent: str = FAST_AGENT
    # Whether the bare loop sends the same once more, to the same agent, right behind it.
    beside_bare: bool = False


@dataclass(frozen=True)
class Measured:
    """Lateness in seconds from the due instant to delivery; fires a second from the instant to the last."""

    name: str
    runs: int
    p50: float
    p95: float
    last: float
    target: float
    fires_per_second: float
    missing: int
    doubled: int
    bare_seconds: float | None = None

    def as_json(self) -> dict[str, object]:
        """For the result file."""
        return asdict(self)


async def stampede(stack: Stack, agent: AgentProcess, scenario: Scenario) -> Measured:
    """Make the schedules, wait for their minute, measure from the ledger and from the agent's own record."""
    async with aiohttp.ClientSession() as http:
        agent_id = await _register(http, stack, agent, scenario)
        due_at = _minute_ahead(scenario)
        await _create_all(http, stack, agent_id, scenario, due_at)
        if datetime.now(UTC) >= due_at:
            raise RuntimeError(
                f"creating {scenario.schedules} schedules took past {due_at}; give it more time"
            )
        lateness = await _wait_for_runs(stack, agent_id, due_at, scenario.schedules)
        await _delete_agent(http, stack, agent_id)
    method = "message/send" if scenario.acp_type == "sync" else "event/send"
    received = Counter(
        str(cast("dict[str, object]", request.params["task"])["id"])
        for request in read_record(agent.record)
        if request.method == method
    )
    ordered = sorted(lateness)
    return Measured(
        name=scenario.name,
        runs=len(ordered),
        p50=statistics.median(ordered),
        p95=ordered[int(len(ordered) * 0.95) - 1],
        last=ordered[-1],
        target=scenario.last_target_seconds,
        fires_per_second=len(ordered) / ordered[-1],
        missing=scenario.schedules - len(received),
        doubled=sum(1 for count in received.values() if count > 1),
    )


def _minute_ahead(scenario: Scenario) -> datetime:
    # 10 ms a create, and as much again for a noisy machine.
    seconds = 10 + scenario.schedules * 0.02
    ready = datetime.now(UTC) + timedelta(seconds=seconds)
    return ready.replace(second=0, microsecond=0) + timedelta(minutes=1)


async def _register(
    http: aiohttp.ClientSession, stack: Stack, agent: AgentProcess, scenario: Scenario
) -> str:
    body = {
        "name": f"bench-{uuid4().hex[:12]}",
        "description": scenario.name,
        "acp_url": agent.url,
        "acp_type": scenario.acp_type,
    }
    async with http.post(f"{stack.api}/agents/register", json=body) as response:
        response.raise_for_status()
        return (await response.json())["id"]


async def _create_all(
    http: aiohttp.ClientSession, stack: Stack, agent_id: str, scenario: Scenario, due_at: datetime
) -> None:
    window = asyncio.Semaphore(CREATES_IN_FLIGHT)

    async def create(number: int) -> None:
        body = {
            "name": f"bench-{number}",
            "cron_expression": _cron(due_at, number % scenario.cadences),
            "initial_input": {"content": "Say the time"},
        }
        async with window, http.post(f"{stack.api}/agents/{agent_id}/schedules", json=body) as response:
            response.raise_for_status()

    await asyncio.gather(*[create(number) for number in range(scenario.schedules)])


def _cron(due_at: datetime, number: int) -> str:
    """The number-th cadence of those that have this minute in common: another minute of another hour each."""
    if number == 0:
        return f"{due_at.minute} {due_at.hour} * * *"
    other_minute = (due_at.minute + 2 + number % 50) % 60
    other_hour = (due_at.hour + 2 + number // 50) % 24
    return f"{due_at.minute},{other_minute} {due_at.hour},{other_hour} * * *"


async def _wait_for_runs(stack: Stack, agent_id: str, due_at: datetime, wanted: int) -> list[float]:
    database = Database(Settings(database_url=stack.database_url))
    try:
        await asyncio.sleep(max((due_at - datetime.now(UTC)).total_seconds(), 0))
        give_up = time.monotonic() + GIVE_UP_SECONDS
        found: Sequence[RowMapping] = []
        while len(found) < wanted and time.monotonic() < give_up:
            await asyncio.sleep(0.5)
            async with database.read() as session:
                found = await rows(session, _LATENESS_SQL, agent_id=UUID(agent_id), due_at=due_at)
        return [row["late"] for row in found]
    finally:
        await database.close()


_LATENESS_SQL = """
    SELECT extract(epoch FROM delivered_at - due_at)::float8 AS late FROM runs
    WHERE agent_id = :agent_id AND due_at = :due_at AND delivered_at IS NOT NULL
"""


async def _delete_agent(http: aiohttp.ClientSession, stack: Stack, agent_id: str) -> None:
    async with http.delete(f"{stack.api}/agents/{agent_id}") as response:
        response.raise_for_status()
