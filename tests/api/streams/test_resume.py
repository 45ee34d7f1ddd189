"""Nothing is lost and nothing doubled: late commits, updates, given instants, and Last-Event-ID."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Any

import httpx2
import pytest
from sqlmodel.ext.asyncio.session import AsyncSession

from agentex.database import rows
from agentex.resources import Resources
from agentex.streams.hub import Hub
from agentex.streams.reads import Position, Scan, scan
from agentex.streams.service import hub_of
from tests.api.ledger.stage import fetch
from tests.api.streams.conftest import change, close, connected, full, insert, post, texts, use_settings
from tests.support.api import TEXT, Json, create_task
from tests.support.sse import Following, follow, until

BEGUN: Json = {"type": "text", "author": "agent", "content": ""}


async def test_a_transaction_that_commits_late_is_not_passed_over(
    client: httpx2.AsyncClient, resources: Resources, url: str, task: Json
) -> None:
    async with follow(url, task["id"]) as stream:
        await stream.next()
        async with resources.db.begin() as late:
            await insert(late, task, "first written")
            await post(client, task, TEXT | {"content": "first committed"})
            told = [await stream.next()]
        told.append(await stream.next())

    assert texts(told) == ["first committed", "first written"]


async def test_who_has_got_the_end_of_a_task_is_told_not_to_come_again(
    client: httpx2.AsyncClient, url: str, task: Json
) -> None:
    """A browser connects again by itself behind each end, until it gets 204."""
    async with follow(url, task["id"]) as stream:
        await stream.next()
        first = stream.last_id
        closed = await close(client, task)
        assert await stream.rest() == [{"type": "task_updated", "task": closed}]
    async with follow(url, task["id"], last_event_id=first) as replayed:
        assert (await replayed.rest())[1:] == [{"type": "task_updated", "task": closed}]

    answers = [
        await client.get(path, headers={"last-event-id": last_id or ""})
        for path in (f"/tasks/{task['id']}/stream", "/tasks/name/talk/stream")
        for last_id in (stream.last_id, replayed.last_id)
    ]

    told = [(answer.status_code, answer.content, answer.headers["cache-control"]) for answer in answers]
    assert told == [(204, b"", "no-store")] * 4
    # What is added behind the end is news.
    await post(client, task)
    async with follow(url, task["id"], last_event_id=stream.last_id) as again:
        assert texts(await again.rest()) == ["hi"]
        assert again.last_id != stream.last_id


async def test_what_was_written_before_the_watch_and_committed_after_it_comes(
    resources: Resources, url: str, task: Json
) -> None:
    async with resources.db.begin() as early:
        await insert(early, task, "written unseen")
        async with resources.db.begin() as other:
            # One that ends later, in another task: it must not be waited for.
            await rows(other, "SELECT pg_current_xact_id()")
            stream_opened = follow(url, task["id"])
            stream = await stream_opened.__aenter__()
            assert await stream.next() == connected(task)
            await early.commit()
            assert texts([await stream.next()]) == ["written unseen"]
    await stream_opened.__aexit__(None, None, None)


async def test_what_commits_while_a_new_feed_is_being_read_comes(
    client: httpx2.AsyncClient,
    resources: Resources,
    url: str,
    task: Json,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its scan does not see it, and its NOTIFY comes before there is a feed."""
    hub, told = hub_of(resources), asyncio.Event()
    tell, made = hub.on_told, list[Json]()

    def note(payload: str) -> None:
        tell(payload)
        told.set()

    async def scan_and_write(session: AsyncSession, positions: Sequence[Position], **how: Any) -> Scan:
        found = await scan(session, positions, **how)
        if not made:
            made.append(await post(client, task))
            await told.wait()
        return found

    monkeypatch.setattr(hub, "on_told", note)
    monkeypatch.setattr("agentex.streams.hub.scan", scan_and_write)
    async with follow(url, task["id"]) as stream:
        assert await stream.some(2) == [connected(task), full(made[0])]


