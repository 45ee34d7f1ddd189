"""The arrows RUNNING → INTERRUPTED → RUNNING of a task."""

from __future__ import annotations

from uuid import UUID

import httpx2
import pytest

from agentex.errors import BadRequest, NotFound
from agentex.resources import ClosedTask, Resources
from agentex.tasks import service
from agentex.tasks.models import Task, TaskStatus
from tests.support.api import UNKNOWN_ID, Json, create_task


async def interrupted(resources: Resources, task_id: str, reason: str | None = None) -> Task:
    """The task, interrupted in a transaction of its own."""
    async with resources.db.begin() as session:
        return await service.interrupt(session, resources.hooks, UUID(task_id), reason)


async def resumed(resources: Resources, task_id: str) -> Task | None:
    async with resources.db.begin() as session:
        return await service.resume(session, resources.hooks, UUID(task_id))


async def test_a_running_task_is_interrupted_with_the_reason(
    client: httpx2.AsyncClient, agent: Json, resources: Resources
) -> None:
    task = await create_task(client, agent, name="t1", params={"depth": 3})

    changed = await interrupted(resources, task["id"], "the user pressed stop")

    read = (await client.get(f"/tasks/{task['id']}")).json()
    assert service.wire_task(changed) == {key: value for key, value in read.items() if key != "agents"}
    expected = {"status": "INTERRUPTED", "status_reason": "the user pressed stop"}
    assert service.wire_task(changed) == task | expected | {"updated_at": read["updated_at"]}
    assert read["updated_at"] > task["updated_at"]


async def test_an_interrupted_task_stays_as_it_is(
    client: httpx2.AsyncClient, agent: Json, resources: Resources
) -> None:
    task = await create_task(client, agent)
    first = service.wire_task(await interrupted(resources, task["id"], "first"))

    assert service.wire_task(await interrupted(resources, task["id"], "second")) == first


@pytest.mark.parametrize("verb", ["complete", "fail", "cancel"])
async def test_a_closed_task_is_not_interrupted(
    client: httpx2.AsyncClient, agent: Json, resources: Resources, verb: str
) -> None:
    task = await create_task(client, agent)
    closed = (await client.post(f"/tasks/{task['id']}/{verb}")).json()

    with pytest.raises(BadRequest) as refused:
        await interrupted(resources, task["id"])

    status = closed["status"]
    message = f"task {task['id']} is {status}; only a task that is RUNNING or INTERRUPTED can be interrupted"
    assert refused.value.message == message


async def test_an_unknown_task_is_not_found(client: httpx2.AsyncClient, resources: Resources) -> None:
    with pytest.raises(NotFound) as refused:
        await interrupted(resources, UNKNOWN_ID)

    assert refused.value.message == f"task '{UNKNOWN_ID}' not found"


async def test_an_interrupted_task_runs_again_when_it_is_resumed(
    client: httpx2.AsyncClient, agent: Json, resources: Resources
) -> None:
    task = await create_task(client, agent)
    await interrupted(resources, task["id"], "stop")

    first, second = await resumed(resources, task["id"]), await resumed(resources, task["id"])

    assert first is not None
    assert (first.status, first.status_reason, second) == (TaskStatus.RUNNING, None, None)


async def test_the_run_of_an_interrupted_task_goes_on(
    client: httpx2.AsyncClient, agent: Json, resources: Resources
) -> None:
    """A hook would end it: it is told of closed tasks only, and of this one when it is closed."""
    task = await create_task(client, agent)
    told: list[tuple[str, str]] = []

    async def tell(_: object, closed: ClosedTask) -> None:
        told.append((str(closed.task_id), closed.status))

    resources.hooks.task_closed = [tell]
    await interrupted(resources, task["id"])
    assert told == []

    await client.post(f"/tasks/{task['id']}/complete")
    assert told == [(task["id"], "COMPLETED")]
