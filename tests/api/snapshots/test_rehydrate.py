"""POST /tasks/{id}/rehydrate: an export is put back into a cleaned task."""

from __future__ import annotations

import asyncio
import copy
from base64 import b64encode
from collections.abc import AsyncIterator
from hashlib import shake_256
from typing import Any
from uuid import UUID

import httpx2
import pytest

from agentex.app import create_app
from agentex.auth.authorize import Operation, ResourceType
from agentex.resources import Resources, open_resources
from agentex.snapshots.parts import PARTS
from tests.api.ledger.stage import fetch
from tests.api.snapshots.conftest import converse
from tests.support.api import UNKNOWN_ID, Json, create_task, problem, register, rpc
from tests.support.authz import ScriptedAuthz


@pytest.fixture
async def exported(client: httpx2.AsyncClient, task: Json) -> Json:
    """The task as it was exported, before it was cleaned."""
    exported = (await client.get(f"/tasks/{task['id']}/export")).json()
    cleaned = await client.post(f"/tasks/{task['id']}/clean", json={"force": True})
    assert cleaned.status_code == 200, cleaned.text
    return exported


async def put_back(client: httpx2.AsyncClient, snapshot: Json, **headers: str) -> httpx2.Response:
    """Rehydrate the task that the snapshot is of."""
    return await client.post(f"/tasks/{snapshot['task_id']}/rehydrate", json=snapshot, headers=headers)


async def export(client: httpx2.AsyncClient, task_id: str) -> Json:
    return (await client.get(f"/tasks/{task_id}/export")).json()


async def refused(client: httpx2.AsyncClient, snapshot: Json, status: int) -> str:
    """Why it is not put back; nothing is, and the task stays cleaned."""
    before = await export(client, snapshot["task_id"])
    response = await put_back(client, snapshot)
    assert response.status_code == status, response.text
    assert await export(client, snapshot["task_id"]) == before
    path, message = f"/tasks/{snapshot['task_id']}/rehydrate", response.json()["message"]
    code = {400: "bad-request", 422: "invalid-input"}[status]
    assert response.json() == problem(path, status, code, message)
    return message


async def test_what_was_exported_is_there_again(
    client: httpx2.AsyncClient, exported: Json, resources: Resources
) -> None:
    response = await put_back(client, exported)

    assert (response.status_code, response.content) == (204, b"")
    again = await export(client, exported["task_id"])
    assert again == {**exported, "task": {**exported["task"], "updated_at": again["task"]["updated_at"]}}
    assert again["task"]["updated_at"] > exported["task"]["updated_at"]
    sequence = await fetch(resources, "SELECT count(DISTINCT sequence_id) AS n FROM events")
    assert sequence[0]["n"] == 2


async def test_it_is_there_again_after_a_clean_and_another_one(
    client: httpx2.AsyncClient, exported: Json
) -> None:
    for _ in range(2):
        assert (await put_back(client, exported)).status_code == 204
        again = await export(client, exported["task_id"])
        assert {part.name: again[part.name] for part in PARTS} == {
            part.name: exported[part.name] for part in PARTS
        }
        await client.post(f"/tasks/{exported['task_id']}/clean", json={"force": True})


async def test_a_repeat_changes_nothing(client: httpx2.AsyncClient, exported: Json) -> None:
    await put_back(client, exported)
    first = await export(client, exported["task_id"])

    repeated = await put_back(client, exported)

    assert (repeated.status_code, await export(client, exported["task_id"])) == (204, first)


async def test_some_at_once_put_it_back_once(client: httpx2.AsyncClient, exported: Json) -> None:
    answers = await asyncio.gather(*[put_back(client, exported) for _ in range(5)])

    again = await export(client, exported["task_id"])
    assert [answer.status_code for answer in answers] == [204] * 5
    assert (again["messages"], again["events"]) == (exported["messages"], exported["events"])


