"""Rows as tests of the ledger need them, and the ledger as it stands.

Time is the test's own where a statement takes it as a parameter: `freeze` sets what the services read as
the database's clock, so that which instants are late does not hang on when the test runs.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import RowMapping
from sqlmodel.ext.asyncio.session import AsyncSession

from agentex.agents.models import AcpType, Agent
from agentex.auth.principal import Principal, PrincipalType
from agentex.cadence.registry import parse
from agentex.clocks.service import attach as attach_clock
from agentex.database import rows
from agentex.executors.base import Lane
from agentex.ids import fire_id, new_id
from agentex.resources import Resources
from agentex.runs.models import Run, RunCause, RunStatus
from agentex.schedules import open as open_module
from agentex.schedules import revisions, service, settle
from agentex.schedules.models import Schedule, ScheduleClock
from agentex.schedules.open import Opened, open_due
from agentex.schedules.reads import cadence_of
from agentex.sweep.sweep import SWEEP_LOCK
from agentex.tasks.models import Task, TaskStatus

NOON = datetime(2026, 3, 10, 12, 0, tzinfo=UTC)
CALLER = Principal(principal_type=PrincipalType.USER)
INPUT = {"type": "text", "author": "user", "content": "go"}
# Nobody listens there.
NOWHERE = "http://127.0.0.1:9"
# The batch of runs that are opened by hand.
BATCH = UUID("01930000-0000-7000-8000-0000000000aa")


def freeze(monkeypatch: pytest.MonkeyPatch, now: datetime) -> None:
    """Let the services read this as the database's clock."""

    async def frozen(_: AsyncSession) -> datetime:
        return now

    for module in (open_module, service, settle):
        monkeypatch.setattr(module, "clock_now", frozen)


def minutes(count: float) -> timedelta:
    return timedelta(minutes=count)


def seconds(count: float) -> timedelta:
    return timedelta(seconds=count)


async def add_agent(
    resources: Resources,
    name: str = "echo",
    *,
    acp_type: AcpType = AcpType.ASYNC,
    acp_url: str = NOWHERE,
    account_id: str = "default",
) -> Agent:
    """A registered agent."""
    now = datetime.now(UTC)
    agent = Agent(
        account_id=account_id,
        owner=CALLER.creator,
        name=name,
        description="echoes",
        acp_url=acp_url,
        acp_type=acp_type,
        created_at=now,
        updated_at=now,
    )
    async with resources.db.begin() as session:
        session.add(agent)
    return agent


@dataclass(frozen=True)
class Attached:
    """Since when a schedule owes its clock's instants, and where its clock stands."""

    active_from: datetime
    next_due_at: datetime
    checked: bool = True


async def add_schedule(
    resources: Resources, agent: Agent, attached: Attached | None, **columns: Any
) -> Schedule:
    """A schedule with its first revision, on its clock unless `attached` is None; every 60 s by default."""
    now = datetime.now(UTC)
    if "cron_expression" not in columns:
        columns = {"interval_seconds": 60, **columns}
    defaults: dict[str, Any] = {
        "name": f"s-{uuid4().hex[:8]}",
        "account_id": agent.account_id,
        "initial_input": INPUT,
        "creator_principal": CALLER.model_copy(update={"account_id": agent.account_id}).model_dump(
            mode="json"
        ),
        "policies": {},
        "created_at": now,
        "updated_at": now,
    }
    schedule = Schedule(agent_id=agent.id, **(defaults | columns))
    async with resources.db.begin() as session:
        session.add(schedule)
        await session.flush()
        revisions.append(session, CALLER, schedule, "create")
        if attached is not None:
            await _attach(session, schedule, attached)
    return schedule


async def _attach(session: AsyncSession, schedule: Schedule, attached: Attached) -> None:
    clock_id = await attach_clock(session, cadence_of(schedule), attached.next_due_at)
    checked_at = attached.active_from if attached.checked else None
    session.add(
        ScheduleClock(
            schedule_id=schedule.id,
            clock_id=clock_id,
            active_from=attached.active_from,
            checked_at=checked_at,
        )
    )
    await session.flush()
    await rows(
        session,
        "UPDATE clocks SET next_due_at = :next_due_at WHERE id = :id",
        id=clock_id,
        next_due_at=attached.next_due_at,
    )


@dataclass(frozen=True)
class Crowd:
    """Many schedules of one agent on one clock; their names are {prefix}0, {prefix}1 …"""

    agent: Agent
    count: int
    attached: Attached
    interval_seconds: int = 60
    prefix: str = "c"
    policies: str = "{}"


async def add_crowd(resources: Resources, crowd: Crowd) -> None:
    """All of them in two statements; their runs have no definition to be launched with."""
    cadence = parse(cron_expression=None, interval_seconds=crowd.interval_seconds, timezone="UTC")
    async with resources.db.begin() as session:
        clock_id = await attach_clock(session, cadence, crowd.attached.next_due_at)
        await rows(
            session,
            """
            WITH made AS (
                INSERT INTO agent_run_schedules (id, account_id, agent_id, name, interval_seconds, timezone,
                    paused, initial_input, creator_principal, skipped_action_times, policies, version,
                    created_at, updated_at)
                SELECT gen_random_uuid(), :account_id, :agent_id, :prefix || n, :seconds, 'UTC', false,
                    CAST(:input AS jsonb), CAST(:principal AS jsonb), '[]', CAST(:policies AS jsonb), 1,
                    now(), now()
                FROM generate_series(0, :count - 1) AS n RETURNING id)
            INSERT INTO schedule_clocks (schedule_id, clock_id, active_from, checked_at)
            SELECT id, :clock_id, :active_from, :active_from FROM made
            """,
            account_id=crowd.agent.account_id,
            agent_id=crowd.agent.id,
            prefix=crowd.prefix,
            seconds=crowd.interval_seconds,
            input=json.dumps(INPUT),
            principal=CALLER.model_copy(update={"account_id": crowd.agent.account_id}).model_dump_json(),
            policies=crowd.policies,
            count=crowd.count,
            clock_id=clock_id,
            active_from=crowd.attached.active_from,
        )
        await rows(
            session,
            "UPDATE clocks SET next_due_at = :next_due_at WHERE id = :id",
            id=clock_id,
            next_due_at=crowd.attached.next_due_at,
        )


