"""checkpoints.*: what LangGraph's Postgres saver keeps, with its semantics."""

from __future__ import annotations

import base64

from calls import UNKNOWN_ID, fresh, has, plain


def b64(text):
    return base64.b64encode(text.encode()).decode()


def checkpoint(number, **versions):
    """A checkpoint as LangGraph writes it: small values in it, large ones as blobs."""
    return {
        "v": 4,
        "id": f"1ef-{number}",
        "ts": "2026-05-01T12:00:00+00:00",
        "channel_values": {"count": number},
        "channel_versions": versions,
        "versions_seen": {"node": {}},
    }


def put(task, number, *, blobs=(), parent=None, **metadata):
    """The arguments of checkpoints.put."""
    versions = {one["channel"]: one["version"] for one in blobs}
    return {
        "thread_id": task.id,
        "checkpoint_ns": "",
        "checkpoint_id": f"1ef-{number}",
        "parent_checkpoint_id": parent,
        "checkpoint": checkpoint(number, **versions),
        "metadata": {"step": number, **metadata},
        "blobs": list(blobs),
    }


def blob(channel, version, text):
    return {"channel": channel, "version": version, "type": "msgpack", "blob": b64(text)}


async def check_put_and_get_tuple(api):
    task = await api.task()
    assert await api.checkpoints.get_tuple(thread_id=task.id) is None
    first = put(task, 1, blobs=[blob("messages", "1.0", "hi")], source="input")
    has(
        await api.checkpoints.put(**first),
        thread_id=task.id,
        checkpoint_ns="",
        checkpoint_id="1ef-1",
    )
    # A checkpoint names the versions of its channels; only those blobs belong to it.
    second = put(task, 2, blobs=[blob("messages", "2.0", "hi, hello")], parent="1ef-1")
    await api.checkpoints.put(**second)
    newest = await api.checkpoints.get_tuple(thread_id=task.id)
    has(
        newest,
        thread_id=task.id,
        checkpoint_ns="",
        checkpoint_id="1ef-2",
        parent_checkpoint_id="1ef-1",
        checkpoint=second["checkpoint"],
        metadata={"step": 2},
        blobs=second["blobs"],
        pending_writes=[],
    )
    older = await api.checkpoints.get_tuple(thread_id=task.id, checkpoint_ns="", checkpoint_id="1ef-1")
    has(older, checkpoint_id="1ef-1", parent_checkpoint_id=None, blobs=first["blobs"])
    assert older.metadata == {"step": 1, "source": "input"}
    assert await api.checkpoints.get_tuple(thread_id=task.id, checkpoint_ns="inner") is None


async def check_put_again(api):
    task = await api.task()
    await api.checkpoints.put(**put(task, 1, blobs=[blob("messages", "1.0", "first")]))
    # A version of a channel never changes; the checkpoint and its metadata do.
    await api.checkpoints.put(**put(task, 1, blobs=[blob("messages", "1.0", "second")], note="again"))
    got = await api.checkpoints.get_tuple(thread_id=task.id)
    assert got.metadata == {"step": 1, "note": "again"}
    assert [one.blob for one in got.blobs] == [b64("first")]


async def check_put_writes(api):
    task = await api.task()
    await api.checkpoints.put(**put(task, 1))
    place = {"thread_id": task.id, "checkpoint_ns": "", "checkpoint_id": "1ef-1"}

    def write(index, text, task_id="t1"):
        return {
            "task_id": task_id,
            "idx": index,
            "channel": "messages",
            "type": "msgpack",
            "blob": b64(text),
            "task_path": "~__pregel_pull, node",
        }

    async def pending():
        got = await api.checkpoints.get_tuple(**place)
        return [(one["task_id"], one["idx"], one["blob"]) for one in plain(got.pending_writes)]

    await api.checkpoints.put_writes(**place, writes=[write(0, "a"), write(1, "b")])
    assert await pending() == [("t1", 0, b64("a")), ("t1", 1, b64("b"))]
    # Written twice: the first stays, unless it is an upsert (errors, interrupts).
    await api.checkpoints.put_writes(**place, writes=[write(0, "c"), write(2, "d")])
    assert await pending() == [("t1", 0, b64("a")), ("t1", 1, b64("b")), ("t1", 2, b64("d"))]
    await api.checkpoints.put_writes(**place, writes=[write(0, "e")], upsert=True)
    assert (await pending())[0] == ("t1", 0, b64("e"))


async def check_list(api):
    task = await api.task()
    for number in range(1, 5):
        parent = f"1ef-{number - 1}" if number > 1 else None
        await api.checkpoints.put(
            **put(task, number, parent=parent, source="loop" if number > 2 else "input")
        )

    async def listed(**options):
        found = await api.checkpoints.list(thread_id=task.id, **options)
        return [one.checkpoint_id for one in found]

    assert await listed() == ["1ef-4", "1ef-3", "1ef-2", "1ef-1"]
    assert await listed(checkpoint_ns="", before_checkpoint_id="1ef-3") == ["1ef-2", "1ef-1"]
    assert await listed(filter_metadata={"source": "input"}) == ["1ef-2", "1ef-1"]
    assert await listed(limit=1) == ["1ef-4"]
    assert await listed(checkpoint_ns="inner") == []
    [first] = await api.checkpoints.list(thread_id=task.id, limit=1)
    has(
        first,
        thread_id=task.id,
        checkpoint_ns="",
        parent_checkpoint_id="1ef-3",
        checkpoint=checkpoint(4),
        metadata={"step": 4, "source": "loop"},
    )


async def check_delete_thread(api):
    task, other = await api.task(), await api.task()
    for one in (task, other):
        await api.checkpoints.put(**put(one, 1, blobs=[blob("messages", "1.0", "hi")]))
    assert await api.checkpoints.delete_thread(thread_id=task.id) is None
    assert await api.checkpoints.get_tuple(thread_id=task.id) is None
    assert await api.checkpoints.list(thread_id=task.id) == []
    assert (await api.checkpoints.get_tuple(thread_id=other.id)).checkpoint_id == "1ef-1"


async def check_a_thread_that_is_no_task(api):
    thread_id = fresh("thread")
    own = {**put(await api.task(), 1), "thread_id": thread_id}
    has(await api.checkpoints.put(**own), thread_id=thread_id, checkpoint_id="1ef-1")
    assert (await api.checkpoints.get_tuple(thread_id=thread_id)).checkpoint == checkpoint(1)


async def check_unknown(api):
    # A graph asks for its thread before there is one.
    assert await api.checkpoints.get_tuple(thread_id=UNKNOWN_ID) is None
    assert await api.checkpoints.list(thread_id=UNKNOWN_ID) == []
    assert await api.checkpoints.delete_thread(thread_id=UNKNOWN_ID) is None