async def test_pieces_leave_the_task_cleaned_until_the_last(
    client: httpx2.AsyncClient, exported: Json
) -> None:
    task_id = exported["task_id"]
    pieces: list[Json] = [
        *[{"task_id": task_id, "messages": [one], "more": True} for one in exported["messages"]],
        {"task_id": task_id, "events": exported["events"]},
    ]
    cleaned: list[bool] = []
    for piece in [*pieces[:2], *pieces[1:]]:
        assert (await put_back(client, piece)).status_code == 204
        cleaned.append((await client.get(f"/tasks/{task_id}")).json()["cleaned_at"] is not None)

    again = await export(client, task_id)
    assert (cleaned, again["messages"], again["events"]) == (
        [True, True, True, True, False],
        exported["messages"],
        exported["events"],
    )


async def test_events_that_are_gone_come_back_with_their_order(
    client: httpx2.AsyncClient, agent: Json, exported: Json, resources: Resources
) -> None:
    await fetch(resources, "DELETE FROM events")

    assert (await put_back(client, exported)).status_code == 204

    assert (await export(client, exported["task_id"]))["events"] == exported["events"]


async def test_what_has_come_since_stays(client: httpx2.AsyncClient, exported: Json) -> None:
    body = {"task_id": exported["task_id"], "content": {"type": "text", "author": "agent", "content": "late"}}
    late = (await client.post("/messages", json=body)).json()

    assert (await put_back(client, exported)).status_code == 204

    ids = [message["id"] for message in (await export(client, exported["task_id"]))["messages"]]
    assert ids == [*[message["id"] for message in exported["messages"]], late["id"]]


async def test_a_task_that_is_not_cleaned_takes_nothing_new(client: httpx2.AsyncClient, agent: Json) -> None:
    task = await converse(client, agent)
    snapshot = await export(client, task["id"])
    snapshot["messages"].append({**snapshot["messages"][0], "id": UNKNOWN_ID})

    message = await refused(client, snapshot, 400)

    expected = f"task {task['id']} is not cleaned, and has not all of this snapshot; clean it first"
    assert message == expected


async def test_another_task_s_messages_stay_there(
    client: httpx2.AsyncClient, agent: Json, exported: Json
) -> None:
    other = await export(client, (await converse(client, agent))["id"])
    stolen = copy.deepcopy(exported)
    stolen["messages"][0]["id"] = other["messages"][0]["id"]

    message = await refused(client, stolen, 400)

    assert message == "messages: 1 of 3 ids belong to something else"
    assert await export(client, other["task_id"]) == other


async def test_another_account_s_messages_and_events_stay_there(
    client: httpx2.AsyncClient, exported: Json
) -> None:
    client.headers["x-test-account"] = "other"
    other_agent = await register(client, acp_type="sync", name="of-other")
    answer = await rpc(client, other_agent, "task/create", {"name": "theirs"})
    body = {"task_id": answer["result"]["id"], "content": {"type": "text", "author": "user", "content": "x"}}
    theirs = (await client.post("/messages", json=body)).json()
    stolen = copy.deepcopy(exported)
    stolen["messages"][0]["id"] = theirs["id"]

    hidden = await put_back(client, exported)
    del client.headers["x-test-account"]
    message = await refused(client, stolen, 400)

    assert (hidden.status_code, message) == (404, "messages: 1 of 3 ids belong to something else")
    client.headers["x-test-account"] = "other"
    assert (await client.get(f"/messages/{theirs['id']}")).json() == theirs


async def test_an_event_that_contradicts_another_is_400(client: httpx2.AsyncClient, exported: Json) -> None:
    forged = copy.deepcopy(exported)
    # The key of the first, under another id.
    forged["events"] = [{**forged["events"][0], "id": UNKNOWN_ID}]

    message = await refused(client, forged, 400)

    assert message == "events: an entry contradicts what the task has; put back an export"


