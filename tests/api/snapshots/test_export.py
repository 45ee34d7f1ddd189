"""GET /tasks/{id}/export: all that hangs on a task, in pieces."""

from __future__ import annotations

import json
from typing import get_args

import httpx2
import pytest
from sqlalchemy.pool import AsyncAdaptedQueuePool
from sqlmodel import SQLModel

from agentex.database import rows
from agentex.models import TABLES
from agentex.resources import Resources
from agentex.rpc.models import MessageSend
from agentex.runs.models import Run
from agentex.snapshots import export as export_module
from agentex.snapshots.export import export
from agentex.snapshots.models import Snapshot
from agentex.snapshots.parts import PARTS
from agentex.streams.models import StreamWatch
from agentex.tasks.models import TaskReadWithAgents
from tests.api.ledger.stage import fetch
from tests.api.snapshots.conftest import CONTENTS
from tests.support.api import UNKNOWN_ID, Json, create_task, problem
from tests.support.authz import EVERYTHING, ScriptedAuthz
from tests.support.plans import explain_sent, statements

TRACES = ("task_states", "spans", "trackers", "checkpoints", "checkpoint_blobs", "checkpoint_writes")
# Tables with a task_id that a snapshot leaves out: the ledger stays whatever becomes of a task, and what
# makes a repeat of message/send known, or who follows the task now, is of no use a day later.
LEFT_OUT = {Run, MessageSend, StreamWatch}


async def test_the_whole_task_is_exported(
    client: httpx2.AsyncClient, resources: Resources, task: Json
) -> None:
    response = await client.get(f"/tasks/{task['id']}/export")

    assert (response.status_code, response.headers["content-type"]) == (200, "application/json")
    exported = Snapshot.model_validate(response.json()).model_dump(mode="json")
    messages = (await client.get("/messages", params={"task_id": task["id"]})).json()
    events = await fetch(resources, "SELECT *, content::text AS said FROM events ORDER BY sequence_id")
    assert exported == {
        "task_id": task["id"],
        "task": {key: value for key, value in task.items() if key != "agents"},
        "agents": task["agents"],
        "messages": messages[::-1],
        "events": [
            {
                "id": str(event["id"]),
                "sequence_id": event["sequence_id"],
                "task_id": task["id"],
                "agent_id": task["agents"][0]["id"],
                "content": json.loads(event["said"]),
                "delivery_key": event["delivery_key"],
                "created_at": event["created_at"].isoformat().replace("+00:00", "Z"),
            }
            for event in events
        ],
        **{part: exported[part] for part in TRACES},
    }
    spans = (await client.get("/spans", params={"task_id": task["id"]})).json()
    trackers = (await client.get("/tracker", params={"task_id": task["id"]})).json()
    assert [span["id"] for span in exported["spans"]] == [span["id"] for span in spans]
    assert [tracker["id"] for tracker in exported["trackers"]] == [tracker["id"] for tracker in trackers]
    assert [(blob["blob"], blob["version"]) for blob in exported["checkpoint_blobs"]] == [("\\x00ff", "1")]
    assert [message["content"]["type"] for message in exported["messages"]] == [
        content["type"] for content in CONTENTS
    ]


async def test_an_empty_task_is_exported(client: httpx2.AsyncClient, agent: Json) -> None:
    task = await create_task(client, agent)

    exported = (await client.get(f"/tasks/{task['id']}/export")).json()

    assert (exported["task"], exported["messages"], exported["events"]) == (task, [], [])


@pytest.mark.parametrize(("rows", "max_bytes"), [(1, 1_048_576), (2, 1_048_576), (200, 1), (200, 700)])
async def test_pages_join_to_the_same_document(
    client: httpx2.AsyncClient, task: Json, monkeypatch: pytest.MonkeyPatch, rows: int, max_bytes: int
) -> None:
    path = f"/tasks/{task['id']}/export"
    whole = (await client.get(path)).json()
    monkeypatch.setattr(export_module, "PAGE_ROWS", rows)
    monkeypatch.setattr(export_module, "PAGE_BYTES", max_bytes)

    assert (await client.get(path)).json() == whole


async def test_a_piece_is_small_and_no_connection_is_held_while_it_is_taken(
    client: httpx2.AsyncClient, resources: Resources, agent: Json, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_module, "PAGE_BYTES", 10_000)
    task = await create_task(client, agent)
    await fill(resources, task["id"], count=300, size=1_000)
    read = TaskReadWithAgents.model_validate((await client.get(f"/tasks/{task['id']}")).json())
    pool = resources.db.engine.pool
    assert isinstance(pool, AsyncAdaptedQueuePool)

    sizes: list[int] = []
    async for piece in export(resources, read):
        sizes.append(len(piece))
        assert pool.checkedout() == 0

    # A page ends with the row that fills it.
    assert (max(sizes) < 12_000, sum(sizes) > 300_000) == (True, True)


async def test_a_page_goes_by_the_index_from_where_the_last_one_ended(
    client: httpx2.AsyncClient, resources: Resources, agent: Json
) -> None:
    task = await create_task(client, agent)
    # In pages of its own: scattered over what tests before have left, so few rows are best read all.
    await rows(resources.db, "VACUUM FULL messages")
    await fill(resources, task["id"], count=5_000, size=10)
    await fetch(resources, "ANALYZE messages")

    with statements(resources) as sent:
        await client.get(f"/tasks/{task['id']}/export")

    pages = [one for one in sent if "FROM messages t" in one[0]]
    plan = await explain_sent(resources, pages[-2])
    assert (len(pages), plan.indexes_of("messages")) == (26, {"ix_messages_task_id_created_at"})
    assert plan.most_of("messages") <= export_module.PAGE_ROWS


async def fill(resources: Resources, task_id: str, *, count: int, size: int) -> None:
    """So many messages of that size, several at each instant."""
    await fetch(
        resources,
        """
        INSERT INTO messages (id, account_id, task_id, content, created_at, updated_at)
        SELECT gen_random_uuid(), 'default', :task_id, jsonb_build_object('type', 'text', 'author', 'agent',
            'content', repeat('x', :size)), timestamptz '2026-01-01Z' + n / 3 * interval '1 s', now()
        FROM generate_series(1, :count) AS n
        """,
        task_id=task_id,
        count=count,
        size=size,
    )


@pytest.mark.parametrize("task_id", [UNKNOWN_ID, "nonsense"])
async def test_a_task_that_is_none_is_404(client: httpx2.AsyncClient, task_id: str) -> None:
    path = f"/tasks/{task_id}/export"

    response = await client.get(path)

    expected = problem(path, 404, "not-found", f"task '{task_id}' not found")
    assert (response.status_code, response.json()) == (404, expected)


async def test_who_may_not_read_a_task_does_not_export_it(
    client: httpx2.AsyncClient, task: Json, authz: ScriptedAuthz
) -> None:
    path = f"/tasks/{task['id']}/export"

    other = await client.get(path, headers={"x-test-account": "other"})
    authz.deny = EVERYTHING
    denied = await client.get(path)

    assert (other.status_code, denied.status_code) == (404, 404)


def test_every_table_that_hangs_on_a_task_is_a_part_with_all_its_columns() -> None:
    hanging: set[type[SQLModel]] = {
        table for table in TABLES if "task_id" in table.model_fields and table not in LEFT_OUT
    }
    assert {part.model for part in PARTS} == hanging
    for part in PARTS:
        (entry,) = get_args(Snapshot.model_fields[part.name].annotation)
        assert set(entry.model_fields) == set(part.columns) - {"account_id"}
