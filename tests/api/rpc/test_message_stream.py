"""message/send answered line by line, and clients that go away."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import httpx2
import pytest
from sqlalchemy.exc import OperationalError

from agentex.resources import Resources
from agentex.rpc import sends
from agentex.rpc.answers import BROKEN_OFF
from tests.api.conftest import shared_app
from tests.api.rpc.conftest import Send
from tests.support.acp_replies import Reply, text_deltas
from tests.support.acp_server import AcpServer
from tests.support.api import TEXT, WHOLE_TEXT, Json, create_task, rpc, rpc_error
from tests.support.asgi import Connection
from tests.support.messages import only_task, said, stored, text, update, word

Connect = Callable[..., Connection]


@pytest.fixture
def connect(client: httpx2.AsyncClient, sync_agent: Json) -> Connect:
    """A message/send over a connection that can end; a stream unless it is to be whole."""

    def connected(
        *, headers: dict[str, str] | None = None, stream: bool = True, **params: object
    ) -> Connection:
        request = {
            "jsonrpc": "2.0",
            "method": "message/send",
            "params": {"content": TEXT, "stream": stream, **params},
            "id": 7,
        }
        return Connection(shared_app(), f"/agents/{sync_agent['id']}/rpc", request, headers)

    return connected


def line(kind: str, parent: Json | None, index: int = 0, **fields: object) -> Json:
    """A whole line that carries an update."""
    found: Json = {"type": kind, "index": index, "parent_task_message": parent, **fields}
    return {"jsonrpc": "2.0", "result": found, "error": None, "id": 7}


async def test_words_arrive_while_the_agent_goes_on_and_belong_to_a_stored_message(
    client: httpx2.AsyncClient, connect: Connect, acp_server: AcpServer
) -> None:
    acp_server.script("message/send", [Reply(updates=text_deltas(2)[:-1], hang="in_stream")])

    async with connect() as connection:
        lines = [await connection.line() for _ in range(3)]
        task = await only_task(client)
        user, message = await stored(client, task["id"])
        acp_server.release()
        rest = await connection.rest()

    assert (connection.status, connection.headers["content-type"]) == (200, "application/x-ndjson")
    assert (user["content"], message["streaming_status"], message["content"]) == (
        WHOLE_TEXT,
        "IN_PROGRESS",
        text(""),
    )
    words = [{"type": "text", "text_delta": f"word{number} "} for number in range(2)]
    assert lines == [
        line("start", message, content=text("")),
        *[line("delta", message, delta=delta) for delta in words],
    ]
    # The agent has left the end out.
    _, done = await stored(client, task["id"])
    assert (rest, done["content"], done["streaming_status"]) == (
        [line("done", done)],
        text("word0 word1 "),
        "DONE",
    )


async def test_done_carries_the_message_as_it_is_kept(
    client: httpx2.AsyncClient, connect: Connect, acp_server: AcpServer
) -> None:
    acp_server.script("message/send", [Reply(deltas=2)])

    async with connect() as connection:
        lines = await connection.rest()

    _, message = await stored(client, (await only_task(client))["id"])
    assert lines[-1] == line("done", message)
    assert (message["streaming_status"], message["content"]) == ("DONE", text("word0 word1 "))


async def test_a_plain_answer_is_one_full_line(client: httpx2.AsyncClient, connect: Connect) -> None:
    async with connect() as connection:
        lines = await connection.rest()

    _, message = await stored(client, (await only_task(client))["id"])
    assert lines == [line("full", message, content=text("Hello"))]


async def test_an_answer_that_begins_with_a_delta_gets_its_start(
    client: httpx2.AsyncClient, connect: Connect, acp_server: AcpServer
) -> None:
    updates = [update("delta", None), word("a", None), word("b", None)]
    acp_server.script("message/send", [Reply(updates=updates)])

    async with connect() as connection:
        lines = await connection.rest()

    kinds = [(one["result"]["type"], one["result"]["index"]) for one in lines]
    assert kinds == [("delta", 0), ("start", 0), ("delta", 0), ("delta", 0), ("done", 0)]
    assert [one["result"]["parent_task_message"] is None for one in lines] == [True, *[False] * 4]
    assert await said(client, (await only_task(client))["id"]) == [
        ("user", "hi", "DONE"),
        ("agent", "ab", "DONE"),
    ]


async def test_messages_that_take_turns_are_kept_each_in_one_row(
    client: httpx2.AsyncClient, connect: Connect, acp_server: AcpServer
) -> None:
    updates = [
        update("start", 0, content=text("")),
        update("full", 1, content=text("tool")),
        word("a", 0),
        update("start", 2, content=text("c")),
        update("done", 0),
        update("full", 2, content=text("whole")),
    ]
    acp_server.script("message/send", [Reply(updates=updates)])

    async with connect() as connection:
        lines = await connection.rest()

    parents = {one["result"]["index"]: one["result"]["parent_task_message"]["id"] for one in lines}
    kept = await stored(client, (await only_task(client))["id"])
    assert [one["id"] for one in kept[1:]] == [parents[index] for index in range(3)]
    assert [one["content"] for one in kept[1:]] == [text("a"), text("tool"), text("whole")]
    assert {one["streaming_status"] for one in kept} == {"DONE"}


FAULTS: dict[str, tuple[Reply, str]] = {
    "error": (Reply(updates=[word("wo"), word("rd")], error_code=-32603), "answered error -32603: scripted"),
    "cut": (Reply(updates=[word("wo"), word("rd")], cut=True), "the connection was lost"),
    "garbage": (Reply(updates=[word("wo"), word("rd")], tail="oops\n"), "is not JSON"),
    "half a line": (Reply(updates=[word("wo"), word("rd")], tail='{"a'), "in the middle of a line"),
}


@pytest.mark.parametrize("name", FAULTS)
async def test_what_came_before_a_fault_has_arrived_and_is_kept_and_an_error_is_the_last_line(
    client: httpx2.AsyncClient, connect: Connect, acp_server: AcpServer, name: str
) -> None:
    reply, message = FAULTS[name]
    acp_server.script("message/send", [reply])

    async with connect() as connection:
        lines = await connection.rest()

    task = await only_task(client)
    assert [one["result"]["type"] for one in lines[:-1]] == ["start", "delta", "delta"]
    assert lines[-1] == rpc_error(-32603, lines[-1]["error"]["message"])
    assert message in lines[-1]["error"]["message"]
    assert await said(client, task["id"]) == [("user", "hi", "DONE"), ("agent", "word", "DONE")]
    assert task["status"] == "RUNNING"


async def test_an_error_before_the_agent_is_called_is_one_line_too(
    client: httpx2.AsyncClient, connect: Connect, sync_agent: Json
) -> None:
    task = await create_task(client, sync_agent)
    await client.post(f"/tasks/{task['id']}/complete")

    async with connect(task_id=task["id"]) as connection:
        lines = await connection.rest()

    message = f"task {task['id']} is COMPLETED; only a task that is RUNNING or INTERRUPTED takes messages"
    assert (connection.headers["content-type"], lines) == (
        "application/x-ndjson",
        [rpc_error(-32603, message)],
    )


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize("how", ["close", "stop"])
async def test_a_request_that_ends_before_its_answer_drops_the_agent_and_keeps_what_came(
    client: httpx2.AsyncClient,
    connect: Connect,
    resources: Resources,
    acp_server: AcpServer,
    how: str,
    stream: bool,
) -> None:
    acp_server.script("message/send", [Reply(updates=[word("wo"), word("rd")], hang="in_stream")])

    async with connect(stream=stream) as connection:
        await acp_server.is_hanging()
        if stream:
            assert [(await connection.line())["result"]["type"] for _ in range(3)] == [
                "start",
                "delta",
                "delta",
            ]
        getattr(connection, how)()
        await connection.ended()
        await acp_server.has_dropped()
    await resources.settle_background()

    kept = await said(client, (await only_task(client))["id"])
    # Taken whole, the answer's words may not have been read yet.
    assert kept[:1] == [("user", "hi", "DONE")]
    assert kept[1:] == [("agent", "word", "DONE")] or (not stream and kept[1:] == [])
    repeat = await repeated(connect, stream=stream)
    assert repeat == [rpc_error(-32603, BROKEN_OFF)]
    assert dict(acp_server.counts) == {"message/send": 1}


@pytest.mark.parametrize("how", ["close", "stop"])
async def test_a_request_that_ends_while_a_message_is_being_written_leaves_no_second_one_and_none_open(
    client: httpx2.AsyncClient,
    connect: Connect,
    resources: Resources,
    acp_server: AcpServer,
    monkeypatch: pytest.MonkeyPatch,
    how: str,
) -> None:
    written, add = asyncio.Event(), sends.add_message

    async def add_and_hang(*given: object) -> object:
        await add(*given)  # pyright: ignore[reportArgumentType]
        written.set()
        return await asyncio.Event().wait()

    acp_server.script("message/send", [Reply(updates=[word("word")], hang="in_stream")])
    monkeypatch.setattr(sends, "add_message", add_and_hang)
    async with connect() as connection:
        await written.wait()
        getattr(connection, how)()
        await connection.ended()
    await resources.settle_background()

    assert await said(client, (await only_task(client))["id"]) == [
        ("user", "hi", "DONE"),
        ("agent", "word", "DONE"),
    ]


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
async def test_a_request_that_ends_while_its_end_is_being_written_has_the_end_that_it_had(
    client: httpx2.AsyncClient,
    connect: Connect,
    resources: Resources,
    acp_server: AcpServer,
    monkeypatch: pytest.MonkeyPatch,
    stream: bool,
) -> None:
    begun, end = asyncio.Event(), sends.end_send

    async def hang_once(*given: object) -> object:
        if begun.is_set():
            return await end(*given)  # pyright: ignore[reportArgumentType]
        begun.set()
        return await asyncio.Event().wait()

    monkeypatch.setattr(sends, "end_send", hang_once)
    async with connect(stream=stream) as connection:
        await begun.wait()
        connection.close()
        await connection.ended()
    await resources.settle_background()

    assert await said(client, (await only_task(client))["id"]) == [
        ("user", "hi", "DONE"),
        ("agent", "Hello", "DONE"),
    ]
    [line_] = await repeated(connect, stream=stream)
    assert (line_["error"], dict(acp_server.counts)) == (None, {"message/send": 1})


async def repeated(connect: Connect, **params: object) -> list[Json]:
    """What a silent repeat of the request gets."""
    async with connect(headers={"x-stainless-retry-count": "1"}, **params) as connection:
        return await connection.rest()


async def test_a_client_that_is_gone_before_the_agent_has_answered_drops_it(
    client: httpx2.AsyncClient, connect: Connect, resources: Resources, acp_server: AcpServer
) -> None:
    acp_server.script("message/send", [Reply(hang="before")])

    async with connect() as connection:
        await acp_server.is_hanging()
        connection.close()
        await acp_server.has_dropped()
    await resources.settle_background()

    assert await said(client, (await only_task(client))["id"]) == [("user", "hi", "DONE")]
    assert await repeated(connect) == [rpc_error(-32603, BROKEN_OFF)]


async def test_a_database_that_goes_away_in_the_stream_is_said_and_the_rows_are_ended_when_it_is_back(
    client: httpx2.AsyncClient,
    connect: Connect,
    acp_server: AcpServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    failures = iter([True, True])
    add, end = sends.add_message, sends.end_send

    async def away_once(*given: object) -> object:
        raise OperationalError("", None, OSError("refused"), connection_invalidated=True)

    async def end_later(*given: object) -> object:
        if next(failures, False):
            return await away_once()
        return await end(*given)  # pyright: ignore[reportArgumentType]

    acp_server.script("message/send", [Reply(updates=[word("word")])])
    with monkeypatch.context() as patch:
        patch.setattr(sends, "add_message", away_once)
        patch.setattr(sends, "end_send", end_later)
        async with connect() as connection:
            lines = await connection.rest()

    task = await only_task(client)
    message = (
        f"the database does not answer, so the answer was broken off (task {task['id']} keeps what came)"
    )
    assert lines == [rpc_error(-32603, message)]
    assert await said(client, task["id"]) == [("user", "hi", "DONE"), ("agent", "word", "DONE")]
    assert add is sends.add_message


async def test_a_fault_of_ours_in_the_stream_is_a_typed_error_and_the_rows_are_ended(
    client: httpx2.AsyncClient,
    connect: Connect,
    resources: Resources,
    acp_server: AcpServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def broken(*given: object) -> object:
        raise LookupError("a fault of ours")

    acp_server.script("message/send", [Reply(deltas=1)])
    with monkeypatch.context() as patch:
        patch.setattr(sends, "complete_message", broken)
        async with connect() as connection:
            lines = await connection.rest()
    await resources.settle_background()

    assert [one["result"]["type"] for one in lines[:-1]] == ["start", "delta"]
    assert lines[-1] == rpc_error(-32603, "Something went wrong on our side.")
    assert await said(client, (await only_task(client))["id"]) == [
        ("user", "hi", "DONE"),
        ("agent", "word0 ", "DONE"),
    ]


async def test_a_task_that_is_closed_meanwhile_keeps_the_answer(
    client: httpx2.AsyncClient, connect: Connect, acp_server: AcpServer
) -> None:
    acp_server.script("message/send", [Reply(updates=[word("word")], hang="in_stream")])

    async with connect() as connection:
        await connection.line()
        task = await only_task(client)
        closed = await client.post(f"/tasks/{task['id']}/cancel")
        acp_server.release()
        await connection.rest()

    assert closed.status_code == 200
    assert await said(client, task["id"]) == [("user", "hi", "DONE"), ("agent", "word", "DONE")]


async def test_different_messages_of_one_task_may_be_open_side_by_side(
    client: httpx2.AsyncClient, send: Send, sync_agent: Json, acp_server: AcpServer
) -> None:
    task = await create_task(client, sync_agent)
    acp_server.script("message/send", [Reply(hang="before")], repeat=True)
    asked = [asyncio.create_task(send(task_id=task["id"])) for _ in range(5)]
    await acp_server.is_hanging(5)
    acp_server.release()

    answers = [await one for one in asked]

    assert len({answer["result"][0]["id"] for answer in answers}) == 5
    assert len(await stored(client, task["id"])) == 10
    assert (await rpc(client, sync_agent, "task/interrupt", {"task_id": task["id"]}))["error"] is None
