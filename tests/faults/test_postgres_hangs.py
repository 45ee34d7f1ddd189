"""A Postgres that hangs rather than refuses, and a pool with no connection free: 503, and nothing is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta

import pytest

from tests.support.fault_answers import DATABASE_UNAVAILABLE, ask_everything, told
from tests.support.fault_ledger import assert_catch_up_rule, assert_one_row_each
from tests.support.fault_locks import locked, waiting_for
from tests.support.fault_pages import assert_nothing_lost_or_doubled, begin_page, until_page_ended
from tests.support.fault_postgres import frozen
from tests.support.fault_stack import Stack
from tests.support.postgres import PostgresServer

PAGE = 100
SCHEDULES = "agent_run_schedules"
# The default of AGENTEX_LATE_AFTER_SECONDS.
LATE_AFTER = timedelta(seconds=30)


@pytest.mark.timeout(240)
async def test_postgres_that_hangs_is_answered_with_503_and_costs_no_run(
    stack_on_own_postgres: Callable[..., Stack], own_postgres: PostgresServer
) -> None:
    """For less long than its claims last: the page goes on where it was."""
    stack = stack_on_own_postgres(database_connect_timeout_seconds=1, database_statement_timeout_seconds=2)
    worker = stack.start()
    other = await stack.start_agent("async")
    schedule = await stack.create_schedule(other, interval_seconds=5)
    await stack.until_delivered(1, schedule["id"])
    agent = await begin_page(stack, PAGE)

    async def noticed() -> bool:
        return worker.logged("run.renew")

    with frozen(own_postgres.postgres):
        answers = await ask_everything(stack, other, schedule)
        ready = await stack.call("GET", "/readyz")
        await stack.until(noticed, "the page noticing that the database is silent")
    thawed = await stack.now()
    await stack.until_delivered(2, schedule["id"], after=thawed)
    await until_page_ended(stack, agent, PAGE)

    assert answers == dict.fromkeys(answers, DATABASE_UNAVAILABLE)
    assert (ready.status, ready.json["checks"]["postgres"]["ok"]) == (503, False)
    assert "Traceback" not in stack.api.output(100_000)
    rows = await stack.runs()
    ticked = [row for row in rows if str(row.schedule_id) == schedule["id"]]
    assert_one_row_each(ticked, 5)
    assert_catch_up_rule(ticked, LATE_AFTER)
    assert set(other.sent().values()) == {1}
    paged = [row for row in rows if row not in ticked]
    assert_nothing_lost_or_doubled(paged, agent, PAGE)


@pytest.mark.timeout(120)
async def test_pool_without_a_free_connection_is_answered_with_503(make_stack: Callable[..., Stack]) -> None:
    """One connection, and a statement on it that waits for a lock: it goes on to its end, others get 503."""
    stack = make_stack(
        database_pool_size=1,
        database_max_overflow=0,
        database_connect_timeout_seconds=1,
        database_statement_timeout_seconds=60,
    )
    stack.start_api()
    agent = await stack.start_agent("async")
    schedule = await stack.create_schedule(agent, cron_expression="0 9 * * *")
    path = f"/agents/{agent.id}/schedules/{schedule['id']}"
    async with locked(stack, SCHEDULES):
        blocked = asyncio.create_task(stack.call("PATCH", path, {"description": "changed"}))

        async def waits() -> bool:
            return len(await waiting_for(stack, SCHEDULES)) == 1

        await stack.until(waits, "the statement waiting for the lock")
        answers = await ask_everything(stack, agent, schedule)
        ready, alive = await stack.call("GET", "/readyz"), await stack.call("GET", "/healthz")
        assert not blocked.done()
    assert (await blocked).status == 200
    assert answers == dict.fromkeys(answers, DATABASE_UNAVAILABLE)
    assert (ready.status, ready.json["checks"]["postgres"]["ok"], alive.status) == (503, False, 200)
    after = await stack.ok("GET", path)
    assert (after["description"], after["version"]) == ("changed", 2)
    assert "Traceback" not in stack.api.output(100_000)


@pytest.mark.timeout(120)
async def test_statement_that_waits_past_its_limit_is_answered_with_503_and_changes_nothing(
    make_stack: Callable[..., Stack],
) -> None:
    """Its connection is the only one, and serves again as soon as the lock is gone."""
    stack = make_stack(database_pool_size=1, database_max_overflow=0, database_statement_timeout_seconds=1)
    stack.start_api()
    agent = await stack.start_agent("async")
    schedule = await stack.create_schedule(agent, cron_expression="0 9 * * *")
    path = f"/agents/{agent.id}/schedules/{schedule['id']}"
    async with locked(stack, SCHEDULES):
        answers = [
            told(
                await stack.call(method, f"{path}{below}", {"description": "changed"} if not below else None)
            )
            for method, below in (("PATCH", ""), ("POST", "/pause"), ("DELETE", ""))
        ]
    assert answers == [DATABASE_UNAVAILABLE] * 3
    changed = await stack.ok("PATCH", path, {"description": "after"})
    assert (changed["description"], changed["paused"], changed["version"]) == ("after", False, 2)
    assert "Traceback" not in stack.api.output(100_000)
