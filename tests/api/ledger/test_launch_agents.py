"""A launch and its agent: one that is not deployed, one that is unhealthy, one that has moved."""

from __future__ import annotations

import asyncio

import httpx2
import pytest

from agentex.agents.models import AcpType, Agent, AgentStatus
from agentex.executors.base import Lane
from agentex.resources import Resources
from agentex.runs.dispatch import Dispatch
from agentex.runs.finish import MAX_ERROR_LENGTH
from agentex.runs.launch import Launch
from agentex.runs.models import Run, RunReason, RunStatus
from agentex.runs.pages import PageRef
from agentex.runs.stop import stop_at_agent
from tests.api.ledger.stage import BATCH, add_agent, add_schedule, add_task, fetch, open_run, read_run
from tests.support.acp_replies import Reply
from tests.support.acp_server import AcpServer
from tests.support.api import register

WHY = "GET /healthz answered HTTP 500"


async def launch(resources: Resources, lane: Lane = Lane.DELIVER) -> None:
    page = PageRef(BATCH, lane, 0)
    await Launch(resources, Dispatch(resources), page, asyncio.Event(), lambda: None).run()


async def become(resources: Resources, agent: Agent, status: AgentStatus, reason: str | None) -> None:
    await fetch(
        resources,
        "UPDATE agents SET status = :status, status_reason = :reason WHERE id = :id",
        id=agent.id,
        status=status,
        reason=reason,
    )


async def opened(resources: Resources, agent: Agent) -> Run:
    lane = Lane.ANSWER if agent.acp_type is AcpType.SYNC else Lane.DELIVER
    return await open_run(resources, agent, await add_schedule(resources, agent, None), lane=lane)


async def undeployed(resources: Resources) -> Agent:
    agent = await add_agent(resources, "built")
    await fetch(resources, "UPDATE agents SET acp_url = NULL, status = 'BuildOnly'")
    return agent


async def test_an_agent_that_is_not_deployed_ends_the_run_as_configuration(
    client: httpx2.AsyncClient, hooked: Resources
) -> None:
    agent = await undeployed(hooked)
    run = await opened(hooked, agent)

    await launch(hooked)

    row = await read_run(hooked, run.id)
    assert (row.status, row.reason, row.attempt) == (RunStatus.FAILED, RunReason.CONFIGURATION, 1)
    assert row.error == (
        "agent 'built' is BuildOnly: its build is registered, but it is not deployed, so there is nobody to "
        "call; deploy it, and it registers itself"
    )
    assert list(await fetch(hooked, "SELECT 1 FROM tasks")) == []
    shown = (await client.get(f"/runs/{run.id}")).json()
    assert (shown["status"], shown["reason"]) == ("failed", "configuration")


async def test_once_it_has_registered_its_runs_are_delivered(
    client: httpx2.AsyncClient, hooked: Resources, acp_server: AcpServer
) -> None:
    agent = await undeployed(hooked)
    await register(client, name="built", acp_url=acp_server.url)
    run = await opened(hooked, agent)

    await launch(hooked)

    assert (await read_run(hooked, run.id)).status is RunStatus.DELIVERED


async def test_stopping_a_run_of_an_agent_that_is_not_deployed_tells_nobody(hooked: Resources) -> None:
    agent = await undeployed(hooked)
    task = await add_task(hooked, agent)
    run = await opened(hooked, agent)
    await fetch(hooked, "UPDATE runs SET task_id = :task_id", task_id=task.id)

    await stop_at_agent(hooked, run.id)

    found = await fetch(hooked, "SELECT status FROM tasks")
    assert [row["status"] for row in found] == ["CANCELED"]


