"""Token deltas through Redis, beside what Postgres tells: each once, in order."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from uuid import uuid4

import httpx2
import pytest
from pydantic import SecretStr

from agentex.dev.redis import EmbeddedRedis
from agentex.resources import Resources
from agentex.streams.feed import HOLD_SECONDS
from agentex.streams.hub import Hub
from tests.api.streams.conftest import (
    change,
    close,
    connected,
    delta,
    done,
    full,
    post,
    start,
    texts,
    use_settings,
)
from tests.support.api import TEXT, Json, create_task
from tests.support.redis import StreamWriter, running_redis
from tests.support.sse import follow, until

BEGUN: Json = {"type": "text", "author": "agent", "content": ""}


@pytest.fixture(scope="session")
def redis() -> Iterator[EmbeddedRedis]:
    with running_redis() as started:
        yield started


@pytest.fixture
async def writer(redis: EmbeddedRedis) -> AsyncIterator[StreamWriter]:
    opened = StreamWriter(redis.url)
    yield opened
    await opened.aclose()


@pytest.fixture
def hub(resources: Resources, redis: EmbeddedRedis) -> Hub:
    return use_settings(resources, redis_url=SecretStr(redis.url))


async def read(client: httpx2.AsyncClient, message: Json) -> Json:
    return (await client.get(f"/messages/{message['id']}")).json()


class Speaker:
    """An agent that streams one message as its SDK does."""

    def __init__(
        self, client: httpx2.AsyncClient, resources: Resources, writer: StreamWriter, task: Json
    ) -> None:
        self._client, self._resources, self._writer, self.task = client, resources, writer, task
        self.message: Json = {}

    async def begin(self) -> None:
        self.message = await post(self._client, self.task, BEGUN, streaming_status="IN_PROGRESS")
        await self.write(start(self.message))

    async def say(self, text: str) -> None:
        await self.write(delta(self.message, text))

    async def write(self, update: Json) -> None:
        await self._writer.write(self.task["id"], update)

    async def end(self, text: str) -> Json:
        await self.write(done(self.message))
        await change(self._resources, self.message["id"], text)
        return await read(self._client, self.message)


@pytest.fixture
def speaker(
    client: httpx2.AsyncClient, resources: Resources, writer: StreamWriter, task: Json, hub: Hub
) -> Speaker:
    return Speaker(client, resources, writer, task)


async def test_deltas_come_one_by_one_and_everything_once(url: str, task: Json, speaker: Speaker) -> None:
    async with follow(url, task["id"]) as stream:
        first = await stream.next()
        await speaker.begin()
        told = [await stream.next()]
        for word in ("Hel", "lo ", "you"):
            await speaker.say(word)
            told.append(await stream.next())
        now = await speaker.end("Hello you")
        told.append(await stream.next())
        await speaker.begin()
        told.append(await stream.next())

    begun = {**now, "content": told[1 - 1]["content"], "streaming_status": "IN_PROGRESS"}
    pieces = [delta(told[0]["parent_task_message"], word) for word in ("Hel", "lo ", "you")]
    assert first == connected(task)
    assert told[0]["parent_task_message"] == begun | {
        "updated_at": told[0]["parent_task_message"]["updated_at"]
    }
    assert told[1:5] == [*pieces, done(now)]
    assert told[5] == start(speaker.message)


async def test_the_end_in_redis_waits_for_the_row_that_it_announces(
    client: httpx2.AsyncClient, resources: Resources, url: str, task: Json, speaker: Speaker
) -> None:
    """A reader of the agents' SDK reads the message as soon as `done` comes."""
    async with follow(url, task["id"]) as stream:
        await stream.next()
        await speaker.begin()
        await speaker.say("Hello")
        await stream.some(2)
        await speaker.write(done(speaker.message))
        ended = asyncio.create_task(stream.next())
        await asyncio.sleep(HOLD_SECONDS / 4)
        assert not ended.done()
        await change(resources, speaker.message["id"], "Hello")
        assert await ended == done(await read(client, speaker.message))


async def test_an_end_that_no_row_follows_comes_all_the_same(url: str, task: Json, speaker: Speaker) -> None:
    async with follow(url, task["id"]) as stream:
        await stream.next()
        await speaker.begin()
        await speaker.write(done(speaker.message))

        assert await stream.some(2) == [start(speaker.message), done(speaker.message)]