async def test_instants_that_callers_give_hide_nothing(
    client: httpx2.AsyncClient, url: str, task: Json
) -> None:
    async with follow(url, task["id"]) as stream:
        await stream.next()
        made = [await post(client, task, created_at=f"{year}-01-01T00:00:00Z") for year in (2030, 2001, 2015)]
        assert await stream.some(3) == [full(message) for message in made]


async def stay(url: str, task: Json, count: int) -> list[str]:
    """Follow a stream for so many updates; returns the ids that it gave."""
    async with follow(url, task["id"]) as stream:
        ids: list[str] = []
        for _ in range(count):
            await stream.next()
            assert stream.last_id is not None
            ids.append(stream.last_id)
    return ids


async def test_each_updates_id_goes_on_behind_it(
    client: httpx2.AsyncClient, resources: Resources, url: str, task: Json
) -> None:
    """Three messages of one transaction, one by itself, then two more while nobody is there."""
    following = asyncio.create_task(stay(url, task, 5))
    hub = hub_of(resources)
    await until(lambda: bool(hub.feeds))
    async with resources.db.begin() as session:
        for number in range(3):
            await insert(session, task, f"m{number}", at=f"now() + interval '{number} ms'")
    await post(client, task, TEXT | {"content": "m3"})
    ids = await following
    corrected = await post(client, task, TEXT | {"content": "m4"})
    await change(resources, corrected["id"], "m4 corrected")
    await post(client, task, TEXT | {"content": "m5"})

    expected = ["m0", "m1", "m2", "m3", "m4 corrected", "m5"]
    for number, identity in enumerate(ids):
        async with follow(url, task["id"], last_event_id=identity) as stream:
            left = expected[number:]
            first = await stream.next()
            assert (first, texts(await stream.some(len(left)))) == (connected(task), left), number
            # And it goes on live from there.
            message = await post(client, task, TEXT | {"content": "live"})
            assert await stream.next() == full(message)
            await fetch(resources, "DELETE FROM messages WHERE content ->> 'content' = 'live'")


async def test_many_missed_messages_come_in_pages_and_a_cut_in_the_middle_goes_on(
    client: httpx2.AsyncClient, resources: Resources, url: str, task: Json
) -> None:
    [begin] = await stay(url, task, 1)
    await fetch(
        resources,
        """
        INSERT INTO messages (id, account_id, task_id, content, created_at, updated_at)
        SELECT gen_random_uuid(), account_id, id,
            jsonb_build_object('type', 'text', 'author', 'agent', 'content', n::text),
            now() + n * interval '1 ms', now()
        FROM tasks, generate_series(0, 999) n
        """,
    )
    got: list[str] = []
    identity: str | None = begin
    for count in (150, 250, 400, 200):
        async with follow(url, task["id"], last_event_id=identity) as stream:
            await stream.next()
            got += texts(await stream.some(count))
            identity = stream.last_id
    closed = await close(client, task)
    async with follow(url, task["id"], last_event_id=identity) as stream:
        rest = await stream.rest()

    assert got == [str(number) for number in range(1_000)]
    assert rest == [connected(task), {"type": "task_updated", "task": closed}]


async def test_a_message_begun_before_the_cut_ends_whole_behind_it(
    client: httpx2.AsyncClient, resources: Resources, url: str, task: Json
) -> None:
    async with follow(url, task["id"]) as stream:
        await stream.next()
        message = await post(client, task, BEGUN, streaming_status="IN_PROGRESS")
        await stream.next()
    async with follow(url, task["id"], last_event_id=stream.last_id) as stream:
        await stream.next()
        await change(resources, message["id"], "Hello")

        assert texts([await stream.next()]) == ["Hello"]