@pytest.mark.parametrize("acp_type", [AcpType.ASYNC, AcpType.SYNC])
async def test_an_unhealthy_agent_gets_its_runs_all_the_same(
    hooked: Resources, acp_server: AcpServer, acp_type: AcpType
) -> None:
    agent = await add_agent(hooked, acp_url=acp_server.url, acp_type=acp_type)
    await become(hooked, agent, AgentStatus.UNHEALTHY, WHY)
    run = await opened(hooked, agent)

    await launch(hooked, Lane.ANSWER if acp_type is AcpType.SYNC else Lane.DELIVER)

    row = await read_run(hooked, run.id)
    assert row.status is (RunStatus.SUCCEEDED if acp_type is AcpType.SYNC else RunStatus.DELIVERED)
    assert (row.reason, row.error) == (None, None)


@pytest.mark.parametrize(
    ("status", "reason", "behind"),
    [
        (AgentStatus.UNHEALTHY, WHY, f" (the agent is Unhealthy: {WHY})"),
        (AgentStatus.UNHEALTHY, "x" * 5_000, f" (the agent is Unhealthy: {'x' * 300})"),
        (AgentStatus.READY, None, ""),
    ],
)
async def test_a_run_that_waits_for_an_unhealthy_agent_names_its_health(
    hooked: Resources, status: AgentStatus, reason: str | None, behind: str
) -> None:
    agent = await add_agent(hooked)
    await become(hooked, agent, status, reason)
    run = await opened(hooked, agent)

    await launch(hooked)

    row = await read_run(hooked, run.id)
    error = row.error or ""
    assert row.status is RunStatus.DUE
    assert error.startswith("agent 127.0.0.1:9, task/create: no connection: ")
    assert error.endswith(behind)
    assert ("Unhealthy" in error) == bool(behind)


async def test_the_health_is_kept_where_the_failure_s_own_words_are_too_long(
    hooked: Resources, acp_server: AcpServer
) -> None:
    agent = await add_agent(hooked, acp_url=acp_server.url)
    await become(hooked, agent, AgentStatus.UNHEALTHY, WHY)
    acp_server.script("task/create", [Reply(error_code=-32600, error_message="y" * 5_000)])
    run = await opened(hooked, agent)

    await launch(hooked)

    row = await read_run(hooked, run.id)
    assert row.error is not None
    assert row.status is RunStatus.FAILED
    assert row.error.endswith(f" (the agent is Unhealthy: {WHY})")
    assert len(row.error) <= MAX_ERROR_LENGTH


@pytest.mark.parametrize("by", ["name", "agent_id"])
async def test_a_run_that_waits_for_a_retry_goes_to_where_its_agent_has_moved(
    client: httpx2.AsyncClient, hooked: Resources, acp_server: AcpServer, by: str
) -> None:
    agent = await add_agent(hooked)
    run = await opened(hooked, agent)
    await launch(hooked)
    assert (await read_run(hooked, run.id)).status is RunStatus.DUE

    known = {"agent_id": str(agent.id)} if by == "agent_id" else {}
    await register(client, name=agent.name, acp_url=acp_server.url, **known)
    await fetch(hooked, "UPDATE runs SET next_attempt_at = now()")
    await launch(hooked)

    row = await read_run(hooked, run.id)
    assert (row.status, row.attempt, row.error) == (RunStatus.DELIVERED, 2, None)
    assert [request.method for request in acp_server.requests] == ["task/create", "event/send"]
    # The agent is told where it is now.
    told = acp_server.requests[0].params["agent"]
    assert isinstance(told, dict)
    assert told["acp_url"] == acp_server.url


async def test_a_cancel_goes_to_where_the_agent_has_moved(
    client: httpx2.AsyncClient, hooked: Resources, acp_server: AcpServer
) -> None:
    agent = await add_agent(hooked)
    task = await add_task(hooked, agent)
    run = await opened(hooked, agent)
    await fetch(hooked, "UPDATE runs SET task_id = :task_id", task_id=task.id)
    await register(client, name=agent.name, acp_url=acp_server.url)

    await stop_at_agent(hooked, run.id)

    assert [request.method for request in acp_server.requests] == ["task/cancel"]
