"""/checkpoints: the semantics of LangGraph's Postgres saver, within one account."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from typing import Any

import httpx2
import pytest

from agentex.auth.authorize import Operation, ResourceType
from agentex.resources import Resources
from tests.api.ledger.stage import fetch
from tests.support.api import Json, create_task, problem
from tests.support.authz import ScriptedAuthz
from tests.support.plans import explain_sent, statements

OTHER = {"x-test-account": "other"}
THREAD = "a thread"


def b64(data: bytes) -> str:
    return b64encode(data).decode()


def blob(channel: str, version: str, data: bytes | None) -> Json:
    return {
        "channel": channel,
        "version": version,
        "type": "empty" if data is None else "msgpack",
        "blob": None if data is None else b64(data),
    }


def checkpoint(id_: str = "1", **versions: str) -> Json:
    return {"v": 4, "id": id_, "channel_values": {"n": 1.5}, "channel_versions": versions}


def write(channel: str, idx: int, data: bytes, **more: object) -> Json:
    return {"task_id": "step", "idx": idx, "channel": channel, "type": "msgpack", "blob": b64(data), **more}


def read(written: Json) -> Json:
    return {key: value for key, value in written.items() if key != "task_path"}


async def post(
    client: httpx2.AsyncClient, verb: str, headers: dict[str, str] | None = None, /, **body: Any
) -> Any:
    """The answer to one of the routes; of the thread of these tests unless another is given."""
    answer = await client.post(f"/checkpoints/{verb}", json={"thread_id": THREAD, **body}, headers=headers)
    assert answer.status_code in {200, 204}, answer.text
    assert (answer.status_code == 204) == (verb in {"put-writes", "delete-thread"})
    return answer.json() if answer.content else None


async def put(client: httpx2.AsyncClient, id_: str = "1", **body: Any) -> Any:
    return await post(client, "put", **({"checkpoint_id": id_, "checkpoint": checkpoint(id_)} | body))


async def put_writes(client: httpx2.AsyncClient, *writes: Json, **body: Any) -> None:
    await post(client, "put-writes", **({"checkpoint_id": "1", "writes": list(writes)} | body))


async def listed(client: httpx2.AsyncClient, **body: Any) -> list[tuple[str, str]]:
    return [(one["checkpoint_ns"], one["checkpoint_id"]) for one in await post(client, "list", **body)]


async def test_a_checkpoint_comes_back_whole(client: httpx2.AsyncClient) -> None:
    every_byte = bytes(range(256)) * 3
    versions = {"messages": "2", "empty": "1"}
    blobs = [blob("empty", "1", None), blob("messages", "2", every_byte)]
    metadata = {"step": 1, "source": "loop", "ü": None}

    kept = await put(
        client,
        "2",
        parent_checkpoint_id="1",
        checkpoint=checkpoint("2", **versions),
        metadata=metadata,
        blobs=[*blobs, blob("messages", "1", b"older"), blob("other", "2", b"not named")],
    )

    assert kept == {"thread_id": THREAD, "checkpoint_ns": "", "checkpoint_id": "2"}
    expected = {
        **kept,
        "parent_checkpoint_id": "1",
        "checkpoint": checkpoint("2", **versions),
        "metadata": metadata,
    }
    assert await post(client, "get-tuple") == {**expected, "blobs": blobs, "pending_writes": []}
    assert await post(client, "list") == [expected]


async def test_the_latest_is_the_greatest_id_of_its_namespace(client: httpx2.AsyncClient) -> None:
    for id_, namespace in (("1b", ""), ("1B", ""), ("1a", ""), ("9", "inner:1")):
        await put(client, id_, checkpoint_ns=namespace)

    async def latest(**body: object) -> str | None:
        found = await post(client, "get-tuple", **body)
        return found and found["checkpoint_id"]

    assert await latest() == "1b"
    assert await latest(checkpoint_id=None) == "1b"
    assert await latest(checkpoint_id="1a") == "1a"
    assert await latest(checkpoint_ns="inner:1") == "9"
    assert [
        await latest(checkpoint_id="9"),
        await latest(thread_id="none"),
        await latest(checkpoint_ns="x"),
    ] == [*[None, None, None]]


async def test_put_again_replaces_the_checkpoint_and_keeps_parent_and_blobs(
    client: httpx2.AsyncClient,
) -> None:
    await put(client, parent_checkpoint_id="0", metadata={"a": 1}, blobs=[blob("c", "1", b"first")])
    again = checkpoint("1", c="1", d="1")
    more = [blob("c", "1", b"second"), blob("d", "1", b"new")]
    await put(client, parent_checkpoint_id="x", checkpoint=again, metadata={"b": 2}, blobs=more)

    found = await post(client, "get-tuple")

    assert found["parent_checkpoint_id"] == "0"
    assert (found["checkpoint"], found["metadata"]) == (again, {"b": 2})
    assert found["blobs"] == [blob("c", "1", b"first"), blob("d", "1", b"new")]


async def test_a_later_checkpoint_shares_the_blobs_of_unchanged_channels(client: httpx2.AsyncClient) -> None:
    await put(client, "1", checkpoint=checkpoint("1", c="1"), blobs=[blob("c", "1", b"shared")])
    await put(client, "2", checkpoint=checkpoint("2", c="1", d="2"), blobs=[blob("d", "2", b"own")])
    await put(client, "2", checkpoint_ns="inner", checkpoint=checkpoint("2", c="1"))

    found = await post(client, "get-tuple")

    assert found["blobs"] == [blob("c", "1", b"shared"), blob("d", "2", b"own")]
    assert (await post(client, "get-tuple", checkpoint_ns="inner"))["blobs"] == []


async def test_writes_are_read_in_the_order_of_task_and_place(client: httpx2.AsyncClient) -> None:
    # Before their checkpoint, as LangGraph may send them.
    writes = [
        write("__error__", -1, b"e", task_id="b"),
        write("c", 1, b"1", task_id="a", task_path="~path"),
        write("c", 0, b"0", task_id="a", type=None),
    ]
    await put_writes(client, *writes)
    await put_writes(client, write("other", 0, b"x"), checkpoint_id="2")
    await put(client)

    found = await post(client, "get-tuple")

    assert found["pending_writes"] == [read(writes[2]), read(writes[1]), read(writes[0])]


async def test_a_write_whose_place_is_taken_stays_unless_it_is_an_upsert(client: httpx2.AsyncClient) -> None:
    await put(client)
    await put_writes(client, write("c", 0, b"first"), write("__interrupt__", -3, b"first"))

    async def kept() -> list[Json]:
        return (await post(client, "get-tuple"))["pending_writes"]

    await put_writes(client, write("d", 0, b"second"), write("d", 1, b"second"))
    left = await kept()
    await put_writes(client, write("__interrupt__", -3, b"second"), write("e", 1, b"third"), upsert=True)

    assert left == [write("__interrupt__", -3, b"first"), write("c", 0, b"first"), write("d", 1, b"second")]
    assert await kept() == [
        *[write("__interrupt__", -3, b"second"), write("c", 0, b"first"), write("e", 1, b"third")]
    ]


@pytest.mark.parametrize(("upsert", "kept"), [(False, b"first"), (True, b"last")])
async def test_one_place_twice_in_one_request(client: httpx2.AsyncClient, upsert: bool, kept: bytes) -> None:
    await put(client)

    await put_writes(client, write("c", 0, b"first"), write("c", 0, b"last"), upsert=upsert)

    assert (await post(client, "get-tuple"))["pending_writes"] == [write("c", 0, kept)]


async def test_lists_filter_and_limit(client: httpx2.AsyncClient) -> None:
    await put(client, "1", metadata={"step": 1, "tags": ["a", "b"], "by": {"user": "u", "n": 1}})
    await put(client, "2", metadata={"step": 2})
    await put(client, "3", metadata={"step": 2}, checkpoint_ns="inner")

    assert await listed(client) == [("inner", "3"), ("", "2"), ("", "1")]
    assert await listed(client, checkpoint_ns="") == [("", "2"), ("", "1")]
    assert await listed(client, limit=2) == [("inner", "3"), ("", "2")]
    assert await listed(client, before_checkpoint_id="3") == [("", "2"), ("", "1")]
    assert await listed(client, before_checkpoint_id="2", checkpoint_ns="inner") == []
    assert await listed(client, filter_metadata={"step": 2}, checkpoint_ns="") == [("", "2")]
    assert await listed(client, filter_metadata={"by": {"user": "u"}, "tags": ["b"]}) == [("", "1")]
    assert await listed(client, filter_metadata={"step": 3}) == []
    assert await listed(client, filter_metadata={}) == [("inner", "3"), ("", "2"), ("", "1")]
    assert await listed(client, thread_id="none") == []


async def test_a_thread_is_deleted_whole_and_alone(client: httpx2.AsyncClient, resources: Resources) -> None:
    for thread in (THREAD, "another"):
        await put(client, thread_id=thread, checkpoint_ns="n", blobs=[blob("c", "1", b"x")])
        await put_writes(client, write("c", 0, b"x"), thread_id=thread)

    await post(client, "delete-thread")
    await post(client, "delete-thread")

    for table in ("checkpoints", "checkpoint_blobs", "checkpoint_writes"):
        left = await fetch(resources, f"SELECT thread_id FROM {table}")  # noqa: S608
        assert [row["thread_id"] for row in left] == ["another"]


async def test_side_by_side_nothing_is_lost(client: httpx2.AsyncClient, agent: Json) -> None:
    thread = (await create_task(client, agent))["id"]
    channels = [f"c{number}" for number in range(20)]
    versions = dict.fromkeys(channels, "1")

    await asyncio.gather(
        *[
            put(
                client,
                thread_id=thread,
                checkpoint=checkpoint("1", **versions),
                blobs=[blob(one, "1", b"x") for one in (channels if turn % 2 else reversed(channels))],
            )
            for turn in range(6)
        ],
        *[
            put_writes(
                client,
                *[write("c", n, b"w") for n in (0, 1, 2)[:: turn % 2 or -1]],
                thread_id=thread,
                upsert=True,
            )
            for turn in range(6)
        ],
    )

    found = await post(client, "get-tuple", thread_id=thread)
    assert found["blobs"] == [blob(one, "1", b"x") for one in sorted(channels)]
    assert found["pending_writes"] == [write("c", n, b"w") for n in (0, 1, 2)]


async def test_writing_and_deleting_side_by_side_end_well(client: httpx2.AsyncClient) -> None:
    for _ in range(5):
        await put_writes(client, *[write("c", n, b"w") for n in range(20)])
        await asyncio.gather(
            post(client, "delete-thread"),
            put_writes(client, *[write("c", n, b"v") for n in range(20)], upsert=True),
            put(client, blobs=[blob("c", "1", b"x")]),
        )

    await post(client, "delete-thread")
    assert await post(client, "get-tuple") is None


@pytest.mark.parametrize("of_task", [True, False], ids=["task", "no task"])
async def test_another_account_never_sees_a_thread(
    client: httpx2.AsyncClient, agent: Json, of_task: bool
) -> None:
    thread = (await create_task(client, agent))["id"] if of_task else THREAD
    await put(client, thread_id=thread, checkpoint=checkpoint("1", c="1"), blobs=[blob("c", "1", b"mine")])
    await put_writes(client, write("c", 0, b"mine"), thread_id=thread)
    mine = await post(client, "get-tuple", thread_id=thread)

    assert await post(client, "get-tuple", OTHER, thread_id=thread) is None
    assert await post(client, "list", OTHER, thread_id=thread) == []
    theirs: Json = {"thread_id": thread, "checkpoint_id": "1", "checkpoint": {}}
    await post(client, "put", OTHER, **theirs, blobs=[blob("c", "1", b"theirs")])
    await post(client, "put-writes", OTHER, thread_id=thread, checkpoint_id="1", writes=[], upsert=True)
    await post(client, "delete-thread", OTHER, thread_id=thread)

    assert await post(client, "get-tuple", thread_id=thread) == mine
    assert await post(client, "get-tuple", OTHER, thread_id=thread) is None


async def test_a_tasks_thread_asks_for_leave_on_the_task(
    client: httpx2.AsyncClient, agent: Json, authz: ScriptedAuthz
) -> None:
    thread = (await create_task(client, agent))["id"]
    bodies: dict[str, Json] = {
        "put": {"checkpoint_id": "1", "checkpoint": {}},
        "put-writes": {"checkpoint_id": "1", "writes": []},
        "delete-thread": {},
    }
    authz.deny = {(Operation.UPDATE, ResourceType.TASK)}
    for verb, body in bodies.items():
        path = f"/checkpoints/{verb}"
        answer = await client.post(path, json={"thread_id": thread, **body})
        message = f"update on task {thread} is not allowed: scripted"
        assert (answer.status_code, answer.json()) == (403, problem(path, 403, "forbidden", message))
    assert await post(client, "get-tuple", thread_id=thread) is None

    authz.deny = {(Operation.UPDATE, ResourceType.TASK), (Operation.READ, ResourceType.TASK)}
    for verb, body in {**bodies, "get-tuple": {}, "list": {}}.items():
        answer = await client.post(f"/checkpoints/{verb}", json={"thread_id": thread, **body})
        assert answer.status_code == 404


async def test_a_tasks_thread_goes_with_the_task(
    client: httpx2.AsyncClient, agent: Json, resources: Resources
) -> None:
    thread = (await create_task(client, agent))["id"]
    for one in (thread, thread.upper(), THREAD):
        await put(client, thread_id=one, blobs=[blob("c", "1", b"x")])
        await put_writes(client, write("c", 0, b"x"), thread_id=one)

    await fetch(resources, "DELETE FROM tasks")

    for table in ("checkpoints", "checkpoint_blobs", "checkpoint_writes"):
        left = await fetch(resources, f"SELECT thread_id FROM {table}")  # noqa: S608
        assert [row["thread_id"] for row in left] == [THREAD]


async def test_the_longest_keys_fit_into_the_indexes(client: httpx2.AsyncClient) -> None:
    # Of random characters, which Postgres cannot make shorter.
    long = "".join(chr(0x4E00 + (n * 7919) % 20_000) for n in range(341))
    key = long[:85]
    thread = {"thread_id": key, "checkpoint_ns": long}

    await put(client, key, **thread, checkpoint=checkpoint(key, **{key: key}), blobs=[blob(key, key, b"x")])
    await put_writes(client, write(key, 0, b"w", task_id=key), checkpoint_id=key, **thread)

    found = await post(client, "get-tuple", **thread)
    assert (found["blobs"], found["pending_writes"]) == (
        [blob(key, key, b"x")],
        [write(key, 0, b"w", task_id=key)],
    )


@pytest.mark.parametrize("versions", [None, [], "text", 5, {"c": None}, {"c": 1}, {"c": {}}], ids=str)
async def test_odd_channel_versions_name_no_blob(client: httpx2.AsyncClient, versions: object) -> None:
    body = {**checkpoint(), "channel_versions": versions}
    await put(client, checkpoint=body)

    found = await post(client, "get-tuple")

    assert (found["checkpoint"], found["blobs"]) == (body, [])


PUT: Json = {"thread_id": THREAD, "checkpoint_id": "1", "checkpoint": {}}
WRITES: Json = {"thread_id": THREAD, "checkpoint_id": "1", "writes": [write("c", 0, b"x")]}


def a_write(**changes: object) -> Json:
    return {**WRITES, "writes": [write("c", 0, b"x") | changes]}


@pytest.mark.parametrize(
    ("verb", "body", "message"),
    [
        ("get-tuple", {}, "thread_id: Field required"),
        ("list", {}, "thread_id: Field required"),
        ("delete-thread", {"thread_id": ""}, "thread_id is '': String should have at least 1 character"),
        ("get-tuple", {"thread_id": 5}, "thread_id is 5: Input should be a valid string"),
        ("get-tuple", {"thread_id": "ü" * 128}, "thread_id: is longer than 255 bytes in UTF-8"),
        ("get-tuple", {"thread_id": "a\x00"}, "body.thread_id: holds the character NUL"),
        ("get-tuple", {"thread_id": "t", "checkpoint_ns": "x" * 1025}, "checkpoint_ns: is longer than 1024"),
        ("list", {"thread_id": "t", "limit": 0}, "limit is 0: Input should be greater than or equal to 1"),
        ("list", {"thread_id": "t", "limit": 1001}, "limit is 1001: Input should be less than or equal to"),
        ("list", {"thread_id": "t", "filter_metadata": "secret"}, "filter_metadata: Input should be a valid"),
        ("put", {**PUT, "checkpoint": "secret"}, "checkpoint: Input should be a valid dictionary"),
        ("put", {**PUT, "checkpoint": {"secret": "\x00"}}, "holds the character NUL"),
        ("put", {**PUT, "metadata": ["secret"]}, "metadata: Input should be a valid dictionary"),
        ("put", {**PUT, "blobs": [blob("c", "1", b"") | {"blob": "secret!"}]}, "blobs.0.blob: is not base64"),
        ("put", {**PUT, "blobs": [blob("c", "1", b"") | {"blob": "YQ"}]}, "blobs.0.blob: is not base64"),
        ("put", {**PUT, "blobs": [blob("c", "1", b"") | {"version": 1}]}, "blobs.0.version is 1: Input"),
        ("put-writes", a_write(blob=None), "writes.0.blob: is not base64"),
        ("put-writes", a_write(idx=2**31), "writes.0.idx: Input should be less than"),
        ("put-writes", a_write(idx=-(2**31) - 1), "writes.0.idx: Input should be greater"),
        ("put-writes", a_write(task_id=""), "writes.0.task_id: String should have at least"),
        (
            "put-writes",
            {**WRITES, "upsert": "perhaps"},
            "upsert is 'perhaps': Input should be a valid boolean",
        ),
    ],
)
async def test_an_invalid_field_is_named_without_the_state(
    client: httpx2.AsyncClient, verb: str, body: Json, message: str
) -> None:
    answer = await client.post(f"/checkpoints/{verb}", json=body)

    assert answer.status_code == 422
    assert message in answer.json()["message"]
    assert "secret!" not in answer.text
    assert "'secret'" not in answer.text


async def test_indexes_find_a_thread_among_many(client: httpx2.AsyncClient, resources: Resources) -> None:
    await put(client, "1", checkpoint=checkpoint("1", c="1"), blobs=[blob("c", "1", b"x")])
    await put_writes(client, write("c", 0, b"x"))
    for table, columns in {
        "checkpoints": "n::text, NULL, NULL, checkpoint, checkpoint_metadata, created_at",
        "checkpoint_blobs": "'c', n::text, NULL, type, blob",
        "checkpoint_writes": "n::text, 's', 0, NULL, '', channel, type, blob",
    }.items():
        numbered = f"{table}, generate_series(1, 2000) n"
        await fetch(
            resources,
            f"INSERT INTO {table} SELECT account_id, 't' || n % 20, '', {columns} FROM {numbered}",  # noqa: S608
        )
        await fetch(resources, f"ANALYZE {table}")
    with statements(resources) as sent:
        await post(client, "get-tuple", thread_id="t3")
        await post(client, "list", thread_id="t3", limit=5)

    got, listed_ = [one for one in sent if "FROM checkpoints c" in one[0]]
    plan = await explain_sent(resources, got)
    assert plan.indexes_of("checkpoints") <= {
        *["pk_checkpoints", "ix_checkpoints_account_id_thread_id_checkpoint_id"]
    }
    assert plan.indexes_of("checkpoint_blobs") == {"pk_checkpoint_blobs"}
    assert plan.indexes_of("checkpoint_writes") == {"pk_checkpoint_writes"}
    listing = await explain_sent(resources, listed_)
    assert listing.indexes_of("checkpoints") == {"ix_checkpoints_account_id_thread_id_checkpoint_id"}
    assert listing.most_of("checkpoints") <= 6


async def test_a_checkpoint_may_be_larger_than_other_bodies(
    client: httpx2.AsyncClient, resources: Resources
) -> None:
    large = b"\x00\xff" * resources.settings.max_body_bytes
    blobs = [blob("messages", "1", large)]
    await put(client, checkpoint=checkpoint(messages="1"), blobs=blobs)
    await put_writes(client, write("messages", 0, large))

    found = await post(client, "get-tuple")

    assert found["blobs"] == blobs
    assert [one["blob"] for one in found["pending_writes"]] == [b64(large)]


@pytest.mark.parametrize("verb", ["put", "put-writes"])
async def test_a_checkpoint_over_the_limit_of_its_own_is_413(
    client: httpx2.AsyncClient, resources: Resources, verb: str
) -> None:
    limit = resources.settings.max_checkpoint_bytes
    response = await client.post(f"/checkpoints/{verb}", content=b"{}".ljust(limit + 1))

    message = f"the request's body is larger than {limit} bytes"
    path = f"/checkpoints/{verb}"
    assert (response.status_code, response.json()) == (413, problem(path, 413, "payload-too-large", message))
