"""POST /messages and /messages/batch once more: in silence, or under a key of the caller's."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import httpx2
import pytest

from agentex.database import rows
from agentex.resources import Resources
from tests.api.ledger.stage import fetch, waiting_for_locks
from tests.api.messages.messages import AGENTS_TEXT, listed
from tests.support.api import TEXT, Json, create_task

ONE, BATCH = "/messages", "/messages/batch"
PATHS = [ONE, BATCH]
CONTENTS = [TEXT, AGENTS_TEXT, TEXT]


def body_of(task: Json, path: str) -> Json:
    content = {"content": TEXT} if path == ONE else {"contents": CONTENTS}
    return {"task_id": task["id"], **content}


async def post(
    client: httpx2.AsyncClient, task: Json, path: str = ONE, *, again: int = 0, **more: Any
) -> httpx2.Response:
    """A request, or its repeat in silence."""
    headers = {"x-stainless-retry-count": str(again)} | more.pop("headers", {})
    return await client.post(path, json=body_of(task, path) | more, headers=headers)


async def made(client: httpx2.AsyncClient, task: Json, path: str = ONE, **more: Any) -> list[Json]:
    answer = await post(client, task, path, **more)
    assert answer.status_code == 200, answer.text
    return [answer.json()] if path == ONE else answer.json()


async def stored(client: httpx2.AsyncClient, task: Json) -> list[Json]:
    return await listed(client, ONE, task_id=task["id"], order_direction="asc")


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("more", [{}, {"created_at": "2020-01-02T03:04:05Z"}], ids=["now", "then"])
async def test_a_silent_repeat_is_answered_with_what_its_original_made(
    client: httpx2.AsyncClient, task: Json, path: str, more: Json
) -> None:
    first = await made(client, task, path, **more)

    answers = [await made(client, task, path, again=count, **more) for count in (1, 2)]

    assert answers == [first, first]
    assert await stored(client, task) == first


@pytest.mark.parametrize("path", PATHS)
async def test_a_silent_repeat_whose_original_made_nothing_makes_it_once(
    client: httpx2.AsyncClient, task: Json, path: str
) -> None:
    first = await made(client, task, path, again=1)

    assert await made(client, task, path, again=2) == first
    assert await stored(client, task) == first


@pytest.mark.parametrize("path", PATHS)
async def test_equal_messages_that_are_no_repeats_stay_as_many(
    client: httpx2.AsyncClient, task: Json, path: str
) -> None:
    first, second = await made(client, task, path), await made(client, task, path)

    # Each repeat takes one that none has taken, the newest first; the third finds none left.
    repeats = [await made(client, task, path, again=1) for _ in range(3)]

    assert repeats[:2] == [second, first]
    assert await stored(client, task) == [*first, *second, *repeats[2]]


@pytest.mark.parametrize("unlike", ["content", "task", "streaming_status", "age", "part of a batch"])
async def test_what_another_request_made_is_not_taken_for_a_repeats(
    client: httpx2.AsyncClient, agent: Json, task: Json, resources: Resources, unlike: str
) -> None:
    other = await create_task(client, agent) if unlike == "task" else task
    given: dict[str, Json] = {
        "content": {"content": AGENTS_TEXT},
        "streaming_status": {"streaming_status": "DONE"},
    }
    path = BATCH if unlike == "part of a batch" else ONE
    first = await made(client, other, path, **given.get(unlike, {}))
    if unlike == "age":
        await fetch(
            resources,
            "UPDATE messages SET created_at = created_at - interval '11 minutes', "
            "updated_at = updated_at - interval '11 minutes'",
        )

    second = await made(client, task, again=1)

    assert second[0]["id"] not in {one["id"] for one in first}


async def test_a_batch_is_looked_for_as_a_whole(client: httpx2.AsyncClient, task: Json) -> None:
    for content in CONTENTS:
        await made(client, task, content=content)
    await made(client, task, BATCH, contents=[*CONTENTS, TEXT])
    before = await stored(client, task)

    second = await made(client, task, BATCH, again=1)

    assert await stored(client, task) == [*before, *second]


@pytest.mark.parametrize("path", PATHS)
async def test_under_one_key_there_is_one(client: httpx2.AsyncClient, task: Json, path: str) -> None:
    key = {"Idempotency-Key": "k"}
    first = await made(client, task, path, headers=key)

    assert await made(client, task, path, headers=key) == first
    other_body = await post(client, task, path, headers=key, created_at="2020-01-02T03:04:05Z")
    other = await made(client, task, path, headers={"Idempotency-Key": "another"}, again=1)

    assert (other_body.status_code, "used with another body" in other_body.text) == (422, True)
    assert await stored(client, task) == [*first, *other]


@pytest.mark.parametrize("path", PATHS)
async def test_of_many_under_one_key_at_once_one_makes_it(
    client: httpx2.AsyncClient, task: Json, path: str
) -> None:
    key = {"Idempotency-Key": "k"}

    answers = await asyncio.gather(*[made(client, task, path, headers=key) for _ in range(8)])

    assert answers == [await stored(client, task)] * 8


async def test_a_repeat_waits_for_its_original(
    client: httpx2.AsyncClient, task: Json, resources: Resources
) -> None:
    async with resources.db.begin() as session:
        # The original comes as far as the task, behind its own lock.
        await rows(session, "SELECT 1 FROM tasks WHERE id = :id FOR UPDATE", id=UUID(task["id"]))
        original = asyncio.create_task(made(client, task))
        await waiting_for_locks(resources, 1)
        again = asyncio.create_task(made(client, task, again=1))
        await waiting_for_locks(resources, 2)

    assert await again == await original == await stored(client, task)


async def test_a_repeat_of_what_is_gone_makes_nothing(
    client: httpx2.AsyncClient, task: Json, resources: Resources
) -> None:
    await made(client, task, again=1)
    await fetch(resources, "DELETE FROM messages")

    answer = await post(client, task, again=2)

    lacks = "this request was carried out before, and what it made has been removed since"
    assert (answer.status_code, answer.json()["message"]) == (404, lacks)
    assert await stored(client, task) == []


@pytest.mark.parametrize("path", PATHS)
async def test_a_first_request_leaves_no_entry(
    client: httpx2.AsyncClient, task: Json, resources: Resources, path: str
) -> None:
    await fetch(resources, "DELETE FROM idempotency_keys")

    await made(client, task, path)

    assert await fetch(resources, "SELECT id FROM idempotency_keys") == []
