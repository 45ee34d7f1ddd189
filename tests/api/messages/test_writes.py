"""What a write costs, what it proves, and what it meets."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import httpx2
import pytest

from agentex.database import rows
from agentex.executors.base import Lane
from agentex.ids import new_id
from agentex.messages.bulk import NewMessage, ensure_messages, write_messages
from agentex.messages.models import MessageRead, StreamingStatus
from agentex.resources import Resources
from agentex.runs.models import Run, RunReason, RunStatus
from tests.api.ledger.stage import add_agent, add_run, fetch, read_run, waiting_for_locks
from tests.api.messages.messages import AGENTS_TEXT, add, listed
from tests.support.api import TEXT, WHOLE_TEXT, Json, create_task, problem
from tests.support.plans import explain_sent, statements

WRITES = ["POST", "PUT", "POST batch", "PUT batch"]
UNKNOWN = (RunStatus.FAILED, RunReason.OUTCOME_UNKNOWN)


async def write(client: httpx2.AsyncClient, message: Json, how: str, *contents: Json) -> httpx2.Response:
    """One write to the message's task; PUT changes the message."""
    method, _, batch = how.partition(" ")
    in_task = {"task_id": message["task_id"]}
    if batch:
        put = {"updates": {message["id"]: contents[-1]}}
        body = put if method == "PUT" else {"contents": list(contents)}
        return await client.request(method, "/messages/batch", json=in_task | body)
    path = "/messages" if method == "POST" else f"/messages/{message['id']}"
    return await client.request(method, path, json=in_task | {"content": contents[-1]})


async def unknown_run(resources: Resources, task: Json, **columns: Any) -> Run:
    """A run of the task of which nobody knows whether its input arrived."""
    now = datetime.now(UTC)
    agent = await add_agent(resources, "of-the-run")
    given = {"task_id": UUID(task["id"]), "lane": Lane.DELIVER, "sending_at": now, "finished_at": now}
    reason = RunReason.OUTCOME_UNKNOWN
    return await add_run(resources, agent, RunStatus.FAILED, reason=reason, **(given | columns))


async def end(resources: Resources, run: Run) -> tuple[RunStatus, RunReason | None]:
    row = await read_run(resources, run.id)
    return row.status, row.reason


@pytest.mark.parametrize("how", WRITES)
async def test_only_an_agents_word_proves_that_its_input_arrived(
    client: httpx2.AsyncClient, task: Json, resources: Resources, how: str
) -> None:
    message = await add(client, task)
    run = await unknown_run(resources, task)

    assert (await write(client, message, how, TEXT, TEXT)).status_code == 200
    after_users = await end(resources, run)
    assert (await write(client, message, how, TEXT, AGENTS_TEXT)).status_code == 200

    assert (after_users, await end(resources, run)) == (UNKNOWN, (RunStatus.DELIVERED, None))


@pytest.mark.parametrize("how", ["PUT", "PUT batch"])
async def test_a_word_that_is_not_stored_proves_nothing(
    client: httpx2.AsyncClient, agent: Json, task: Json, resources: Resources, how: str
) -> None:
    run = await unknown_run(resources, task)
    elsewhere = await add(client, await create_task(client, agent))

    answer = await write(client, elsewhere | {"task_id": task["id"]}, how, AGENTS_TEXT)

    assert (answer.status_code, await end(resources, run)) == (404, UNKNOWN)


@pytest.mark.parametrize("how", WRITES)
@pytest.mark.parametrize("content", [TEXT, AGENTS_TEXT], ids=["user", "agent"])
async def test_a_write_is_one_statement_behind_the_permission(
    client: httpx2.AsyncClient, task: Json, resources: Resources, how: str, content: Json
) -> None:
    message = await add(client, task)
    # So that looking at all of a table would cost more than its index.
    await crowd(resources, await unknown_run(resources, task))

    with statements(resources) as sent:
        answer = await write(client, message, how, content)
    made = answer.json() if "batch" in how else [answer.json()]
    if how.startswith("POST"):
        # Made again by the plan.
        await fetch(resources, "DELETE FROM messages WHERE id = ANY(:ids)", ids=[one["id"] for one in made])
    plan = await explain_sent(resources, sent[-1])

    assert len(sent) == 2
    assert sent[0][0].startswith("SELECT owner FROM tasks")
    if how.startswith("PUT"):
        assert plan.indexes_of("messages") == {"pk_messages"}
    if content is AGENTS_TEXT:
        assert plan.indexes_of("runs") == {"ix_runs_task_id"}


