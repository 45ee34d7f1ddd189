"""What a launch holds on to while the database, its process or another launch gets in its way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from uuid import UUID

import pytest
from sqlalchemy.exc import DBAPIError
from sqlmodel.ext.asyncio.session import AsyncSession

from agentex.agents.models import AcpType, Agent
from agentex.executors.base import Lane
from agentex.resources import Definition, DefinitionRef, Resources
from agentex.runs import launch as launch_module
from agentex.runs.claims import Held
from agentex.runs.dispatch import Dispatch
from agentex.runs.launch import Launch
from agentex.runs.models import Run, RunReason, RunStatus
from agentex.runs.pages import PageRef
from agentex.tasks.models import TaskStatus
from tests.api.ledger.stage import BATCH, add_agent, add_schedule, fetch, open_run, read_run
from tests.support.acp_replies import Reply
from tests.support.acp_server import AcpServer

RENEW_SECONDS = 0.05


@pytest.fixture
def watched(hooked: Resources) -> Resources:
    """Resources of a worker that looks after its claims all the time."""
    settings = hooked.settings.model_copy(update={"claim_renew_seconds": RENEW_SECONDS})
    return replace(hooked, settings=settings)


@pytest.fixture
async def oracle(watched: Resources, acp_server: AcpServer) -> Agent:
    """A sync agent."""
    return await add_agent(watched, "oracle", acp_type=AcpType.SYNC, acp_url=acp_server.url)


async def open_answer(resources: Resources, agent: Agent) -> Run:
    return await open_run(resources, agent, await add_schedule(resources, agent, None), lane=Lane.ANSWER)


def launch_of(resources: Resources, dispatch: Dispatch | None = None) -> Launch:
    page = PageRef(BATCH, Lane.ANSWER, 0)
    return Launch(resources, dispatch or Dispatch(resources), page, asyncio.Event(), lambda: None)


async def status_of(resources: Resources, run: Run) -> tuple[RunStatus, RunReason | None]:
    row = await read_run(resources, run.id)
    return row.status, row.reason


async def test_another_launch_of_the_process_leaves_open_answers_whose_claims_look_expired(
    watched: Resources, oracle: Agent, acp_server: AcpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that slept: Temporal gives the page out again before the first launch has renewed."""
    renewals = asyncio.Event()

    async def held_up(*_: object) -> Held:
        await renewals.wait()
        return Held(frozenset(), frozenset())

    monkeypatch.setattr(launch_module, "read_held", held_up)
    acp_server.script("message/send", [Reply(hang="before")])
    run = await open_answer(watched, oracle)
    dispatch = Dispatch(watched)
    first = asyncio.create_task(launch_of(watched, dispatch).run())
    await acp_server.is_hanging()
    await fetch(watched, "UPDATE runs SET claimed_until = now() - interval '1 second'")
    await launch_of(watched, dispatch).run()
    acp_server.release()
    await first
    assert (await status_of(watched, run), acp_server.counts["message/send"]) == (
        (RunStatus.SUCCEEDED, None),
        1,
    )


