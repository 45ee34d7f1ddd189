"""POST /messages and what of it is read again."""

from __future__ import annotations

from uuid import uuid4

import httpx2
import pytest

from agentex.auth.authorize import Operation, ResourceType
from tests.api.messages.messages import add
from tests.support.api import TEXT, UNKNOWN_ID, WHOLE_TEXT, Json, problem
from tests.support.authz import ScriptedAuthz


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        (TEXT, WHOLE_TEXT),
        ({**TEXT, "style": None, "format": None}, WHOLE_TEXT),
        (
            {
                **TEXT,
                "style": "active",
                "format": "markdown",
                "attachments": [{"file_id": "f", "name": "n.txt", "size": 3, "type": "text/plain"}],
            },
            {
                **TEXT,
                "style": "active",
                "format": "markdown",
                "attachments": [{"file_id": "f", "name": "n.txt", "size": 3, "type": "text/plain"}],
            },
        ),
        (
            {"type": "data", "author": "agent", "data": {"a": [1, None, 1.5, {"ü": "\U0001f600"}]}},
            {
                "type": "data",
                "author": "agent",
                "style": "static",
                "data": {"a": [1, None, 1.5, {"ü": "\U0001f600"}]},
            },
        ),
        (
            {"type": "tool_request", "author": "agent", "tool_call_id": "c", "name": "n", "arguments": {}},
            {
                "type": "tool_request",
                "author": "agent",
                "style": "static",
                "tool_call_id": "c",
                "name": "n",
                "arguments": {},
            },
        ),
        (
            {"type": "tool_response", "author": "agent", "tool_call_id": "c", "name": "n", "content": [1]},
            {
                "type": "tool_response",
                "author": "agent",
                "style": "static",
                "tool_call_id": "c",
                "name": "n",
                "content": [1],
                "is_error": None,
            },
        ),
        (
            {"type": "reasoning", "author": "agent", "summary": ["s"], "content": None},
            {"type": "reasoning", "author": "agent", "style": "static", "summary": ["s"], "content": None},
        ),
    ],
)
async def test_each_kind_of_content_comes_back_as_it_was_sent(
    client: httpx2.AsyncClient, task: Json, sent: Json, kept: Json
) -> None:
    made = await add(client, task, content=sent)

    assert made == {
        "id": made["id"],
        "task_id": task["id"],
        "content": kept,
        "streaming_status": None,
        "created_at": made["created_at"],
        "updated_at": made["created_at"],
    }
    assert (await client.get(f"/messages/{made['id']}")).json() == made
    assert (await client.get("/messages", params={"task_id": task["id"]})).json() == [made]


async def test_a_given_created_at_and_streaming_status_are_kept(
    client: httpx2.AsyncClient, task: Json
) -> None:
    made = await add(client, task, created_at="2026-01-02T03:04:05+02:00", streaming_status="IN_PROGRESS")

    assert (made["created_at"], made["streaming_status"]) == ("2026-01-02T01:04:05Z", "IN_PROGRESS")
    assert (await client.get(f"/messages/{made['id']}")).json() == made


async def test_a_message_of_an_unknown_task_is_404(client: httpx2.AsyncClient) -> None:
    task_id = str(uuid4())

    answers = [
        await client.post("/messages", json={"task_id": task_id, "content": TEXT}),
        await client.get("/messages", params={"task_id": task_id}),
    ]

    expected = problem("/messages", 404, "not-found", f"task '{task_id}' not found")
    assert [(answer.status_code, answer.json()) for answer in answers] == [(404, expected)] * 2


async def test_another_accounts_task_takes_and_shows_no_message(
    client: httpx2.AsyncClient, task: Json
) -> None:
    message = await add(client, task)
    other = {"x-test-account": "other"}
    body = {"task_id": task["id"], "content": TEXT}

    answers = [
        (await client.post("/messages", json=body, headers=other)).status_code,
        (await client.get("/messages", params={"task_id": task["id"]}, headers=other)).status_code,
        (await client.get(f"/messages/{message['id']}", headers=other)).status_code,
    ]

    assert answers == [404, 404, 404]
    assert (await client.get("/messages", params={"task_id": task["id"]})).json() == [message]


@pytest.mark.parametrize("message_id", [UNKNOWN_ID, "nonsense"])
async def test_an_unknown_message_is_404(client: httpx2.AsyncClient, message_id: str) -> None:
    path = f"/messages/{message_id}"

    response = await client.get(path)

    assert response.status_code == 404
    assert response.json() == problem(path, 404, "not-found", f"message '{message_id}' not found")


async def test_who_may_not_update_the_task_leaves_no_message(
    client: httpx2.AsyncClient, task: Json, authz: ScriptedAuthz
) -> None:
    authz.deny = {(Operation.UPDATE, ResourceType.TASK)}

    response = await client.post("/messages", json={"task_id": task["id"], "content": TEXT})

    message = f"update on task {task['id']} is not allowed: scripted"
    assert response.status_code == 403
    assert response.json() == problem("/messages", 403, "forbidden", message)
    assert (await client.get("/messages", params={"task_id": task["id"]})).json() == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"task_id": "x"},
            "task_id is 'x': Input should be a valid UUID, invalid character: found `x` at 0",
        ),
        ({"content": None}, "content: Input should be a valid dictionary or object to extract fields from"),
        (
            {"content": {"type": "text", "author": "nobody", "content": "secret"}},
            "content.text.author: Input should be 'user' or 'agent'",
        ),
        ({"content": {"type": "text", "author": "user"}}, "content.text.content: Field required"),
        (
            {"content": {"type": "song", "author": "user"}},
            (
                "content: Input tag 'song' found using 'type' does not match any of the expected tags: "
                "'text', 'data', 'tool_request', 'tool_response', 'reasoning'"
            ),
        ),
        (
            {"created_at": "2026-01-01T00:00:00"},
            "created_at is '2026-01-01T00:00:00': Input should have timezone info",
        ),
        ({"streaming_status": "HALF"}, "streaming_status is 'HALF': Input should be 'IN_PROGRESS' or 'DONE'"),
    ],
)
async def test_an_invalid_field_is_named_without_the_content(
    client: httpx2.AsyncClient, task: Json, changes: Json, message: str
) -> None:
    response = await client.post("/messages", json={"task_id": task["id"], "content": TEXT, **changes})

    assert response.status_code == 422
    assert response.json() == problem("/messages", 422, "invalid-input", message)


async def test_a_list_without_its_task_is_422(client: httpx2.AsyncClient) -> None:
    response = await client.get("/messages")

    assert response.status_code == 422
    assert response.json() == problem("/messages", 422, "invalid-input", "task_id: Field required")
