"""/tracker: made with its task, moves forward only."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx2
import pytest
from alembic import command

from agentex.auth.authorize import Operation, ResourceType
from agentex.database import alembic_config
from agentex.ids import new_id
from agentex.resources import Resources
from agentex.tasks.bulk import NewTask, ensure_tasks
from tests.api.ledger.stage import add_agent, add_task, fetch
from tests.support.api import TEXT, UNKNOWN_ID, Json, create_task, problem, register, rpc
from tests.support.authz import ScriptedAuthz
from tests.support.plans import statements

OTHER = {"x-test-account": "other"}


@pytest.fixture
async def task(client: httpx2.AsyncClient, agent: Json) -> Json:
    return await create_task(client, agent, name="a name")


@pytest.fixture
async def tracker(client: httpx2.AsyncClient, task: Json) -> Json:
    [found] = await listed(client, task_id=task["id"])
    return found


async def listed(client: httpx2.AsyncClient, **query: Any) -> list[Json]:
    response = await client.get("/tracker", params=query)
    assert response.status_code == 200, response.text
    return response.json()


async def send(client: httpx2.AsyncClient, agent: Json, task: Json) -> str:
    answer = await rpc(client, agent, "event/send", {"task_id": task["id"], "content": TEXT})
    return answer["result"]["id"]


async def put(client: httpx2.AsyncClient, tracker: Json, **changes: object) -> httpx2.Response:
    return await client.put(f"/tracker/{tracker['id']}", json=changes)


async def test_a_task_has_one_tracker_from_its_making(
    client: httpx2.AsyncClient, agent: Json, task: Json, tracker: Json
) -> None:
    again = await asyncio.gather(*[create_task(client, agent, name="a name") for _ in range(6)])

    assert {one["id"] for one in again} == {task["id"]}
    assert tracker == {
        "id": tracker["id"],
        "agent_id": agent["id"],
        "task_id": task["id"],
        "last_processed_event_id": None,
        "status": None,
        "status_reason": None,
        "created_at": task["created_at"],
        "updated_at": task["created_at"],
    }
    assert await listed(client) == [tracker]
    assert (await client.get(f"/tracker/{tracker['id']}")).json() == tracker


async def test_another_agents_name_leaves_no_tracker(
    client: httpx2.AsyncClient, task: Json, tracker: Json
) -> None:
    another = await register(client, name="another")

    answer = await rpc(client, another, "task/create", {"name": "a name"})

    assert answer["error"]["message"] == "task 'a name' belongs to another agent; choose another name"
    assert await listed(client) == [tracker]


async def test_only_given_keys_change(
    client: httpx2.AsyncClient, agent: Json, task: Json, tracker: Json
) -> None:
    event = await send(client, agent, task)

    first = (await put(client, tracker, status="WORKING", status_reason="because")).json()
    second = (await put(client, tracker, last_processed_event_id=event)).json()
    third = (await put(client, tracker, status_reason=None, last_processed_event_id=None)).json()
    fourth = (await put(client, tracker)).json()

    assert first["updated_at"] > tracker["updated_at"]
    at = [{"updated_at": one["updated_at"]} for one in (first, second, third, fourth)]
    assert first == tracker | {"status": "WORKING", "status_reason": "because"} | at[0]
    assert second == first | {"last_processed_event_id": event} | at[1]
    assert third == second | {"status_reason": None} | at[2]
    assert fourth == third | at[3]
    assert (await client.get(f"/tracker/{tracker['id']}")).json() == fourth


async def test_it_moves_forward_only(
    client: httpx2.AsyncClient, agent: Json, task: Json, tracker: Json
) -> None:
    events = [await send(client, agent, task) for _ in range(3)]
    await put(client, tracker, last_processed_event_id=events[1])

    back = await put(client, tracker, last_processed_event_id=events[0], status="changed")
    same = await put(client, tracker, last_processed_event_id=events[1])
    on = await put(client, tracker, last_processed_event_id=events[2])

    message = (
        f"last_processed_event_id: event {events[0]} is before {events[1]}, "
        "which is processed already; it moves forward only"
    )
    path = f"/tracker/{tracker['id']}"
    assert (back.status_code, back.json()) == (400, problem(path, 400, "bad-request", message))
    assert (same.status_code, same.json()["status"]) == (200, None)
    assert on.json()["last_processed_event_id"] == events[2]


async def test_side_by_side_the_furthest_place_is_kept(
    client: httpx2.AsyncClient, agent: Json, task: Json, tracker: Json
) -> None:
    events = [await send(client, agent, task) for _ in range(10)]

    answers = await asyncio.gather(
        *[put(client, tracker, last_processed_event_id=event) for event in reversed(events)]
    )

    assert {answer.status_code for answer in answers} <= {200, 400}
    [found] = await listed(client)
    assert found["last_processed_event_id"] == events[-1]


async def test_an_event_of_another_task_is_400(
    client: httpx2.AsyncClient, agent: Json, task: Json, tracker: Json
) -> None:
    foreign = await send(client, agent, await create_task(client, agent))

    answers = [await put(client, tracker, last_processed_event_id=one) for one in (foreign, UNKNOWN_ID)]

    path = f"/tracker/{tracker['id']}"
    assert [(answer.status_code, answer.json()) for answer in answers] == [
        (
            400,
            problem(
                path, 400, "bad-request", f"last_processed_event_id: task {task['id']} has no event {one}"
            ),
        )
        for one in (foreign, UNKNOWN_ID)
    ]
    assert await listed(client, task_id=task["id"]) == [tracker]


async def test_an_event_that_retention_removed_holds_nothing_up(
    client: httpx2.AsyncClient, agent: Json, task: Json, tracker: Json, resources: Resources
) -> None:
    events = [await send(client, agent, task) for _ in range(2)]
    await put(client, tracker, last_processed_event_id=events[0])
    await fetch(resources, "DELETE FROM events WHERE id = :id", id=events[0])

    answer = await put(client, tracker, last_processed_event_id=events[1])

    assert answer.json()["last_processed_event_id"] == events[1]


async def test_lists_filter_order_and_page(client: httpx2.AsyncClient, agent: Json) -> None:
    another = await register(client, name="another", acp_url=agent.get("acp_url", "http://127.0.0.1:9"))
    tasks = [(await create_task(client, agent))["id"] for _ in range(3)]
    answer = await client.get("/tracker", params={"agent_id": agent["id"]})
    assert [one["task_id"] for one in answer.json()] == tasks[::-1]

    async def of(**query: Any) -> list[str]:
        return [one["task_id"] for one in await listed(client, **query)]

    assert await of(order_direction="asc", order_by="created_at") == tasks
    assert [await of(limit=2, page_number=page) for page in (1, 2, 3)] == [tasks[:0:-1], tasks[:1], []]
    assert await of(agent_id=agent["id"], task_id=tasks[1]) == [tasks[1]]
    assert await of(agent_id=another["id"]) == []


async def test_another_account_sees_and_changes_none(
    client: httpx2.AsyncClient, task: Json, tracker: Json
) -> None:
    path = f"/tracker/{tracker['id']}"

    answers = [
        await client.get(path, headers=OTHER),
        await client.put(path, json={"status": "stolen"}, headers=OTHER),
        await client.get("/tracker", params={"task_id": task["id"]}, headers=OTHER),
    ]
    everything = await client.get("/tracker", headers=OTHER)

    assert [answer.status_code for answer in answers] == [404] * 3
    assert answers[0].json() == problem(path, 404, "not-found", f"tracker '{tracker['id']}' not found")
    assert everything.json() == []
    assert await listed(client) == [tracker]


async def test_who_may_not_update_the_task_moves_nothing(
    client: httpx2.AsyncClient, tracker: Json, authz: ScriptedAuthz
) -> None:
    authz.deny = {(Operation.UPDATE, ResourceType.TASK)}

    answer = await put(client, tracker, status="changed")

    message = f"update on task {tracker['task_id']} is not allowed: scripted"
    assert answer.json() == problem(f"/tracker/{tracker['id']}", 403, "forbidden", message)
    assert await listed(client) == [tracker]


@pytest.mark.parametrize("tracker_id", [UNKNOWN_ID, "nonsense"])
async def test_an_unknown_tracker_is_404(client: httpx2.AsyncClient, tracker_id: str) -> None:
    path = f"/tracker/{tracker_id}"

    answers = [await client.get(path), await client.put(path, json={"status": "x"})]

    expected = problem(path, 404, "not-found", f"tracker '{tracker_id}' not found")
    assert [(answer.status_code, answer.json()) for answer in answers] == [(404, expected)] * 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"last_processed_event_id": "x"}, "last_processed_event_id is 'x': Input should be a valid UUID"),
        ({"status": 5}, "status is 5: Input should be a valid string"),
        ({"status": "x" * 256}, "should have at most 255 characters"),
        ({"status_reason": "x" * 10_001}, "should have at most 10000 characters"),
        ({"status": "\x00"}, "body.status: holds the character NUL"),
    ],
)
async def test_an_invalid_field_is_named(
    client: httpx2.AsyncClient, tracker: Json, changes: Json, message: str
) -> None:
    answer = await put(client, tracker, **changes)

    assert (answer.status_code, message in answer.json()["message"]) == (422, True)


@pytest.mark.parametrize(
    "query",
    [{"agent_id": "x"}, {"task_id": "x"}, {"order_by": "status"}, {"order_direction": "up"}, {"limit": "0"}],
    ids=str,
)
async def test_an_invalid_query_is_422(client: httpx2.AsyncClient, query: dict[str, str]) -> None:
    answer = await client.get("/tracker", params=query)

    assert (answer.status_code, next(iter(query)) in answer.json()["message"]) == (422, True)


async def test_tasks_made_in_bulk_have_theirs_in_one_statement(resources: Resources) -> None:
    agent = await add_agent(resources)
    wanted = [
        NewTask(new_id(), agent.account_id, "me", agent.id, f"task {number}", None, None)
        for number in range(50)
    ]
    async with resources.db.begin() as session:
        await ensure_tasks(session, wanted[:20])
    with statements(resources) as sent:
        async with resources.db.begin() as session:
            made = await ensure_tasks(session, wanted)

    found = await fetch(
        resources, "SELECT task_id, agent_id, account_id FROM trackers ORDER BY created_at, id"
    )
    assert [tuple(row.values()) for row in found] == [
        (made[one.name].task.id, agent.id, agent.account_id)
        for one in sorted(wanted[:20], key=lambda one: one.name)
    ] + [
        (made[one.name].task.id, agent.id, agent.account_id)
        for one in sorted(wanted[20:], key=lambda one: one.name)
    ]
    assert len([one for one in sent if "trackers" in one[0]]) == 1


BEFORE_TRACKERS = "0005"


async def test_the_migration_gives_older_tasks_theirs(resources: Resources) -> None:
    task = await add_task(resources, await add_agent(resources))
    config = alembic_config(resources.settings)
    try:
        await asyncio.to_thread(command.downgrade, config, BEFORE_TRACKERS)
    finally:
        await asyncio.to_thread(command.upgrade, config, "head")

    found = await fetch(resources, "SELECT task_id, agent_id, account_id, status FROM trackers")
    assert [tuple(row.values()) for row in found] == [(task.id, task.agent_id, task.account_id, None)]
