"""What one process has in flight at one agent: open requests, opened tasks, marked runs."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from agentex.agents.models import Agent
from agentex.database import rows
from agentex.executors.base import Lane
from agentex.resources import Resources
from agentex.runs.dispatch import Dispatch, Mark, Marked
from agentex.runs.launch import Launch
from agentex.runs.models import RunStatus
from agentex.runs.pages import PageRef
from tests.api.ledger.stage import BATCH, add_agent, add_schedule, fetch, open_run, read_run
from tests.support.acp_replies import Reply
from tests.support.acp_server import AcpServer

PLACES = 4
RUNS = 12


@pytest.fixture
def narrow(hooked: Resources) -> Resources:
    """Resources with few places at an agent."""
    settings = hooked.settings.model_copy(update={"deliveries_per_agent": PLACES})
    return replace(hooked, settings=settings)


@pytest.fixture
async def busy(narrow: Resources, acp_server: AcpServer) -> Agent:
    """An async agent for which a page of runs is due."""
    agent = await add_agent(narrow, acp_url=acp_server.url)
    for _ in range(RUNS):
        await open_run(narrow, agent, await add_schedule(narrow, agent, None))
    return agent


def new_launch(resources: Resources) -> Launch:
    page = PageRef(BATCH, Lane.DELIVER, 0)
    return Launch(resources, Dispatch(resources), page, asyncio.Event(), lambda: None)


async def count(resources: Resources, condition: str) -> int:
    """How many runs there are of which this is true."""
    return (await fetch(resources, f"SELECT count(*) AS n FROM runs WHERE {condition}"))[0]["n"]  # noqa: S608 - our own words


@pytest.mark.usefixtures("busy")
async def test_an_agent_that_hangs_has_no_more_inputs_than_places(
    narrow: Resources, acp_server: AcpServer
) -> None:
    acp_server.script("event/send", [Reply(hang="before")], repeat=True)
    launching = asyncio.create_task(new_launch(narrow).run())
    await acp_server.is_hanging(PLACES)
    marked = await count(narrow, "sending_at IS NOT NULL")
    assert (marked, acp_server.counts["event/send"]) == (PLACES, PLACES)
    acp_server.script("event/send", [Reply()], repeat=True)
    while acp_server.counts["event/send"] < RUNS:
        acp_server.release()
        await acp_server.arrived(acp_server.counts.total() + 1)
    acp_server.release()
    assert await launching is None


@pytest.mark.usefixtures("busy")
async def test_an_agent_never_has_more_open_requests_than_places(
    narrow: Resources, acp_server: AcpServer
) -> None:
    for method in ("task/create", "event/send"):
        acp_server.script(method, [Reply(delay_seconds=0.03)], repeat=True)
    assert await new_launch(narrow).run() is None
    assert (acp_server.counts.total(), acp_server.most_open) == (2 * RUNS, PLACES)


@pytest.mark.usefixtures("busy")
async def test_tasks_that_open_slowly_leave_half_of_the_places_to_inputs(
    narrow: Resources, acp_server: AcpServer
) -> None:
    acp_server.script("task/create", [Reply()] * 2 + [Reply(hang="before")] * RUNS)
    launching = asyncio.create_task(new_launch(narrow).run())
    await acp_server.arrived(2, "event/send")
    await acp_server.is_hanging(PLACES // 2)
    assert acp_server.counts == {"task/create": 2 + PLACES // 2, "event/send": 2}
    launching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await launching


@pytest.mark.usefixtures("busy")
async def test_a_run_that_waits_for_its_place_is_not_sent_once_the_page_is_told_to_stop(
    narrow: Resources, acp_server: AcpServer
) -> None:
    """The tasks of the next runs are open while the outcomes of those before them are being written."""
    acp_server.script("event/send", [Reply(hang="before")] * PLACES)
    launch = new_launch(narrow)
    launching = asyncio.create_task(launch.run())
    await acp_server.is_hanging(PLACES)
    async with narrow.db.begin() as session:
        await rows(session, "SELECT id FROM runs WHERE sending_at IS NOT NULL FOR UPDATE")
        acp_server.release()
        # As many again have a place among the runs, and have opened their tasks.
        await acp_server.arrived(2 * PLACES, "task/create")
        launch.stop.set()
        # Given back at once: they need not wait for the outcomes before them.
        async with asyncio.timeout(10):
            while await count(narrow, "status = 'due'") < RUNS - PLACES:  # noqa: ASYNC110 - rows tell nobody
                await asyncio.sleep(0.01)
    await launching
    assert (await count(narrow, "status = 'delivered'"), acp_server.counts["event/send"]) == (PLACES, PLACES)


async def test_a_process_that_was_stopped_behind_its_mark_sends_nothing(
    hooked: Resources, acp_server: AcpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its claim may have been settled meanwhile, so another process may have sent the run."""
    agent = await add_agent(hooked, acp_url=acp_server.url)
    run = await open_run(hooked, agent, await add_schedule(hooked, agent, None))
    launch, stopped_seconds = new_launch(hooked), 0.0
    submit = launch.dispatch.marks.submit

    async def slow(mark: Mark) -> Marked:
        nonlocal stopped_seconds
        made = await submit(mark)
        stopped_seconds = hooked.settings.claim_seconds
        return made

    monkeypatch.setattr(launch.dispatch.marks, "submit", slow)
    clock = asyncio.get_running_loop().time
    monkeypatch.setattr(Launch, "_loop_time", staticmethod(lambda: clock() + stopped_seconds))
    await launch.run()
    row = await read_run(hooked, run.id)
    assert (row.status, row.sending_at, row.error) == (RunStatus.DUE, None, "the worker was stopped")
    assert acp_server.counts == {"task/create": 1}
