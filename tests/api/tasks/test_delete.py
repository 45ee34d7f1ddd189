"""DELETE /tasks/{id} and by name: nobody finds the task any more, and its run ends."""

from __future__ import annotations

import asyncio

import httpx2
import pytest

from agentex.auth.authorize import Operation, ResourceType
from agentex.resources import Resources
from agentex.runs.models import Run, RunStatus
from agentex.tasks.models import TaskStatus
from tests.api.ledger.stage import add_agent, add_run, add_task, fetch, read_run
from tests.api.tasks.wire import with_agent
from tests.support.api import TEXT, UNKNOWN_ID, Json, create_task, problem, rpc, rpc_error
from tests.support.authz import ScriptedAuthz

OTHER_ACCOUNT = {"x-test-account": "other"}


@pytest.fixture
async def task(client: httpx2.AsyncClient, agent: Json) -> Json:
    return await create_task(client, agent, name="a/b")


@pytest.mark.parametrize("by", ["id", "name"])
async def test_a_deleted_task_is_found_nowhere(
    client: httpx2.AsyncClient, agent: Json, task: Json, by: str
) -> None:
    other = await create_task(client, agent, name="other")
    path = f"/tasks/{task['id']}" if by == "id" else "/tasks/name/a%2Fb"

    response = await client.delete(path)

    assert (response.status_code, response.json()) == (
        200,
        {"id": task["id"], "message": "Task 'a/b' was deleted"},
    )
    for gone in (f"/tasks/{task['id']}", "/tasks/name/a%2Fb"):
        answers = [
            await client.get(gone),
            await client.put(gone, json={"task_metadata": {}}),
            await client.delete(gone),
        ]
        assert [answer.status_code for answer in answers] == [404] * 3
    for verb in ("complete", "fail", "cancel", "terminate", "timeout", "interrupt"):
        assert (await client.post(f"/tasks/{task['id']}/{verb}")).status_code == 404
    assert [one["id"] for one in (await client.get("/tasks")).json()] == [other["id"]]


async def test_what_hangs_on_a_deleted_task_is_in_no_list(
    client: httpx2.AsyncClient, agent: Json, task: Json
) -> None:
    """Its state, tracker and spans; those of another task and of none are."""
    other = await create_task(client, agent, name="other")
    for of in (task, other, None):
        if of is not None:
            state: Json = {"task_id": of["id"], "agent_id": agent["id"], "state": {"n": 1}}
            assert (await client.post("/states", json=state)).status_code == 200
        name, task_id = ("none", None) if of is None else (of["name"], of["id"])
        span = {
            "id": name,
            "task_id": task_id,
            "trace_id": "t",
            "name": "n",
            "start_time": "2026-01-01T00:00:00Z",
        }
        assert (await client.post("/spans", json=span)).status_code == 200

    assert (await client.delete(f"/tasks/{task['id']}")).status_code == 200

    found = {path: (await client.get(path)).json() for path in ("/states", "/tracker", "/spans")}
    assert {path: {one["task_id"] for one in listed} for path, listed in found.items()} == {
        "/states": {other["id"]},
        "/tracker": {other["id"]},
        "/spans": {other["id"], None},
    }
    answers = [await client.get("/spans/a/b"), await client.patch("/spans/a/b", json={"name": "m"})]
    assert [answer.status_code for answer in answers] == [404, 404]
    assert (await client.get("/spans/none")).status_code == 200


async def test_a_task_without_a_name_is_named_by_its_id(client: httpx2.AsyncClient, agent: Json) -> None:
    task = await create_task(client, agent)

    response = await client.delete(f"/tasks/{task['id']}")

    assert response.json() == {"id": task["id"], "message": f"Task '{task['id']}' was deleted"}


async def test_a_deleted_task_takes_no_event_and_keeps_its_name(
    client: httpx2.AsyncClient, agent: Json, task: Json
) -> None:
    await client.delete(f"/tasks/{task['id']}")

    sent = await rpc(client, agent, "event/send", {"task_id": task["id"], "content": TEXT})
    named = await rpc(client, agent, "task/create", {"name": "a/b", "params": {"n": 1}})

    assert sent == rpc_error(-32603, f"task '{task['id']}' not found")
    assert named == rpc_error(-32603, "task 'a/b' was deleted and keeps its name; choose another name")


RUNS = [
    (TaskStatus.RUNNING, RunStatus.RUNNING, RunStatus.CANCELED),
    (TaskStatus.INTERRUPTED, RunStatus.DELIVERED, RunStatus.CANCELED),
    (TaskStatus.COMPLETED, RunStatus.SUCCEEDED, RunStatus.SUCCEEDED),
    # Its task was closed after it had ended as delivered.
    (TaskStatus.COMPLETED, RunStatus.DELIVERED, RunStatus.DELIVERED),
]


