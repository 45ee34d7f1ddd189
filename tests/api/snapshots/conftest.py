"""A closed task with a conversation in it."""

from __future__ import annotations

import httpx2
import pytest

from tests.support.api import TEXT, Json, create_task, rpc

# What a message and an event hold.
CONTENTS: list[Json] = [
    {**TEXT, "content": "hi"},
    {"type": "data", "author": "agent", "style": "static", "data": {"a": [1, None, "\U0001f600"]}},
    {"type": "tool_request", "author": "agent", "tool_call_id": "c", "name": "n", "arguments": {"x": 1.5}},
]


async def trace(client: httpx2.AsyncClient, task_id: str) -> None:
    """A span of the task, and a checkpoint with a blob and a pending write."""
    span = {"trace_id": task_id, "task_id": task_id, "name": "s", "start_time": "2026-01-01T00:00:00Z"}
    blob = {"channel": "c", "version": "1", "type": "bytes", "blob": "AP8="}
    checkpoint = {"checkpoint": {"v": 1}, "metadata": {"step": 0}, "blobs": [blob]}
    write = {"task_id": "t", "idx": -1, "channel": "c", "type": "bytes", "blob": "AQ=="}
    for path, body in (
        ("/spans", span),
        ("/checkpoints/put", {"thread_id": task_id, "checkpoint_id": "1", **checkpoint}),
        ("/checkpoints/put-writes", {"thread_id": task_id, "checkpoint_id": "1", "writes": [write]}),
    ):
        response = await client.post(path, json=body)
        assert response.is_success, response.text


async def converse(client: httpx2.AsyncClient, agent: Json, **params: object) -> Json:
    """A closed task with three messages, two events, a state, a span and a checkpoint, as it is read."""
    task = await create_task(client, agent, **params)
    for content in CONTENTS:
        body = {"task_id": task["id"], "content": content, "streaming_status": "DONE"}
        assert (await client.post("/messages", json=body)).status_code == 200
    for content in CONTENTS[:2]:
        sent = await rpc(client, agent, "event/send", {"task_id": task["id"], "content": content})
        assert sent["error"] is None, sent
    kept = {"task_id": task["id"], "agent_id": agent["id"], "state": {"turn": 2}}
    assert (await client.post("/states", json=kept)).status_code == 200
    await trace(client, task["id"])
    closed = await client.post(f"/tasks/{task['id']}/complete")
    assert closed.status_code == 200, closed.text
    return (await client.get(f"/tasks/{task['id']}")).json()


@pytest.fixture
async def task(client: httpx2.AsyncClient, agent: Json) -> Json:
    """One such task."""
    return await converse(client, agent, name="t", params={"n": 1}, task_metadata={"team": "a"})
