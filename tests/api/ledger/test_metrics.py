"""What the counters say of instants and runs: as much as the ledger does."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

import pytest
from prometheus_client import REGISTRY
from sqlmodel.ext.asyncio.session import AsyncSession

from agentex.agents.models import Agent
from agentex.executors.base import Lane
from agentex.ids import new_id
from agentex.resources import Resources
from agentex.runs import service
from agentex.runs.claims import settle_expired
from agentex.runs.finish import Outcome, record
from agentex.runs.models import Run, RunReason, RunStatus
from agentex.schedules.models import Schedule
from agentex.schedules.open import open_due
from agentex.schedules.settle import settle
from agentex.tasks.models import Task, TaskStatus
from agentex.tasks.service import close
from tests.api.ledger.stage import (
    NOON,
    Attached,
    add_run,
    add_schedule,
    add_task,
    fetch,
    freeze,
    minutes,
    open_once,
    read_run,
    seconds,
)

request_cancel = vars(service)["_request_cancel"]

TOKEN = UUID("01930000-0000-7000-8000-0000000000bb")
SAMPLES: dict[str, tuple[str, dict[str, str]]] = {
    "due": ("agentex_instants_opened_total", {"by": "test", "outcome": "due"}),
    "missed": ("agentex_instants_opened_total", {"by": "test", "outcome": "missed"}),
    "ended missed": ("agentex_runs_ended_total", {"status": "skipped", "reason": "missed"}),
    "ended delivered": ("agentex_runs_ended_total", {"status": "delivered", "reason": ""}),
    "ended succeeded": ("agentex_runs_ended_total", {"status": "succeeded", "reason": ""}),
    "ended canceled": ("agentex_runs_ended_total", {"status": "canceled", "reason": ""}),
    "ended unknown": ("agentex_runs_ended_total", {"status": "failed", "reason": "outcome_unknown"}),
    "retried": ("agentex_run_retries_total", {"why": "agent"}),
    "our retry": ("agentex_run_retries_total", {"why": "ours"}),
    "claim retried": ("agentex_run_retries_total", {"why": "claim_expired"}),
    "claims settled": ("agentex_sweep_repaired_total", {"kind": "claim_expired"}),
    "ended paused": ("agentex_runs_ended_total", {"status": "skipped", "reason": "paused"}),
    "settled paused": ("agentex_instants_opened_total", {"by": "settle", "outcome": "paused"}),
    "unreadable": ("agentex_clocks_unreadable_total", {"by": "test"}),
    "ended denied": ("agentex_runs_ended_total", {"status": "skipped", "reason": "denied"}),
    "on time or not": ("agentex_lateness_seconds_count", {"lane": "deliver"}),
    "seconds late": ("agentex_lateness_seconds_sum", {"lane": "deliver"}),
}


class Rise:
    """How far each sample has risen since this was made; those that have not are left out."""

    def __init__(self) -> None:
        self._before = self._read()

    def since(self) -> dict[str, float]:
        now = self._read()
        return {name: now[name] - self._before[name] for name in SAMPLES if now[name] != self._before[name]}

    @staticmethod
    def _read() -> dict[str, float]:
        return {
            name: REGISTRY.get_sample_value(sample, labels) or 0.0
            for name, (sample, labels) in SAMPLES.items()
        }


async def test_an_opening_counts_its_rows_by_outcome_and_those_that_end_there(
    resources: Resources, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    freeze(monkeypatch, NOON + seconds(3))
    for _ in range(2):
        await add_schedule(resources, agent, Attached(NOON - minutes(10), NOON - minutes(3)))
    rise = Rise()
    assert (await open_once(resources)).rows == {"due": 2, "missed": 6}
    assert rise.since() == {"due": 2, "missed": 6, "ended missed": 6}
    await open_once(resources)
    assert rise.since() == {"due": 2, "missed": 6, "ended missed": 6}


async def launching(resources: Resources, agent: Agent, due_at: datetime) -> Run:
    now = datetime.now(UTC)
    claim = {"claimed_by": TOKEN, "claimed_until": now + minutes(1), "sending_at": now, "attempt": 1}
    return await add_run(
        resources, agent, RunStatus.LAUNCHING, lane=Lane.DELIVER, due_at=due_at, delivered_at=NOON, **claim
    )


async def test_a_record_counts_each_end_once_and_the_lateness_of_what_was_delivered(
    resources: Resources, agent: Agent
) -> None:
    late = [await launching(resources, agent, NOON - seconds(by)) for by in (2, 5)]
    denied = await launching(resources, agent, NOON)
    outcomes = [Outcome(run.id, TOKEN, RunStatus.DELIVERED, delivered=True) for run in late]
    outcomes.append(Outcome(denied.id, TOKEN, RunStatus.SKIPPED, RunReason.DENIED, "no"))
    rise = Rise()
    for _ in range(2):
        async with resources.db.begin() as session:
            await record(session, outcomes)
    assert rise.since() == {
        "ended delivered": 2,
        "ended denied": 1,
        "on time or not": 2,
        "seconds late": pytest.approx(7),
    }


PUT_BACK = Outcome(TOKEN, TOKEN, RunStatus.DUE, retry_in_seconds=60)


@pytest.mark.parametrize(
    ("reason", "counted"),
    [
        (RunReason.AGENT_UNREACHABLE, "retried"),
        (RunReason.AGENT_ERROR, "retried"),
        (RunReason.OUTCOME_UNKNOWN, "retried"),
        (RunReason.OURS, "our retry"),
        (None, "our retry"),
    ],
)
async def test_a_retry_counts_as_the_agent_s_or_as_ours_and_the_run_has_no_reason(
    resources: Resources, agent: Agent, reason: RunReason | None, counted: str
) -> None:
    now = datetime.now(UTC)
    claim = {"claimed_by": TOKEN, "claimed_until": now + minutes(1), "sending_at": now, "attempt": 1}
    run = await add_run(resources, agent, RunStatus.LAUNCHING, lane=Lane.DELIVER, **claim)
    rise = Rise()
    async with resources.db.begin() as session:
        await record(session, [replace(PUT_BACK, run_id=run.id, reason=reason)])
    row = await read_run(resources, run.id)
    assert (rise.since(), row.status, row.reason) == ({counted: 1}, RunStatus.DUE, None)


class UndoneError(Exception):
    """What ends a transaction before its commit."""


@asynccontextmanager
async def undone(resources: Resources) -> AsyncGenerator[AsyncSession]:
    """A transaction that is rolled back after all its statements."""
    with suppress(UndoneError):
        async with resources.db.begin() as session:
            yield session
            raise UndoneError


@asynccontextmanager
async def done(resources: Resources) -> AsyncGenerator[AsyncSession]:
    async with resources.db.begin() as session:
        yield session


Ends = Callable[[Resources], AbstractAsyncContextManager[AsyncSession]]


async def everything(resources: Resources, ends: Ends, runs: list[Run], schedule: Schedule) -> None:
    """Each kind of transaction that counts something, committed or rolled back."""
    late, retried, unsent, unknown, waiting = (run.id for run in runs)
    async with ends(resources) as session:
        await record(session, [Outcome(late, TOKEN, RunStatus.DELIVERED, delivered=True)])
    async with ends(resources) as session:
        await record(session, [replace(PUT_BACK, run_id=retried, reason=RunReason.AGENT_UNREACHABLE)])
    past = "UPDATE runs SET claimed_until = now() - interval '1 minute' WHERE id = ANY(CAST(:ids AS uuid[]))"
    await fetch(resources, past, ids=[unsent, unknown])
    async with ends(resources) as session:
        await settle_expired(session)
    async with ends(resources) as session:
        await request_cancel(session, waiting)
    async with ends(resources) as session:
        await settle(session, [schedule.id], RunReason.PAUSED)
    await fetch(resources, "UPDATE runs SET schedule_id = NULL")
    async with ends(resources) as session:
        await open_due(session, resources.settings, new_id(), by="test")


async def test_what_is_rolled_back_is_not_counted_and_what_is_committed_is_counted_once(
    resources: Resources, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    freeze(monkeypatch, NOON + seconds(3))
    runs = [await launching(resources, agent, NOON - seconds(2)) for _ in range(4)]
    await fetch(resources, "UPDATE runs SET delivered_at = NULL WHERE id <> :id", id=runs[0].id)
    await fetch(resources, "UPDATE runs SET sending_at = NULL WHERE id = :id", id=runs[2].id)
    runs.append(await add_run(resources, agent, RunStatus.DUE))
    schedule = await add_schedule(resources, agent, Attached(NOON - minutes(10), NOON))
    broken = await add_schedule(resources, agent, Attached(NOON - minutes(10), NOON), interval_seconds=30)
    await fetch(
        resources,
        """UPDATE clocks SET cadence = '{}' WHERE id =
            (SELECT clock_id FROM schedule_clocks WHERE schedule_id = :id)""",
        id=broken.id,
    )
    rise = Rise()
    await everything(resources, undone, runs, schedule)
    assert rise.since() == {}
    await everything(resources, done, runs, schedule)
    assert rise.since() == {
        "ended delivered": 1,
        "on time or not": 1,
        "seconds late": pytest.approx(2),
        "retried": 1,
        "claims settled": 2,
        "claim retried": 1,
        "ended unknown": 1,
        "ended canceled": 1,
        "settled paused": 1,
        "ended paused": 1,
        "due": 1,
        "unreadable": 1,
    }


async def test_a_session_of_single_statements_counts_at_once(resources: Resources, agent: Agent) -> None:
    run = await launching(resources, agent, NOON - seconds(2))
    rise = Rise()
    async with resources.db.single() as session:
        await record(session, [Outcome(run.id, TOKEN, RunStatus.DELIVERED, delivered=True)])
        assert rise.since() == {
            "ended delivered": 1,
            "on time or not": 1,
            "seconds late": pytest.approx(2),
        }


@pytest.mark.parametrize("recorded_first", [True, False], ids=["recorded-first", "closed-first"])
async def test_lateness_is_observed_once_whether_the_record_or_the_task_s_end_comes_first(
    hooked: Resources, agent: Agent, *, recorded_first: bool
) -> None:
    run, task = await launching(hooked, agent, NOON - seconds(2)), await add_task(hooked, agent)
    await fetch(hooked, "UPDATE runs SET task_id = :task WHERE id = :id", task=task.id, id=run.id)
    rise = Rise()
    works = [lambda: put_down(hooked, run), lambda: end_task(hooked, task)]
    for work in works if recorded_first else reversed(works):
        await work()
    expected = {"ended succeeded": 1, "on time or not": 1, "seconds late": pytest.approx(2)}
    assert rise.since() == expected


async def put_down(resources: Resources, run: Run) -> None:
    async with resources.db.begin() as session:
        await record(session, [Outcome(run.id, TOKEN, RunStatus.RUNNING, delivered=True)])


async def end_task(resources: Resources, task: Task) -> None:
    async with resources.db.begin() as session:
        await close(session, resources.hooks, task.id, TaskStatus.COMPLETED, None)


async def test_a_task_s_end_observes_no_lateness_of_what_was_never_sent(
    hooked: Resources, agent: Agent
) -> None:
    task = await add_task(hooked, agent)
    waits = await add_run(hooked, agent, RunStatus.DUE, task_id=task.id, lane=Lane.DELIVER)
    rise = Rise()
    await end_task(hooked, task)
    assert (rise.since(), (await read_run(hooked, waits.id)).status) == (
        {"ended succeeded": 1},
        RunStatus.SUCCEEDED,
    )
