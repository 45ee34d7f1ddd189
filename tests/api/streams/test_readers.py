"""Readers: signs of life, slow ones, those that leave; what a stream holds, and the shape of its bytes."""

from __future__ import annotations

import asyncio
import resource
import socket
import time
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, cast

import aiohttp
import httpx2
import pytest
from sqlalchemy.pool import QueuePool
from starlette.types import Message

from agentex.auth.principal import Principal
from agentex.database import rows
from agentex.errors import Unavailable
from agentex.resources import Resources
from agentex.streams import frames
from agentex.streams.admission import Admission
from agentex.streams.reader import FALLEN_BEHIND
from agentex.streams.response import EventStreamResponse
from agentex.streams.service import hub_of, open_stream
from agentex.tasks import service as tasks
from agentex.tasks.models import Task
from tests.api.ledger.stage import CALLER, fetch
from tests.api.streams.conftest import change, connected, full, insert, post, texts, use_settings
from tests.support.api import TEXT, Json, create_task
from tests.support.sse import GIVE_UP_SECONDS, Following, follow, until


async def test_an_idle_stream_gets_a_sign_of_life_that_holds_no_blank_line(
    client: httpx2.AsyncClient, resources: Resources, url: str, task: Json
) -> None:
    use_settings(resources, stream_ping_seconds=0.05)
    async with follow(url, task["id"]) as stream:
        await stream.next()
        await stream.until_comments(2)
        message = await post(client, task)

        assert await stream.next() == full(message)
    # The agents' SDK takes a blank line behind an id for an event without data, which is no JSON.
    assert frames.PING == b":ping\n"


async def test_each_event_is_a_chunk_of_its_own_that_begins_with_its_data(
    client: httpx2.AsyncClient, url: str, task: Json
) -> None:
    """One reader of the agents' SDK takes each chunk for one event, and no other line in it."""
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{url}/tasks/{task['id']}/stream") as response,
    ):
        chunks: list[bytes] = []
        for _ in range(3):
            await post(client, task, TEXT | {"content": "\u2028 \x85 ü"})
        async with asyncio.timeout(GIVE_UP_SECONDS):
            async for data, is_end in response.content.iter_chunks():
                assert is_end
                chunks.append(data)
                if len(chunks) == 8:
                    break

    assert [chunk.partition(b": ")[0] for chunk in chunks] == [b"id", b"data"] * 4
    assert all(chunk.count(b"\n") == 1 for chunk in chunks[::2])
    assert all(chunk.endswith(b"\n\n") and chunk.count(b"\n") == 2 for chunk in chunks[1::2])
    # Readers that split text into lines split it at more than \n.
    assert all(len(chunk.decode().splitlines()) == 2 for chunk in chunks[1::2])


async def test_a_reader_that_falls_behind_is_told_and_goes_on_from_where_it_was(
    client: httpx2.AsyncClient, resources: Resources, url: str, task: Json
) -> None:
    hub = use_settings(resources, stream_buffer_bytes=400_000)
    sent = [f"{number}:" + "x" * 150_000 for number in range(60)]
    # What the system buffers is small, so that little is in flight.
    async with slow(url, task) as stream:
        await stream.next()
        for text in sent:
            await post(client, task, TEXT | {"content": text})
        await until(lambda: all(reader.ended is not None for reader in hub.readers))
        got = await stream.rest()
    assert got[-1] == {"type": "error", "message": FALLEN_BEHIND}
    assert texts(got) == sent[: len(got) - 1]
    # None of them where the first look has found more than the buffer takes.
    assert len(got) - 1 < len(sent)

    async with follow(url, task["id"], last_event_id=stream.last_id) as again:
        await again.next()
        assert texts(await again.some(len(sent) - len(got) + 1)) == sent[len(got) - 1 :]


