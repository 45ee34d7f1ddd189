"""Locks of many rows are taken in the order of their ids; what loses a deadlock is tried once more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from uuid import UUID

import pytest
from sqlmodel.ext.asyncio.session import AsyncSession

from agentex.agents import service as agents
from agentex.agents.models import Agent
from agentex.database import rows
from agentex.idempotency import Repeat
from agentex.resources import Resources
from agentex.runs import finish
from agentex.schedules import open as open_module
from agentex.schedules import service
from agentex.schedules.service import Target
from agentex.schedules.settle import detach
from tests.api.ledger.stage import CALLER, NOON, Attached, add_schedule, fetch, waiting_for_locks

SMALL = UUID("01930000-0000-7000-8000-00000000000a")
LARGE = UUID("01930000-0000-7000-8000-00000000000f")
DUE_AT_NOON = Attached(NOON - timedelta(days=30), NOON)

Bulk = Callable[[AsyncSession], Awaitable[None]]


async def add_totals(resources: Resources) -> None:
    """The larger id first, so that it is what a scan of the table meets first."""
    for schedule_id in (LARGE, SMALL):
        await fetch(
            resources, "INSERT INTO schedule_totals (schedule_id, opened) VALUES (:id, 5)", id=schedule_id
        )


async def add_clocks(resources: Resources) -> None:
    for clock_id in (LARGE, SMALL):
        await fetch(
            resources,
            """INSERT INTO clocks (id, cadence_key, cadence, whole_minutes, created_at)
            VALUES (:id, gen_random_uuid()::text, '{}', true, now())""",
            id=clock_id,
        )


async def uncount(session: AsyncSession) -> None:
    await vars(finish)["_uncount"](session, [LARGE, SMALL, LARGE])


async def move_clocks(session: AsyncSession) -> None:
    await vars(open_module)["_move_clocks"](session, {LARGE: NOON, SMALL: NOON})


@pytest.mark.parametrize(
    ("add", "bulk", "table", "key"),
    [
        (add_totals, uncount, "schedule_totals", "schedule_id"),
        (add_clocks, move_clocks, "clocks", "id"),
    ],
    ids=["uncount", "move-clocks"],
)
async def test_a_bulk_statement_locks_the_smallest_id_first(
    resources: Resources, add: Callable[[Resources], Awaitable[None]], bulk: Bulk, table: str, key: str
) -> None:
    await add(resources)
    one = f"SELECT 1 FROM {table} WHERE {key} = :id FOR NO KEY UPDATE SKIP LOCKED"  # noqa: S608 - constants
    async with resources.db.begin() as session:
        await rows(session, one, id=SMALL)
        working = asyncio.create_task(commit(resources, bulk))
        await waiting_for_locks(resources, 1)
        free = await fetch(resources, one, id=LARGE)
    await working
    assert len(free) == 1


async def commit(resources: Resources, bulk: Bulk) -> None:
    async with resources.db.begin() as session:
        await bulk(session)


async def test_an_uncount_waits_for_another_and_takes_off_from_what_that_left(resources: Resources) -> None:
    await add_totals(resources)
    async with resources.db.begin() as session:
        await uncount(session)
        working = asyncio.create_task(commit(resources, uncount))
        await waiting_for_locks(resources, 1)
    await working
    found = await fetch(resources, "SELECT schedule_id, opened FROM schedule_totals ORDER BY schedule_id")
    assert [tuple(row.values()) for row in found] == [(SMALL, 3), (LARGE, 1)]


async def test_a_detach_locks_the_smallest_id_first(resources: Resources, agent: Agent) -> None:
    made = [await add_schedule(resources, agent, DUE_AT_NOON) for _ in range(2)]
    small, large = sorted(schedule.id for schedule in made)
    for schedule_id in (large, small):
        # Each update moves the row to the table's end: the larger id stands first.
        await fetch(
            resources, "UPDATE schedule_clocks SET checked_at = now() WHERE schedule_id = :id", id=schedule_id
        )
    one = "SELECT 1 FROM schedule_clocks WHERE schedule_id = :id FOR UPDATE SKIP LOCKED"
    async with resources.db.begin() as session:
        await rows(session, one, id=small)
        working = asyncio.create_task(commit(resources, lambda session: detach(session, [large, small])))
        await waiting_for_locks(resources, 1)
        free = await fetch(resources, one, id=large)
    await working
    assert len(free) == 1


_LOSE_ONCE = """
    CREATE SEQUENCE lost_deadlocks;
    CREATE FUNCTION lose_deadlock() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF nextval('lost_deadlocks') = 1 THEN
            RAISE EXCEPTION 'deadlock detected' USING ERRCODE = '40P01';
        END IF;
        RETURN NEW;
    END $$;
    CREATE TRIGGER lose_deadlock BEFORE UPDATE ON agents FOR EACH ROW EXECUTE FUNCTION lose_deadlock();
    CREATE TRIGGER lose_deadlock BEFORE INSERT ON runs FOR EACH ROW EXECUTE FUNCTION lose_deadlock();
"""
_LOSE_NO_MORE = "DROP FUNCTION lose_deadlock CASCADE; DROP SEQUENCE lost_deadlocks"


@pytest.fixture
async def losing(hooked: Resources) -> AsyncIterator[Resources]:
    """The first write of an agent or a run loses a deadlock."""
    await fetch_all(hooked, _LOSE_ONCE)
    yield hooked
    await fetch_all(hooked, _LOSE_NO_MORE)


async def fetch_all(resources: Resources, script: str) -> None:
    async with resources.db.engine.begin() as connection:
        raw = await connection.get_raw_connection()
        assert raw.driver_connection is not None
        await raw.driver_connection.execute(script)


async def test_a_trigger_that_loses_a_deadlock_is_tried_once_more(
    losing: Resources, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[UUID] = []
    monkeypatch.setattr(losing.hooks, "run_opened", started.append)
    schedule = await add_schedule(losing, agent, DUE_AT_NOON, policies={"finishes_on": "task"})
    target = Target(str(agent.id), schedule_id=str(schedule.id))
    triggered = await service.trigger(losing, CALLER, target, Repeat("00" * 32, "body", 0, None))
    found = await fetch(losing, "SELECT id, finishes_on_task FROM runs")
    assert [tuple(row.values()) for row in found] == [(triggered.run_id, True)]
    assert started == [triggered.run_id]


async def test_a_delete_of_an_agent_that_loses_a_deadlock_is_tried_once_more(
    losing: Resources, agent: Agent
) -> None:
    schedule = await add_schedule(losing, agent, DUE_AT_NOON)
    deleted = await agents.delete_by(losing, CALLER, agent)
    found = await fetch(losing, "SELECT paused FROM agent_run_schedules WHERE id = :id", id=schedule.id)
    assert (deleted.id, [row["paused"] for row in found]) == (agent.id, [True])
