"""The sweep over runs: claims after an outage, cancels that nobody carried out, and what its scans walk."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import httpx2
import pytest
from sqlalchemy.exc import NoResultFound

from agentex.agents.models import Agent
from agentex.database import rows
from agentex.executors.base import Lane
from agentex.ids import new_id
from agentex.resources import Resources
from agentex.runs import claims
from agentex.runs.claims import settle_expired
from agentex.runs.models import Run, RunReason, RunStatus
from agentex.runs.pages import PageRef
from agentex.sweep import sweep as sweep_module
from agentex.sweep.sweep import STUCK_SQL, UNSTOPPED_SQL, Sweep
from agentex.tasks.models import Task, TaskStatus
from tests.api.ledger.stage import (
    add_agent,
    add_run,
    add_task,
    fetch,
    minutes,
    nobody_sweeps,
    read_run,
    seconds,
)
from tests.support.acp_replies import Reply
from tests.support.acp_server import AcpServer

TOKEN = UUID("01930000-0000-7000-8000-0000000000bb")
LONG_AGO = timedelta(hours=1)


class Wall:
    """The wall clock that a sweep reads."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seconds = 1_000.0
        monkeypatch.setattr(sweep_module, "wall_seconds", lambda: self.seconds)


@pytest.fixture
def wall(monkeypatch: pytest.MonkeyPatch) -> Wall:
    return Wall(monkeypatch)


@pytest.fixture
async def sweep(hooked: Resources) -> AsyncIterator[Sweep]:
    await nobody_sweeps(hooked)
    made = Sweep(hooked)
    yield made
    await made.close()


async def claimed(resources: Resources, agent: Agent, expired: timedelta) -> Run:
    """A run that was claimed and not sent, with a claim that ended so long ago."""
    until = datetime.now(UTC) - expired
    return await add_run(
        resources,
        agent,
        RunStatus.LAUNCHING,
        claimed_by=TOKEN,
        claimed_until=until,
        attempt=1,
        next_attempt_at=until - minutes(1),
    )


async def status(resources: Resources, run: Run) -> RunStatus:
    return (await read_run(resources, run.id)).status


async def lose_connections(resources: Resources) -> None:
    """What a restart of Postgres does to this process."""
    await fetch(
        resources,
        """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid()""",
    )


async def test_claims_are_settled_once_postgres_has_answered_for_two_renewals(
    resources: Resources, agent: Agent, sweep: Sweep, wall: Wall
) -> None:
    run = await claimed(resources, agent, minutes(1))
    found: list[RunStatus] = []
    for later in (0, 3, 1):
        wall.seconds += later
        await sweep.sweep_once()
        found.append(await status(resources, run))
    assert found == [RunStatus.LAUNCHING, RunStatus.LAUNCHING, RunStatus.DUE]


async def test_the_first_sweeps_after_an_outage_leave_live_launches_the_time_to_renew(
    resources: Resources, agent: Agent, sweep: Sweep, wall: Wall
) -> None:
    for _ in range(3):
        wall.seconds += 5
        await sweep.sweep_once()
    run = await claimed(resources, agent, minutes(1))
    await lose_connections(resources)
    found: list[RunStatus] = []
    for later in (1, 1, 3, 1):
        wall.seconds += later
        await sweep.sweep_once()
        found.append(await status(resources, run))
    # The lost connection, the first answer, and what comes less and then no less than two renewals after it.
    assert found == [RunStatus.LAUNCHING] * 3 + [RunStatus.DUE]


@pytest.mark.parametrize("fault", [RuntimeError("ours"), NoResultFound()], ids=["ours", "of-a-statement"])
async def test_a_step_that_always_fails_keeps_no_claim_from_being_settled(
    resources: Resources,
    agent: Agent,
    sweep: Sweep,
    wall: Wall,
    monkeypatch: pytest.MonkeyPatch,
    fault: Exception,
) -> None:
    async def fail(*_: object) -> None:
        raise fault

    monkeypatch.setattr(sweep_module, "detach_ended", fail)
    run = await claimed(resources, agent, minutes(1))
    for _ in range(2):
        await sweep.sweep_once()
        wall.seconds += 5
    assert await status(resources, run) is RunStatus.DUE