@pytest.mark.parametrize(("status", "before", "after"), RUNS)
async def test_the_run_of_an_open_task_is_canceled_and_any_other_keeps_its_end(
    client: httpx2.AsyncClient, resources: Resources, status: TaskStatus, before: RunStatus, after: RunStatus
) -> None:
    agent = await add_agent(resources)
    task = await add_task(resources, agent, status)
    run = await add_run(resources, agent, before, task_id=task.id)

    answer = await client.delete(f"/tasks/{task.id}")

    ended: Run = await read_run(resources, run.id)
    assert (answer.status_code, ended.status, ended.reason) == (200, after, None)


async def test_of_ten_deleting_at_once_one_succeeds(client: httpx2.AsyncClient, task: Json) -> None:
    answers = await asyncio.gather(*[client.delete(f"/tasks/{task['id']}") for _ in range(10)])

    assert sorted(answer.status_code for answer in answers) == [200] + [404] * 9


async def test_a_task_that_is_closed_and_deleted_at_once_is_deleted(
    client: httpx2.AsyncClient, agent: Json, resources: Resources
) -> None:
    for _ in range(10):
        task = await create_task(client, agent)
        path = f"/tasks/{task['id']}"

        closed, deleted = await asyncio.gather(client.post(f"{path}/complete"), client.delete(path))

        assert (closed.status_code in {200, 400, 404}, deleted.status_code) == (True, 200)
    assert {row["status"] for row in await fetch(resources, "SELECT status FROM tasks")} == {"DELETED"}


@pytest.mark.parametrize("path", [f"/tasks/{UNKNOWN_ID}", "/tasks/nonsense", "/tasks/name/nothing"])
async def test_a_task_that_is_none_is_404(client: httpx2.AsyncClient, path: str) -> None:
    response = await client.delete(path)

    message = f"task '{path.rpartition('/')[2]}' not found"
    assert (response.status_code, response.json()) == (404, problem(path, 404, "not-found", message))


@pytest.mark.parametrize("by", ["id", "name"])
async def test_another_account_deletes_nothing(
    client: httpx2.AsyncClient, agent: Json, task: Json, by: str
) -> None:
    path = f"/tasks/{task['id']}" if by == "id" else "/tasks/name/a%2Fb"

    response = await client.delete(path, headers=OTHER_ACCOUNT)

    assert (response.status_code, (await client.get(path)).json()) == (404, with_agent(task, agent))


async def test_who_may_read_but_not_delete_gets_403(
    client: httpx2.AsyncClient, agent: Json, task: Json, authz: ScriptedAuthz
) -> None:
    authz.deny = {(Operation.DELETE, ResourceType.TASK)}
    path = f"/tasks/{task['id']}"

    response = await client.delete(path)

    message = f"delete on task {task['id']} is not allowed: scripted"
    assert (response.status_code, response.json()) == (403, problem(path, 403, "forbidden", message))
    assert (await client.get(path)).json() == with_agent(task, agent)


async def test_nothing_that_hangs_on_a_deleted_task_is_found(client: httpx2.AsyncClient, agent: Json) -> None:
    """Its thread of checkpoints least of all: asked as the account's, it would need no leave for the task."""
    task = await create_task(client, agent)
    thread: Json = {"thread_id": task["id"]}
    checkpoint: Json = {**thread, "checkpoint_id": "1", "checkpoint": {}}
    message = (await client.post("/messages", json={"task_id": task["id"], "content": TEXT})).json()
    kept: Json = {"task_id": task["id"], "agent_id": agent["id"], "state": {}}
    state = (await client.post("/states", json=kept)).json()
    sent = await rpc(client, agent, "event/send", {"task_id": task["id"], "content": TEXT})
    assert (await client.post("/checkpoints/put", json=checkpoint)).status_code == 200
    await client.delete(f"/tasks/{task['id']}")

    answers = [
        await client.get(f"/messages/{message['id']}"),
        await client.get(f"/states/{state['id']}"),
        await client.put(f"/states/{state['id']}", json={"state": {"turn": 1}}),
        await client.get(f"/events/{sent['result']['id']}"),
        await client.post("/checkpoints/get-tuple", json=thread),
        await client.post("/checkpoints/list", json=thread),
        await client.post("/checkpoints/put", json=checkpoint),
    ]

    assert [answer.status_code for answer in answers] == [404] * 7
