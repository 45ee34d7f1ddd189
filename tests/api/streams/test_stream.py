"""GET /tasks/{id}/stream, told by Postgres alone: which updates come, and what ends a stream."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest
from sqlmodel.ext.asyncio.session import AsyncSession

from agentex.resources import Resources
from tests.api.ledger.stage import fetch
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
from tests.support.api import UNKNOWN_ID, Json, create_task, problem
from tests.support.authz import ScriptedAuthz
from tests.support.sse import follow

DATA: Json = {"type": "data", "author": "agent", "data": {"part": 1}}
BEGUN: Json = {"type": "text", "author": "agent", "content": ""}


async def read(client: httpx2.AsyncClient, message: Json) -> Json:
    return (await client.get(f"/messages/{message['id']}")).json()


@pytest.mark.parametrize("by", ["id", "name"])
async def test_messages_come_as_they_are_made(
    client: httpx2.AsyncClient, url: str, task: Json, by: str
) -> None:
    path = task["id"] if by == "id" else f"/tasks/name/{task['name']}/stream"
    async with follow(url, path) as stream:
        first = await stream.next()
        made = [await post(client, task), await post(client, task, DATA)]

        assert first == connected(task)
        assert await stream.some(2) == [full(message) for message in made]
        assert stream.response.headers["content-type"] == "text/event-stream; charset=utf-8"


async def test_a_name_with_slashes_has_a_stream(client: httpx2.AsyncClient, url: str, agent: Json) -> None:
    task = await create_task(client, agent, name="a/stream/of/stream")
    async with follow(url, "/tasks/name/a/stream/of/stream/stream") as stream:
        assert await stream.next() == connected(task)


async def test_only_the_tasks_own_messages_come(
    client: httpx2.AsyncClient, url: str, agent: Json, task: Json
) -> None:
    other = await create_task(client, agent)
    async with follow(url, task["id"]) as stream, follow(url, other["id"]) as beside:
        assert [await stream.next(), await beside.next()] == [connected(task), connected(other)]
        theirs, ours = await post(client, other), await post(client, task)

        assert (await stream.next(), await beside.next()) == (full(ours), full(theirs))


@pytest.mark.parametrize(
    ("begun", "final", "pieces"),
    [("", "Hello", ["Hello"]), ("Hel", "Hello", ["lo"]), ("Hello", "Hello", [])],
)
async def test_a_text_that_grows_comes_in_pieces(
    client: httpx2.AsyncClient,
    resources: Resources,
    url: str,
    task: Json,
    begun: str,
    final: str,
    pieces: list[str],
) -> None:
    async with follow(url, task["id"]) as stream:
        await stream.next()
        message = await post(client, task, BEGUN | {"content": begun}, streaming_status="IN_PROGRESS")
        told = [await stream.next()]
        await change(resources, message["id"], final)
        told += await stream.some(len(pieces) + 1)

        now = await read(client, message)
        assert now["content"]["content"] == final
        assert told == [start(message), *[delta(now, piece) for piece in pieces], done(now)]


async def test_a_text_that_becomes_another_comes_whole(
    client: httpx2.AsyncClient, resources: Resources, url: str, task: Json
) -> None:
    async with follow(url, task["id"]) as stream:
        await stream.next()
        message = await post(client, task, BEGUN | {"content": "Hm"}, streaming_status="IN_PROGRESS")
        await stream.next()
        await change(resources, message["id"], "Hello")

        assert await stream.next() == full(await read(client, message))


async def test_who_came_after_a_messages_beginning_gets_it_whole(
    client: httpx2.AsyncClient, resources: Resources, url: str, task: Json
) -> None:
    async with follow(url, task["id"]) as early:
        await early.next()
        message = await post(client, task, BEGUN, streaming_status="IN_PROGRESS")
        await early.next()
        async with follow(url, task["id"]) as late:
            await late.next()
            await change(resources, message["id"], "Hello")
            now = await read(client, message)

            assert await late.next() == full(now)
            assert await early.some(2) == [delta(now, "Hello"), done(now)]


async def test_a_message_that_is_corrected_comes_again_and_one_that_stays_the_same_does_not(
    client: httpx2.AsyncClient, resources: Resources, url: str, task: Json
) -> None:
    async with follow(url, task["id"]) as stream:
        await stream.next()
        message = await post(client, task)
        await stream.next()
        await change(resources, message["id"], message["content"]["content"])
        await change(resources, message["id"], "corrected")

        assert texts([await stream.next()]) == ["corrected"]


async def test_a_change_of_the_task_comes_and_a_terminal_one_ends_the_stream(
    client: httpx2.AsyncClient, resources: Resources, url: str, task: Json
) -> None:
    async with follow(url, task["id"]) as stream:
        await stream.next()
        await fetch(resources, "UPDATE tasks SET updated_at = clock_timestamp()")
        await fetch(resources, """UPDATE tasks SET task_metadata = '{"mood": "good"}'""")
        changed = await stream.next()
        message = await post(client, task)
        closed = await close(client, task)

        assert (changed["type"], changed["task"]["task_metadata"]) == ("task_updated", {"mood": "good"})
        assert await stream.rest() == [full(message), {"type": "task_updated", "task": closed}]


async def test_what_was_being_written_is_done_before_the_stream_of_a_closed_task_ends(
    client: httpx2.AsyncClient, url: str, task: Json
) -> None:
    """Its agent was killed in the middle of it."""
    async with follow(url, task["id"]) as stream:
        message = await post(client, task, BEGUN, streaming_status="IN_PROGRESS")
        assert await stream.some(2) == [connected(task), start(message)]
        closed = await close(client, task)
        now, end = await read(client, message), {"type": "task_updated", "task": closed}

        assert await stream.rest() == [done(now), end]
    async with follow(url, task["id"]) as replayed:
        assert await replayed.rest() == [connected(task), full(now), end]
    assert now == {**message, "streaming_status": "DONE", "updated_at": now["updated_at"]}


@pytest.mark.parametrize("count", [0, 3, 450])
async def test_a_task_that_has_ended_is_told_from_its_start(
    client: httpx2.AsyncClient, resources: Resources, url: str, task: Json, count: int
) -> None:
    await fetch(
        resources,
        """
        INSERT INTO messages (id, account_id, task_id, content, created_at, updated_at)
        SELECT gen_random_uuid(), account_id, id,
            jsonb_build_object('type', 'text', 'author', 'agent', 'content', n::text),
            now() + n * interval '1 ms', now()
        FROM tasks, generate_series(1, :count) n
        """,
        count=count,
    )
    closed = await close(client, task)
    async with follow(url, task["id"]) as stream:
        told = await stream.rest()

    assert (told[0], told[-1]) == (connected(task), {"type": "task_updated", "task": closed})
    assert texts(told) == [str(number) for number in range(1, count + 1)]
    assert len(told) == count + 2


async def test_a_task_that_is_removed_ends_the_stream(resources: Resources, url: str, task: Json) -> None:
    async with follow(url, task["id"]) as stream:
        await stream.next()
        await fetch(resources, "DELETE FROM events")
        await fetch(resources, "DELETE FROM tasks")

        message = f"task {task['id']} does not exist any more"
        assert await stream.rest() == [{"type": "error", "message": message}]


@pytest.mark.parametrize(
    ("sql", "last"),
    [
        ("DELETE FROM tasks", "error"),
        ("UPDATE tasks SET status = 'CANCELED', updated_at = now()", "task_updated"),
    ],
)
async def test_a_task_that_goes_or_ends_while_leave_is_asked_ends_the_stream(
    resources: Resources, authz: ScriptedAuthz, url: str, task: Json, sql: str, last: str
) -> None:
    async def change_it(_: AsyncSession) -> None:
        authz.while_asked = None
        await fetch(resources, sql)

    authz.while_asked = change_it
    async with follow(url, task["id"]) as stream:
        assert [update["type"] for update in await stream.rest()] == ["connected", last]


@pytest.mark.parametrize(
    ("path", "what"),
    [
        (f"/tasks/{UNKNOWN_ID}/stream", f"task '{UNKNOWN_ID}' not found"),
        ("/tasks/no-id/stream", "task 'no-id' not found"),
        ("/tasks/name/nobody/stream", "task 'nobody' not found"),
    ],
)
async def test_an_unknown_task_has_no_stream(client: httpx2.AsyncClient, path: str, what: str) -> None:
    answer = await client.get(path)

    assert (answer.status_code, answer.json()) == (404, problem(path, 404, "not-found", what))


async def test_another_accounts_task_has_no_stream(client: httpx2.AsyncClient, task: Json) -> None:
    headers = {"x-test-account": "another"}
    paths = [f"/tasks/{by}/stream" for by in (task["id"], f"name/{task['name']}")]
    answers = [await client.get(path, headers=headers) for path in paths]

    assert [answer.status_code for answer in answers] == [404, 404]


BAD_IDS = [
    "x",
    "1:2",
    "1:2:3:4",
    "5:5:/",
    "-1:5:",
    "1:9223372036854775808:",
    "9:9:>9:9:~9.x",
    "5:5:" + "9" * 30_000,
]


@pytest.mark.parametrize("given", [*BAD_IDS, "1:9000000000000000000:"], ids=range(len(BAD_IDS) + 1))
async def test_an_id_that_no_stream_gave_is_refused(
    client: httpx2.AsyncClient, resources: Resources, task: Json, given: str
) -> None:
    hub = use_settings(resources)
    answer = await client.get(f"/tasks/{task['id']}/stream", headers={"last-event-id": given})

    what = f"Last-Event-ID: {given[:80]!r} is no id that this stream has given"
    assert (answer.status_code, answer.json()["message"][: len(what)]) == (422, what)
    assert not hub.readers


async def test_more_streams_than_a_process_may_have_are_refused(
    client: httpx2.AsyncClient, resources: Resources, url: str, task: Json
) -> None:
    use_settings(resources, streams_per_process=2)
    async with follow(url, task["id"]) as one:
        await one.next()
        async with follow(url, task["id"]) as two:
            await two.next()
            answer = await client.get(f"/tasks/{task['id']}/stream")

            assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
            assert "AGENTEX_STREAMS_PER_PROCESS" in answer.json()["message"]
        while (answer := await _asked(url, task)) == 503:
            pass
        assert answer == 200


async def _asked(url: str, task: Json) -> int:
    """The status of one more stream, which is left at once."""
    async with (
        httpx2.AsyncClient(base_url=url) as client,
        client.stream("GET", f"/tasks/{task['id']}/stream") as answer,
    ):
        return answer.status_code


async def test_what_was_begun_in_a_task_that_has_ended_is_told_as_begun(
    client: httpx2.AsyncClient, url: str, task: Json
) -> None:
    await close(client, task)
    message = await post(client, task, BEGUN, streaming_status="IN_PROGRESS")
    async with follow(url, task["id"]) as stream:
        told: list[Any] = await stream.rest()

    assert start(message) in told
