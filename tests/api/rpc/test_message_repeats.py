"""message/send is sent once: what a repeat of the request gets, whatever has become of the first."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from uuid import UUID

import httpx2
import pytest

from agentex.app import create_app
from agentex.auth.authorize import AuthProvider
from agentex.database import rows
from agentex.errors import AgentUnreachable
from agentex.resources import Resources, open_resources
from agentex.rpc.sends import OUTCOME_UNKNOWN
from agentex.settings import Settings
from agentex.sweep.sweep import Sweep
from tests.api.rpc.conftest import Send
from tests.support.acp_replies import Reply
from tests.support.acp_server import AcpServer
from tests.support.api import TEXT, Json, rpc, rpc_error, rpc_problem
from tests.support.messages import only_task, said, stored, text, update, word

FIRST: dict[str, str] = {}
SILENT = {"x-stainless-retry-count": "1"}
KEYED = {"idempotency-key": "k1"}
# The headers of the first request, and of its repeat.
PAIRS = pytest.mark.parametrize(("first", "again_"), [(FIRST, SILENT), (KEYED, KEYED)], ids=["silent", "key"])

IN_TRANSACTION = """
    SELECT query FROM pg_stat_activity WHERE datname = current_database()
        AND pid <> pg_backend_pid() AND xact_start IS NOT NULL AND backend_type = 'client backend'
"""


@pytest.fixture
async def other(settings: Settings, authz: AuthProvider) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of another API process, in this one: it shares nothing but the database."""
    async with open_resources(settings, authz=authz) as opened:
        transport = httpx2.ASGITransport(app=create_app(settings, resources=opened))
        async with httpx2.AsyncClient(transport=transport, base_url="http://other.test") as client:
            yield client


@pytest.fixture(params=["the same process", "another process"])
def repeater(
    request: pytest.FixtureRequest, client: httpx2.AsyncClient, other: httpx2.AsyncClient
) -> httpx2.AsyncClient:
    """Where the repeat goes to."""
    return client if request.param == "the same process" else other


async def again(client: httpx2.AsyncClient, agent: Json, headers: dict[str, str], **params: object) -> Json:
    """The same message/send once more."""
    return await rpc(client, agent, "message/send", {"content": TEXT, **params}, headers=headers)


@PAIRS
async def test_what_was_answered_is_answered_again_and_not_sent(
    client: httpx2.AsyncClient,
    send: Send,
    sync_agent: Json,
    repeater: httpx2.AsyncClient,
    acp_server: AcpServer,
    first: dict[str, str],
    again_: dict[str, str],
) -> None:
    acp_server.script(
        "message/send",
        [Reply(updates=[update("full", 1, content=text("b")), update("full", 0, content=text("a"))])],
    )
    answer = await send(headers=first)

    repeat = await again(repeater, sync_agent, again_)

    assert (repeat, [one["content"] for one in answer["result"]]) == (answer, [text("a"), text("b")])
    assert dict(acp_server.counts) == {"message/send": 1}
    assert len(await stored(client, (await only_task(client))["id"])) == 3


@PAIRS
async def test_an_error_is_answered_again_and_nothing_sent(
    send: Send,
    sync_agent: Json,
    repeater: httpx2.AsyncClient,
    acp_server: AcpServer,
    first: Json,
    again_: Json,
) -> None:
    acp_server.script("message/send", [Reply(updates=[word("half")], cut=True)])
    answer = await send(headers=first)

    repeat = await again(repeater, sync_agent, again_)

    assert (repeat, answer["result"]) == (answer, None)
    assert dict(acp_server.counts) == {"message/send": 1}


@PAIRS
async def test_a_repeat_waits_for_an_answer_that_is_open_and_gets_it(
    client: httpx2.AsyncClient,
    send: Send,
    sync_agent: Json,
    repeater: httpx2.AsyncClient,
    resources: Resources,
    acp_server: AcpServer,
    first: Json,
    again_: Json,
) -> None:
    acp_server.script("message/send", [Reply(hang="before")])
    asked = asyncio.create_task(send(headers=first))
    await acp_server.is_hanging()

    waiting = asyncio.create_task(again(repeater, sync_agent, again_))
    await until_awaited(resources)
    # What is still in a transaction when the repeat has begun to wait is on its way to end it.
    while await rows(resources.db, IN_TRANSACTION):
        pass
    acp_server.release()

    assert await waiting == await asked
    assert dict(acp_server.counts) == {"message/send": 1}


async def until_awaited(resources: Resources) -> None:
    """Until a repeat waits for the end."""
    while not await rows(resources.db, "SELECT 1 FROM message_sends WHERE awaited"):
        pass


