"""Life before a verdict: a task that has spoken while its run was being sent got its input."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from agentex.agents.models import Agent
from agentex.database import rows
from agentex.executors.base import Lane
from agentex.resources import Resources
from agentex.runs.claims import settle_expired
from agentex.runs.finish import Outcome, mark_running, prove_alive, record
from agentex.runs.models import Run, RunReason, RunStatus
from agentex.tasks.models import Task, TaskStatus
from agentex.tasks.service import close
from tests.api.ledger.stage import add_run, add_task, fetch, minutes, read_run, waiting_for_locks

TOKEN = UUID("01930000-0000-7000-8000-0000000000bb")

Verdict = Callable[[Resources, Run], Awaitable[None]]


async def record_unknown(resources: Resources, run: Run) -> None:
    unknown = Outcome(run.id, TOKEN, RunStatus.FAILED, RunReason.OUTCOME_UNKNOWN, "no answer came")
    async with resources.db.begin() as session:
        await record(session, [unknown])


async def let_the_claim_expire(resources: Resources, run: Run) -> None:
    past = datetime.now(UTC) - minutes(1)
    await fetch(resources, "UPDATE runs SET claimed_until = :past WHERE id = :id", past=past, id=run.id)
    async with resources.db.begin() as session:
        assert await settle_expired(session) == 1


both_verdicts = pytest.mark.parametrize(
    ("verdict", "error"),
    [
        (record_unknown, "no answer came"),
        (let_the_claim_expire, "the worker stopped while this run was being sent"),
    ],
    ids=["recorded", "claim-expired"],
)


async def being_sent(resources: Resources, agent: Agent, lane: Lane, **columns: Any) -> tuple[Run, Task]:
    now = datetime.now(UTC)
    task = await add_task(resources, agent)
    claim = {"claimed_by": TOKEN, "claimed_until": now + minutes(1), "sending_at": now, "attempt": 1}
    columns = {"task_id": task.id, "lane": lane, **claim, **columns}
    return await add_run(resources, agent, RunStatus.LAUNCHING, **columns), task


async def speak(resources: Resources, task: Task) -> None:
    async with resources.db.begin() as session:
        await prove_alive(session, task.id)


async def state(resources: Resources, run: Run) -> dict[str, Any]:
    """Status, reason and error; instants and the claim only as whether they are there."""
    row = await read_run(resources, run.id)
    return {
        "end": (row.status, row.reason, row.error),
        "delivered": row.delivered_at is not None,
        "finished": row.finished_at is not None,
        "claimed": row.claimed_by is not None,
    }


@both_verdicts
async def test_a_delivery_whose_task_spoke_meanwhile_is_delivered(
    resources: Resources, agent: Agent, verdict: Verdict, error: str
) -> None:
    run, task = await being_sent(resources, agent, Lane.DELIVER)
    silent, _ = await being_sent(resources, agent, Lane.DELIVER)
    await speak(resources, task)
    spoken = await state(resources, run)
    await verdict(resources, run)
    await verdict(resources, silent)
    launching = (RunStatus.LAUNCHING, None, None)
    assert spoken == {"end": launching, "delivered": True, "finished": False, "claimed": True}
    assert await state(resources, run) == {
        "end": (RunStatus.DELIVERED, None, None),
        "delivered": True,
        "finished": True,
        "claimed": False,
    }
    assert (await state(resources, silent))["end"] == (RunStatus.FAILED, RunReason.OUTCOME_UNKNOWN, error)


@both_verdicts
async def test_an_answer_that_had_begun_and_broke_off_stays_unknown(
    resources: Resources, agent: Agent, verdict: Verdict, error: str
) -> None:
    run, task = await being_sent(resources, agent, Lane.ANSWER)
    await speak(resources, task)
    spoken = await state(resources, run)
    async with resources.db.begin() as session:
        await mark_running(session, run.id, TOKEN)
    await verdict(resources, run)
    launching = (RunStatus.LAUNCHING, None, None)
    assert spoken == {"end": launching, "delivered": False, "finished": False, "claimed": True}
    assert await state(resources, run) == {
        "end": (RunStatus.FAILED, RunReason.OUTCOME_UNKNOWN, error),
        "delivered": True,
        "finished": True,
        "claimed": False,
    }


RUNNING = {
    "end": (RunStatus.RUNNING, None, None),
    "delivered": True,
    "finished": False,
    "claimed": False,
}


async def end_task(resources: Resources, task: Task) -> None:
    async with resources.db.begin() as session:
        await close(session, resources.hooks, task.id, TaskStatus.COMPLETED, None)


@both_verdicts
async def test_a_run_that_ends_with_its_task_is_running_once_its_task_has_spoken(
    hooked: Resources, agent: Agent, verdict: Verdict, error: str
) -> None:
    run, task = await being_sent(hooked, agent, Lane.DELIVER, finishes_on_task=True)
    await speak(hooked, task)
    await verdict(hooked, run)
    assert await state(hooked, run) == RUNNING
    # What nobody has to launch is not in the index of what waits.
    assert (await read_run(hooked, run.id)).next_attempt_at is None
    await end_task(hooked, task)
    assert (await state(hooked, run))["end"] == (RunStatus.SUCCEEDED, None, None)


@both_verdicts
async def test_a_run_that_ends_with_its_task_is_running_when_its_task_speaks_after_the_verdict(
    hooked: Resources, agent: Agent, verdict: Verdict, error: str
) -> None:
    run, task = await being_sent(hooked, agent, Lane.DELIVER, finishes_on_task=True)
    await verdict(hooked, run)
    assert (await state(hooked, run))["end"] == (RunStatus.FAILED, RunReason.OUTCOME_UNKNOWN, error)
    await speak(hooked, task)
    assert await state(hooked, run) == RUNNING
    await end_task(hooked, task)
    assert (await state(hooked, run))["end"] == (RunStatus.SUCCEEDED, None, None)


@both_verdicts
async def test_an_answer_of_an_agent_whose_runs_would_end_with_their_task_is_not_waited_for(
    resources: Resources, agent: Agent, verdict: Verdict, error: str
) -> None:
    run, task = await being_sent(resources, agent, Lane.ANSWER, finishes_on_task=True)
    await verdict(resources, run)
    await speak(resources, task)
    assert await state(resources, run) == RUNNING | {
        "end": (RunStatus.DELIVERED, None, None),
        "finished": True,
    }


async def test_a_task_that_speaks_before_its_input_was_sent_proves_nothing(
    resources: Resources, agent: Agent
) -> None:
    run, task = await being_sent(resources, agent, Lane.DELIVER, sending_at=None)
    await record_unknown(resources, run)
    await speak(resources, task)
    assert await state(resources, run) == {
        "end": (RunStatus.FAILED, RunReason.OUTCOME_UNKNOWN, "no answer came"),
        "delivered": False,
        "finished": True,
        "claimed": False,
    }


@both_verdicts
@pytest.mark.parametrize("closed_first", [True, False], ids=["closed-before", "closed-after"])
async def test_a_run_whose_task_is_closed_does_not_run_on(
    hooked: Resources, agent: Agent, verdict: Verdict, error: str, *, closed_first: bool
) -> None:
    run, task = await being_sent(hooked, agent, Lane.DELIVER, finishes_on_task=True)
    if closed_first:
        await end_task(hooked, task)
    else:
        await verdict(hooked, run)
        await end_task(hooked, task)
    await speak(hooked, task)
    if closed_first:
        await record_unknown(hooked, run)
        async with hooked.db.begin() as session:
            assert await settle_expired(session) == 0
    row = await read_run(hooked, run.id)
    assert (row.status, row.finished_at is not None) == (RunStatus.SUCCEEDED, True)


@pytest.mark.parametrize("spoken_first", [True, False])
async def test_a_close_and_a_word_at_once_leave_nothing_running(
    hooked: Resources, agent: Agent, *, spoken_first: bool
) -> None:
    run, task = await being_sent(hooked, agent, Lane.DELIVER, finishes_on_task=True)
    await record_unknown(hooked, run)
    first, second = (speak, end_task) if spoken_first else (end_task, speak)
    async with hooked.db.begin() as session:
        # The first of them has its lock, the second waits for it.
        await rows(session, "SELECT 1 FROM runs WHERE id = :id FOR NO KEY UPDATE", id=run.id)
        works = [asyncio.create_task(first(hooked, task))]
        await waiting_for_locks(hooked, 1)
        works.append(asyncio.create_task(second(hooked, task)))
        await waiting_for_locks(hooked, 2)
    await asyncio.gather(*works)
    assert (await state(hooked, run))["end"] == (RunStatus.SUCCEEDED, None, None)
