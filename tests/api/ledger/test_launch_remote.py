"""A launch whose permission is a remote authorizer's to give: under the creator that is stored."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from agentex.agents.models import Agent
from agentex.auth.principal import Principal
from agentex.executors.base import Lane
from agentex.hooks import fill_hooks
from agentex.ids import run_task_id
from agentex.resources import Resources, open_resources
from agentex.runs.dispatch import Dispatch
from agentex.runs.launch import Launch
from agentex.runs.models import Run, RunReason, RunStatus
from agentex.runs.pages import PageRef
from agentex.schedules.models import Schedule
from agentex.settings import Settings
from tests.api.ledger.stage import BATCH, add_agent, add_schedule, fetch, open_run, read_run
from tests.support.acp_server import AcpServer
from tests.support.auth_stub import AuthStub, principal

ALICE, BOB = principal("alice"), principal("bob")


@pytest.fixture
async def stub() -> AsyncIterator[AuthStub]:
    """An authorizer that answers."""
    async with AuthStub() as opened:
        yield opened


@pytest.fixture
async def remote(settings: Settings, stub: AuthStub) -> AsyncIterator[Resources]:
    """Resources as in a worker whose authorizer is the stub."""
    told = {"auth": "remote", "remote_auth_url": stub.url, "remote_auth_timeout_seconds": 1}
    kept = settings.model_dump(exclude_unset=True)
    async with open_resources(Settings.model_validate({**kept, **told})) as opened:
        fill_hooks(opened)
        yield opened


@pytest.fixture
async def echo(remote: Resources, stub: AuthStub, acp_server: AcpServer) -> Agent:
    """An agent of alice's, that answers."""
    agent = await add_agent(remote, acp_url=acp_server.url, account_id="acme")
    stub.registered[str(agent.id)] = {"resource": {"type": "agent"}, "parent": None}
    stub.granted.add(("alice", str(agent.id)))
    await fetch(remote, "DELETE FROM registrations")
    return agent


async def open_alices(remote: Resources, echo: Agent) -> tuple[Schedule, Run]:
    """A schedule that alice made, and a run of it that is due."""
    schedule = await add_schedule(remote, echo, None, creator_principal=ALICE)
    return schedule, await open_run(remote, echo, schedule, principal=ALICE)


async def launch(resources: Resources) -> float | None:
    page = PageRef(BATCH, Lane.DELIVER, 0)
    return await Launch(resources, Dispatch(resources), page, asyncio.Event(), lambda: None).run()


async def end(resources: Resources, run: Run) -> tuple[RunStatus, RunReason | None, str | None]:
    row = await read_run(resources, run.id)
    return row.status, row.reason, row.error


async def test_the_stored_creator_is_asked_for_and_its_task_is_registered_under_the_agent(
    remote: Resources, echo: Agent, stub: AuthStub, acp_server: AcpServer
) -> None:
    _, run = await open_alices(remote, echo)
    assert await launch(remote) is None
    assert await end(remote, run) == (RunStatus.DELIVERED, None, None)
    agent = {"type": "agent", "selector": str(echo.id)}
    task = {"type": "task", "selector": str(run_task_id(run.id))}
    checks = [(check["operation"], check["resource"]) for check in stub.asked["check"]]
    # The task is asked for twice: it was just made, and the authorizer is told of it in between.
    assert checks == [
        ("execute", agent),
        ("create", {"type": "task", "selector": "*"}),
        ("update", task),
        ("update", task),
    ]
    assert {str(check["principal"]) for check in stub.asked["check"]} == {str(ALICE)}
    assert stub.registered[task["selector"]] == {"principal": ALICE, "resource": task, "parent": agent}
    assert [request.method for request in acp_server.requests] == ["task/create", "event/send"]
    assert stub.counts["authn"] == 0


