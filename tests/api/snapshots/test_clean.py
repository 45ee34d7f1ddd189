"""POST /tasks/{id}/clean: the content of a closed task goes, the task and its run stay."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import httpx2
import pytest

from agentex.auth.authorize import Operation, ResourceType
from agentex.resources import Resources
from agentex.runs.models import UNFINISHED_STATUSES, RunStatus
from tests.api.ledger.stage import add_agent, add_run, add_task, fetch
from tests.support.api import UNKNOWN_ID, Json, create_task, problem
from tests.support.authz import ScriptedAuthz

FORCE = {"force": True}
TRACES = ("task_states", "spans", "checkpoints", "checkpoint_blobs", "checkpoint_writes")


async def age(resources: Resources, days: float) -> None:
    """Let all of it have happened so long ago."""
    at = datetime.now(UTC) - timedelta(days=days)
    for table, columns in (("tasks", "created_at = :at, updated_at = :at"), ("messages", "created_at = :at")):
        await fetch(resources, f"UPDATE {table} SET {columns}", at=at)  # noqa: S608 - of two constants


def cleaned(task: Json, answer: Json, *, messages: int = 0, others: int = 0) -> Json:
    """The answer to a clean of this task; `others`: how many of each part but events and messages."""
    events = 2 * others
    return {
        "task_id": task["id"],
        "cleaned_at": answer["cleaned_at"],
        "messages_deleted": messages,
        "task_states_deleted": others,
        "events_deleted": events,
        "deleted": {"messages": messages, "events": events, "trackers": 0} | dict.fromkeys(TRACES, others),
    }


async def test_the_content_goes_and_the_task_says_so(
    client: httpx2.AsyncClient, resources: Resources, task: Json
) -> None:
    response = await client.post(f"/tasks/{task['id']}/clean", json=FORCE)

    answer = response.json()
    assert (response.status_code, answer) == (200, cleaned(task, answer, messages=3, others=1))
    assert (await client.get(f"/tasks/{task['id']}")).json() == {**task, "cleaned_at": answer["cleaned_at"]}
    assert (await client.get("/tasks")).json()[0]["cleaned_at"] == answer["cleaned_at"]
    assert (await client.get("/messages", params={"task_id": task["id"]})).json() == []
    events = await fetch(resources, "SELECT content, delivery_key IS NOT NULL AS has_key FROM events")
    assert [tuple(event.values()) for event in events] == [(None, True)] * 2


async def test_another_task_keeps_its_content(client: httpx2.AsyncClient, agent: Json, task: Json) -> None:
    other = await create_task(client, agent)
    body = {"task_id": other["id"], "content": {"type": "text", "author": "user", "content": "hi"}}
    message = (await client.post("/messages", json=body)).json()

    await client.post(f"/tasks/{task['id']}/clean", json=FORCE)

    assert (await client.get("/messages", params={"task_id": other["id"]})).json() == [message]


async def test_a_clean_can_be_repeated_and_removes_what_came_since(
    client: httpx2.AsyncClient, task: Json
) -> None:
    path = f"/tasks/{task['id']}/clean"
    first = (await client.post(path, json=FORCE)).json()
    again = (await client.post(path)).json()
    body = {"task_id": task["id"], "content": {"type": "text", "author": "agent", "content": "late"}}
    await client.post("/messages", json=body)
    later = (await client.post(path)).json()

    assert again == cleaned(task, first)
    assert later == cleaned(task, first, messages=1)


@pytest.mark.parametrize("at_once", [5])
async def test_of_some_at_once_one_removes(client: httpx2.AsyncClient, task: Json, at_once: int) -> None:
    path = f"/tasks/{task['id']}/clean"

    answers = await asyncio.gather(*[client.post(path, json=FORCE) for _ in range(at_once)])

    assert [answer.status_code for answer in answers] == [200] * at_once
    assert sum(answer.json()["messages_deleted"] for answer in answers) == 3
    assert len({answer.json()["cleaned_at"] for answer in answers}) == 1


@pytest.mark.parametrize("verb", [None, "interrupt"])
async def test_an_open_task_is_not_cleaned(client: httpx2.AsyncClient, agent: Json, verb: str | None) -> None:
    task = await create_task(client, agent)
    status = "INTERRUPTED" if verb else "RUNNING"
    if verb:
        await client.post(f"/tasks/{task['id']}/{verb}")
    path = f"/tasks/{task['id']}/clean"

    response = await client.post(path, json=FORCE)

    message = f"task {task['id']} is {status}; only a task that is closed can be cleaned"
    assert (response.status_code, response.json()) == (400, problem(path, 400, "bad-request", message))


@pytest.mark.parametrize("status", sorted(UNFINISHED_STATUSES))
async def test_a_task_whose_run_goes_on_is_not_cleaned(
    client: httpx2.AsyncClient, resources: Resources, status: RunStatus
) -> None:
    agent = await add_agent(resources)
    task = await add_task(resources, agent)
    run = await add_run(resources, agent, status, task_id=task.id)
    await fetch(resources, "UPDATE tasks SET status = 'COMPLETED'")
    path = f"/tasks/{task.id}/clean"

    response = await client.post(path, json=FORCE)

    message = f"task {task.id} cannot be cleaned: its run {run.id} has not ended"
    assert (response.status_code, response.json()) == (400, problem(path, 400, "bad-request", message))


async def test_the_run_stays(client: httpx2.AsyncClient, resources: Resources) -> None:
    agent = await add_agent(resources)
    task = await add_task(resources, agent)
    run = await add_run(
        resources, agent, RunStatus.DELIVERED, task_id=task.id, input={"a": 1}, finished_at=datetime.now(UTC)
    )
    await client.post(f"/tasks/{task.id}/complete")
    before = (await client.get(f"/runs/{run.id}")).json()

    response = await client.post(f"/tasks/{task.id}/clean", json=FORCE)

    assert (response.status_code, (await client.get(f"/runs/{run.id}")).json()) == (200, before)


@pytest.mark.parametrize(
    ("days", "body", "goes"),
    [
        (6.9, None, False),
        (7.1, None, True),
        (7.1, {"idle_days": 8}, False),
        (1.1, {"idle_days": 1}, True),
        (0, {"force": True, "idle_days": 30}, True),
    ],
)
async def test_only_an_idle_task_is_cleaned(
    client: httpx2.AsyncClient, resources: Resources, task: Json, days: float, body: Json | None, goes: bool
) -> None:
    await age(resources, days)

    response = await client.post(f"/tasks/{task['id']}/clean", json=body)

    assert response.status_code == (200 if goes else 400), response.text
    if not goes:
        idle_days = (body or {"idle_days": 7})["idle_days"]
        message = f"task {task['id']} was used in the last {idle_days} days; give fewer idle_days, or force"
        assert response.json()["message"] == message


@pytest.mark.parametrize("column", ["tasks SET updated_at", "messages SET created_at"])
async def test_a_late_change_or_message_makes_it_used(
    client: httpx2.AsyncClient, resources: Resources, task: Json, column: str
) -> None:
    await age(resources, 30)
    await fetch(resources, f"UPDATE {column} = now()")

    response = await client.post(f"/tasks/{task['id']}/clean")

    assert response.status_code == 400


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"idle_days": 0}, "idle_days is 0: Input should be greater than or equal to 1"),
        ({"idle_days": 10**30}, f"idle_days is {10**30}: Input should be less than or equal to 36500"),
        (
            {"force": "perhaps"},
            "force is 'perhaps': Input should be a valid boolean, unable to interpret input",
        ),
    ],
    ids=["zero", "huge", "force"],
)
async def test_what_is_no_clean_is_422(
    client: httpx2.AsyncClient, task: Json, body: Json, message: str
) -> None:
    path = f"/tasks/{task['id']}/clean"

    response = await client.post(path, json=body)

    assert (response.status_code, response.json()) == (422, problem(path, 422, "invalid-input", message))


async def test_who_may_not_delete_does_not_clean(
    client: httpx2.AsyncClient, task: Json, authz: ScriptedAuthz
) -> None:
    path = f"/tasks/{task['id']}/clean"
    other = await client.post(path, json=FORCE, headers={"x-test-account": "other"})
    unknown = await client.post(f"/tasks/{UNKNOWN_ID}/clean", json=FORCE)
    authz.deny = {(Operation.DELETE, ResourceType.TASK)}
    denied = await client.post(path, json=FORCE)

    message = f"delete on task {task['id']} is not allowed: scripted"
    assert (other.status_code, unknown.status_code) == (404, 404)
    assert (denied.status_code, denied.json()) == (403, problem(path, 403, "forbidden", message))
    assert len((await client.get("/messages", params={"task_id": task["id"]})).json()) == 3


async def test_a_deleted_task_is_404(client: httpx2.AsyncClient, task: Json) -> None:
    await client.delete(f"/tasks/{task['id']}")

    assert (await client.post(f"/tasks/{task['id']}/clean", json=FORCE)).status_code == 404