def changed(part: str, field: str, value: object) -> dict[str, Any]:
    return {"part": part, "field": field, "value": value}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (changed("messages", "task_id", UNKNOWN_ID), f"messages.1.task_id: is {UNKNOWN_ID}, not this task's"),
        (changed("events", "agent_id", UNKNOWN_ID), f"events.1.agent_id: is {UNKNOWN_ID}, not this task's"),
        (changed("messages", "id", "x"), "messages.1.id: Input should be a valid UUID"),
        (changed("messages", "content", {"type": "text"}), "messages.1.content.text.author: Field required"),
        (changed("messages", "content", {"type": "song"}), "messages.1.content: "),
        (changed("messages", "streaming_status", "LATER"), "messages.1.streaming_status: "),
        (
            changed("messages", "created_at", "2026-01-01T00:00:00"),
            "messages.1.created_at: Input should have timezone info",
        ),
        (changed("messages", "updated_at", "0001-01-01T00:00:00Z"), "messages.1.updated_at: "),
        (changed("events", "sequence_id", 2**63), "events.1.sequence_id: Input should be less"),
        (changed("events", "sequence_id", -1), "events.1.sequence_id: Input should be greater"),
        (changed("events", "delivery_key", ""), "events.1.delivery_key: String should have at least 1"),
        (
            changed("events", "content", {"a": "\x00"}),
            "body.events.1.content.a: holds the character NUL (\\u0000), which cannot be stored",
        ),
    ],
    ids=lambda value: str(value)[:60] if isinstance(value, dict) else "",  # pyright: ignore[reportUnknownArgumentType, reportUnknownLambdaType] - of pytest
)
async def test_an_entry_that_is_none_is_422(
    client: httpx2.AsyncClient, exported: Json, change: dict[str, Any], message: str
) -> None:
    snapshot = copy.deepcopy(exported)
    snapshot[change["part"]][1][change["field"]] = change["value"]

    assert (await refused(client, snapshot, 422)).startswith(message)


async def test_an_entry_that_is_there_twice_is_422(client: httpx2.AsyncClient, exported: Json) -> None:
    snapshot = {**exported, "messages": [exported["messages"][0]] * 2}

    message = await refused(client, snapshot, 422)

    assert message == f"messages.1.id: {exported['messages'][0]['id']} is there twice"


async def test_the_snapshot_of_another_task_is_422(
    client: httpx2.AsyncClient, agent: Json, exported: Json
) -> None:
    other = (await converse(client, agent))["id"]
    response = await client.post(f"/tasks/{other}/rehydrate", json=exported)

    message = f"task_id: is {exported['task_id']}, not the task of the path, {other}"
    assert (response.status_code, response.json()["message"]) == (422, message)


async def test_a_checkpoint_of_another_thread_is_422(client: httpx2.AsyncClient, exported: Json) -> None:
    exported["checkpoints"][0]["thread_id"] = "other"
    message = await refused(client, exported, 422)
    assert message == f"checkpoints.0.thread_id: is other, not this task's {exported['task_id']}"


async def test_a_thread_that_names_the_task_in_another_form_is_there_again(
    client: httpx2.AsyncClient, agent: Json
) -> None:
    task = await create_task(client, agent)
    put: Json = {"thread_id": UUID(task["id"]).hex, "checkpoint_id": "1", "checkpoint": {"v": 1}}
    assert (await client.post("/checkpoints/put", json=put)).status_code == 200
    await client.post(f"/tasks/{task['id']}/complete")
    exported = await export(client, task["id"])
    await client.post(f"/tasks/{task['id']}/clean", json={"force": True})
    assert (await export(client, task["id"]))["checkpoints"] == []

    assert (await put_back(client, exported)).status_code == 204

    assert (await export(client, task["id"]))["checkpoints"] == exported["checkpoints"]


async def test_a_snapshot_without_any_part_is_422(client: httpx2.AsyncClient, exported: Json) -> None:
    message = await refused(client, {"task_id": exported["task_id"]}, 422)
    parts = ", ".join(sorted(part.name for part in PARTS))
    assert message == f"body: has none of {parts}: give what the export had, empty lists too"

    empty: Json = {"task_id": exported["task_id"], "messages": []}
    assert (await put_back(client, empty)).status_code == 204


