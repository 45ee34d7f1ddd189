"""A whole agentex of real processes that a test may hurt: API, workers, agents; on given servers.

    stack = Stack(directory, database_url, temporal_address, late_after_seconds=5)
    worker = stack.start()
    agent = await stack.start_agent("async")
    schedule = await stack.create_schedule(agent, interval_seconds=5)
    await stack.until_delivered(1, schedule["id"])
    worker.process.kill()
    ...
    await stack.close()

Settings are given without their prefix. Conditions are waited for; time that must pass is the database's.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import aiohttp
from sqlalchemy import RowMapping
from sqlalchemy.exc import DBAPIError
from temporalio.client import Client

from agentex.database import Database, JsonObject, is_unavailable, rows
from agentex.dev.ports import free_port
from agentex.settings import Settings
from tests.support.fault_agent import ROOT, FaultAgent
from tests.support.processes import ManagedProcess, agentex
from tests.support.temporal import delete_schedules, fresh_prefix

# Repairs come sooner than in production, so that a test need not wait for them.
QUICK: dict[str, object] = {
    "sweep_interval_seconds": 1,
    "sweep_temporal_interval_seconds": 3,
    "stuck_after_seconds": 3,
    "interrupt_drain_seconds": 0.1,
}
POLL_SECONDS = 0.1
CALL_SECONDS = 30
_HOLD_CLOCKS_SQL = """
    SELECT 1 FROM clocks WHERE id IN (
        SELECT clock_id FROM schedule_clocks WHERE schedule_id::text = ANY(:ids)
    ) FOR NO KEY UPDATE