async def test_a_row_behind_an_end_that_did_not_wait_for_it_comes_whole_if_it_says_something_else(
    client: httpx2.AsyncClient, resources: Resources, url: str, task: Json, speaker: Speaker
) -> None:
    """The agent's request to us was slower than HOLD_SECONDS."""
    async with follow(url, task["id"]) as stream:
        await stream.next()
        await speaker.begin()
        await speaker.say("Hel")
        await speaker.write(done(speaker.message))
        await stream.some(3)
        await change(resources, speaker.message["id"], "Hello")
        late = await read(client, speaker.message)

        assert await stream.next() == full(late)


@pytest.mark.parametrize("by", ["done", "full"])
async def test_a_late_row_that_says_the_same_comes_no_more_but_its_next_change_does(
    client: httpx2.AsyncClient, resources: Resources, url: str, task: Json, speaker: Speaker, by: str
) -> None:
    async with follow(url, task["id"]) as stream:
        await stream.next()
        await speaker.begin()
        await speaker.say("Hello")
        whole = {**speaker.message, "content": speaker.message["content"] | {"content": "Hello"}}
        await speaker.write(done(speaker.message) if by == "done" else full(whole))
        await stream.some(3)
        await change(resources, speaker.message["id"], "Hello")
        message = await post(client, task)
        told = [await stream.next()]
        await change(resources, speaker.message["id"], "Hello again")
        changed = await read(client, speaker.message)
        told.append(await stream.next())

    assert told == [full(message), full(changed)]


async def test_deltas_that_redis_lost_come_with_the_end(
    client: httpx2.AsyncClient, resources: Resources, url: str, task: Json, speaker: Speaker
) -> None:
    async with follow(url, task["id"]) as stream:
        await stream.next()
        await speaker.begin()
        await speaker.say("Hel")
        told = await stream.some(2)
        now = await speaker.end("Hello")
        told += await stream.some(2)
        # Late, and told already.
        await speaker.say("lo")
        message = await post(client, task)
        told.append(await stream.next())

    assert told[2:] == [delta(now, "lo"), done(now), full(message)]


async def test_deltas_that_do_not_add_up_are_made_good_by_the_whole(
    url: str, task: Json, speaker: Speaker
) -> None:
    async with follow(url, task["id"]) as stream:
        await stream.next()
        await speaker.begin()
        await speaker.say("Help")
        await stream.some(2)

        assert full(await speaker.end("Hello")) == await stream.next()


async def test_a_whole_message_comes_once_whichever_tells_first(
    client: httpx2.AsyncClient, url: str, task: Json, speaker: Speaker
) -> None:
    async with follow(url, task["id"]) as stream:
        await stream.next()
        made: list[Json] = []
        for number in range(5):
            made.append(await post(client, task, TEXT | {"content": str(number)}))
            await speaker.write(full(made[-1]))
        told = await stream.some(5)
        await close(client, task)
        rest = await stream.rest()

    assert told == [full(message) for message in made]
    assert [update["type"] for update in rest] == ["task_updated"]


async def test_what_is_in_redis_alone_comes_a_little_later(url: str, task: Json, speaker: Speaker) -> None:
    message = {"id": str(uuid4()), "task_id": task["id"], "content": TEXT, "streaming_status": "IN_PROGRESS"}
    updates = [start(message), delta(message, "Hel"), delta(message, "lo"), done(message)]
    async with follow(url, task["id"]) as stream:
        await stream.next()
        began = time.monotonic()
        for update in updates:
            await speaker.write(update)
        told = await stream.some(4)

    assert told == updates
    assert time.monotonic() - began >= HOLD_SECONDS


async def test_who_comes_in_the_middle_gets_the_rest_and_then_the_whole(
    url: str, task: Json, speaker: Speaker
) -> None:
    await speaker.begin()
    await speaker.say("Hel")
    async with follow(url, task["id"]) as stream:
        await stream.next()
        await speaker.say("lo")
        told = [await stream.next()]
        now = await speaker.end("Hello")
        told.append(await stream.next())

    assert told == [delta(speaker.message, "lo"), full(now)]


