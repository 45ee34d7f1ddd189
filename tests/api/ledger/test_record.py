"""How runs end: outcomes under a token, a task's end, and proof of life."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from agentex.agents.models import Agent
from agentex.ids import run_message_id
from agentex.resources import ClosedTask, Resources
from agentex.runs.finish import Outcome, Recorded, end_for_task, mark_running, prove_alive, record
from agentex.runs.models import Run, RunReason, RunStatus
from agentex.tasks.models import Task, TaskStatus
from agentex.tasks.service import close
from tests.api.ledger.stage import add_run, add_task, fetch, minutes, read_run, seconds

TOKEN = UUID("01930000-0000-7000-8000-0000000000bb")
OTHER = UUID("01930000-0000-7000-8000-0000000000cc")
SCHEDULE = UUID("01930000-0000-7000-8000-0000000000dd")
HI = {"type": "text", "author": "agent", "content": "hi"}

TERMINAL = sorted(set(TaskStatus) - {TaskStatus.RUNNING, TaskStatus.INTERRUPTED})


async def held(
    resources: Resources, agent: Agent, status: RunStatus = RunStatus.LAUNCHING, **columns: Any
) -> Run:
    """A run under TOKEN that is being sent."""
    now = datetime.now(UTC)
    claim = {"claimed_by": TOKEN, "claimed_until": now + minutes(1), "sending_at": now, "attempt": 1}
    return await add_run(resources, agent, status, **(claim | columns))


async def write(resources: Resources, *outcomes: Outcome) -> dict[UUID, Recorded]:
    async with resources.db.begin() as session:
        return await record(session, outcomes)


def facts(run: Run) -> dict[str, Any]:
    """What an outcome writes; instants only as whether they are there."""
    return {
        "status": run.status,
        "reason": run.reason,
        "error": run.error,
        "output": run.output,
        "claimed": run.claimed_by is not None or run.claimed_until is not None,
        "sending": run.sending_at is not None,
        "delivered": run.delivered_at is not None,
        "finished": run.finished_at is not None,
    }


BLANK = {
    "reason": None,
    "error": None,
    "output": None,
    "claimed": False,
    "sending": True,
    "delivered": False,
    "finished": True,
}


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        ({"status": RunStatus.DELIVERED, "delivered": True}, {"delivered": True}),
        ({"status": RunStatus.RUNNING, "delivered": True}, {"delivered": True, "finished": False}),
        (
            {"status": RunStatus.SUCCEEDED, "delivered": True, "output": [HI]},
            {"delivered": True, "output": [HI]},
        ),
        (
            {"status": RunStatus.SUCCEEDED, "delivered": True, "output": []},
            {"delivered": True, "output": []},
        ),
        (
            {"status": RunStatus.FAILED, "reason": RunReason.AGENT_ERROR, "error": "500 \x00"},
            {"reason": RunReason.AGENT_ERROR, "error": "500 \ufffd"},
        ),
        (
            {"status": RunStatus.SKIPPED, "reason": RunReason.DENIED, "error": "no"},
            {"reason": RunReason.DENIED, "error": "no", "sending": False},
        ),
        (
            {"status": RunStatus.DUE, "error": "refused", "retry_in_seconds": 60.0},
            {"error": "refused", "sending": False, "finished": False},
        ),
        ({"status": RunStatus.CANCELED}, {}),
    ],
    ids=lambda value: str(value.get("status", "")),
)
async def test_an_outcome_is_written_whole(
    resources: Resources, agent: Agent, outcome: dict[str, Any], expected: dict[str, Any]
) -> None:
    run = await held(resources, agent)
    recorded = await write(resources, Outcome(run.id, TOKEN, **outcome))
    assert recorded == {run.id: Recorded(mine=True, cancel_requested=False)}
    found = facts(await read_run(resources, run.id))
    assert found == BLANK | {"status": outcome["status"]} | expected


async def test_a_retry_waits_for_as_long_as_it_was_told(resources: Resources, agent: Agent) -> None:
    run = await held(resources, agent)
    before = datetime.now(UTC)
    await write(resources, Outcome(run.id, TOKEN, RunStatus.DUE, retry_in_seconds=60.0))
    next_attempt_at = (await read_run(resources, run.id)).next_attempt_at
    assert next_attempt_at is not None
    assert before + seconds(59) < next_attempt_at < before + seconds(120)


@pytest.mark.parametrize(
    ("status", "columns"),
    [
        (RunStatus.LAUNCHING, {"claimed_by": OTHER}),
        (RunStatus.DUE, {"claimed_by": None}),
        (RunStatus.CANCELED, {}),
        (RunStatus.SUCCEEDED, {}),
    ],
    ids=["another-s", "nobody-s", "canceled", "succeeded"],
)
async def test_nothing_is_written_to_a_run_that_is_not_the_launch_s_own(
    resources: Resources, agent: Agent, status: RunStatus, columns: dict[str, Any]
) -> None:
    run = await held(resources, agent, status, **columns)
    before = await read_run(resources, run.id)
    assert await write(resources, Outcome(run.id, TOKEN, RunStatus.DELIVERED, delivered=True)) == {}
    assert (await read_run(resources, run.id)).model_dump() == before.model_dump()


async def test_a_group_writes_what_is_its_own_and_says_who_asked_to_cancel(
    resources: Resources, agent: Agent
) -> None:
    plain = await held(resources, agent)
    asked = await held(resources, agent, cancel_requested_at=datetime.now(UTC))
    lost = await held(resources, agent, claimed_by=OTHER)
    outcomes = [Outcome(run.id, TOKEN, RunStatus.DELIVERED, delivered=True) for run in (plain, asked, lost)]
    assert await write(resources, *outcomes) == {
        plain.id: Recorded(mine=True, cancel_requested=False),
        asked.id: Recorded(mine=True, cancel_requested=True),
    }


async def test_a_skip_at_launch_is_not_counted_as_an_action(resources: Resources, agent: Agent) -> None:
    await fetch(resources, "INSERT INTO schedule_totals (schedule_id, opened) VALUES (:id, 5)", id=SCHEDULE)
    runs = [await held(resources, agent, schedule_id=SCHEDULE) for _ in range(3)]
    await write(
        resources,
        Outcome(runs[0].id, TOKEN, RunStatus.SKIPPED, RunReason.MISSED),
        Outcome(runs[1].id, TOKEN, RunStatus.SKIPPED, RunReason.DENIED),
        Outcome(runs[2].id, TOKEN, RunStatus.DELIVERED, delivered=True),
    )
    await write(resources, Outcome(runs[0].id, TOKEN, RunStatus.SKIPPED, RunReason.MISSED))
    found = await fetch(resources, "SELECT opened FROM schedule_totals")
    assert found[0]["opened"] == 3


async def test_an_answer_becomes_messages_of_the_task_in_order_and_once(
    resources: Resources, agent: Agent
) -> None:
    task = await add_task(resources, agent)
    run = await held(resources, agent, task_id=task.id)
    output = [HI, HI | {"content": "there"}]
    outcome = Outcome(run.id, TOKEN, RunStatus.SUCCEEDED, output=output, delivered=True)
    await write(resources, outcome)
    await write(resources, outcome)
    found = await fetch(
        resources,
        """SELECT id, task_id, account_id, content->>'content' AS text, streaming_status FROM messages
        ORDER BY created_at""",
    )
    assert [tuple(row.values()) for row in found] == [
        (run_message_id(run.id, 1), task.id, "default", "hi", "DONE"),
        (run_message_id(run.id, 2), task.id, "default", "there", "DONE"),
    ]


ENDS = {
    TaskStatus.COMPLETED: (RunStatus.SUCCEEDED, None, None),
    TaskStatus.FAILED: (RunStatus.FAILED, RunReason.AGENT_ERROR, "the agent's own words"),
    TaskStatus.CANCELED: (RunStatus.CANCELED, None, None),
    TaskStatus.TERMINATED: (RunStatus.CANCELED, None, None),
    TaskStatus.DELETED: (RunStatus.CANCELED, None, None),
    TaskStatus.TIMED_OUT: (RunStatus.TIMED_OUT, None, None),
}


@pytest.mark.parametrize("status", TERMINAL)
async def test_closing_a_task_ends_its_run_in_the_same_transaction(
    hooked: Resources, agent: Agent, status: TaskStatus
) -> None:
    task = await add_task(hooked, agent)
    run = await held(hooked, agent, RunStatus.DELIVERED, task_id=task.id)
    async with hooked.db.begin() as session:
        await close(session, hooked.hooks, task.id, status, "the agent's own words")
        await session.rollback()
    assert (await read_run(hooked, run.id)).status is RunStatus.DELIVERED
    async with hooked.db.begin() as session:
        await close(session, hooked.hooks, task.id, status, "the agent's own words")
    row = await read_run(hooked, run.id)
    assert (row.status, row.reason, row.error) == ENDS[status]
    assert row.finished_at is not None
    assert row.delivered_at is not None


async def end(resources: Resources, task: Task, status: TaskStatus, reason: str | None = None) -> None:
    async with resources.db.begin() as session:
        await end_for_task(session, ClosedTask(task.id, status, reason))


@pytest.mark.parametrize(
    ("before", "reason", "ends"),
    [
        (RunStatus.DUE, None, True),
        (RunStatus.LAUNCHING, None, True),
        (RunStatus.DELIVERED, None, True),
        (RunStatus.RUNNING, None, True),
        (RunStatus.WAITING_FOR_INPUT, None, True),
        (RunStatus.FAILED, RunReason.OUTCOME_UNKNOWN, True),
        (RunStatus.FAILED, RunReason.AGENT_ERROR, False),
        (RunStatus.SUCCEEDED, None, False),
        (RunStatus.CANCELED, None, False),
        (RunStatus.TIMED_OUT, None, False),
        (RunStatus.SKIPPED, RunReason.DENIED, False),
    ],
)
async def test_which_runs_a_task_s_end_ends(
    resources: Resources, agent: Agent, before: RunStatus, reason: RunReason | None, ends: bool
) -> None:
    task = await add_task(resources, agent)
    run = await held(resources, agent, before, reason=reason, task_id=task.id)
    await end(resources, task, TaskStatus.COMPLETED)
    row = await read_run(resources, run.id)
    assert (row.status, row.reason) == ((RunStatus.SUCCEEDED, None) if ends else (before, reason))


async def test_a_task_that_failed_without_a_word_says_that_at_least(
    resources: Resources, agent: Agent
) -> None:
    task = await add_task(resources, agent)
    run = await held(resources, agent, RunStatus.RUNNING, task_id=task.id)
    await end(resources, task, TaskStatus.FAILED)
    assert (await read_run(resources, run.id)).error == "the agent failed the task"


async def test_a_launch_s_late_outcome_does_not_undo_a_task_s_end(resources: Resources, agent: Agent) -> None:
    task = await add_task(resources, agent)
    run = await held(resources, agent, task_id=task.id)
    await end(resources, task, TaskStatus.COMPLETED)
    assert await write(resources, Outcome(run.id, TOKEN, RunStatus.DELIVERED, delivered=True)) == {}
    assert (await read_run(resources, run.id)).status is RunStatus.SUCCEEDED


@pytest.mark.parametrize(
    ("before", "reason", "after"),
    [
        (RunStatus.FAILED, RunReason.OUTCOME_UNKNOWN, RunStatus.DELIVERED),
        (RunStatus.FAILED, RunReason.AGENT_ERROR, RunStatus.FAILED),
        (RunStatus.CANCELED, None, RunStatus.CANCELED),
        (RunStatus.LAUNCHING, None, RunStatus.LAUNCHING),
        (RunStatus.RUNNING, None, RunStatus.RUNNING),
    ],
)
async def test_a_task_that_speaks_got_its_input(
    resources: Resources, agent: Agent, before: RunStatus, reason: RunReason | None, after: RunStatus
) -> None:
    task = await add_task(resources, agent)
    run = await held(resources, agent, before, reason=reason, error="silence", task_id=task.id)
    bystander = await held(resources, agent, RunStatus.FAILED, reason=RunReason.OUTCOME_UNKNOWN)
    async with resources.db.begin() as session:
        await prove_alive(session, task.id)
    row = await read_run(resources, run.id)
    changed = before is not after
    assert (row.status, row.reason, row.error, row.delivered_at is not None) == (
        (after, None, None, True) if changed else (after, reason, "silence", False)
    )
    assert (await read_run(resources, bystander.id)).status is RunStatus.FAILED


@pytest.mark.parametrize(
    ("before", "token", "after"),
    [
        (RunStatus.LAUNCHING, TOKEN, RunStatus.RUNNING),
        (RunStatus.LAUNCHING, OTHER, RunStatus.LAUNCHING),
        (RunStatus.CANCELED, TOKEN, RunStatus.CANCELED),
    ],
)
async def test_an_open_answer_shows_as_running_under_its_token_only(
    resources: Resources, agent: Agent, before: RunStatus, token: UUID, after: RunStatus
) -> None:
    run = await held(resources, agent, before)
    async with resources.db.begin() as session:
        await mark_running(session, run.id, token)
    row = await read_run(resources, run.id)
    assert (row.status, row.delivered_at is not None) == (after, after is RunStatus.RUNNING)