"""
UNFINISHED = ("due", "queued", "launching", "running", "waiting_for_input")


@dataclass(frozen=True)
class LedgerRow:
    """A run as it stands in the table."""

    id: uuid.UUID
    schedule_id: uuid.UUID
    fire_id: str
    cause: str
    due_at: datetime
    status: str
    reason: str | None
    attempt: int
    error: str | None
    task_id: uuid.UUID | None
    opened_at: datetime
    launched_at: datetime | None
    sending_at: datetime | None
    delivered_at: datetime | None

    @property
    def outcome(self) -> tuple[str, str | None]:
        """How it ended, and why."""
        return self.status, self.reason


@dataclass(frozen=True)
class Answer:
    """What the API said."""

    status: int
    headers: dict[str, str]
    text: str

    @property
    def json(self) -> Any:
        """The body."""
        return json.loads(self.text)


@dataclass(frozen=True)
class WorkerProcess:
    """One worker and where it serves its health."""

    process: ManagedProcess
    url: str

    def logged(self, action: str) -> bool:
        """Whether it has logged this action since it was started."""
        return f'"{action}"' in self.process.output(100_000)

    async def in_flight(self, lane: str) -> float:
        """How many runs of the lane it carries now, as its metrics tell."""
        async with aiohttp.ClientSession() as session, session.get(f"{self.url}/metrics") as answer:
            measured = dict(line.rsplit(" ", 1) for line in (await answer.text()).splitlines())
        return float(measured[f'agentex_agent_requests_in_flight{{lane="{lane}"}}'])


class Stack:
    """The processes of one installation, kept apart from others on the same Temporal by its prefix."""

    def __init__(self, directory: Path, database_url: str, temporal_address: str, **settings: object) -> None:
        self.directory = directory
        self.database_url = database_url
        self.temporal_address = temporal_address
        self.prefix = fresh_prefix()
        self.url = f"http://127.0.0.1:{free_port()}"
        values = QUICK | settings
        self.environment: dict[str, str | None] = {
            "PYTHONPATH": str(ROOT),
            "ENABLE_AGENT_RUN_SCHEDULES": "true",
            "AGENTEX_DATABASE_URL": database_url,
            "AGENTEX_TEMPORAL_ADDRESS": temporal_address,
            "AGENTEX_TEMPORAL_TASK_QUEUE": self.prefix,
            "AGENTEX_PORT": self.url.rpartition(":")[2],
            **{f"AGENTEX_{name.upper()}": str(value) for name, value in values.items()},
        }
        self.api = ManagedProcess(agentex("serve"), environment=self.environment, log=directory / "api.log")
        self.workers: list[WorkerProcess] = []
        self.agents: list[FaultAgent] = []
        self._session: aiohttp.ClientSession | None = None
        # Of each request to the API, for one that asks who calls.
        self.headers: dict[str, str] = {}
        self.db = Database(Settings(database_url=database_url))
        self._names = 0

    def start(self) -> WorkerProcess:
        """Start the API and a worker side by side; returns when both are ready."""
        self.api.start()
        worker = self._spawn_worker({})
        self.api.wait_until_ready(f"{self.url}/healthz")
        worker.process.wait_until_ready(f"{worker.url}/readyz")
        return worker

    def start_api(self) -> None:
        """Start the API; returns when it answers, whatever it answers of Postgres and Temporal."""
        self.api.start()
        self.api.wait_until_ready(f"{self.url}/healthz")

    def start_worker(self, *, ready: bool = True, **settings: object) -> WorkerProcess:
        """Start one more worker; returns when it is ready, or only alive where Temporal is away."""
        worker = self._spawn_worker(settings)
        worker.process.wait_until_ready(f"{worker.url}/{'readyz' if ready else 'healthz'}")
        return worker

    def _spawn_worker(self, settings: Mapping[str, object]) -> WorkerProcess:
        port = free_port()
        own = {f"AGENTEX_{name.upper()}": str(value) for name, value in settings.items()}
        process = ManagedProcess(
            agentex("worker"),
            environment=self.environment | {"AGENTEX_WORKER_PORT": str(port)} | own,
            log=self.directory / f"worker-{len(self.workers)}.log",
        )
        self.workers.append(WorkerProcess(process.start(), f"http://127.0.0.1:{port}"))
        return self.workers[-1]

    async def start_agent(
        self, acp_type: Literal["sync", "async"], *, keepalive_seconds: float = 75
    ) -> FaultAgent:
        """Start an agent and register it."""
        agent = FaultAgent(self.directory, free_port(), keepalive_seconds=keepalive_seconds)
        agent.start()
        self.agents.append(agent)
        await self.register(agent, acp_type)
        return agent

    async def move_agent(self, agent: FaultAgent, acp_type: Literal["sync", "async"]) -> FaultAgent:
        """Start the agent once more on another port, where it registers under its name."""
        moved = FaultAgent(self.directory, free_port())
        moved.name = agent.name
        moved.start()
        self.agents.append(moved)
        await self.register(moved, acp_type)
        return moved

    async def register(
        self, agent: FaultAgent, acp_type: Literal["sync", "async"], *, acp_url: str | None = None
    ) -> None:
        """Register an agent as it does itself, at its own address unless told otherwise."""
        url = acp_url or agent.url
        body = {"name": agent.name, "description": "", "acp_url": url, "acp_type": acp_type}
        agent.id = (await self.ok("POST", "/agents/register", body))["id"]

    async def call(
        self, method: str, path: str, body: object = None, *, seconds: float = CALL_SECONDS
    ) -> Answer:
        """Ask the API; fails only when no answer comes in time."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=64, keepalive_timeout=1)
            )
        timeout = aiohttp.ClientTimeout(total=seconds)
        async with self._session.request(
            method, f"{self.url}{path}", json=body, timeout=timeout, headers=self.headers
        ) as answer:
            headers = {name.lower(): value for name, value in answer.headers.items()}
            return Answer(answer.status, headers, await answer.text())

    async def ok(self, method: str, path: str, body: object = None) -> Any:
        """Ask the API and take nothing but 200; returns the body."""
        answer = await self.call(method, path, body)
        assert answer.status == 200, f"{method} {path}: {answer.status} {answer.text}"
        return answer.json

    async def create_schedule(self, agent: FaultAgent, **body: object) -> JsonObject:
        """Make a schedule with a name of its own."""
        self._names += 1
        given: dict[str, object] = {"name": f"schedule-{self._names}", "initial_input": {"content": "Go"}}
        return await self.ok("POST", f"/agents/{agent.id}/schedules", given | body)

    async def create_schedules(self, agent: FaultAgent, count: int, **body: object) -> list[JsonObject]:
        """Make many alike."""
        gate = asyncio.Semaphore(8)

        async def one() -> JsonObject:
            async with gate:
                return await self.create_schedule(agent, **body)

        return await asyncio.gather(*[one() for _ in range(count)])

    async def create_page(self, agent: FaultAgent, count: int, **body: object) -> datetime:
        """Make schedules that all owe one and the same instant, in 1 to 3 s, and no other; returns it."""
        later = await self.instant(3600, every=2)
        window = {"start_at": later.isoformat(), "end_at": (later + timedelta(seconds=1)).isoformat()}
        made = await self.create_schedules(agent, count, interval_seconds=2, **window, **body)
        # Moved at once, by one statement: making them takes longer than their instant is away. Their clock is
        # held meanwhile: no tick can pass the instant before the commit, however slow this machine is.
        async with self.db.begin() as session:
            await rows(session, _HOLD_CLOCKS_SQL, ids=[schedule["id"] for schedule in made])
            due = await self.instant(1, every=2)
            await rows(
                session,
                """
                UPDATE agent_run_schedules SET start_at = :due, end_at = :until WHERE id::text = ANY(:ids)
                """,
                due=due,
                until=due + timedelta(seconds=1),
                ids=[schedule["id"] for schedule in made],
            )
        return due

    async def instant(self, after_seconds: float, *, every: int) -> datetime:
        """The first instant of an interval at least so many seconds from now."""
        earliest = (await self.now()).timestamp() + after_seconds
        now = await self.now()
        return datetime.fromtimestamp(-(-earliest // every) * every, tz=now.tzinfo)

    async def now(self) -> datetime:
        """The database's clock."""
        return (await self.sql("SELECT clock_timestamp() AS now"))[0]["now"]

    async def until_instant(self, instant: datetime) -> None:
        """Return when the database's clock has reached it."""
        # Not an event: the database's clock tells nobody when it gets there.
        while (left := (instant - await self.now()).total_seconds()) > 0:  # noqa: ASYNC110
            await asyncio.sleep(left)

    async def sql(self, statement: str, **parameters: object) -> Sequence[RowMapping]:
        """The rows of a statement. Raises DBAPIError or OSError while Postgres is away."""
        try:
            async with self.db.read() as session:
                return await rows(session, statement, **parameters)
        except DBAPIError as error:
            if not is_unavailable(error):
                raise
        # A connection that a restart has cut; the next one is new, and tells whether Postgres is back.
        async with self.db.read() as session:
            return await rows(session, statement, **parameters)

    async def runs(self, *schedule_ids: object) -> list[LedgerRow]:
        """The ledger, of some schedules if named, by instant."""
        columns = ", ".join(LedgerRow.__dataclass_fields__)
        found = await self.sql(f"SELECT {columns} FROM runs ORDER BY due_at, id")  # noqa: S608 - our own names
        wanted = {str(schedule_id) for schedule_id in schedule_ids}
        return [LedgerRow(**dict(row)) for row in found if not wanted or str(row["schedule_id"]) in wanted]

    async def outcomes(self, *schedule_ids: object) -> Counter[tuple[str, str | None]]:
        """How many runs stand how, and why."""
        return Counter(row.outcome for row in await self.runs(*schedule_ids))

    async def finished(self, count: int) -> bool:
        """Whether there are so many runs, and each has ended."""
        found = await self.runs()
        return len(found) >= count and not any(row.status in UNFINISHED for row in found)

    async def until(self, condition: Callable[[], Awaitable[bool]], what: str, seconds: float = 60) -> None:
        """Poll until the condition holds; fails with how the runs stand."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while not await condition():
            if loop.time() > deadline:
                raise AssertionError(f"{what} did not happen within {seconds:g} s: {await self.outcomes()}")
            await asyncio.sleep(POLL_SECONDS)

    async def until_finished(self, count: int, seconds: float = 60) -> None:
        """Wait until there are so many runs, and each has ended."""
        await self.until(lambda: self.finished(count), f"{count} runs ended", seconds)

    async def until_delivered(
        self, count: int, schedule_id: object, *, after: datetime | None = None, seconds: float = 60
    ) -> None:
        """Wait until so many runs of a schedule (of instants after the moment) were delivered.

        Of a schedule that goes on: on a busy machine there may be no moment at which none of them is open.
        """

        async def delivered() -> bool:
            found = await self.runs(schedule_id)
            return count <= sum(
                row.status == "delivered" for row in found if after is None or row.due_at > after
            )

        await self.until(delivered, f"{count} runs delivered", seconds)

    async def close(self, *, tidy_temporal: bool = True) -> None:
        """End every process; take the Schedules out of a Temporal that others go on to use."""
        for process in [
            self.api,
            *[worker.process for worker in self.workers],
            *[a.process for a in self.agents],
        ]:
            process.close()
        if self._session is not None:
            await self._session.close()
        await self.db.close()
        if tidy_temporal:
            await delete_schedules(await Client.connect(self.temporal_address), self.prefix)
