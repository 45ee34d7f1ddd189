"""Agents that go away and come back, here or elsewhere: their status, and the runs that wait for them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, Literal

import pytest

from agentex.database import JsonObject
from tests.support.fault_agent import FaultAgent
from tests.support.fault_stack import LedgerRow, Stack

QUICK_HEALTH: dict[str, object] = {
    "agent_health_interval_seconds": 1,
    "agent_health_timeout_seconds": 2,
    "agent_health_failures": 2,
}
# Resolves nowhere (RFC 2606), so that only the rewrite can lead to the agent.
HOST = "agents.invalid"


async def status(stack: Stack, agent: FaultAgent) -> tuple[str, str | None]:
    found = await stack.ok("GET", f"/agents/{agent.id}")
    return found["status"], found["status_reason"]


async def until_status(stack: Stack, agent: FaultAgent, wanted: str) -> None:
    async def reached() -> bool:
        return (await status(stack, agent))[0] == wanted

    await stack.until(reached, f"the agent being {wanted}")


async def schedule_reads(stack: Stack, schedule: JsonObject) -> set[tuple[Any, Any]]:
    """What both reads of a schedule say of its agent."""
    prefix = f"/agents/{schedule['agent_id']}/schedules"
    one = await stack.ok("GET", f"{prefix}/{schedule['id']}")
    (listed,) = (await stack.ok("GET", prefix))["run_schedules"]
    return {(read["agent_status"], read["agent_status_reason"]) for read in (one, listed)}


async def triggered(stack: Stack, schedule: JsonObject) -> LedgerRow:
    """A run on demand that has been tried twice at least and waits for its agent."""
    await stack.ok("POST", f"/agents/{schedule['agent_id']}/schedules/{schedule['id']}/trigger")

    async def waits() -> bool:
        return any(row.status == "due" and row.attempt >= 2 for row in await stack.runs())

    await stack.until(waits, "a second attempt")
    (run,) = await stack.runs()
    return run


@pytest.mark.timeout(180)
@pytest.mark.parametrize("acp_type", ["async", "sync"])
async def test_agent_killed_and_started_elsewhere_gets_the_run_that_waited(
    make_stack: Callable[..., Stack], acp_type: Literal["async", "sync"]
) -> None:
    stack = make_stack(**QUICK_HEALTH)
    stack.start()
    agent = await stack.start_agent(acp_type)
    schedule = await stack.create_schedule(agent, cron_expression="0 0 1 1 *")
    assert await schedule_reads(stack, schedule) == {("Ready", None)}

    agent.process.kill()
    await until_status(stack, agent, "Unhealthy")
    _, reason = await status(stack, agent)
    assert f"{agent.url.removeprefix('http://')}, GET /healthz: no connection" in str(reason)
    assert await schedule_reads(stack, schedule) == {("Unhealthy", reason)}

    # Health is advice: the run is tried all the same, and says what it waits for.
    waiting = await triggered(stack, schedule)
    assert (waiting.error or "").endswith(f" (the agent is Unhealthy: {reason})")

    moved = await stack.move_agent(agent, acp_type)
    assert (moved.id, await status(stack, moved)) == (agent.id, ("Ready", None))
    assert await schedule_reads(stack, schedule) == {("Ready", None)}
    await stack.until_finished(1)
    (run,) = await stack.runs()
    ended = "delivered" if acp_type == "async" else "succeeded"
    assert (run.id, run.outcome, run.error) == (waiting.id, (ended, None), None)
    assert moved.sent() == Counter({str(run.task_id): 1})
    assert agent.sent() == Counter()


@pytest.mark.timeout(180)
async def test_agent_that_comes_back_where_it_was_is_ready_without_registering(
    make_stack: Callable[..., Stack],
) -> None:
    stack = make_stack(**QUICK_HEALTH)
    stack.start()
    agent = await stack.start_agent("async")
    schedule = await stack.create_schedule(agent, cron_expression="0 0 1 1 *")
    agent.process.kill()
    await until_status(stack, agent, "Unhealthy")
    await triggered(stack, schedule)

    agent.start()
    await until_status(stack, agent, "Ready")
    await stack.until_finished(1)

    assert await stack.outcomes() == Counter({("delivered", None): 1})
    assert await schedule_reads(stack, schedule) == {("Ready", None)}
    assert set(agent.sent().values()) == {1}


@pytest.mark.timeout(180)
async def test_another_worker_takes_the_looking_over(make_stack: Callable[..., Stack]) -> None:
    stack = make_stack(**QUICK_HEALTH)
    first = stack.start()
    second = stack.start_worker()
    agent = await stack.start_agent("async")
    agent.process.kill()
    await until_status(stack, agent, "Unhealthy")

    first.process.kill()
    agent.start()
    await until_status(stack, agent, "Ready")
    agent.process.kill()
    await until_status(stack, agent, "Unhealthy")

    assert second.logged("agent.health")


@pytest.mark.timeout(180)
async def test_agent_at_a_rewritten_host_is_reached_by_every_call(make_stack: Callable[..., Stack]) -> None:
    """As agents register that were started by their own command line."""
    stack = make_stack(**QUICK_HEALTH, agent_host_rewrites=f"{HOST}=127.0.0.1")
    stack.start()
    agent = await stack.start_agent("async")
    registered = agent.url.replace("127.0.0.1", HOST)
    await stack.register(agent, "async", acp_url=registered)

    created = await stack.ok("POST", f"/agents/{agent.id}/rpc", {"method": "task/create"})
    schedule = await stack.create_schedule(agent, cron_expression="0 0 1 1 *")
    await stack.ok("POST", f"/agents/{agent.id}/schedules/{schedule['id']}/trigger")
    await stack.until_finished(1)

    assert created["error"] is None
    assert await stack.outcomes() == Counter({("delivered", None): 1})
    # The row, and what the agent is told of itself, keep what was registered.
    (row,) = await stack.sql("SELECT acp_url FROM agents")
    told: Any = agent.requests("event/send")[0].params["agent"]
    assert (row["acp_url"], told["acp_url"]) == (registered, registered)
    # And its health is asked there, too: away it becomes Unhealthy, and Ready when it is back.
    agent.process.kill()
    await until_status(stack, agent, "Unhealthy")
    agent.start()
    await until_status(stack, agent, "Ready")