async def test_a_reader_that_comes_again_gets_the_deltas_it_missed(
    url: str, task: Json, speaker: Speaker
) -> None:
    words = [f"{number} " for number in range(10)]
    got: list[str] = []
    async with follow(url, task["id"]) as stream:
        await stream.next()
        await speaker.begin()
        await speaker.say(words[0])
        await stream.some(2)
    for number in range(1, 10, 3):
        for word in words[number : number + 3]:
            await speaker.say(word)
        async with follow(url, task["id"], last_event_id=stream.last_id) as stream:
            assert await stream.next() == connected(task)
            got += [update["delta"]["text_delta"] for update in await stream.some(3)]
    async with follow(url, task["id"], last_event_id=stream.last_id) as stream:
        await stream.next()
        now = await speaker.end("".join(words))
        last = await stream.next()

    assert got == words[1:]
    assert last == full(now)


async def test_garbage_in_redis_is_passed_over(
    url: str, task: Json, writer: StreamWriter, speaker: Speaker
) -> None:
    garbage: list[str | bytes] = [
        "",
        "{",
        "[]",
        "null",
        '{"type": "what"}',
        '{"type": "full"}',
        b"\xff",
        "NaN",
    ]
    garbage += [
        '{"type": "delta", "parent_task_message": 7}',
        '{"type": "start", "content": {"type": "text"}}',
    ]
    async with follow(url, task["id"]) as stream:
        await stream.next()
        await speaker.begin()
        for data in garbage:
            await writer.raw(task["id"], data)
        await speaker.write(delta(speaker.message | {"task_id": str(uuid4())}, "of another task"))
        await speaker.say("Hello")

        assert await stream.some(2) == [start(speaker.message), delta(speaker.message, "Hello")]


async def test_a_new_stream_is_read_at_once_though_a_read_is_open(
    client: httpx2.AsyncClient,
    resources: Resources,
    writer: StreamWriter,
    url: str,
    agent: Json,
    task: Json,
    hub: Hub,
) -> None:
    """XREAD BLOCK was sent with the keys of before."""
    async with follow(url, task["id"]) as first:
        await first.next()
        for _ in range(3):
            other = await create_task(client, agent)
            speaker = Speaker(client, resources, writer, other)
            async with follow(url, other["id"]) as stream:
                await stream.next()
                await speaker.begin()
                await stream.next()
                began = time.monotonic()
                await speaker.say("at once")
                assert await stream.next() == delta(speaker.message, "at once")
                assert time.monotonic() - began < 0.5


async def test_without_leave_to_wake_it_new_streams_are_read_a_little_later(
    url: str,
    task: Json,
    writer: StreamWriter,
    redis: EmbeddedRedis,
    resources: Resources,
    client: httpx2.AsyncClient,
) -> None:
    await writer.command("ACL", "SETUSER", "reader", "on", ">secret", "~*", "+@all", "-client|unblock")
    use_settings(resources, redis_url=SecretStr(redis.url.replace("//", "//reader:secret@")))
    speaker = Speaker(client, resources, writer, task)
    async with follow(url, task["id"]) as stream:
        await stream.next()
        await speaker.begin()
        await speaker.say("Hello")

        assert await stream.some(2) == [start(speaker.message), delta(speaker.message, "Hello")]


async def test_redis_away_leaves_what_postgres_tells_and_comes_back(
    client: httpx2.AsyncClient, resources: Resources, url: str, task: Json
) -> None:
    with running_redis() as own:
        hub = use_settings(resources, redis_url=SecretStr(own.url))
        writer = StreamWriter(own.url)
        speaker = Speaker(client, resources, writer, task)
        async with follow(url, task["id"]) as stream:
            await stream.next()
            own.stop()
            message = await post(client, task)
            assert await stream.next() == full(message)
            own.start()
            assert hub.relay is not None
            await until(lambda: hub.relay is not None and hub.relay.is_up)
            await speaker.begin()
            await speaker.say("back")
            assert await stream.some(2) == [start(speaker.message), delta(speaker.message, "back")]
            now = await speaker.end("back")
            assert await stream.next() == done(now)
        await writer.aclose()
        await hub.aclose()


async def test_streams_begin_while_redis_is_away(
    client: httpx2.AsyncClient, resources: Resources, url: str, task: Json
) -> None:
    use_settings(resources, redis_url=SecretStr("redis://127.0.0.1:1/0"))
    async with follow(url, task["id"]) as stream:
        await stream.next()
        await post(client, task)
        assert texts([await stream.next()]) == ["hi"]