async def add_task(resources: Resources, agent: Agent, status: TaskStatus = TaskStatus.RUNNING) -> Task:
    """A task of the agent."""
    now = datetime.now(UTC)
    task = Task(
        account_id=agent.account_id,
        owner=CALLER.creator,
        agent_id=agent.id,
        name=f"t-{uuid4().hex}",
        status=status,
        created_at=now,
        updated_at=now,
    )
    async with resources.db.begin() as session:
        session.add(task)
    return task


async def add_run(resources: Resources, agent: Agent, status: RunStatus, **columns: Any) -> Run:
    """A run as some process has left it."""
    now = datetime.now(UTC)
    run_id = new_id()
    defaults: dict[str, Any] = {
        "id": run_id,
        "fire_id": f"run:{run_id}",
        "cause": RunCause.MANUAL,
        "account_id": agent.account_id,
        "due_at": now,
        "opened_at": now,
        "updated_at": now,
        "next_attempt_at": now,
        "principal": CALLER.model_copy(update={"account_id": agent.account_id}).model_dump(mode="json"),
    }
    run = Run(agent_id=agent.id, status=status, **(defaults | columns))
    async with resources.db.begin() as session:
        session.add(run)
    return run


async def open_once(resources: Resources, batch_id: UUID | None = None) -> Opened:
    """One round of open_due, committed."""
    async with resources.db.begin() as session:
        return await open_due(session, resources.settings, batch_id or new_id(), by="test")


async def open_all(resources: Resources) -> list[Opened]:
    """Round by round, as a tick does."""
    opened = [await open_once(resources)]
    while opened[-1].more:
        opened.append(await open_once(resources))
    return opened


async def fetch(resources: Resources, sql: str, **parameters: object) -> Sequence[RowMapping]:
    """The rows of one statement, committed."""
    async with resources.db.begin() as session:
        return await rows(session, sql, **parameters)


# A run in short: its fire_id, its cause, its status and its reason.
Line = tuple[str, str, str, str | None]


async def ledger(resources: Resources, schedule_id: UUID | None = None) -> list[Line]:
    """The runs (of one schedule), oldest instant first."""
    found = await fetch(
        resources,
        """
        SELECT fire_id, cause, status, reason FROM runs
        WHERE CAST(:id AS uuid) IS NULL OR schedule_id = :id ORDER BY due_at, schedule_id, id
        """,
        id=schedule_id,
    )
    return [(row["fire_id"], row["cause"], row["status"], row["reason"]) for row in found]


async def open_run(
    resources: Resources, agent: Agent, schedule: Schedule, *, lane: Lane = Lane.DELIVER, **columns: Any
) -> Run:
    """A run of the schedule that was opened just now."""
    due_at = datetime.now(UTC).replace(microsecond=0)
    given: dict[str, Any] = {
        "schedule_id": schedule.id,
        "schedule_version": schedule.version,
        "cause": RunCause.CADENCE,
        "fire_id": fire_id(due_at),
        "due_at": due_at,
        "next_attempt_at": due_at,
        "batch_id": BATCH,
        "lane": lane,
        "page": 0,
    }
    await fetch(
        resources,
        """INSERT INTO schedule_totals (schedule_id, opened) VALUES (:id, 1)
        ON CONFLICT (schedule_id) DO UPDATE SET opened = schedule_totals.opened + 1""",
        id=schedule.id,
    )
    return await add_run(resources, agent, RunStatus.DUE, **(given | columns))


async def read_run(resources: Resources, run_id: UUID) -> Run:
    """The run's row as it stands."""
    async with resources.db.read() as session:
        return await session.get_one(Run, run_id)


async def waiting_for_locks(resources: Resources, count: int) -> None:
    """Return when so many sessions of this database wait for a lock."""
    await _until(
        resources,
        """
        SELECT count(*) >= :count AS holds FROM pg_stat_activity
        WHERE datname = current_database() AND wait_event_type = 'Lock'
        """,
        count=count,
    )


async def nobody_sweeps(resources: Resources) -> None:
    """Return when no session has the sweep's lock: Postgres notices a moment later that one has ended."""
    await _until(
        resources,
        """
        SELECT NOT EXISTS (
            SELECT 1 FROM pg_locks l JOIN pg_database d ON d.oid = l.database
            WHERE l.locktype = 'advisory' AND l.objid = :number AND d.datname = current_database()) AS holds
        """,
        number=SWEEP_LOCK,
    )


async def probes_failed(resources: Resources, count: int) -> None:
    """Return when so many of each agent's health checks have failed in a row."""
    sql = "SELECT bool_and(health_failures = :count) AS holds FROM agents"
    await _until(resources, sql, count=count)


async def _until(resources: Resources, sql: str, **given: object) -> None:
    async with asyncio.timeout(10):
        while True:
            if (await fetch(resources, sql, **given))[0]["holds"]:
                return
            await asyncio.sleep(0.01)