async def test_claims_are_kept_after_an_error_that_is_no_outage(
    watched: Resources, oracle: Agent, acp_server: AcpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A standby that a failover has made the first answers 25006 for a moment."""
    read, looked = launch_module.read_held, asyncio.Event()
    errors = [DBAPIError("SELECT", None, Exception("read-only transaction"))]

    async def once_in_vain(session: AsyncSession, token: UUID, ids: Collection[UUID]) -> Held:
        if errors:
            raise errors.pop()
        looked.set()
        return await read(session, token, ids)

    monkeypatch.setattr(launch_module, "read_held", once_in_vain)
    acp_server.script("message/send", [Reply(hang="before")])
    run = await open_answer(watched, oracle)
    launching = asyncio.create_task(launch_of(watched).run())
    await acp_server.is_hanging()
    async with asyncio.timeout(10):
        await looked.wait()
    acp_server.release()
    await launching
    assert (errors, await status_of(watched, run)) == ([], (RunStatus.SUCCEEDED, None))


async def test_a_look_from_before_does_not_cut_what_has_been_claimed_again(
    watched: Resources, oracle: Agent, acp_server: AcpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was read of a run's first attempt says nothing of its second one."""
    read, claimed_again = launch_module.read_held, asyncio.Event()
    first_look, second_look = asyncio.Event(), asyncio.Event()

    async def slow(session: AsyncSession, token: UUID, ids: Collection[UUID]) -> Held:
        if first_look.is_set():
            second_look.set()
            return await read(session, token, ids)
        first_look.set()
        await claimed_again.wait()
        return Held(frozenset(), frozenset())

    monkeypatch.setattr(launch_module, "read_held", slow)
    acp_server.script("message/send", [Reply(hang="before"), Reply(hang="before")])
    run = await open_answer(watched, oracle)
    launch = launch_of(watched)
    launching = asyncio.create_task(launch.run())
    await acp_server.is_hanging()
    await first_look.wait()
    # The same run in another flight, as after a refusal and a second claim.
    launch.in_flight[run.id] = again = replace(launch.in_flight[run.id])
    claimed_again.set()
    async with asyncio.timeout(10):
        await second_look.wait()
    assert again.cut is None
    acp_server.release()
    await launching
    assert await status_of(watched, run) == (RunStatus.SUCCEEDED, None)


async def test_a_canceled_answer_closes_its_task(
    watched: Resources, oracle: Agent, acp_server: AcpServer
) -> None:
    acp_server.script("message/send", [Reply(hang="before")])
    run = await open_answer(watched, oracle)
    launching = asyncio.create_task(launch_of(watched).run())
    await acp_server.is_hanging()
    await fetch(watched, "UPDATE runs SET cancel_requested_at = now()")
    await launching
    tasks = await fetch(watched, "SELECT status FROM tasks")
    assert (await status_of(watched, run), [task["status"] for task in tasks]) == (
        (RunStatus.CANCELED, None),
        [TaskStatus.CANCELED],
    )


async def test_a_look_while_a_canceled_answer_is_being_ended_does_not_cut_that_off(
    watched: Resources, oracle: Agent, acp_server: AcpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its outcome is recorded, so that the launch holds its run no more; the task is yet to be closed."""
    stop, read = launch_module.stop_at_agent, launch_module.read_held
    ending, looked = asyncio.Event(), asyncio.Event()

    async def looks(session: AsyncSession, token: UUID, ids: Collection[UUID]) -> Held:
        held = await read(session, token, ids)
        if ending.is_set() and not held.ids:
            looked.set()
        return held

    async def stop_behind_a_look(resources: Resources, run_id: UUID) -> None:
        ending.set()
        await looked.wait()
        # What a look cuts is cut as soon as it has been read.
        await asyncio.sleep(0)
        await stop(resources, run_id)

    monkeypatch.setattr(launch_module, "read_held", looks)
    monkeypatch.setattr(launch_module, "stop_at_agent", stop_behind_a_look)
    acp_server.script("message/send", [Reply(hang="before")])
    run = await open_answer(watched, oracle)
    launching = asyncio.create_task(launch_of(watched).run())
    await acp_server.is_hanging()
    await fetch(watched, "UPDATE runs SET cancel_requested_at = now()")
    async with asyncio.timeout(10):
        await launching
    tasks = await fetch(watched, "SELECT status FROM tasks")
    assert (await status_of(watched, run), [task["status"] for task in tasks]) == (
        (RunStatus.CANCELED, None),
        [TaskStatus.CANCELED],
    )


@pytest.fixture
def with_a_bad_definition(watched: Resources) -> Callable[[Run], Resources]:
    """Makes resources where reading one run's definition fails, as for a row that no code can read."""

    def make(bad: Run) -> Resources:
        definitions = watched.hooks.definitions
        assert definitions is not None
        assert bad.schedule_id is not None
        wanted = DefinitionRef(bad.schedule_id, bad.schedule_version or 0)

        async def read(
            session: AsyncSession, references: Sequence[DefinitionRef]
        ) -> dict[DefinitionRef, Definition]:
            if wanted in references:
                raise ValueError("a revision that cannot be read")
            return await definitions(session, references)

        return replace(watched, hooks=replace(watched.hooks, definitions=read))

    return make


async def test_a_run_that_cannot_be_prepared_is_alone_in_it(
    watched: Resources,
    oracle: Agent,
    acp_server: AcpServer,
    with_a_bad_definition: Callable[[Run], Resources],
) -> None:
    runs = [await open_answer(watched, oracle) for _ in range(3)]
    await launch_of(with_a_bad_definition(runs[1])).run()
    assert [await status_of(watched, run) for run in runs] == [
        (RunStatus.SUCCEEDED, None),
        (RunStatus.FAILED, RunReason.OURS),
        (RunStatus.SUCCEEDED, None),
    ]
    assert acp_server.counts == {"message/send": 2}