async def test_who_may_not_change_the_task_puts_nothing_back(
    client: httpx2.AsyncClient, exported: Json, authz: ScriptedAuthz
) -> None:
    unknown = await put_back(client, {**exported, "task_id": UNKNOWN_ID})
    authz.deny = {(Operation.UPDATE, ResourceType.TASK)}
    denied = await put_back(client, exported)

    message = f"update on task {exported['task_id']} is not allowed: scripted"
    path = f"/tasks/{exported['task_id']}/rehydrate"
    assert unknown.status_code == 404
    assert (denied.status_code, denied.json()) == (403, problem(path, 403, "forbidden", message))
    assert (await export(client, exported["task_id"]))["messages"] == []


@pytest.fixture
async def narrow(resources: Resources, authz: ScriptedAuthz) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of a server that takes 5,000 bytes at once, and 10,000 of a snapshot; 75,536 of one entry."""
    limits = {"max_body_bytes": 5_000, "max_snapshot_bytes": 10_000, "max_checkpoint_bytes": 5_000}
    settings = resources.settings.model_copy(update=limits)
    async with open_resources(settings, authz=authz) as opened:
        transport = httpx2.ASGITransport(app=create_app(settings, resources=opened))
        async with httpx2.AsyncClient(transport=transport, base_url="http://agentex.test") as client:
            yield client


@pytest.mark.parametrize("sent_in", ["one", "chunks"])
async def test_a_snapshot_may_be_larger_than_other_bodies_but_not_without_end(
    narrow: httpx2.AsyncClient, exported: Json, sent_in: str
) -> None:
    path = f"/tasks/{exported['task_id']}/rehydrate"

    async def post(path: str, count: int) -> httpx2.Response:
        async def chunks() -> AsyncIterator[bytes]:
            yield b'{"task_id": "%s", "messages": [' % exported["task_id"].encode()
            yield b" " * count
            yield b"]}"

        content = chunks() if sent_in == "chunks" else b"".join([chunk async for chunk in chunks()])
        return await narrow.post(path, content=content, headers={"content-type": "application/json"})

    small, large = await post(path, 75_000), await post(path, 76_000)
    elsewhere = await post(f"/tasks/{exported['task_id']}/clean", 9_000)

    assert (small.status_code, large.status_code) == (204, 413)
    assert large.json()["message"] == "the request's body is larger than 75536 bytes"
    assert (elsewhere.status_code, elsewhere.json()["message"]) == (
        413,
        "the request's body is larger than 5000 bytes",
    )


async def test_only_a_single_entry_may_be_larger_than_a_snapshot(
    narrow: httpx2.AsyncClient, exported: Json
) -> None:
    path = f"/tasks/{exported['task_id']}/rehydrate"
    two, one = exported["messages"], exported["messages"][:1]
    for entry in one:
        entry["content"]["content"] = "x" * 10_000

    answers = [
        await narrow.post(path, json={"task_id": exported["task_id"], "messages": messages, "more": True})
        for messages in (two, one)
    ]

    assert [answer.status_code for answer in answers] == [413, 204]
    assert answers[0].json()["message"] == (
        "a snapshot of more than 10000 bytes may have one entry only (AGENTEX_MAX_SNAPSHOT_BYTES); "
        "send it in pieces, each with more: true but the last"
    )


async def test_the_largest_blob_of_a_checkpoint_is_put_back(
    client: httpx2.AsyncClient, agent: Json, resources: Resources
) -> None:
    """At the default settings, which it fills when it is made."""
    task = await create_task(client, agent)
    value = shake_256(b"any").digest(12_000_000)
    blob = {"channel": "c", "version": "1", "type": "bytes", "blob": b64encode(value).decode()}
    put = {"thread_id": task["id"], "checkpoint_id": "1", "checkpoint": {"v": 1}, "blobs": [blob]}
    assert (await client.post("/checkpoints/put", json=put)).status_code == 200
    await client.post(f"/tasks/{task['id']}/complete")
    exported = await export(client, task["id"])
    await client.post(f"/tasks/{task['id']}/clean", json={"force": True})

    large = {"task_id": task["id"], "checkpoint_blobs": exported.pop("checkpoint_blobs"), "more": True}
    assert (await put_back(client, large)).status_code == 204
    assert (await put_back(client, exported)).status_code == 204

    stored = await fetch(resources, "SELECT blob FROM checkpoint_blobs")
    assert [row["blob"] for row in stored] == [value]
