"""Repeats of a request whose agent may not have been told: cut behind its commit, or still in flight."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, NoReturn

import httpx2
import pytest

from agentex.acp.messages import AcpCall
from agentex.errors import AgentUnreachable
from agentex.resources import Resources
from tests.support.acp_replies import Reply
from tests.support.acp_server import AcpServer
from tests.support.api import TEXT, Json, create_task, result, rpc, rpc_error

FIRST: dict[str, str] = {}
SILENT = {"x-stainless-retry-count": "1"}
KEYED = {"idempotency-key": "k1"}

# The same request once more, with these headers.
Ask = Callable[[dict[str, str]], Coroutine[Any, Any, Json]]
CutBeforeCall = Callable[[dict[str, str]], Awaitable[None]]


@pytest.fixture(params=["task/create", "event/send"])
def method(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def ask(client: httpx2.AsyncClient, agent: Json, acp_server: AcpServer, method: str) -> Ask:
    """A request of that method; the agent remembers none."""
    task = await create_task(client, agent, name="t1")
    acp_server.requests.clear()
    params = {"params": {"depth": 3}} if method == "task/create" else {"task_id": task["id"], "content": TEXT}

    async def asked(headers: dict[str, str]) -> Json:
        return await rpc(client, agent, method, params, headers=headers)

    return asked


async def cut(asked: asyncio.Task[Json]) -> None:
    """End a request as a killed process or a shutdown does."""
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked


@pytest.fixture
def cut_before_call(resources: Resources, ask: Ask) -> CutBeforeCall:
    """Makes the request and cuts it behind its commit, when the agent would be called."""

    async def asked_and_cut(headers: dict[str, str]) -> None:
        committed = asyncio.Event()

        async def call(call: AcpCall) -> NoReturn:
            committed.set()
            await asyncio.Event().wait()
            raise AssertionError("waits until it is canceled")

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(resources.acp, "call", call)
            asked = asyncio.create_task(ask(headers))
            await committed.wait()
            await cut(asked)

    return asked_and_cut


def sent(acp_server: AcpServer) -> list[tuple[Any, ...]]:
    """The requests that the agent got, in what a repeat must share."""
    return [
        (one.method, one.id, one.headers["idempotency-key"], one.params.get("event"))
        for one in acp_server.requests
    ]


@pytest.mark.parametrize("headers", [FIRST, KEYED], ids=["silent", "key"])
async def test_what_was_cut_before_the_call_is_told_by_the_repeat(
    ask: Ask, cut_before_call: CutBeforeCall, acp_server: AcpServer, method: str, headers: dict[str, str]
) -> None:
    await cut_before_call(headers)

    answers = [await ask(headers | {"x-stainless-retry-count": count}) for count in ("1", "2")]

    made = answers[0]["result"]
    key = f"{method.partition('/')[0]}:{made['id']}"
    event = made if method == "event/send" else None
    assert answers == [result(made)] * 2
    assert sent(acp_server) == [(method, key, key, event)]


async def test_what_was_cut_in_the_call_is_told_again_with_the_same_ids(
    ask: Ask, acp_server: AcpServer, method: str
) -> None:
    acp_server.script(method, [Reply(hang="before")])
    asked = asyncio.create_task(ask(FIRST))
    await acp_server.is_hanging()
    await cut(asked)

    answer = await ask(SILENT)

    first, again = sent(acp_server)
    assert (answer["error"], again) == (None, first)


async def test_a_repeat_that_overtakes_the_first_answer_tells_the_agent_too(
    ask: Ask, acp_server: AcpServer, method: str
) -> None:
    acp_server.script(method, [Reply(hang="before")])
    asked = asyncio.create_task(ask(FIRST))
    await acp_server.is_hanging()

    repeat = await ask(SILENT)
    acp_server.release()

    first, again = sent(acp_server)
    assert (await asked, again) == (repeat, first)


async def test_of_two_that_tell_the_agent_the_first_answer_is_remembered(
    ask: Ask, acp_server: AcpServer, method: str
) -> None:
    acp_server.script(method, [Reply(hang="before", status=500), Reply()])
    asked = asyncio.create_task(ask(KEYED))
    await acp_server.is_hanging()

    repeat = await ask(KEYED)
    acp_server.release()
    late = await asked
    third = await ask(KEYED)

    assert (late["result"], third) == (None, repeat)
    assert len(acp_server.requests) == 2


async def test_a_failure_of_the_repeat_is_what_the_next_one_gets(
    ask: Ask, cut_before_call: CutBeforeCall, acp_server: AcpServer, method: str
) -> None:
    await cut_before_call(KEYED)
    acp_server.script(method, [Reply(status=500)])

    answers = [await ask(KEYED) for _ in range(2)]

    host, key = acp_server.url.removeprefix("http://"), acp_server.requests[0].id
    failure = rpc_error(-32603, f"agent {host}, {method}: answered HTTP 500 ({key} is kept)")
    assert (answers, len(acp_server.requests)) == ([failure, failure], 1)


@pytest.mark.parametrize("headers", [SILENT, KEYED], ids=["silent", "key"])
async def test_an_agent_that_could_not_be_reached_is_told_by_the_repeat(
    ask: Ask,
    resources: Resources,
    acp_server: AcpServer,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    headers: dict[str, str],
) -> None:
    asked: list[str | None] = []

    async def refuse(call: AcpCall) -> NoReturn:
        asked.append(call.idempotency_key)
        raise AgentUnreachable("refused the connection")

    with monkeypatch.context() as patch:
        patch.setattr(resources.acp, "call", refuse)
        first = await ask(headers if headers is KEYED else FIRST)
    told = await ask(headers)
    key = sent(acp_server)[0][2]
    assert (first, asked) == (rpc_error(-32603, f"refused the connection ({key} is kept)"), [key])
    assert (told["error"], await ask({**headers, "x-stainless-retry-count": "2"})) == (None, told)
    assert len(acp_server.requests) == 1


async def test_an_untold_task_that_was_closed_since_is_told_to_nobody(
    client: httpx2.AsyncClient, ask: Ask, cut_before_call: CutBeforeCall, acp_server: AcpServer, method: str
) -> None:
    await cut_before_call(FIRST)
    task = (await client.get("/tasks")).json()[0]
    await client.post(f"/tasks/{task['id']}/cancel")

    answer = await ask(SILENT)

    message = f"task {task['id']} is CANCELED; only a task that is RUNNING or INTERRUPTED takes events"
    assert acp_server.requests == []
    if method == "event/send":
        assert answer == rpc_error(-32603, message)
    else:
        assert (answer["error"], answer["result"]["id"]) == (None, task["id"])
