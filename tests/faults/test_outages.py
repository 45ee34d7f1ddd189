"""The worker down for a while, and a commit held open: each instant that is owed has its row."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import RowMapping

from tests.support.fault_agent import FaultAgent
from tests.support.fault_ledger import MISSED, assert_catch_up_rule, assert_one_row_each, every
from tests.support.fault_locks import locked, waiting_for
from tests.support.fault_stack import Stack

# The default of AGENTEX_LATE_AFTER_SECONDS.
LATE_AFTER = timedelta(seconds=30)
# What a create writes last: its entry among the requests that a repeat would find.
REQUESTS = "idempotency_keys"


@pytest.mark.timeout(180)
async def test_worker_down_over_instants_leaves_each_on_time_or_missed(
    make_stack: Callable[..., Stack],
) -> None:
    """Known fault 7 of the incumbent: fires were dropped in silence, and one ran late with an old time."""
    stack = make_stack()
    worker = stack.start()
    agent = await stack.start_agent("async")
    schedule = await stack.create_schedule(agent, interval_seconds=5)
    await stack.until_delivered(1, schedule["id"])
    assert worker.process.terminate() == 0
    down = await stack.now()
    await stack.until_instant(down + timedelta(seconds=45))
    up = await stack.now()
    successor = stack.start_worker()
    await stack.until_delivered(1, schedule["id"], after=up)
    # Whatever it has begun has ended when it has: nothing moves while the ledger is read.
    assert successor.process.terminate() == 0

    found = await stack.runs()
    assert_one_row_each(found, 5)
    assert_catch_up_rule(found, LATE_AFTER)
    outage = [row for row in found if down < row.due_at <= up]
    assert len(outage) >= 9
    # 45 s less the 30 that are on time: 15 s, and three instants in them.
    assert sum(row.outcome == MISSED for row in outage) >= 3
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
        sharing = await stack.create_schedule(agent, interval_seconds=2, name="sharing")
        await stack.until_delivered(1, sharing["id"])
    schedule = await create_held(stack, agent, seconds=5)
    active_from = (await attachment(stack, schedule["id"]))["active_from"]
    committed = await stack.now()

    async def caught_up() -> bool:
        # The sweep has looked for what ticks before the commit could not see.
        looked = (await attachment(stack, schedule["id"]))["checked_at"] is not None
        found = await stack.runs(schedule["id"])
        return looked and any(row.due_at > committed and row.status == "delivered" for row in found)

    await stack.until(caught_up, "the sweep's look and a run after the commit")
    found = await stack.runs(schedule["id"])
    first = active_from.timestamp() // 2 * 2 + 2
    assert found[0].due_at.timestamp() == first
    assert found[0].due_at < committed
    assert_one_row_each(found, 2)
    assert_catch_up_rule(found, LATE_AFTER)
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
        if instant <= datetime.fromisoformat(paused["updated_at"])
    ]
    assert [(row.due_at, row.outcome) for row in found] == [(due, ("skipped", "paused")) for due in owed]
    assert len(owed) >= 1


async def create_held(stack: Stack, agent: FaultAgent, *, seconds: float) -> dict[str, Any]:
    """Create a schedule of every 2 s whose transaction another one keeps from its commit for a while."""
    async with locked(stack, REQUESTS):
        began = await stack.now()
        creating = asyncio.create_task(stack.create_schedule(agent, interval_seconds=2))

        async def waits() -> bool:
            # With its schedule written, unlike the sweep, which forgets old requests.
            return any("agent_run_schedules" in tables for tables in await waiting_for(stack, REQUESTS))

        await stack.until(waits, "the create waiting for its commit")
        await stack.until_instant(began + timedelta(seconds=seconds))
        assert not creating.done()
    return await creating


async def attachment(stack: Stack, schedule_id: object) -> RowMapping:
    """When a schedule began to owe runs, and when the sweep looked at that."""
    statement = "SELECT active_from, checked_at FROM schedule_clocks WHERE schedule_id::text = :id"
    return (await stack.sql(statement, id=schedule_id))[0]
