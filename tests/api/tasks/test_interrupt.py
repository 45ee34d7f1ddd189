"""POST /tasks/{id}/interrupt: the task stays open, and runs again with its next input."""

from __future__ import annotations

import asyncio

import httpx2
import pytest

from agentex.errors import BadRequest, NotFound
from agentex.ids import new_id
from agentex.resources import Resources
from agentex.runs.models import RunStatus
from agentex.tasks.models import Task, TaskStatus
from agentex.tasks.service import interrupt, resume
from tests.api.ledger.stage import add_agent, add_run, add_task, read_run
from tests.api.tasks.wire import with_agent
from tests.support.api import TEXT, Json, create_task, problem, rpc

CLOSED = sorted(set(TaskStatus) - {TaskStatus.RUNNING, TaskStatus.INTERRUPTED})


async def test_an_interrupted_task_says_why_and_is_interrupted_again_for_another_reason(
    client: httpx2.AsyncClient, agent: Json
) -> None:
    task = await create_task(client, agent)

    first = (await client.post(f"/tasks/{task['id']}/interrupt", json={"reason": "stop"})).json()
    again = (await client.post(f"/tasks/{task['id']}/interrupt", json={"reason": "stop it"})).json()

    same = {**task, "status": "INTERRUPTED"}
    assert first == {**same, "status_reason": "stop", "updated_at": first["updated_at"]}
    assert again == {**same, "status_reason": "stop it", "updated_at": again["updated_at"]}
    assert task["updated_at"] < first["updated_at"] < again["updated_at"]
    assert (await client.get(f"/tasks/{task['id']}")).json() == with_agent(again, agent)


async def test_an_interrupted_task_takes_events_and_can_be_closed(
    client: httpx2.AsyncClient, agent: Json
) -> None:
    task = await create_task(client, agent)
    await client.post(f"/tasks/{task['id']}/interrupt")

    sent = await rpc(client, agent, "event/send", {"task_id": task["id"], "content": TEXT})
    closed = await client.post(f"/tasks/{task['id']}/complete")

    assert (sent["error"], closed.status_code, closed.json()["status"]) == (None, 200, "COMPLETED")


async def test_a_closed_task_is_not_interrupted(client: httpx2.AsyncClient, agent: Json) -> None:
    task = await create_task(client, agent)
    await client.post(f"/tasks/{task['id']}/fail")
    path = f"/tasks/{task['id']}/interrupt"

    response = await client.post(path)

    message = f"task {task['id']} is FAILED; only a task that is RUNNING or INTERRUPTED can be interrupted"
    assert (response.status_code, response.json()) == (400, problem(path, 400, "bad-request", message))


@pytest.mark.parametrize("status", CLOSED)
async def test_the_function_names_the_status_that_it_found(resources: Resources, status: TaskStatus) -> None:
    task = await add_task(resources, await add_agent(resources), status)

    with pytest.raises(BadRequest, match=f"is {status}; "):
        async with resources.db.begin() as session:
            await interrupt(session, resources.hooks, task.id, None)


async def test_the_function_finds_no_task_that_is_none(resources: Resources) -> None:
    with pytest.raises(NotFound):
        async with resources.db.begin() as session:
            await interrupt(session, resources.hooks, new_id(), None)


async def test_a_run_goes_on_when_its_task_is_interrupted(
    client: httpx2.AsyncClient, resources: Resources
) -> None:
    agent = await add_agent(resources)
    task = await add_task(resources, agent)
    run = await add_run(resources, agent, RunStatus.RUNNING, task_id=task.id)

    answer = await client.post(f"/tasks/{task.id}/interrupt")

    assert (answer.status_code, (await read_run(resources, run.id)).status) == (200, RunStatus.RUNNING)


async def test_a_task_that_is_closed_meanwhile_stays_closed(client: httpx2.AsyncClient, agent: Json) -> None:
    for _ in range(10):
        task = await create_task(client, agent)
        path = f"/tasks/{task['id']}"

        closed, interrupted = await asyncio.gather(
            client.post(f"{path}/complete"), client.post(f"{path}/interrupt")
        )

        assert (closed.status_code, interrupted.status_code in {200, 400}) == (200, True)
        assert (await client.get(path)).json()["status"] == "COMPLETED"


async def test_an_interrupted_task_runs_again_when_it_is_resumed_and_only_then(resources: Resources) -> None:
    task = await add_task(resources, await add_agent(resources))

    async def resumed() -> Task | None:
        async with resources.db.begin() as session:
            return await resume(session, resources.hooks, task.id)

    async with resources.db.begin() as session:
        await interrupt(session, resources.hooks, task.id, "stop")
    first, second = await resumed(), await resumed()

    assert first is not None
    assert (first.status, first.status_reason, second) == (TaskStatus.RUNNING, None, None)
