"""PUT /messages/{id}, and batches: POST and PUT /messages/batch."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx2
import pytest

from agentex.auth.authorize import Operation, ResourceType
from agentex.database import rows
from agentex.resources import Resources
from tests.api.ledger.stage import waiting_for_locks
from tests.api.messages.messages import AGENTS_TEXT, add, listed
from tests.support.api import TEXT, UNKNOWN_ID, WHOLE_TEXT, Json, create_task, problem
from tests.support.authz import ScriptedAuthz

DATA: Json = {"type": "data", "author": "agent", "style": "static", "data": {"a": [1, None]}}
OTHER = {"x-test-account": "other"}


def text(words: str) -> Json:
    return TEXT | {"content": words}


async def put(client: httpx2.AsyncClient, message: Json, **changes: Any) -> httpx2.Response:
    body = {"task_id": message["task_id"], "content": DATA, **changes}
    return await client.put(f"/messages/{message['id']}", json=body)


async def everything(client: httpx2.AsyncClient, task: Json) -> list[Json]:
    return await listed(client, "/messages", task_id=task["id"])


@pytest.mark.parametrize(
    ("before", "given", "after"),
    [
        (None, {}, None),
        ("IN_PROGRESS", {"streaming_status": "DONE"}, "DONE"),
        ("IN_PROGRESS", {"streaming_status": None}, "IN_PROGRESS"),
        ("DONE", {}, "DONE"),
        ("DONE", {"streaming_status": "IN_PROGRESS"}, "IN_PROGRESS"),
    ],
)
async def test_a_message_gets_its_content_and_keeps_what_is_not_said(
    client: httpx2.AsyncClient, task: Json, before: str | None, given: Json, after: str | None
) -> None:
    made = await add(client, task, streaming_status=before)

    response = await put(client, made, **given)

    changed = response.json()
    updated_at = changed["updated_at"]
    assert response.status_code == 200
    assert changed == {**made, "content": DATA, "streaming_status": after, "updated_at": updated_at}
    assert datetime.fromisoformat(updated_at) > datetime.fromisoformat(made["updated_at"])
    assert await everything(client, task) == [changed]


@pytest.mark.parametrize("message_id", [UNKNOWN_ID, "nonsense"])
async def test_an_unknown_message_cannot_be_changed(
    client: httpx2.AsyncClient, task: Json, message_id: str
) -> None:
    response = await put(client, {"id": message_id, "task_id": task["id"]})

    known = message_id == UNKNOWN_ID
    message = f"message '{message_id}' not found" + (f" in task '{task['id']}'" if known else "")
    assert response.status_code == 404
    assert response.json() == problem(f"/messages/{message_id}", 404, "not-found", message)


async def test_a_message_is_changed_in_its_own_task_only(
    client: httpx2.AsyncClient, agent: Json, task: Json
) -> None:
    made = await add(client, task)
    other = await create_task(client, agent)

    wrong = await put(client, made, task_id=other["id"])
    unknown = await put(client, made, task_id=UNKNOWN_ID)

    message = f"message '{made['id']}' not found in task '{other['id']}'"
    path = f"/messages/{made['id']}"
    assert (wrong.status_code, wrong.json()) == (404, problem(path, 404, "not-found", message))
    assert unknown.json() == problem(path, 404, "not-found", f"task '{UNKNOWN_ID}' not found")
    assert await everything(client, task) == [made]


@pytest.mark.parametrize("allowed", ["elsewhere", "read", "nothing"])
async def test_who_may_not_update_the_task_changes_nothing(
    client: httpx2.AsyncClient, task: Json, authz: ScriptedAuthz, allowed: str
) -> None:
    made = await add(client, task)
    headers = OTHER if allowed == "elsewhere" else None
    denied = {"elsewhere": [], "read": [Operation.UPDATE], "nothing": [Operation.UPDATE, Operation.READ]}
    authz.deny = {(operation, ResourceType.TASK) for operation in denied[allowed]}
    in_task = {"task_id": task["id"]}
    asked = [
        ("PUT", f"/messages/{made['id']}", {"content": DATA}),
        ("POST", "/messages/batch", {"contents": [DATA]}),
        ("PUT", "/messages/batch", {"updates": {made["id"]: DATA}}),
    ]

    answers = [
        await client.request(method, path, json=in_task | body, headers=headers)
        for method, path, body in asked
    ]

    authz.deny = frozenset()
    assert [answer.status_code for answer in answers] == [403 if allowed == "read" else 404] * 3
    assert await everything(client, task) == [made]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task_id": None}, "task_id: UUID input should be a string, bytes or UUID object"),
        ({"content": {"type": "text", "author": "user"}}, "content.text.content: Field required"),
        ({"streaming_status": "HALF"}, "streaming_status is 'HALF': Input should be 'IN_PROGRESS' or 'DONE'"),
    ],
)
async def test_an_invalid_change_is_422(
    client: httpx2.AsyncClient, task: Json, changes: Json, message: str
) -> None:
    made = await add(client, task)

    response = await put(client, made, **changes)

    assert response.status_code == 422
    assert response.json() == problem(f"/messages/{made['id']}", 422, "invalid-input", message)


@pytest.mark.parametrize("created_at", [None, "2026-01-02T03:04:05.000006+02:00"])
async def test_a_batch_is_made_in_its_order_a_millisecond_apart(
    client: httpx2.AsyncClient, task: Json, created_at: str | None
) -> None:
    words = ["c", "a", "b"]
    body = {"task_id": task["id"], "contents": [text(word) for word in words]}

    response = await client.post("/messages/batch", json=body | {"created_at": created_at})

    made = response.json()
    first = created_at or made[0]["created_at"]
    instants = [datetime.fromisoformat(one["created_at"]) for one in made]
    milliseconds = [timedelta(milliseconds=place) for place in range(3)]
    assert response.status_code == 200
    assert instants == [datetime.fromisoformat(first) + later for later in milliseconds]
    assert made == [
        {
            "id": one["id"],
            "task_id": task["id"],
            "content": WHOLE_TEXT | {"content": word},
            "streaming_status": None,
            "created_at": one["created_at"],
            "updated_at": made[0]["updated_at"],
        }
        for one, word in zip(made, words, strict=True)
    ]
    assert await everything(client, task) == made[::-1]


async def test_an_empty_batch_does_nothing(client: httpx2.AsyncClient, task: Json) -> None:
    nothing: list[Json] = [{"task_id": task["id"], "contents": []}, {"task_id": task["id"], "updates": {}}]

    made = await client.post("/messages/batch", json=nothing[0])
    changed = await client.put("/messages/batch", json=nothing[1])

    assert [(answer.status_code, answer.json()) for answer in (made, changed)] == [(200, [])] * 2


async def test_a_batch_for_an_unknown_task_is_404(client: httpx2.AsyncClient) -> None:
    in_task = {"task_id": UNKNOWN_ID}

    made = await client.post("/messages/batch", json=in_task | {"contents": [TEXT]})
    changed = await client.put("/messages/batch", json=in_task | {"updates": {UNKNOWN_ID: TEXT}})

    expected = problem("/messages/batch", 404, "not-found", f"task '{UNKNOWN_ID}' not found")
    assert [(answer.status_code, answer.json()) for answer in (made, changed)] == [(404, expected)] * 2


async def test_a_batch_of_changes_answers_in_the_order_given(client: httpx2.AsyncClient, task: Json) -> None:
    made = [await add(client, task, streaming_status="IN_PROGRESS") for _ in range(3)]
    order = [made[1], made[2], made[0]]
    contents = {one["id"]: text(f"n-{place}") for place, one in enumerate(order)}

    response = await client.put("/messages/batch", json={"task_id": task["id"], "updates": contents})

    changed = response.json()
    assert response.status_code == 200
    assert changed == [
        {
            **one,
            "content": WHOLE_TEXT | {"content": f"n-{place}"},
            "updated_at": changed[0]["updated_at"],
        }
        for place, one in enumerate(order)
    ]
    assert await everything(client, task) == [changed[1], changed[0], changed[2]]


@pytest.mark.parametrize("which", ["unknown", "foreign"])
async def test_a_batch_with_a_message_that_is_not_of_its_task_changes_nothing(
    client: httpx2.AsyncClient, agent: Json, task: Json, which: str
) -> None:
    made = await add(client, task)
    other = await create_task(client, agent)
    strange = str(uuid4()) if which == "unknown" else (await add(client, other))["id"]
    updates = {made["id"]: DATA, strange: DATA}

    response = await client.put("/messages/batch", json={"task_id": task["id"], "updates": updates})

    message = f"message '{strange}' not found in task '{task['id']}'; nothing was changed"
    assert response.status_code == 404
    assert response.json() == problem("/messages/batch", 404, "not-found", message)
    assert await everything(client, task) == [made]
    assert [one["content"] for one in await everything(client, other)] in ([], [WHOLE_TEXT])


def without_hyphens(id_: str) -> str:
    return UUID(id_).hex


@pytest.mark.parametrize("spelt", [str, str.upper, without_hyphens])
async def test_a_message_named_twice_is_422_and_nothing_is_changed(
    client: httpx2.AsyncClient, task: Json, spelt: Any
) -> None:
    made = await add(client, task)
    again = spelt(made["id"])
    content = '{"type": "text", "author": "user", "content": "x"}'
    body = f'{{"task_id": "{task["id"]}", "updates": {{"{made["id"]}": {content}, "{again}": {content}}}}}'

    response = await client.put("/messages/batch", content=body, headers={"content-type": "application/json"})

    message = f"updates: '{again}' is there twice; name each message once"
    assert response.status_code == 422
    assert response.json() == problem("/messages/batch", 422, "invalid-input", message)
    assert await everything(client, task) == [made]


@pytest.mark.parametrize(
    ("method", "body", "message"),
    [
        ("POST", {"contents": [TEXT, {"type": "text"}]}, "contents.1.text.author: Field required"),
        ("POST", {"contents": {}}, "contents: Input should be a valid list"),
        ("POST", {"contents": [TEXT] * 1001}, "contents: List should have at most 1000 items"),
        (
            "POST",
            {"contents": [TEXT], "created_at": "2026-01-01T00:00:00"},
            "created_at is '2026-01-01T00:00:00': Input should have timezone info",
        ),
        ("PUT", {"updates": {"nonsense": TEXT}}, "updates.….[key]: Input should be a valid UUID"),
        ("PUT", {"updates": [TEXT]}, "updates: Input should be a valid dictionary"),
        ("PUT", {"updates": {UNKNOWN_ID: {"type": "song"}}}, f"updates.{UNKNOWN_ID}: Input tag 'song'"),
        ("PUT", {}, "updates: Field required"),
        (
            "PUT",
            {"updates": {str(UUID(int=n)): TEXT for n in range(1001)}},
            "updates: Dictionary should have at most 1000 items",
        ),
    ],
    ids=range(9),
)
async def test_an_invalid_batch_is_422_and_makes_nothing(
    client: httpx2.AsyncClient, task: Json, method: str, body: Json, message: str
) -> None:
    response = await client.request(method, "/messages/batch", json={"task_id": task["id"], **body})

    assert response.status_code == 422
    assert response.json()["message"].startswith(message)
    assert response.json() == problem("/messages/batch", 422, "invalid-input", response.json()["message"])
    assert await everything(client, task) == []


@pytest.mark.parametrize("body", [b"[1]", b"{", b'{"updates": 1}', b"[" * 90_000])
async def test_what_is_no_batch_at_all_is_422(client: httpx2.AsyncClient, body: bytes) -> None:
    headers = {"content-type": "application/json"}

    response = await client.put("/messages/batch", content=body, headers=headers)

    assert response.status_code == 422


async def test_batches_of_the_same_messages_do_not_wait_for_each_other(
    client: httpx2.AsyncClient, task: Json, resources: Resources
) -> None:
    made = [await add(client, task) for _ in range(2)]
    first, second = made[0]["id"], made[1]["id"]

    async def change(*ids: str) -> httpx2.Response:
        body = {"task_id": task["id"], "updates": dict.fromkeys(ids, AGENTS_TEXT)}
        return await client.put("/messages/batch", json=body)

    async with resources.db.begin() as session:
        # Both wait for it, and whoever is next has neither.
        await rows(session, "SELECT 1 FROM messages WHERE id = :id FOR UPDATE", id=UUID(first))
        both = [asyncio.create_task(change(*ids)) for ids in ((first, second), (second, first))]
        await waiting_for_locks(resources, 2)
    answers = await asyncio.gather(*both)

    assert [answer.status_code for answer in answers] == [200, 200]
