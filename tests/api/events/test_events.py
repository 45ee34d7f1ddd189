"""GET /events and /events/{id}; events are numbered in the order in which they are committed."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import httpx2
import pytest

from agentex.auth.authorize import Operation, ResourceType
from agentex.errors import NotFound
from agentex.events.service import add as add_event
from agentex.resources import Resources
from tests.api.ledger.stage import fetch, waiting_for_locks
from tests.support.api import TEXT, UNKNOWN_ID, WHOLE_TEXT, Json, create_task, problem, register, rpc
from tests.support.authz import ScriptedAuthz
from tests.support.plans import explain_sent, statements

OTHER = {"x-test-account": "other"}


@pytest.fixture
async def task(client: httpx2.AsyncClient, agent: Json) -> Json:
    return await create_task(client, agent)


async def send(client: httpx2.AsyncClient, agent: Json, task: Json, content: Json | None = TEXT) -> Json:
    """An event, as event/send answered it."""
    answer = await rpc(client, agent, "event/send", {"task_id": task["id"], "content": content})
    assert answer["error"] is None, answer
    return answer["result"]


async def listed(client: httpx2.AsyncClient, agent: Json, task: Json, **query: Any) -> list[Json]:
    ids = {"task_id": task["id"], "agent_id": agent["id"]}
    response = await client.get("/events", params=ids | query)
    assert response.status_code == 200, response.text
    return response.json()


@pytest.mark.parametrize(("content", "kept"), [(TEXT, WHOLE_TEXT), (None, None)])
async def test_an_event_is_read_as_it_was_sent(
    client: httpx2.AsyncClient, agent: Json, task: Json, content: Json | None, kept: Json | None
) -> None:
    event = await send(client, agent, task, content)

    assert event == {
        "id": event["id"],
        "sequence_id": event["sequence_id"],
        "task_id": task["id"],
        "agent_id": agent["id"],
        "content": kept,
        "created_at": event["created_at"],
    }
    assert (await client.get(f"/events/{event['id']}")).json() == event
    assert await listed(client, agent, task) == [event]


async def test_events_are_listed_in_their_order_behind_the_last_one_processed(
    client: httpx2.AsyncClient, agent: Json, task: Json
) -> None:
    other = await create_task(client, agent)
    sent = [await send(client, agent, task) for _ in range(4)]
    await send(client, agent, other)

    assert [event["sequence_id"] for event in sent] == sorted({event["sequence_id"] for event in sent})
    assert await listed(client, agent, task) == sent
    assert await listed(client, agent, task, limit=2) == sent[:2]
    assert await listed(client, agent, task, last_processed_event_id=sent[1]["id"]) == sent[2:]
    assert await listed(client, agent, task, last_processed_event_id=sent[0]["id"], limit=1) == [sent[1]]
    assert await listed(client, agent, task, last_processed_event_id=sent[3]["id"]) == []


async def test_events_are_those_of_one_agent(client: httpx2.AsyncClient, agent: Json, task: Json) -> None:
    await send(client, agent, task)
    other = await register(client, name="other")

    assert await listed(client, other, task) == []


@pytest.mark.parametrize("where", ["nowhere", "in another task"])
async def test_a_last_event_that_is_none_of_the_task_is_422(
    client: httpx2.AsyncClient, agent: Json, task: Json, where: str
) -> None:
    await send(client, agent, task)
    strange = UNKNOWN_ID
    if where != "nowhere":
        strange = (await send(client, agent, await create_task(client, agent)))["id"]
    query = {"task_id": task["id"], "agent_id": agent["id"], "last_processed_event_id": strange}

    response = await client.get("/events", params=query)

    message = f"last_processed_event_id: '{strange}' is no event of task '{task['id']}'"
    assert (response.status_code, response.json()) == (422, problem("/events", 422, "invalid-input", message))


@pytest.mark.parametrize("lacks", ["task", "agent"])
async def test_events_of_nobody_or_nowhere_are_404(
    client: httpx2.AsyncClient, agent: Json, task: Json, lacks: str
) -> None:
    ids = {"task_id": task["id"], "agent_id": agent["id"], f"{lacks}_id": UNKNOWN_ID}

    response = await client.get("/events", params=ids)

    expected = problem("/events", 404, "not-found", f"{lacks} '{UNKNOWN_ID}' not found")
    assert (response.status_code, response.json()) == (404, expected)


@pytest.mark.parametrize("event_id", [UNKNOWN_ID, "nonsense"])
async def test_an_unknown_event_is_404(client: httpx2.AsyncClient, event_id: str) -> None:
    path = f"/events/{event_id}"

    response = await client.get(path)

    expected = problem(path, 404, "not-found", f"event '{event_id}' not found")
    assert (response.status_code, response.json()) == (404, expected)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"task_id": None}, "task_id: Field required"),
        ({"agent_id": None}, "agent_id: Field required"),
        ({"task_id": "x"}, "task_id is 'x': Input should be a valid UUID"),
        ({"agent_id": "x"}, "agent_id is 'x': Input should be a valid UUID"),
        ({"last_processed_event_id": "7"}, "last_processed_event_id is '7': Input should be a valid UUID"),
        ({"limit": "0"}, "limit is '0': Input should be greater than or equal to 1"),
        ({"limit": "1001"}, "limit is '1001': Input should be less than or equal to 1000"),
    ],
    ids=str,
)
async def test_a_wrong_query_is_422_and_named(
    client: httpx2.AsyncClient, agent: Json, task: Json, query: Json, message: str
) -> None:
    asked = {"task_id": task["id"], "agent_id": agent["id"], **query}

    response = await client.get("/events", params={name: one for name, one in asked.items() if one})

    assert response.status_code == 422
    assert response.json()["message"].startswith(message)


async def test_events_are_only_for_those_who_may_read_the_task(
    client: httpx2.AsyncClient, agent: Json, task: Json, authz: ScriptedAuthz
) -> None:
    event = await send(client, agent, task)
    query = {"task_id": task["id"], "agent_id": agent["id"]}
    path = f"/events/{event['id']}"

    elsewhere = [
        await client.get("/events", params=query, headers=OTHER),
        await client.get(path, headers=OTHER),
    ]
    authz.deny = {(Operation.READ, ResourceType.TASK)}
    denied = [await client.get("/events", params=query), await client.get(path)]

    assert [answer.status_code for answer in (*elsewhere, *denied)] == [404] * 4


async def test_a_list_looks_at_no_more_than_it_shows(
    client: httpx2.AsyncClient, agent: Json, task: Json, resources: Resources
) -> None:
    await send(client, agent, task)
    await fetch(
        resources,
        """
        INSERT INTO events (id, account_id, task_id, agent_id, content, delivery_key, created_at)
        SELECT gen_random_uuid(), account_id, task_id, agent_id, content, n, created_at
        FROM events, generate_series(1, 5000) AS n
        """,
    )
    await fetch(resources, "ANALYZE events")
    middle = (await listed(client, agent, task))[500]

    with statements(resources) as sent:
        found = await listed(client, agent, task, last_processed_event_id=middle["id"], limit=20)
    plan = await explain_sent(resources, sent[-1])

    assert [event["sequence_id"] - middle["sequence_id"] for event in found] == list(range(1, 21))
    assert plan.indexes_of("events") == {"ix_events_task_id_sequence_id"}
    assert plan.most_of("events") <= 21


async def test_a_later_number_is_never_seen_before_a_lower_one(
    client: httpx2.AsyncClient, agent: Json, task: Json, resources: Resources
) -> None:
    given: dict[str, Any] = {
        "account_id": "default",
        "task_id": UUID(task["id"]),
        "agent_id": UUID(agent["id"]),
        "content": WHOLE_TEXT,
    }

    async def second() -> int:
        async with resources.db.begin() as session:
            return (await add_event(session, **given)).sequence_id

    async with resources.db.begin() as session:
        first = await add_event(session, **given)
        later = asyncio.create_task(second())
        # Else the second would be there to be seen, and processed, while the first is not.
        await waiting_for_locks(resources, 1)
        unseen = await listed(client, agent, task)
    number = await later

    seen = [event["sequence_id"] for event in await listed(client, agent, task)]
    assert (unseen, seen) == ([], [first.sequence_id, number])
    assert number > first.sequence_id


async def test_an_event_for_a_task_that_has_been_forgotten_is_not_found(resources: Resources) -> None:
    nowhere = UUID(UNKNOWN_ID)

    with pytest.raises(NotFound, match=f"task '{UNKNOWN_ID}' not found"):
        async with resources.db.begin() as session:
            await add_event(session, account_id="default", task_id=nowhere, agent_id=nowhere, content=None)
