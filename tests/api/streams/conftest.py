"""The API behind a real server, and tasks whose streams are followed."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from uuid import UUID

import httpx2
import pytest
from sqlmodel.ext.asyncio.session import AsyncSession

from agentex.database import rows
from agentex.resources import Resources
from agentex.streams.hub import Hub
from tests.api.conftest import shared_app
from tests.api.ledger.stage import fetch
from tests.support.api import TEXT, WHOLE_TEXT, Json, create_task
from tests.support.sse import serving


@pytest.fixture
async def url(client: httpx2.AsyncClient, resources: Resources) -> AsyncIterator[str]:
    """Where the API listens."""
    async with serving(shared_app()) as address:
        yield address
        assert resources.streams is not None
        await resources.streams.aclose()


@pytest.fixture
async def task(client: httpx2.AsyncClient, agent: Json) -> Json:
    """A task that runs."""
    return await create_task(client, agent, name="talk")


async def post(client: httpx2.AsyncClient, task: Json, content: object = TEXT, **more: object) -> Json:
    """A message, as it was answered."""
    response = await client.post("/messages", json={"task_id": task["id"], "content": content, **more})
    assert response.status_code == 200, response.text
    return response.json()


def full(message: Json) -> Json:
    """The update that tells this message whole."""
    return {"type": "full", "index": None, "parent_task_message": message, "content": message["content"]}


def start(message: Json) -> Json:
    """The update that tells that this message is being written."""
    return {"type": "start", "index": None, "parent_task_message": message, "content": message["content"]}


def connected(task: Json) -> Json:
    """The first update."""
    return {"type": "connected", "taskId": task["id"]}


def done(message: Json) -> Json:
    """The update that ends the pieces of this message."""
    return {"type": "done", "index": None, "parent_task_message": message}


def delta(message: Json, text: str) -> Json:
    """The update that brings a piece of this message."""
    piece = {"type": "text", "text_delta": text}
    return {"type": "delta", "index": None, "parent_task_message": message, "delta": piece}


async def insert(
    session: AsyncSession, task: Json, text: str, *, at: str = "clock_timestamp()", status: str = "DONE"
) -> str:
    """A message by SQL, in a transaction of the test's own; returns its id."""
    found = await rows(
        session,
        f"""
        INSERT INTO messages (id, account_id, task_id, content, streaming_status, created_at, updated_at)
        SELECT gen_random_uuid(), account_id, id, CAST(:content AS jsonb), :status, {at}, now()
        FROM tasks WHERE id = :task_id RETURNING id::text
        """,  # noqa: S608 - the instant is a constant of the test
        content=json.dumps(WHOLE_TEXT | {"author": "agent", "content": text}),
        status=status,
        task_id=task["id"],
    )
    return found[0]["id"]


async def change(resources: Resources, message_id: str, text: str, status: str = "DONE") -> None:
    """Write a message anew, as PUT does."""
    await fetch(
        resources,
        """
        UPDATE messages SET content = content || jsonb_build_object('content', CAST(:text AS text)),
            streaming_status = :status, updated_at = clock_timestamp() WHERE id = :id
        """,
        id=UUID(message_id),
        text=text,
        status=status,
    )


async def close(client: httpx2.AsyncClient, task: Json) -> Json:
    """Complete the task; returns it as clients read it."""
    response = await client.post(f"/tasks/{task['id']}/complete", json={"reason": "all said"})
    assert response.status_code == 200, response.text
    return response.json()


def texts(updates: list[Json]) -> list[str]:
    """What the messages among these updates say."""
    return [update["content"]["content"] for update in updates if update["type"] == "full"]


def use_settings(resources: Resources, **settings: object) -> Hub:
    """Have this test's streams run with these settings."""
    hub = Hub(resources.settings.model_copy(update=settings), resources.db)
    resources.streams = hub
    return hub
