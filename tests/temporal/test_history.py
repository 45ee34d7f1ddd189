"""What Temporal gets to know: ids, kinds and counts, never an input; and with encryption not even these."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Iterator
from typing import Any
from uuid import uuid4

import pytest

from agentex.agents.models import AcpType, Agent
from agentex.dev.temporal import EmbeddedTemporal
from agentex.executors.base import Lane
from agentex.hooks import fill_hooks
from agentex.idempotency import Repeat
from agentex.ids import new_id
from agentex.resources import Resources, open_resources
from agentex.runs import service as runs
from agentex.runs.launch import Launch
from agentex.runs.pages import PageRef, start_page
from agentex.schedules import service
from agentex.schedules.models import ScheduleCreate
from agentex.settings import Settings
from tests.api.ledger.stage import CALLER, add_agent, fetch
from tests.support.acp_replies import Reply
from tests.support.acp_server import AcpServer
from tests.support.temporal import start_temporal
from tests.support.temporal_dump import Dump, read_all
from tests.temporal.workers import eventually, running_workers

# In everything that somebody writes into a schedule, and in what agents and faults say.
MARK = "xylograph"
KEYS = [base64.b64encode(bytes([number]) * 32).decode() for number in (1, 2)]
ON = {"secret_key": KEYS[0], "temporal_encryption": True}


@pytest.fixture
def temporal_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedTemporal]:
    """One to itself, so that all that is in it is this test's."""
    server = start_temporal(tmp_path_factory.mktemp("temporal"))
    yield server
    server.stop()


@pytest.fixture(params=["plain", "sealed"])
def settings(settings: Settings, request: pytest.FixtureRequest) -> Settings:
    return with_keys(settings, ON if request.param == "sealed" else {})


def with_keys(settings: Settings, changes: dict[str, Any]) -> Settings:
    """Other settings; a copy would keep what is cached of these."""
    return Settings.model_validate(settings.model_dump() | changes)


@pytest.fixture
async def failing(resources: Resources) -> AsyncIterator[Agent]:
    """A sync agent that refuses, and says why."""
    async with AcpServer() as server:
        refused = Reply(error_code=-32000, error_message=f"cannot read {MARK}")
        server.script("message/send", [refused], repeat=True)
        yield await add_agent(resources, "failing", acp_type=AcpType.SYNC, acp_url=server.url)


@pytest.fixture
async def silent(resources: Resources) -> AsyncIterator[tuple[Agent, AcpServer]]:
    """A sync agent that begins and does not end."""
    async with AcpServer() as server:
        server.script("message/send", [Reply(deltas=2, hang="in_stream")], repeat=True)
        yield await add_agent(resources, "silent", acp_type=AcpType.SYNC, acp_url=server.url), server


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The first page of all fails as nobody foresaw, in words that quote an input; filled once it has."""
    failed: list[str] = []
    whole = Launch.run

    async def run(self: Launch) -> float | None:
        if not failed:
            failed.append(f"no such key: {MARK}")
            raise LookupError(failed[0])
        return await whole(self)

    monkeypatch.setattr(Launch, "run", run)
    return failed


async def create(resources: Resources, agent: Agent, **others: Any) -> str:
    """A schedule that is marked wherever text can be."""
    body: dict[str, Any] = {
        "name": f"{MARK}-{agent.name}",
        "description": MARK,
        "task_params": {MARK: MARK},
        "task_metadata": {MARK: MARK},
        "initial_input": {"content": f"read {MARK}"},
    }
    repeat = Repeat(uuid4().hex * 2, "", 0, None)
    given = ScheduleCreate.model_validate(body | others)
    return str((await service.create(resources, CALLER, str(agent.id), given, repeat)).id)


async def trigger(resources: Resources, agent: Agent) -> None:
    """A marked schedule, paused, and one run of it."""
    schedule_id = await create(resources, agent, interval_seconds=3600, paused=True)
    target = service.Target(str(agent.id), schedule_id=schedule_id)
    await service.trigger(resources, CALLER, target, Repeat(uuid4().hex * 2, "", 0, None))


async def has(resources: Resources, agent: Agent, status: str) -> bool:
    sql = "SELECT 1 FROM runs WHERE agent_id = :id AND status = :status LIMIT 1"
    return bool(await fetch(resources, sql, id=agent.id, status=status))


async def wait_for(resources: Resources, *wanted: tuple[Agent, str]) -> None:
    async def all_there() -> bool:
        return all([await has(resources, agent, status) for agent, status in wanted])

    await eventually(all_there)


async def cancel_all(resources: Resources, agent: Agent) -> None:
    for run in await fetch(resources, "SELECT id FROM runs WHERE agent_id = :id", id=agent.id):
        await runs.cancel(resources, CALLER, str(run["id"]))


async def read_whole(resources: Resources) -> Dump:
    """The dump as soon as each page that ran is in the listing."""
    prefix = resources.settings.temporal_task_queue
    pages = await fetch(
        resources, "SELECT DISTINCT batch_id, lane, page FROM runs WHERE launched_at IS NOT NULL"
    )
    wanted = {f"{prefix}:page:{page['batch_id']}:{page['lane']}:{page['page']}" for page in pages}
    dump = Dump()

    async def listed() -> bool:
        nonlocal dump
        dump = await read_all(resources.temporal.client)
        return wanted <= dump.workflow_ids and any(":tick" in id_ for id_ in dump.workflow_ids)

    await eventually(listed)
    return dump


async def ids(resources: Resources) -> list[str]:
    """Of all that a run hangs on; batches and clocks have theirs in Temporal's ids."""
    found = await fetch(
        resources,
        """SELECT id FROM agents UNION ALL SELECT id FROM runs UNION ALL SELECT id FROM tasks
        UNION ALL SELECT id FROM agent_run_schedules""",
    )
    return [str(row["id"]) for row in found]