async def test_a_process_that_was_stopped_settles_nothing_when_it_goes_on(
    resources: Resources, agent: Agent, sweep: Sweep, wall: Wall
) -> None:
    await sweep.sweep_once()
    run = await claimed(resources, agent, minutes(1))
    found: list[RunStatus] = []
    for later in (300, 5):
        wall.seconds += later
        await sweep.sweep_once()
        found.append(await status(resources, run))
    assert found == [RunStatus.LAUNCHING, RunStatus.DUE]


async def test_a_claim_that_has_just_expired_may_still_be_renewed(
    resources: Resources, agent: Agent, sweep: Sweep, wall: Wall
) -> None:
    run = await claimed(resources, agent, seconds(1))
    for _ in range(3):
        await sweep.sweep_once()
        wall.seconds += 5
    assert await status(resources, run) is RunStatus.LAUNCHING


async def unstopped(resources: Resources, agent: Agent, **columns: Any) -> tuple[Run, Task]:
    """A run that is running at its agent, with a cancel that its worker did not live to carry out."""
    task = await add_task(resources, agent)
    then = datetime.now(UTC) - minutes(1)
    given: dict[str, Any] = {
        "task_id": task.id,
        "lane": Lane.DELIVER,
        "status": RunStatus.RUNNING,
        "finishes_on_task": True,
        "delivered_at": then,
        "cancel_requested_at": then,
        "to_stop_since": then,
        "updated_at": then,
        "next_attempt_at": None,
    } | columns
    return await add_run(resources, agent, given.pop("status"), **given), task


async def sweep_and_wait(resources: Resources, sweep: Sweep) -> None:
    await sweep.sweep_once()
    await resources.settle_background()


@pytest.fixture
async def echo(hooked: Resources, acp_server: AcpServer) -> Agent:
    return await add_agent(hooked, "listening", acp_url=acp_server.url)


@pytest.mark.parametrize("where", [RunStatus.RUNNING, RunStatus.WAITING_FOR_INPUT])
async def test_a_cancel_that_nobody_carried_out_is_carried_out(
    hooked: Resources, echo: Agent, acp_server: AcpServer, sweep: Sweep, where: RunStatus
) -> None:
    run, task = await unstopped(hooked, echo, status=where)
    await sweep_and_wait(hooked, sweep)
    async with hooked.db.read() as session:
        closed = await session.get_one(Task, task.id)
    assert (await status(hooked, run), closed.status) == (RunStatus.CANCELED, TaskStatus.CANCELED)
    told = [(request.method, request.headers["idempotency-key"]) for request in acp_server.requests]
    assert told == [("task/cancel", f"cancel:{task.id}")]


@pytest.mark.parametrize(
    "columns",
    [
        {"updated_at": datetime.now(UTC) + minutes(5)},
        {"claimed_by": TOKEN, "claimed_until": datetime.now(UTC) + minutes(60)},
        {"to_stop_since": None},
        {"status": RunStatus.DUE, "next_attempt_at": datetime.now(UTC) + minutes(5)},
    ],
    ids=["just-recorded", "claimed", "not-to-be-stopped", "left-to-its-launch"],
)
async def test_a_run_that_somebody_sees_to_is_not_stopped(
    hooked: Resources, echo: Agent, acp_server: AcpServer, sweep: Sweep, columns: dict[str, Any]
) -> None:
    run, _ = await unstopped(hooked, echo, **columns)
    await sweep_and_wait(hooked, sweep)
    assert (await status(hooked, run), acp_server.requests) == (
        columns.get("status", RunStatus.RUNNING),
        [],
    )


