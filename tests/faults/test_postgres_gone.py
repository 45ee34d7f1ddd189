"""Postgres restarted or down: requests say so, the worker waits and goes on, nothing is sent twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import timedelta

import pytest

from tests.support.acp_replies import Reply
from tests.support.fault_answers import DATABASE_UNAVAILABLE, ask_everything
from tests.support.fault_ledger import assert_catch_up_rule, assert_one_row_each, instants
from tests.support.fault_locks import locked, waiting_for
from tests.support.fault_pages import assert_nothing_lost_or_doubled, begin_page, until_page_ended
from tests.support.fault_stack import Stack
from tests.support.postgres import PostgresServer

PAGE = 100
ANSWERS = 20
# What an open_due writes in the statement that inserts the runs.
TOTALS = "schedule_totals"
# The default of AGENTEX_LATE_AFTER_SECONDS.
LATE_AFTER = timedelta(seconds=30)


@pytest.mark.timeout(120)
async def test_postgres_restarted_during_a_page_doubles_nothing(
    stack_on_own_postgres: Callable[..., Stack], own_postgres: PostgresServer
) -> None:
    stack = stack_on_own_postgres()
    stack.start()
    agent = await begin_page(stack, PAGE)
    own_postgres.postgres.stop()
    own_postgres.postgres.start()
    await until_page_ended(stack, agent, PAGE)
    assert_nothing_lost_or_doubled(await stack.runs(), agent, PAGE)


@pytest.mark.timeout(150)
async def test_postgres_restarted_during_a_tick_opens_every_instant_once(
    stack_on_own_postgres: Callable[..., Stack], own_postgres: PostgresServer
) -> None:
    """The tick is held where it has its clock locked and has not inserted the runs yet."""
    stack = stack_on_own_postgres()
    stack.start()
    agent = await stack.start_agent("async")
    schedule = await stack.create_schedule(agent, interval_seconds=2)
    await stack.until_delivered(1, schedule["id"])

    async def is_checked() -> bool:
        # From here on the sweep opens nothing that is less than 30 s overdue: what opens is a tick.
        found = await stack.sql("SELECT 1 FROM schedule_clocks WHERE checked_at IS NULL")
        return not found

    async def is_inside_tick() -> bool:
        return any({"clocks", "runs"} <= tables for tables in await waiting_for(stack, TOTALS))

    await stack.until(is_checked, "the sweep's look at the new schedule")
    async with locked(stack, TOTALS):
        await stack.until(is_inside_tick, "a tick inside its transaction")
        opened = await stack.runs()
        own_postgres.postgres.stop()
        own_postgres.postgres.start()
    back = await stack.now()
    await stack.until_delivered(3, schedule["id"], after=back)

    rows = await stack.runs()
    assert instants(rows)[: len(opened)] == instants(opened)
    assert_one_row_each(rows, 2)
    assert_catch_up_rule(rows, LATE_AFTER)
    assert set(agent.sent().values()) == {1}


@pytest.mark.timeout(120)
async def test_postgres_restarted_under_open_answers_costs_none(
    stack_on_own_postgres: Callable[..., Stack], own_postgres: PostgresServer
) -> None:
    stack = stack_on_own_postgres()
    worker = stack.start()
    agent = await stack.start_agent("sync")
    await agent.script("message/send", Reply(hang="before"), repeat=True)
    await stack.create_page(agent, ANSWERS)

    async def hanging() -> bool:
        return await agent.hanging() == ANSWERS

    await stack.until(hanging, "the answers open")
    own_postgres.postgres.stop()

    async def noticed() -> bool:
        return worker.logged("run.renew")

    await stack.until(noticed, "the page noticing that the database is away")
    own_postgres.postgres.start()
    assert await hanging()
    await agent.release()
    await stack.until_finished(ANSWERS)
    rows = await stack.runs()
    assert Counter((row.outcome, row.attempt) for row in rows) == {(("succeeded", None), 1): ANSWERS}
    assert agent.sent() == Counter(str(row.task_id) for row in rows)


@pytest.mark.timeout(120)
async def test_requests_say_503_while_postgres_is_down_and_the_worker_goes_on_when_it_is_back(
    stack_on_own_postgres: Callable[..., Stack], own_postgres: PostgresServer
) -> None:
    """Down means refused. The first request afterwards may still find a connection that the restart has cut
    and say 503 once more, as documented: no connection is asked before its use whether it is alive.
    """
    stack = stack_on_own_postgres(database_connect_timeout_seconds=1)
    worker = stack.start()
    agent = await stack.start_agent("async")
    schedule = await stack.create_schedule(agent, interval_seconds=2)
    await stack.until_delivered(1, schedule["id"])
    own_postgres.postgres.stop()
    path = f"/agents/{agent.id}/schedules"
    answers = await ask_everything(stack, agent, schedule)
    assert answers == dict.fromkeys(answers, DATABASE_UNAVAILABLE)
    ready = await stack.call("GET", "/readyz")
    assert (ready.status, ready.json["checks"]["postgres"]["ok"]) == (503, False)
    own_postgres.postgres.start()
    back = await stack.now()
    await stack.until_delivered(1, schedule["id"], after=back)
    rows = await stack.runs()
    assert_one_row_each(rows, 2)

    async def answers_again() -> bool:
        status = (await stack.call("GET", path)).status
        assert status in (200, 503)
        return status == 200

    await stack.until(answers_again, "an answer as before")
    assert "Traceback" not in stack.api.output(100_000)
    assert "Traceback" not in worker.process.output(100_000)