def assert_sealed(dump: Dump) -> None:
    """Every payload and failure, with one key."""
    kinds = {(one.metadata["encoding"], *sorted(one.metadata)) for one in dump.payloads}
    assert kinds == {(b"binary/encrypted", "encoding", "encryption-key-id")}
    assert len({one.metadata["encryption-key-id"] for one in dump.payloads}) == 1
    assert {(one.message, one.stack_trace) for one in dump.failures} == {("Encoded failure", "")}


def assert_plain(dump: Dump) -> None:
    """The other way round, which shows that the search would find a thing."""
    assert {one.metadata["encoding"] for one in dump.payloads} == {b"json/plain", b"binary/null"}
    assert {one.message for one in dump.failures} == {"the worker's log says more"}
    assert dump.holds('"lane":"deliver"')


@pytest.mark.usefixtures("workers")
async def test_no_input_reaches_temporal(
    resources: Resources,
    echo: Agent,
    answering: Agent,
    failing: Agent,
    silent: tuple[Agent, AcpServer],
    broken: list[str],
) -> None:
    await create(resources, echo, interval_seconds=1)
    await create(resources, answering, interval_seconds=2)
    await trigger(resources, failing)
    await trigger(resources, silent[0])
    wanted = [(echo, "delivered"), (answering, "succeeded"), (failing, "failed"), (silent[0], "running")]
    await wait_for(resources, *wanted)
    # With a page in flight, whose heartbeats Temporal has.
    during = await read_whole(resources)
    await cancel_all(resources, silent[0])
    await wait_for(resources, (silent[0], "canceled"))
    after = await read_whole(resources)

    errors = await fetch(resources, "SELECT error FROM runs WHERE agent_id = :id", id=failing.id)
    assert MARK in errors[0]["error"]
    assert broken == [f"no such key: {MARK}"]
    for dump in (during, after):
        assert len(dump.schedule_ids) >= 2
        assert len(dump.events) > 20
        assert not dump.holds(MARK)
        assert [id_ for id_ in await ids(resources) if dump.holds(id_)] == []
        if resources.settings.temporal_encryption:
            assert_sealed(dump)
        else:
            assert_plain(dump)


@pytest.mark.parametrize(
    ("before", "then"),
    [
        ({}, ON),
        (ON, {"secret_key": KEYS[0], "temporal_encryption": False}),
        (ON, {"secret_key": f"{KEYS[1]},{KEYS[0]}", "temporal_encryption": True}),
    ],
    ids=["turned on", "turned off", "another key"],
)
@pytest.mark.parametrize("settings", ["plain"], indirect=True)
async def test_pages_that_are_open_go_on_when_it_is(
    settings: Settings, before: dict[str, Any], then: dict[str, Any]
) -> None:
    async with open_resources(with_keys(settings, before)) as old:
        handle = await start_page(old, PageRef(new_id(), Lane.DELIVER, 0))
    async with open_resources(with_keys(settings, then)) as new:
        fill_hooks(new)
        async with running_workers(new):
            opened = new.temporal.client.get_workflow_handle(handle.id)
            await opened.result()