async def test_a_reader_that_ends_while_its_client_reads_no_more_keeps_no_place(
    client: httpx2.AsyncClient, resources: Resources, task: Json, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The event that is being sent may never be through."""
    monkeypatch.setattr("agentex.streams.response.LAST_WORDS_SECONDS", 0.1)
    hub = use_settings(resources, stream_buffer_bytes=1_000)
    stuck = asyncio.Event()

    async def send(message: Message) -> None:
        if b"task_id" in message.get("body", b""):
            stuck.set()
            await asyncio.Event().wait()

    async def receive() -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    async with resources.db.read() as session:
        found = await tasks.get(session, resources.authz, Principal(), task["id"])
    admission = Admission(Principal(), {}, resources.authz.authenticate)
    stream = await open_stream(resources, admission, found, None)
    assert stream is not None
    answer = EventStreamResponse(stream)
    sending = asyncio.create_task(answer({"type": "http"}, receive, send))
    async with asyncio.timeout(GIVE_UP_SECONDS):
        await asyncio.sleep(0)
        await post(client, task)
        await stuck.wait()
        for _ in range(4):
            await post(client, task, TEXT | {"content": "x" * 600})
        await sending

    assert not hub.readers
    await hub.aclose()


def _small_socket(_: object) -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    made.setblocking(False)
    return made


@asynccontextmanager
async def slow(url: str, task: Json) -> AsyncGenerator[Following]:
    """A stream whose client takes little at a time from the system."""
    connector = aiohttp.TCPConnector(force_close=True, socket_factory=_small_socket)
    async with (
        aiohttp.ClientSession(connector=connector, read_bufsize=1_024) as session,
        session.get(f"{url}/tasks/{task['id']}/stream") as response,
    ):
        yield Following(response)


async def test_a_client_that_leaves_leaves_nothing_behind(
    client: httpx2.AsyncClient, resources: Resources, url: str, task: Json
) -> None:
    hub = hub_of(resources)
    async with follow(url, task["id"]) as stream:
        await stream.next()
        assert (len(hub.readers), len(hub.feeds)) == (1, 1)

    async def nothing_left() -> bool:
        return not (hub.readers or hub.feeds or await fetch(resources, "SELECT 1 FROM stream_watches"))

    await until(nothing_left)
    # A write tells nobody; the next reader is told as the first one was.
    await post(client, task)
    async with follow(url, task["id"]) as stream:
        await stream.next()
        message = await post(client, task)
        assert await stream.next() == full(message)


async def test_an_idle_stream_holds_no_connection_of_the_pool(
    resources: Resources, url: str, task: Json
) -> None:
    pool = cast("QueuePool", resources.db.engine.pool)
    async with AsyncExitStack() as stack:
        for _ in range(30):
            stream = await stack.enter_async_context(follow(url, task["id"]))
            await stream.next()
        assert pool.checkedout() == 0


async def test_streams_end_at_once_when_the_process_stops(
    resources: Resources, url: str, task: Json, client: httpx2.AsyncClient
) -> None:
    async with follow(url, task["id"]) as stream:
        await stream.next()
        message = await post(client, task)
        assert await stream.next() == full(message)
        hub_of(resources).refuse()
        assert await stream.rest() == []
    answer = await client.get(f"/tasks/{task['id']}/stream")

    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")


async def test_a_fault_ends_the_streams_and_the_next_one_starts_anew(
    client: httpx2.AsyncClient,
    resources: Resources,
    url: str,
    task: Json,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    hub = hub_of(resources)
    async with follow(url, task["id"]) as stream:
        await stream.next()
        monkeypatch.setattr(hub, "_turn", _fails)
        await post(client, task)
        assert await stream.rest() == []
        monkeypatch.undo()
    async with follow(url, task["id"], last_event_id=stream.last_id) as again:
        assert texts(await again.some(2)) == ["hi"]
    assert "streams.failed" in {getattr(record, "action", None) for record in caplog.records}


async def _fails(*_: object) -> None:
    raise ZeroDivisionError


async def test_a_stream_that_opens_while_a_fault_ends_the_others_begins(
    resources: Resources, task: Json, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The listening connection of before is being closed still."""
    hub, stored = hub_of(resources), await read_task(resources, task)
    admission = Admission(Principal(), {}, resources.authz.authenticate)
    opened = list[asyncio.Task[Any]]()

    def come_again(_: object) -> None:
        opened.append(asyncio.create_task(open_stream(resources, admission, stored, None)))

    async def fail(*_: object) -> None:
        monkeypatch.undo()
        reading = asyncio.current_task()
        assert reading is not None
        reading.add_done_callback(come_again)
        raise ZeroDivisionError

    monkeypatch.setattr(hub, "_turn", fail)
    async with asyncio.timeout(5):
        with pytest.raises(Unavailable, match="had a fault"):
            # Whoever waited to be let in is told at once, too.
            await open_stream(resources, admission, stored, None)
        stream = await opened[0]

    assert stream is not None
    stream.close()


async def read_task(resources: Resources, task: Json) -> Task:
    async with resources.db.read() as session:
        return await tasks.find(session, CALLER, task["id"])


async def test_a_thousand_streams_of_one_process(
    client: httpx2.AsyncClient, resources: Resources, url: str, agent: Json
) -> None:
    """Ten tasks of a hundred readers each; every reader is told."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 4_096:
        pytest.skip(f"this system lets a process have {hard} files open; the test needs 4,096")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 4_096), hard))
    tasks = [await create_task(client, agent) for _ in range(10)]
    began = time.monotonic()
    async with AsyncExitStack() as stack:
        pairs = [(task, follow(url, task["id"])) for task in tasks for _ in range(100)]
        streams = [(task, await stack.enter_async_context(opened)) for task, opened in pairs]
        for task, stream in streams:
            assert await stream.next() == connected(task)
        made = {task["id"]: await post(client, task) for task in tasks}
        for task, stream in streams:
            assert await stream.next() == full(made[task["id"]])
        assert len(hub_of(resources).readers) == 1_000
    assert time.monotonic() - began < 60


async def test_a_write_looks_for_watchers_by_an_index(resources: Resources, task: Json) -> None:
    await fetch(
        resources,
        "INSERT INTO stream_watches SELECT gen_random_uuid(), n % 4 FROM generate_series(1, 2000) n",
    )
    await fetch(resources, "ANALYZE stream_watches")
    async with resources.db.begin() as session:
        await insert(session, task, "x")
        [scans] = await rows(
            session,
            """
            SELECT pg_stat_get_xact_numscans('stream_watches'::regclass) AS whole,
                pg_stat_get_xact_numscans('pk_stream_watches'::regclass) AS indexed
            """,
        )
    assert dict(scans) == {"whole": 0, "indexed": 1}


async def test_nobody_is_told_of_a_task_that_nobody_watches(
    client: httpx2.AsyncClient,
    resources: Resources,
    url: str,
    agent: Json,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    task = await create_task(client, agent)
    told: list[str] = []
    hub = hub_of(resources)
    monkeypatch.setattr(hub, "on_told", told.append)
    other = await create_task(client, agent)
    async with follow(url, task["id"]) as stream:
        await stream.next()
        await post(client, other)
        message = await post(client, task)
        await change(resources, message["id"], "again")
        await until(lambda: len(told) == 2)
    assert told == [task["id"]] * 2