@pytest.mark.parametrize(
    ("operation", "kind"), [("execute", "agent"), ("create", "task"), ("update", "task")]
)
async def test_a_denial_skips_the_run_and_says_what_was_denied(
    remote: Resources, echo: Agent, stub: AuthStub, acp_server: AcpServer, operation: str, kind: str
) -> None:
    _, run = await open_alices(remote, echo)
    stub.deny = {(operation, kind)}
    assert await launch(remote) is None
    rule = f"{kind}.{operation} is denied: the remote authorizer says no"
    assert await end(remote, run) == (RunStatus.SKIPPED, RunReason.DENIED, rule)
    assert acp_server.requests == []


async def test_a_creator_that_the_authorizer_knows_no_more_is_denied(
    remote: Resources, echo: Agent, stub: AuthStub, acp_server: AcpServer
) -> None:
    _, run = await open_alices(remote, echo)
    stub.status["check"] = 401
    assert await launch(remote) is None
    rule = "agent.execute is denied: the remote authorizer does not know this caller"
    assert await end(remote, run) == (RunStatus.SKIPPED, RunReason.DENIED, rule)
    assert acp_server.requests == []


async def test_another_one_s_leave_is_of_no_use(
    remote: Resources, echo: Agent, stub: AuthStub, acp_server: AcpServer
) -> None:
    schedule = await add_schedule(remote, echo, None, creator_principal=BOB)
    run = await open_run(remote, echo, schedule, principal=BOB)
    await launch(remote)
    assert (await end(remote, run))[:2] == (RunStatus.SKIPPED, RunReason.DENIED)
    assert acp_server.requests == []


@pytest.mark.parametrize("path", ["check", "register", "grant"])
@pytest.mark.parametrize("status", [0, 502, 503])
async def test_an_outage_makes_the_run_wait_and_then_run(
    remote: Resources, echo: Agent, stub: AuthStub, acp_server: AcpServer, path: str, status: int
) -> None:
    _, run = await open_alices(remote, echo)
    stub.status[path] = status
    wait = await launch(remote)
    assert wait is not None
    waiting = await read_run(remote, run.id)
    assert (waiting.status, waiting.reason) == (RunStatus.DUE, None)
    assert "the remote authorizer" in (waiting.error or "")
    assert acp_server.requests == []
    stub.status.clear()
    await fetch(remote, "UPDATE runs SET next_attempt_at = now()")
    assert await launch(remote) is None
    row = await read_run(remote, run.id)
    assert (row.status, row.attempt, row.error) == (RunStatus.DELIVERED, 2, None)
    assert [request.method for request in acp_server.requests] == ["task/create", "event/send"]


async def test_an_authorizer_that_does_not_listen_makes_the_run_wait(
    remote: Resources, echo: Agent, stub: AuthStub, acp_server: AcpServer
) -> None:
    _, run = await open_alices(remote, echo)
    await stub.close()
    assert await launch(remote) is not None
    assert ((await read_run(remote, run.id)).status, acp_server.requests) == (RunStatus.DUE, [])


async def test_a_schedule_of_an_agent_s_key_acts_as_that_agent(
    remote: Resources, echo: Agent, stub: AuthStub
) -> None:
    """Judged here: the authorizer knows nothing of agents."""
    agent = {**ALICE, "principal_type": "agent", "user_id": None, "service_account_id": echo.name}
    await fetch(
        remote,
        """INSERT INTO members (account_id, name, principal, role, created_at, updated_at)
        VALUES ('acme', :name, CAST(:principal AS jsonb), 'agent', now(), now())""",
        name=f"agent:{echo.name}",
        principal=Principal.model_validate(agent).model_dump_json(),
    )
    schedule = await add_schedule(remote, echo, None, creator_principal=agent)
    run = await open_run(remote, echo, schedule, principal=agent)
    assert await launch(remote) is None
    assert (await end(remote, run))[0] is RunStatus.DELIVERED
    assert stub.counts["check"] == 0