async def test_a_stream_is_repeated_as_full_messages(
    client: httpx2.AsyncClient, sync_agent: Json, acp_server: AcpServer
) -> None:
    acp_server.script("message/send", [Reply(deltas=2)])
    path = f"/agents/{sync_agent['id']}/rpc"
    request = {"method": "message/send", "params": {"content": TEXT, "stream": True}, "id": 7}
    first = await client.post(path, json=request)

    repeat = await client.post(path, json=request, headers=SILENT)

    _, message = await stored(client, (await only_task(client))["id"])
    found = {"type": "full", "index": 0, "parent_task_message": message, "content": message["content"]}
    assert repeat.json() == {"jsonrpc": "2.0", "result": found, "error": None, "id": 7}
    assert (first.text.count("\n"), repeat.headers["content-type"]) == (4, "application/x-ndjson")
    assert dict(acp_server.counts) == {"message/send": 1}


async def test_the_repeat_has_the_id_of_its_own_request(send: Send, client: httpx2.AsyncClient) -> None:
    await send(headers=KEYED)
    agent = (await client.get("/agents")).json()[0]
    request = {"jsonrpc": "2.0", "method": "message/send", "params": {"content": TEXT}, "id": 7}

    repeat = await client.post(f"/agents/{agent['id']}/rpc", json=request, headers=KEYED)

    assert (repeat.json()["id"], repeat.json()["error"]) == (7, None)


async def test_the_same_words_without_a_repeats_count_are_another_message(
    client: httpx2.AsyncClient, send: Send, acp_server: AcpServer
) -> None:
    first, second = await send(task_name="t1"), await send(task_name="t1")
    repeat = await send(task_name="t1", headers=SILENT)

    assert first["result"][0]["id"] != second["result"][0]["id"]
    assert (repeat, dict(acp_server.counts)) == (second, {"message/send": 2})


async def test_a_key_is_not_used_for_another_message(
    client: httpx2.AsyncClient, send: Send, acp_server: AcpServer
) -> None:
    await send(headers=KEYED)

    answer = await send(headers=KEYED, task_name="another")

    message = "Idempotency-Key: 'k1' was used with another body; use a new key"
    assert answer == rpc_error(-32602, message)
    assert dict(acp_server.counts) == {"message/send": 1}


async def test_ten_requests_at_once_under_one_key_are_one_message(
    client: httpx2.AsyncClient, send: Send, acp_server: AcpServer
) -> None:
    acp_server.script("message/send", [Reply(hang="before")], repeat=True)
    asked = [asyncio.create_task(send(headers=KEYED)) for _ in range(10)]
    await acp_server.is_hanging()
    acp_server.release()

    answers = await asyncio.gather(*asked)

    assert answers == [answers[0]] * 10
    assert (answers[0]["error"], dict(acp_server.counts)) == (None, {"message/send": 1})


async def test_a_repeat_after_the_task_was_closed_gets_the_first_answer(
    client: httpx2.AsyncClient, send: Send
) -> None:
    await send(task_name="t1")
    first = await send(task_name="t1")
    await client.post(f"/tasks/{(await only_task(client))['id']}/complete")

    assert await send(task_name="t1", headers=SILENT) == first


@PAIRS
async def test_what_the_agent_certainly_has_not_begun_is_sent_by_the_repeat(
    client: httpx2.AsyncClient, send: Send, acp_server: AcpServer, first: Json, again_: Json
) -> None:
    acp_server.script("message/send", [Reply(status=429)])
    refused = await send(headers=first)

    answers = [await send(headers=again_ | {"x-stainless-retry-count": count}) for count in ("1", "2")]

    ids = {str(request.id) for request in acp_server.requests}
    assert "answered HTTP 429" in refused["error"]["message"]
    assert (answers[0]["error"], answers[1], len(ids)) == (None, answers[0], 1)
    assert dict(acp_server.counts) == {"message/send": 2}
    task = await only_task(client)
    assert await said(client, task["id"]) == [("user", "hi", "DONE"), ("agent", "Hello", "DONE")]