@pytest.mark.parametrize(
    ("where", "reason", "end"),
    [
        (RunStatus.DELIVERED, None, RunStatus.CANCELED),
        (RunStatus.CANCELED, None, RunStatus.CANCELED),
        (RunStatus.FAILED, RunReason.AGENT_ERROR, RunStatus.FAILED),
    ],
)
async def test_a_cancel_is_carried_out_though_its_run_has_ended_and_once(
    hooked: Resources,
    echo: Agent,
    acp_server: AcpServer,
    sweep: Sweep,
    *,
    where: RunStatus,
    reason: RunReason | None,
    end: RunStatus,
) -> None:
    then = datetime.now(UTC) - minutes(1)
    run, task = await unstopped(hooked, echo, status=where, reason=reason, finished_at=then)
    for _ in range(2):
        await sweep_and_wait(hooked, sweep)
        await fetch(hooked, "UPDATE runs SET updated_at = :then", then=then)
    async with hooked.db.read() as session:
        closed = await session.get_one(Task, task.id)
    row = await read_run(hooked, run.id)
    assert (row.status, row.to_stop_since, closed.status) == (end, None, TaskStatus.CANCELED)
    assert acp_server.counts == {"task/cancel": 1}


@pytest.mark.parametrize("closed", [False, True], ids=["no-task", "closed-task"])
async def test_a_cancel_with_nothing_left_to_stop_is_looked_at_once(
    hooked: Resources, echo: Agent, acp_server: AcpServer, sweep: Sweep, *, closed: bool
) -> None:
    task = await add_task(hooked, echo, TaskStatus.COMPLETED)
    ended = {"status": RunStatus.CANCELED, "finished_at": datetime.now(UTC)}
    run, _ = await unstopped(hooked, echo, task_id=task.id if closed else None, **ended)
    await sweep_and_wait(hooked, sweep)
    assert ((await read_run(hooked, run.id)).to_stop_since, acp_server.requests) == (None, [])


async def test_a_cancel_that_its_worker_left_with_a_delivered_run_is_carried_out(
    hooked: Resources, client: httpx2.AsyncClient, echo: Agent, sweep: Sweep
) -> None:
    past = datetime.now(UTC) - minutes(1)
    sent = {"claimed_by": TOKEN, "claimed_until": past, "sending_at": past, "delivered_at": past}
    run, _ = await unstopped(
        hooked,
        echo,
        status=RunStatus.LAUNCHING,
        finishes_on_task=False,
        cancel_requested_at=None,
        to_stop_since=None,
        next_attempt_at=past,
        **sent,
    )
    assert (await client.post(f"/runs/{run.id}/cancel")).status_code == 200
    async with hooked.db.begin() as session:
        await settle_expired(session)
    recorded = await status(hooked, run)
    await fetch(hooked, "UPDATE runs SET updated_at = :past", past=past)
    await sweep_and_wait(hooked, sweep)
    assert (recorded, await status(hooked, run)) == (RunStatus.DELIVERED, RunStatus.CANCELED)


async def test_runs_that_cannot_be_stopped_keep_the_others_from_nothing(
    hooked: Resources, echo: Agent, sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep_module, "STOP_AT_ONCE", 2)
    then = datetime.now(UTC) - minutes(2)
    lost = [await unstopped(hooked, echo, task_id=new_id(), updated_at=then) for _ in range(3)]
    run, _ = await unstopped(hooked, echo)
    found: list[RunStatus] = []
    for _ in range(2):
        await sweep_and_wait(hooked, sweep)
        found.append(await status(hooked, run))
    assert found == [RunStatus.RUNNING, RunStatus.CANCELED]
    assert {await status(hooked, one) for one, _ in lost} == {RunStatus.RUNNING}


async def test_an_agent_that_hangs_does_not_hold_up_the_sweep(
    hooked: Resources, echo: Agent, acp_server: AcpServer, sweep: Sweep
) -> None:
    acp_server.script("task/cancel", [Reply(hang="before")])
    run, _ = await unstopped(hooked, echo)
    await sweep.sweep_once()
    assert sweep.ended.is_set()
    await acp_server.is_hanging()
    assert await status(hooked, run) is RunStatus.CANCELED
    acp_server.release()
    await hooked.settle_background()


