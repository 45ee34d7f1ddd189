"""Messages of a task as tests compare them."""

from __future__ import annotations

import json
from typing import cast

import httpx2

from tests.support.acp_replies import JsonObject
from tests.support.acp_server import RecordedRequest
from tests.support.api import Json


def text(content: str, author: str = "agent") -> Json:
    """A text as it is kept."""
    return {
        "type": "text",
        "author": author,
        "style": "static",
        "format": "plain",
        "content": content,
        "attachments": None,
    }


def update(kind: str, index: int | None = 0, **fields: object) -> JsonObject:
    """An update as an agent sends it."""
    found: JsonObject = json.loads(json.dumps({"type": kind, "index": index, **fields}))
    return found


def word(word_: str, index: int | None = 0) -> JsonObject:
    """A delta of a text."""
    return update("delta", index, delta={"type": "text", "text_delta": word_})


def told_task(request: RecordedRequest) -> Json:
    """The task that a request to the agent tells of."""
    return cast("Json", request.params["task"])


async def stored(client: httpx2.AsyncClient, task_id: str) -> list[Json]:
    """The task's messages, oldest first."""
    found = await client.get("/messages", params={"task_id": task_id, "limit": 1000})
    return list(reversed(found.json()))


async def said(client: httpx2.AsyncClient, task_id: str) -> list[tuple[str, str, str]]:
    """Author, text and streaming status of the task's messages, oldest first."""
    return [
        (one["content"]["author"], one["content"]["content"], one["streaming_status"])
        for one in await stored(client, task_id)
    ]


async def only_task(client: httpx2.AsyncClient) -> Json:
    """The one task there is."""
    [task] = (await client.get("/tasks")).json()
    return task
