"""Postgres restarted or down: requests say so, the worker waits and goes on, nothing is sent twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from itertools import pairwise

import pytest

from tests.support.acp_replies import Reply
from tests.support.fault_stack import Answer, Stack
from tests.support.postgres import PostgresServer

PAGE = 100
GROUP = 32
ANSWERS = 20


@pytest.mark.timeout(120)
async def test_postgres_restarted_during_a_page_doubles_nothing(
    stack_on_own_postgres: Callable[..., Stack], own_postgres: PostgresServer
) -> None:
    stack = stack_on_own_postgres(claim_seconds=10)
    stack.start()
    agent = await stack.start_agent("async")
    await agent.script("event/send", Reply(delay_seconds=0.2), repeat=True)
    await stack.create_page(agent, PAGE)

    async def under_way() -> bool:
        return await agent.count("event/send") >= 40

    await stack.until(under_way, "the page under way")
    own_postgres.postgres.stop()
    own_postgres.postgres.start()
    await stack.until_finished(PAGE)
    rows = await stack.runs()
    unknown = [row for row in rows if row.outcome == ("failed", "outcome_unknown")]
    assert len(unknown) <= GROUP
    expected = {("delivered", None): PAGE - len(unknown), ("failed", "outcome_unknown"): len(unknown)}
    assert Counter(row.outcome for row in rows) == +Counter(expected)
    sent = agent.sent()
    assert {str(row.task_id) for row in rows if row.status == "delivered"} - set(sent) == set()
    assert {task: count for task, count in sent.items() if count > 1} == {}


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
    stack = stack_on_own_postgres(database_connect_timeout_seconds=1)
    worker = stack.start()
    agent = await stack.start_agent("async")
    schedule = await stack.create_schedule(agent, interval_seconds=2)
    await stack.until_finished(1)
    own_postgres.postgres.stop()
    path = f"/agents/{agent.id}/schedules"
    calls: list[tuple[str, str, object]] = [
        ("GET", f"/agents/{agent.id}", None),
        ("GET", path, None),
        ("POST", path, {"name": "new", "interval_seconds": 60, "initial_input": {"content": "Go"}}),
        ("PATCH", f"{path}/{schedule['id']}", {"description": "new"}),
        ("POST", f"{path}/{schedule['id']}/pause", None),
        ("DELETE", f"{path}/{schedule['id']}", None),
        ("GET", f"/runs?schedule_id={schedule['id']}", None),
        ("GET", "/tasks", None),
    ]
    answers = {(method, where): await stack.call(method, where, body) for method, where, body in calls}
    assert {call: seen(answer) for call, answer in answers.items()} == {
        (method, where): (503, True, "database-unavailable") for method, where, _ in calls
    }
    assert all("Traceback" not in answer.text and ".py" not in answer.text for answer in answers.values())
    ready = await stack.call("GET", "/readyz")
    assert (ready.status, ready.json["checks"]["postgres"]["ok"]) == (503, False)
    own_postgres.postgres.start()
    back = await stack.now()

    async def delivered() -> bool:
        return any(row.due_at > back and row.status == "delivered" for row in await stack.runs())

    await stack.until(delivered, "a run after Postgres is back")
    rows = await stack.runs()
    steps = {later.due_at - row.due_at for row, later in pairwise(rows)}
    assert steps == {timedelta(seconds=2)}

    async def answers_again() -> bool:
        # The first request may meet a connection that the restart has cut.
        status = (await stack.call("GET", path)).status
        assert status in (200, 503)
        return status == 200

    await stack.until(answers_again, "an answer as before", 5)
    assert "Traceback" not in stack.api.output(100_000)
    assert "Traceback" not in worker.process.output(100_000)


def seen(answer: Answer) -> tuple[int, bool, str]:
    """Status, whether it says when to come back, and the problem's code."""
    return (
        answer.status,
        int(answer.headers.get("retry-after", 0)) > 0,
        answer.json["type"].rpartition(":")[2],
    )