async def crowd(resources: Resources, run: Run) -> None:
    """Two thousand other runs and messages."""
    columns = "account_id, agent_id, cause, due_at, status, reason, opened_at, updated_at, principal"
    await fetch(
        resources,
        f"""
        INSERT INTO runs (id, fire_id, task_id, {columns})
        SELECT gen_random_uuid(), n, gen_random_uuid(), {columns}
        FROM runs, generate_series(1, 2000) AS n WHERE id = :id
        """,  # noqa: S608 - columns of ours
        id=run.id,
    )
    await fetch(
        resources,
        """
        INSERT INTO messages (id, account_id, task_id, content, created_at, updated_at)
        SELECT gen_random_uuid(), account_id, task_id, content, created_at, updated_at
        FROM messages, generate_series(1, 2000)
        """,
    )
    await fetch(resources, "ANALYZE runs, messages")


@pytest.mark.parametrize("how", WRITES)
async def test_a_task_that_is_forgotten_in_this_instant_is_404(
    client: httpx2.AsyncClient, task: Json, resources: Resources, how: str
) -> None:
    message = await add(client, task)
    task_id = UUID(task["id"])
    async with resources.db.begin() as session:
        # As retention does: the lock first, then what hangs on the task, then the task.
        await rows(session, "SELECT 1 FROM tasks WHERE id = :id FOR UPDATE", id=task_id)
        await rows(session, "DELETE FROM messages WHERE task_id = :id", id=task_id)
        writing = asyncio.create_task(write(client, message, how, AGENTS_TEXT))
        await waiting_for_locks(resources, 1)
        await rows(session, "DELETE FROM tasks WHERE id = :id", id=task_id)
    answer = await writing

    path = answer.request.url.path
    lacks = f"task '{task['id']}' not found"
    if how.startswith("PUT"):
        lacks = f"message '{message['id']}' not found in {lacks.removesuffix(' not found')}"
        lacks += "; nothing was changed" if "batch" in how else ""
    assert (answer.status_code, answer.json()) == (404, problem(path, 404, "not-found", lacks))


def new_message(task: Json, words: str, **more: Any) -> NewMessage:
    given: dict[str, Any] = {
        "id": new_id(),
        "account_id": "default",
        "task_id": UUID(task["id"]),
        "content": WHOLE_TEXT | {"content": words},
    }
    return NewMessage(**(given | more))


async def test_an_answer_that_grows_is_one_message(
    client: httpx2.AsyncClient, task: Json, resources: Resources
) -> None:
    started = [
        new_message(task, word, place=place, streaming_status=StreamingStatus.IN_PROGRESS)
        for place, word in enumerate(["b", "a"])
    ]
    done = [new_message(task, f"{one.content['content']}!", id=one.id) for one in started]
    more = new_message(task, "c", place=2)

    async with resources.db.begin() as session:
        first = await write_messages(session, started)
    async with resources.db.begin() as session:
        second = await write_messages(session, [*done[::-1], more])

    def seen(messages: list[MessageRead]) -> list[tuple[str, str | None]]:
        return [(one.model_dump()["content"]["content"], one.streaming_status) for one in messages]

    assert seen(first) == [("b", "IN_PROGRESS"), ("a", "IN_PROGRESS")]
    assert seen(second) == [("a!", "DONE"), ("b!", "DONE"), ("c", "DONE")]
    assert [one.created_at for one in second[:2]] == [one.created_at for one in first[::-1]]
    stored = await listed(client, "/messages", task_id=task["id"])
    expected = [second[2], second[0], second[1]]
    assert stored == [one.model_dump(mode="json") for one in expected]


async def test_a_message_of_another_task_or_account_is_not_overwritten(
    client: httpx2.AsyncClient, agent: Json, task: Json, resources: Resources
) -> None:
    made = await add(client, task)
    other = await create_task(client, agent)
    strange = [
        new_message(other, "x", id=UUID(made["id"])),
        new_message(task, "y", id=UUID(made["id"]), account_id="other"),
    ]

    async with resources.db.begin() as session:
        written = [await write_messages(session, [one]) for one in strange]

    assert written == [[], []]
    assert await listed(client, "/messages", task_id=task["id"]) == [made]


async def test_nothing_to_write_is_no_statement(resources: Resources) -> None:
    async with resources.db.begin() as session:
        with statements(resources) as sent:
            await ensure_messages(session, [])
            written = await write_messages(session, [])

    assert (written, sent) == ([], [])


async def test_a_repeat_of_ensure_leaves_what_is_there(
    client: httpx2.AsyncClient, task: Json, resources: Resources
) -> None:
    message = new_message(task, "once")

    for one in (message, new_message(task, "twice", id=message.id)):
        async with resources.db.begin() as session:
            await ensure_messages(session, [one])

    stored = await listed(client, "/messages", task_id=task["id"])
    assert [one["content"] for one in stored] == [message.content]
