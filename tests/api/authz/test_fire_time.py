"""Permission when a run fires: under its creator, by what it may do then, with the real rules."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

import httpx2
import pytest
from sqlmodel.ext.asyncio.session import AsyncSession

from agentex.agents.models import AcpType, Agent
from agentex.auth.authorize import Decision, Operation, ResourceRef
from agentex.auth.principal import Principal, agent_principal
from agentex.auth.rules import Role
from agentex.errors import AuthorizerUnavailable
from agentex.executors.base import Lane
from agentex.ids import fire_id, scheduled_task_name
from agentex.resources import GoneCreator, Resources
from agentex.runs.dispatch import Dispatch
from agentex.runs.launch import Launch
from agentex.runs.models import Run, RunReason, RunStatus
from agentex.runs.pages import PageRef
from agentex.schedules.gone import pause_for_gone_creators
from agentex.schedules.models import Schedule
from tests.api.authz.members import FIRST, calling, join, join_agent, user
from tests.api.ledger.stage import (
    BATCH,
    Attached,
    add_agent,
    add_schedule,
    fetch,
    ledger,
    open_run,
    read_run,
)
from tests.api.schedules.schedules import Schedules
from tests.support.acp_server import AcpServer

OLGA = user("olga")
LEFT = "paused: its creator user:olga is no member of the account any more"
NO_MEMBER = "agent.execute is denied: user:olga is no member of the account, or no longer"


@dataclass(frozen=True)
class Fired:
    """One run of a schedule, as it ended."""

    status: RunStatus
    reason: RunReason | None
    error: str | None


async def launch(resources: Resources, lane: Lane = Lane.DELIVER) -> None:
    page = PageRef(BATCH, lane, 0)
    await Launch(resources, Dispatch(resources), page, asyncio.Event(), lambda: None).run()


async def end(resources: Resources, run: Run) -> Fired:
    row = await read_run(resources, run.id)
    return Fired(row.status, row.reason, row.error)


async def read_schedule(resources: Resources, schedule: Schedule) -> Schedule:
    async with resources.db.read() as session:
        return await session.get_one(Schedule, schedule.id)


@pytest.fixture
async def agent(resources: Resources, acp_server: AcpServer) -> Agent:
    return await add_agent(resources, acp_url=acp_server.url, account_id=FIRST)


async def of(resources: Resources, agent: Agent, creator: Principal, **more: object) -> tuple[Schedule, Run]:
    """A schedule of this creator, attached to a clock, and a run of it that is due."""
    now = datetime.now(UTC).replace(microsecond=0)
    attached = Attached(now - timedelta(seconds=200), now + timedelta(seconds=30))
    schedule = await add_schedule(
        resources, agent, attached, creator_principal=creator.model_dump(mode="json"), **more
    )
    principal = creator.model_dump(mode="json")
    lane = Lane.ANSWER if agent.acp_type is AcpType.SYNC else Lane.DELIVER
    return schedule, await open_run(resources, agent, schedule, principal=principal, lane=lane)


@pytest.mark.parametrize("role", [Role.ADMIN, Role.OPERATOR, Role.EDITOR])
@pytest.mark.parametrize("kind", [AcpType.ASYNC, AcpType.SYNC])
async def test_a_creators_runs_fire(
    resources: Resources, acp_server: AcpServer, role: Role, kind: AcpType
) -> None:
    await join(resources, OLGA, role)
    agent = await add_agent(resources, acp_url=acp_server.url, account_id=FIRST, acp_type=kind)
    _, run = await of(resources, agent, OLGA)
    lane = Lane.ANSWER if kind is AcpType.SYNC else Lane.DELIVER
    await launch(resources, lane)
    done = RunStatus.SUCCEEDED if kind is AcpType.SYNC else RunStatus.DELIVERED
    assert await end(resources, run) == Fired(done, None, None)
    tasks = await fetch(resources, "SELECT owner FROM tasks")
    assert [row["owner"] for row in tasks] == ["user:olga"]


async def test_a_creator_that_may_not_any_more_is_denied_and_its_schedule_goes_on(
    resources: Resources, agent: Agent, acp_server: AcpServer
) -> None:
    await join(resources, OLGA, Role.VIEWER)
    schedule, run = await of(resources, agent, OLGA)
    await launch(resources)
    denied = "agent.execute is denied: user:olga has role viewer and no grant of it"
    assert await end(resources, run) == Fired(RunStatus.SKIPPED, RunReason.DENIED, denied)
    assert acp_server.requests == []
    assert await fetch(resources, "SELECT id FROM tasks") == []
    assert not (await read_schedule(resources, schedule)).paused


@pytest.mark.parametrize("gone", ["disabled", "deleted"])
async def test_a_creator_that_is_gone_pauses_its_schedule_with_a_note(
    resources: Resources, agent: Agent, acp_server: AcpServer, gone: str
) -> None:
    if gone == "disabled":
        await join(resources, OLGA, Role.EDITOR)
        await fetch(resources, "UPDATE members SET disabled_at = now()")
    schedule, run = await of(resources, agent, OLGA)
    await launch(resources)

    assert await end(resources, run) == Fired(RunStatus.SKIPPED, RunReason.DENIED, NO_MEMBER)
    assert acp_server.requests == []
    paused = await read_schedule(resources, schedule)
    assert (paused.paused, paused.state_note, paused.version) == (True, LEFT, 2)
    assert await fetch(resources, "SELECT * FROM schedule_clocks") == []
    revision = await fetch(
        resources,
        """
        SELECT change, note, changed_by->>'service_account_id' AS by,
            (definition->>'paused')::boolean AS paused
        FROM schedule_revisions WHERE version = 2
        """,
    )
    assert [tuple(row.values()) for row in revision] == [("pause", LEFT, "agentex", True)]


async def test_what_was_owed_until_the_pause_has_its_rows(resources: Resources, agent: Agent) -> None:
    """The pause follows the rules of any: an instant that is owed and not opened gets its row first."""
    now = datetime.now(UTC).replace(microsecond=0)
    owed = [now - timedelta(seconds=now.second + 60 * n) for n in (1, 0)]
    schedule = await add_schedule(
        resources,
        agent,
        Attached(owed[0] - timedelta(seconds=30), owed[0]),
        creator_principal=OLGA.model_dump(mode="json"),
    )
    await pause_for_gone_creators(resources, [GoneCreator(schedule.id, OLGA)])
    assert await ledger(resources, schedule.id) == [
        (fire_id(instant), "cadence", "skipped", "denied") for instant in owed
    ]


async def test_a_schedule_that_has_another_creator_by_now_goes_on(resources: Resources, agent: Agent) -> None:
    schedule, run = await of(resources, agent, OLGA)
    bob = user("bob").model_dump_json()
    await fetch(resources, "UPDATE agent_run_schedules SET creator_principal = CAST(:bob AS jsonb)", bob=bob)
    await launch(resources)
    assert await end(resources, run) == Fired(RunStatus.SKIPPED, RunReason.DENIED, NO_MEMBER)
    assert not (await read_schedule(resources, schedule)).paused


async def test_a_paused_one_is_left_as_it_is(resources: Resources, agent: Agent) -> None:
    schedule, _ = await of(resources, agent, OLGA, paused=True, state_note="a holiday")
    await launch(resources)
    left = await read_schedule(resources, schedule)
    assert (left.state_note, left.version) == ("a holiday", 1)


async def test_a_whole_page_of_one_creator_is_paused_at_once(resources: Resources, agent: Agent) -> None:
    made = [await of(resources, agent, OLGA) for _ in range(20)]
    await join(resources, user("bob"), Role.EDITOR)
    _, bobs = await of(resources, agent, user("bob"))
    await launch(resources)
    found = await fetch(resources, "SELECT id FROM agent_run_schedules WHERE paused")
    assert {row["id"] for row in found} == {schedule.id for schedule, _ in made}
    assert (await end(resources, bobs)).status is RunStatus.DELIVERED


async def test_an_outage_of_the_authorizer_is_tried_again(
    resources: Resources, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    await join(resources, OLGA, Role.EDITOR)
    schedule, run = await of(resources, agent, OLGA)

    async def away(
        session: AsyncSession, principal: Principal, operation: Operation, resource: ResourceRef
    ) -> Decision:
        raise AuthorizerUnavailable

    monkeypatch.setattr(resources.authz, "authorize", away)
    await launch(resources)
    waiting = await read_run(resources, run.id)
    assert (waiting.status, waiting.reason) == (RunStatus.DUE, None)
    assert not (await read_schedule(resources, schedule)).paused
    monkeypatch.undo()
    await fetch(resources, "UPDATE runs SET next_attempt_at = now()")
    await launch(resources)
    assert await end(resources, run) == Fired(RunStatus.DELIVERED, None, None)


async def test_an_agents_schedule_fires_as_that_agent(resources: Resources, acp_server: AcpServer) -> None:
    """Made over HTTP with the agent's own key, for itself (the incumbent's never ran)."""
    key = await join_agent(resources, "greeter")
    greeter = await add_agent(resources, "greeter", acp_url=acp_server.url, account_id=FIRST)
    async with calling(key) as client:
        schedules = Schedules(client, resources, str(greeter.id))
        created = await schedules.create(name="own")
        assert created["creator_principal"] == agent_principal(FIRST, "greeter").model_dump(mode="json")
        resources.hooks.run_opened = None
        run_id = (await schedules.act(created, "trigger")).json()["run_id"]
        await fetch(
            resources,
            "UPDATE runs SET batch_id = :batch, lane = 'deliver', page = 0 WHERE id = CAST(:id AS uuid)",
            batch=BATCH,
            id=run_id,
        )
        await launch(resources)
        run = (await client.get(f"/runs/{run_id}")).json()
        assert (run["status"], run["reason"]) == ("delivered", None)
        task = (await client.get(f"/tasks/{run['task_id']}")).json()
        assert task["name"] == scheduled_task_name(UUID(created["id"]), run["fire_id"])
    owners = await fetch(resources, "SELECT owner FROM tasks")
    assert [row["owner"] for row in owners] == ["agent:greeter"]


async def test_a_task_that_waits_under_the_runs_name_gets_no_input(
    client: httpx2.AsyncClient, resources: Resources, agent: Agent, acp_server: AcpServer
) -> None:
    """Who knows a schedule can foretell the name of its next task, and make that task before."""
    await join(resources, OLGA, Role.EDITOR)
    schedule, run = await of(resources, agent, OLGA)
    name = scheduled_task_name(schedule.id, run.fire_id)
    await fetch(
        resources,
        """
        INSERT INTO tasks (id, account_id, owner, agent_id, name, status, created_at, updated_at)
        VALUES (gen_random_uuid(), 'first', 'agent:mallory', :agent, :name, 'RUNNING', now(), now())
        """,
        agent=agent.id,
        name=name,
    )
    await launch(resources)
    error = f"there is a task {name!r} already, which is not this run's"
    assert await end(resources, run) == Fired(RunStatus.FAILED, RunReason.CONFIGURATION, error)
    assert await fetch(resources, "SELECT id FROM events") == []
    assert acp_server.requests == []