@pytest.mark.parametrize("streams", [1, 3])
async def test_writers_at_once_lose_and_double_nothing(
    client: httpx2.AsyncClient, resources: Resources, url: str, task: Json, streams: int
) -> None:
    """Transactions that overlap and end in any order, beside readers that come, go and come again."""
    chance = random.Random(7)  # noqa: S311 - the same course each time

    async def write(writer: int) -> None:
        for number in range(20):
            async with resources.db.begin() as session:
                await insert(session, task, f"{writer}-{number}-a")
                await asyncio.sleep(chance.random() * 0.02)
                await insert(session, task, f"{writer}-{number}-b")

    async def read() -> list[str]:
        got: list[str] = []
        identity: str | None = None
        while len(got) < 6 * 40:
            async with follow(url, task["id"], last_event_id=identity) as stream:
                assert await stream.next() == connected(task)
                ready.release()
                for _ in range(min(chance.randrange(20, 90), 6 * 40 - len(got))):
                    got += texts([await stream.next()])
                identity = stream.last_id
        return got

    ready = asyncio.Semaphore(0)
    readers = [asyncio.create_task(read()) for _ in range(streams)]
    for _ in readers:
        await ready.acquire()
    await asyncio.gather(*[write(writer) for writer in range(6)])

    every = sorted(
        f"{writer}-{number}-{letter}" for writer in range(6) for number in range(20) for letter in "ab"
    )
    for reader in readers:
        got = await reader
        assert sorted(got) == every
        # Each writer's word in the order in which it was given.
        for writer in range(6):
            said = [text for text in got if text.startswith(f"{writer}-")]
            assert said == [f"{writer}-{number}-{letter}" for number in range(20) for letter in "ab"]


async def _until_watched(resources: Resources, hub: Hub) -> None:
    async def watched() -> bool:
        sql = "SELECT 1 FROM stream_watches WHERE listener = :listener"
        return hub.listener is not None and bool(await fetch(resources, sql, listener=hub.listener))

    await until(watched)


async def test_a_listening_connection_that_is_cut_loses_nothing(
    client: httpx2.AsyncClient, resources: Resources, url: str, task: Json
) -> None:
    hub = hub_of(resources)
    async with follow(url, task["id"]) as stream:
        await stream.next()
        for number in range(3):
            first = hub.listener
            await fetch(resources, "SELECT pg_terminate_backend(:listener)", listener=first)
            message = await post(client, task, TEXT | {"content": f"cut {number}"})
            assert await stream.next() == full(message)
            await _until_watched(resources, hub)
            assert hub.listener != first


async def test_watches_that_are_lost_with_an_unlogged_table_are_put_in_again(
    client: httpx2.AsyncClient, resources: Resources, url: str, task: Json
) -> None:
    """As after a crash of Postgres: the table is empty and the connection is gone."""
    hub = hub_of(resources)
    async with follow(url, task["id"]) as stream:
        await stream.next()
        await fetch(resources, "TRUNCATE stream_watches")
        await fetch(resources, "SELECT pg_terminate_backend(:listener)", listener=hub.listener)
        await post(client, task)
        await stream.next()
        await _until_watched(resources, hub)
        live = await post(client, task)
        assert await stream.next() == full(live)


async def test_two_processes_tell_the_same_and_go_on_for_each_other(
    client: httpx2.AsyncClient, resources: Resources, url: str, agent: Json
) -> None:
    """Each hub stands for a process; a stream that was cut at one goes on at the other."""
    task = await create_task(client, agent)
    first = hub_of(resources)
    async with follow(url, task["id"]) as one:
        await one.next()
        second = use_settings(resources)
        async with follow(url, task["id"]) as two:
            await two.next()
            message = await post(client, task)
            assert await one.next() == await two.next() == full(message)
            await _goes_on(client, url, task, one)
    assert (len(first.feeds), len(second.feeds)) <= (1, 1)
    await first.aclose()


async def _goes_on(client: httpx2.AsyncClient, url: str, task: Json, one: Following) -> None:
    identity = one.last_id
    missed = await post(client, task)
    async with follow(url, task["id"], last_event_id=identity) as stream:
        assert await stream.some(2) == [connected(task), full(missed)]
