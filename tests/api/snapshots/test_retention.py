"""What retention makes of tasks that were cleaned or put back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import httpx2
import pytest

from agentex.ids import first_id_of, run_task_id
from agentex.resources import Resources
from agentex.runs.models import RunStatus
from agentex.runs.retention import forget_old_runs
from agentex.tasks.models import Task, TaskStatus
from tests.api.ledger.stage import CALLER, add_agent, add_run, fetch
from tests.support.api import Json

OLD = datetime.now(UTC) - timedelta(days=91)


@pytest.fixture
async def task_id(client: httpx2.AsyncClient, resources: Resources) -> str:
    """A task that an old run made and closed, with a message and an event of then."""
    agent = await add_agent(resources)
    run_id = UUID(int=first_id_of(OLD).int | uuid4().int >> 80)
    task = Task(
        id=run_task_id(run_id),
        account_id="default",
        owner=CALLER.creator,
        agent_id=agent.id,
        status=TaskStatus.COMPLETED,
        created_at=OLD,
        updated_at=OLD,
    )
    async with resources.db.begin() as session:
        session.add(task)
    same = {"due_at": OLD, "opened_at": OLD, "updated_at": OLD, "finished_at": OLD, "next_attempt_at": None}
    await add_run(resources, agent, RunStatus.DELIVERED, id=run_id, task_id=task.id, **same)
    text = '{"type": "text", "author": "agent", "content": "hi"}'
    await fetch(
        resources,
        """
        INSERT INTO messages (id, account_id, task_id, content, created_at, updated_at)
        VALUES (gen_random_uuid(), 'default', :id, CAST(:text AS jsonb), :at, :at)
        """,
        id=task.id,
        text=text,
        at=OLD,
    )
    await fetch(
        resources,
        """
        INSERT INTO events (id, account_id, task_id, agent_id, content, delivery_key, created_at)
        VALUES (gen_random_uuid(), 'default', :id, :agent_id, CAST(:text AS jsonb), 'run:1', :at)
        """,
        id=task.id,
        agent_id=agent.id,
        text=text,
        at=OLD,
    )
    return str(task.id)


async def left(resources: Resources) -> Json:
    found = await fetch(
        resources,
        """SELECT (SELECT count(*) FROM runs) AS runs, (SELECT count(*) FROM tasks) AS tasks,
            (SELECT count(*) FROM events) AS events, (SELECT count(*) FROM messages) AS messages""",
    )
    return dict(found[0])


async def test_a_cleaned_task_goes_when_it_would_have_gone_anyway(
    client: httpx2.AsyncClient, resources: Resources, task_id: str
) -> None:
    cleaned = await client.post(f"/tasks/{task_id}/clean")
    before = await left(resources)

    await forget_old_runs(resources)

    assert (cleaned.status_code, before) == (200, {"runs": 1, "tasks": 1, "events": 1, "messages": 0})
    assert await left(resources) == dict.fromkeys(before, 0)
    assert (await client.get(f"/tasks/{task_id}")).status_code == 404


async def test_a_task_that_was_put_back_is_kept(
    client: httpx2.AsyncClient, resources: Resources, task_id: str
) -> None:
    snapshot = (await client.get(f"/tasks/{task_id}/export")).json()
    await client.post(f"/tasks/{task_id}/clean")
    restored = await client.post(f"/tasks/{task_id}/rehydrate", json=snapshot)

    await forget_old_runs(resources)

    assert restored.status_code == 204
    assert await left(resources) == {"runs": 1, "tasks": 1, "events": 1, "messages": 1}


async def test_a_task_that_was_deleted_by_a_caller_goes_with_its_run(
    client: httpx2.AsyncClient, resources: Resources, task_id: str
) -> None:
    await client.delete(f"/tasks/{task_id}")
    await fetch(resources, "UPDATE tasks SET updated_at = :at", at=OLD)

    await forget_old_runs(resources)

    assert set((await left(resources)).values()) == {0}
