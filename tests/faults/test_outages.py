"""The worker down for a while, and a commit held open: each instant that is owed has its row."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import RowMapping

from agentex.database import rows
from tests.support.fault_agent import FaultAgent
from tests.support.fault_stack import Stack, every, instants


@pytest.mark.timeout(120)
async def test_worker_down_over_instants_leaves_each_on_time_or_missed(
    make_stack: Callable[..., Stack],
) -> None:
    """Known fault 7 of the incumbent: fires were dropped in silence, and one ran late with an old time."""
    late_after = timedelta(seconds=6)
    stack = make_stack(late_after_seconds=late_after.total_seconds())
    worker = stack.start()
    agent = await stack.start_agent("async")
    schedule = await stack.create_schedule(agent, interval_seconds=2)
    await stack.until_finished(2)
    assert worker.process.terminate() == 0
    down = await stack.now()
    await stack.until_instant(down + timedelta(seconds=16))
    stack.start_worker()
    await stack.ok("POST", f"/agents/{agent.id}/schedules/{schedule['id']}/pause")
    await stack.until_finished(10)

    found = await stack.runs()
    assert instants(found) == every(2, found[0].due_at, found[-1].due_at)
    over_outage = [row for row in found if row.due_at > down and row.outcome != ("skipped", "paused")]
    on_time = [row for row in over_outage if (row.launched_at or row.opened_at) - row.due_at <= late_after]
    missed = [row for row in over_outage if row not in on_time]
    assert Counter(row.outcome for row in on_time) == {("delivered", None): len(on_time)}
    assert Counter(row.outcome for row in missed) == {("skipped", "missed"): len(missed)}
    assert len(missed) >= 3
    assert len(on_time) >= 1
    assert agent.sent() == Counter(str(row.task_id) for row in found if row.status == "delivered")


@pytest.mark.timeout(90)
@pytest.mark.parametrize("shared", [False, True], ids=["new clock", "clock that others share"])
async def test_create_whose_commit_is_held_across_instants_loses_none(
    make_stack: Callable[..., Stack], *, shared: bool
) -> None:
    stack = make_stack()
    stack.start()
    agent = await stack.start_agent("async")
    if shared:
        await stack.create_schedule(agent, interval_seconds=2, name="sharing")
        await stack.until_finished(1)
    schedule = await create_held(stack, agent, seconds=5)
    active_from = (await attachment(stack, schedule["id"]))["active_from"]
    committed = await stack.now()

    async def caught_up() -> bool:
        # The sweep has looked for what ticks before the commit could not see.
        looked = (await attachment(stack, schedule["id"]))["checked_at"] is not None
        found = await stack.runs(schedule["id"])
        return looked and bool(found) and found[-1].due_at > committed and found[-1].status == "delivered"

    await stack.until(caught_up, "the sweep's look and a run after the commit")
    found = await stack.runs(schedule["id"])
    first = active_from.timestamp() // 2 * 2 + 2
    assert found[0].due_at.timestamp() == first
    assert found[0].due_at < committed
    assert instants(found) == every(2, found[0].due_at, found[-1].due_at)
    assert {row.outcome for row in found if row.status not in ("due", "launching")} == {("delivered", None)}
    assert set(agent.sent().values()) == {1}


@pytest.mark.timeout(90)
async def test_pause_right_after_a_held_commit_settles_the_instants_that_passed(
    make_stack: Callable[..., Stack],
) -> None:
    """Without a worker nobody but the pause can make their rows."""
    stack = make_stack()
    stack.start_api()
    agent = await stack.start_agent("async")
    schedule = await create_held(stack, agent, seconds=5)
    active_from = (await attachment(stack, schedule["id"]))["active_from"]
    paused = await stack.ok("POST", f"/agents/{agent.id}/schedules/{schedule['id']}/pause")
    found = await stack.runs()
    owed = [
        instant
        for instant in every(1, active_from.replace(microsecond=0), active_from + timedelta(seconds=60))
        if instant.timestamp() % 2 == 0 and active_from < instant
        if instant.isoformat() <= paused["updated_at"].replace("Z", "+00:00")
    ]
    assert [(row.due_at, row.outcome) for row in found] == [(due, ("skipped", "paused")) for due in owed]
    assert len(owed) >= 1


async def create_held(stack: Stack, agent: FaultAgent, *, seconds: float) -> dict[str, Any]:
    """Create a schedule of every 2 s whose transaction another one keeps from its commit for a while."""
    async with stack.db.begin() as session:
        # What a create writes last: its entry among the requests that a repeat would find.
        await rows(session, "LOCK TABLE idempotency_keys IN EXCLUSIVE MODE")
        began = await stack.now()
        creating = asyncio.create_task(stack.create_schedule(agent, interval_seconds=2))

        async def waits() -> bool:
            found = await stack.sql(
                "SELECT 1 FROM pg_locks WHERE NOT granted AND database = (SELECT oid FROM "
                "pg_database WHERE datname = current_database())"
            )
            return len(found) == 1

        await stack.until(waits, "the create waiting for its commit")
        await stack.until_instant(began + timedelta(seconds=seconds))
        assert not creating.done()
    return await creating


async def attachment(stack: Stack, schedule_id: object) -> RowMapping:
    """When a schedule began to owe runs, and when the sweep looked at that."""
    statement = "SELECT active_from, checked_at FROM schedule_clocks WHERE schedule_id::text = :id"
    return (await stack.sql(statement, id=schedule_id))[0]