async def test_an_unsent_message_whose_task_was_closed_since_is_not_sent(
    client: httpx2.AsyncClient, send: Send, resources: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(call: object) -> object:
        raise AgentUnreachable("refused the connection")

    with monkeypatch.context() as patch:
        patch.setattr(resources.acp, "stream", refuse)
        await send(headers=KEYED)
    task = await only_task(client)
    await client.post(f"/tasks/{task['id']}/complete")

    answer = await send(headers=KEYED)

    message = f"task {task['id']} is COMPLETED; only a task that is RUNNING or INTERRUPTED takes messages"
    assert answer == rpc_error(-32603, message)


@pytest.fixture
async def lost(send: Send, resources: Resources, acp_server: AcpServer) -> AsyncIterator[UUID]:
    """A message/send whose process has gone in the middle of the answer: the row is as that leaves it."""
    acp_server.script("message/send", [Reply(updates=[word("half")], hang="in_stream")])
    asked = asyncio.create_task(send(headers=KEYED, stream=False))
    await acp_server.is_hanging()
    [row] = await rows(resources.db, "SELECT id, task_id FROM message_sends")
    message_id = UUID("00000000-0000-4000-8000-000000000001")
    await rows(
        resources.db,
        """
        WITH message AS (
            INSERT INTO messages (id, account_id, task_id, content, streaming_status, created_at, updated_at)
            SELECT :message_id, account_id, task_id, '{"type": "text", "author": "agent", "content": "ha"}',
                'IN_PROGRESS', now(), now()
            FROM message_sends
        )
        UPDATE message_sends SET claimed_until = now() - interval '5 seconds',
            message_ids = ARRAY[CAST(:message_id AS uuid)]
        """,
        message_id=message_id,
    )
    yield row["task_id"]
    acp_server.release()
    await asked


@pytest.mark.parametrize("by", ["repeat", "sweep"])
async def test_what_a_lost_process_has_left_open_is_ended_as_unknown(
    client: httpx2.AsyncClient,
    send: Send,
    resources: Resources,
    acp_server: AcpServer,
    lost: UUID,
    monkeypatch: pytest.MonkeyPatch,
    by: str,
) -> None:
    if by == "sweep":
        sweep = Sweep(resources)
        monkeypatch.setattr(sweep, "_grace_seconds", 0)
        for _ in range(2):
            await sweep.sweep_once()
        await sweep.close()
        assert [status for _, _, status in await said(client, str(lost))] == ["DONE", "DONE"]

    answer = await send(headers=KEYED, stream=False)

    assert answer == rpc_error(-32603, OUTCOME_UNKNOWN)
    assert [status for _, _, status in await said(client, str(lost))] == ["DONE", "DONE"]
    assert dict(acp_server.counts) == {"message/send": 1}


@pytest.mark.usefixtures("lost")
async def test_an_answer_that_comes_after_all_takes_the_place_of_the_unknown_outcome(
    send: Send, acp_server: AcpServer, resources: Resources
) -> None:
    unknown = await send(headers=KEYED, stream=False)
    acp_server.release()
    while not await rows(
        resources.db,
        "SELECT 1 FROM message_sends WHERE error IS NULL AND ended_at > now() - interval '1 hour'",
    ):
        pass

    known = await send(headers=KEYED, stream=False)

    assert (unknown["result"], known["error"]) == (None, None)
    assert [one["content"] for one in known["result"]] == [text("half")]


async def test_a_claim_is_renewed_while_the_answer_is_open(
    send: Send, resources: Resources, acp_server: AcpServer
) -> None:
    resources.settings = resources.settings.model_copy(update={"claim_seconds": 0.3})
    acp_server.script("message/send", [Reply(hang="before")])
    asked = asyncio.create_task(send())
    await acp_server.is_hanging()
    [opened] = await rows(resources.db, "SELECT claimed_until FROM message_sends")

    while (await rows(resources.db, "SELECT claimed_until FROM message_sends")) == [opened]:
        pass
    acp_server.release()

    assert (await asked)["error"] is None


async def test_messages_that_were_deleted_since_are_not_passed_over_in_silence(
    send: Send, resources: Resources
) -> None:
    await send(headers=KEYED)
    await rows(resources.db, "DELETE FROM messages WHERE content ->> 'author' = 'agent'")

    answer = await send(headers=KEYED)

    message = "the message was answered, and messages of the answer have been deleted since"
    assert answer == rpc_error(-32603, message)


async def test_a_message_that_went_with_its_task_is_not_sent_again(
    send: Send, resources: Resources, acp_server: AcpServer
) -> None:
    await send(headers=KEYED)
    await rows(resources.db, "DELETE FROM messages")
    await rows(resources.db, "DELETE FROM tasks")

    answer = await send(headers=KEYED)

    assert answer == rpc_error(-32603, "the message was sent, and has been deleted with its task since")
    assert dict(acp_server.counts) == {"message/send": 1}


async def test_a_key_that_is_too_long_is_422(client: httpx2.AsyncClient, sync_agent: Json) -> None:
    path = f"/agents/{sync_agent['id']}/rpc"
    request = {"method": "message/send", "params": {"content": TEXT}}

    answer = await client.post(path, json=request, headers={"idempotency-key": "k" * 256})

    message = "Idempotency-Key: takes 1 to 255 characters, not 256"
    assert answer.status_code == 422
    assert answer.json() == rpc_problem(path, 422, "invalid-input", message, rpc_code=-32602)