RUNNING_FOR_DAYS = """
    INSERT INTO runs (id, account_id, agent_id, fire_id, cause, due_at, lane, status, attempt, sending_at,
        opened_at, launched_at, delivered_at, updated_at, task_id, principal, finishes_on_task)
    SELECT gen_random_uuid(), 'default', :agent_id, 'run:' || n, 'api', t, 'deliver', 'running', 1, t,
        t, t, t, t, gen_random_uuid(), '{}', true
    FROM generate_series(1, 50000) n, LATERAL (SELECT now() - make_interval(secs => n) AS t) x
"""
SETTLE_SQL = vars(claims)["_SETTLE_EXPIRED_SQL"]


@pytest.mark.parametrize("analyzed", [False, True], ids=["not-analyzed", "analyzed"])
async def test_the_scans_walk_none_of_what_runs_for_days(
    resources: Resources, agent: Agent, *, analyzed: bool
) -> None:
    await fetch(resources, RUNNING_FOR_DAYS, agent_id=agent.id)
    await claimed(resources, agent, minutes(1))
    waits = {"next_attempt_at": datetime.now(UTC) - minutes(1), "updated_at": datetime.now(UTC) - minutes(1)}
    await add_run(resources, agent, RunStatus.DUE, **waits)
    await unstopped(resources, agent)
    if analyzed:
        await fetch(resources, "ANALYZE runs")
    scans: list[tuple[str, dict[str, Any]]] = [
        (SETTLE_SQL.replace("{page}", ""), {"expired_seconds": 4.0, "leave": []}),
        (STUCK_SQL, {"stuck": 30.0, "limit": 2_000}),
        (UNSTOPPED_SQL, {"stuck": 30.0, "limit": 20}),
    ]
    by_attempt, by_cancel = "ix_runs_next_attempt_at", "ix_runs_to_stop_since"
    walks = [await walk(resources, sql, given) for sql, given in scans]
    assert [walk.indexes - {"pk_runs"} for walk in walks] == [{by_attempt}, {by_attempt}, {by_cancel}]
    assert max(walk.most for walk in walks) <= 2


@dataclass(frozen=True)
class Walk:
    """The indexes that a statement uses on runs, and the most rows that any of its steps has looked at."""

    indexes: set[str]
    most: float


async def walk(resources: Resources, sql: str, given: dict[str, Any]) -> Walk:
    async with resources.db.begin() as session:
        found = await rows(session, f"EXPLAIN (ANALYZE, FORMAT JSON) {sql}", **given)
        plan = next(iter(found[0].values()))
    steps = nodes((json.loads(plan) if isinstance(plan, str) else plan)[0]["Plan"])
    on_runs = [step for step in steps if "Scan" in step["Node Type"] and step.get("Alias") in ("runs", "r")]
    seen = [step["Actual Rows"] + step.get("Rows Removed by Filter", 0) for step in on_runs]
    return Walk({step["Index Name"] for step in steps if "Index Name" in step}, max(seen))


def nodes(plan: dict[str, Any]) -> list[dict[str, Any]]:
    return [plan, *(node for child in plan.get("Plans", []) for node in nodes(child))]


async def test_a_page_s_own_settling_finds_its_runs(resources: Resources, agent: Agent) -> None:
    page = PageRef(new_id(), Lane.DELIVER, 0)
    run = await claimed(resources, agent, seconds(1))
    place = {"batch_id": page.batch_id, "page": page.page, "lane": page.lane, "id": run.id}
    await fetch(
        resources, "UPDATE runs SET batch_id = :batch_id, lane = :lane, page = :page WHERE id = :id", **place
    )
    async with resources.db.begin() as session:
        # At once: a page is launched again long after its worker has fallen silent.
        assert await claims.settle_expired(session, page=page) == 1
