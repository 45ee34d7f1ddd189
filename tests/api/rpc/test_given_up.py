"""A task that is given up while a sync agent answers: the answer is broken off, what came is kept."""

from __future__ import annotations

from collections.abc import Callable

import httpx2
import pytest

from agentex.resources import Resources
from tests.api.conftest import shared_app
from tests.api.ledger.stage import fetch
from tests.support.acp_replies import Reply
from tests.support.acp_server import AcpServer
from tests.support.api import TEXT, Json, rpc, rpc_error
from tests.support.asgi import Connection
from tests.support.messages import only_task, said, word

Connect = Callable[..., Connection]
HALF = Reply(updates=[word("ha"), word("lf")], hang="in_stream")
KEPT = [("user", "hi", "DONE"), ("agent", "half", "DONE")]


@pytest.fixture
def connect(client: httpx2.AsyncClient, sync_agent: Json) -> Connect:
    """A message/send over a connection that can end."""

    def connected(*, stream: bool) -> Connection:
        request = {"method": "message/send", "params": {"content": TEXT, "stream": stream}, "id": 7}
        return Connection(shared_app(), f"/agents/{sync_agent['id']}/rpc", request, None)

    return connected


def given_up(task: Json) -> Json:
    return rpc_error(
        -32603,
        "The task was interrupted or closed while the agent answered; what came until then is kept. "
        f"(task {task['id']} keeps what came)",
    )


async def interrupt(client: httpx2.AsyncClient, agent: Json, task: Json) -> None:
    answer = await rpc(client, agent, "task/interrupt", {"task_id": task["id"]})
    assert answer["result"]["status"] == "INTERRUPTED"


async def close(client: httpx2.AsyncClient, agent: Json, task: Json) -> None:
    assert (await client.post(f"/tasks/{task['id']}/cancel")).status_code == 200


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize("give_up", [interrupt, close])
async def test_an_answer_is_broken_off(
    client: httpx2.AsyncClient,
    sync_agent: Json,
    connect: Connect,
    acp_server: AcpServer,
    give_up: Callable[..., object],
    *,
    stream: bool,
) -> None:
    acp_server.script("message/send", [HALF])
    async with connect(stream=stream) as connection:
        await acp_server.is_hanging()
        if stream:
            for _ in range(3):
                await connection.line()
        task = await only_task(client)

        await give_up(client, sync_agent, task)  # pyright: ignore[reportGeneralTypeIssues]

        assert await connection.rest() == [given_up(task)]
    assert await said(client, task["id"]) == KEPT


async def test_an_answer_that_has_not_begun_is_broken_off(
    client: httpx2.AsyncClient, sync_agent: Json, connect: Connect, acp_server: AcpServer
) -> None:
    acp_server.script("message/send", [Reply(hang="before")])
    async with connect(stream=False) as connection:
        await acp_server.is_hanging()
        task = await only_task(client)

        await interrupt(client, sync_agent, task)

        assert await connection.rest() == [given_up(task)]
    assert await said(client, task["id"]) == KEPT[:1]


async def test_a_task_that_its_agent_completes_is_answered_to_the_end(
    client: httpx2.AsyncClient, connect: Connect, acp_server: AcpServer
) -> None:
    acp_server.script("message/send", [HALF])
    async with connect(stream=False) as connection:
        await acp_server.is_hanging()
        task = await only_task(client)
        assert (await client.post(f"/tasks/{task['id']}/complete")).status_code == 200
        acp_server.release()

        (answer,) = await connection.rest()
    assert [message["content"]["content"] for message in answer["result"]] == ["half"]


async def test_a_notice_that_went_past_is_made_good_by_the_claims_renewal(
    client: httpx2.AsyncClient, connect: Connect, acp_server: AcpServer, resources: Resources
) -> None:
    resources.settings = resources.settings.model_copy(update={"claim_seconds": 0.3})
    acp_server.script("message/send", [HALF])
    async with connect(stream=False) as connection:
        await acp_server.is_hanging()
        task = await only_task(client)
        await fetch(resources, "UPDATE tasks SET status = 'CANCELED'")

        assert await connection.rest() == [given_up(task)]


async def test_a_sync_agent_that_knows_no_interrupt_is_interrupted_all_the_same(
    client: httpx2.AsyncClient, sync_agent: Json, acp_server: AcpServer
) -> None:
    acp_server.script("task/interrupt", [Reply(error_code=-32601)])
    answer = await rpc(client, sync_agent, "task/create", {})

    await interrupt(client, sync_agent, answer["result"])

    assert acp_server.counts["task/interrupt"] == 1


async def test_a_message_that_the_agent_left_undone_is_done_at_the_end_of_its_answer(
    connect: Connect, acp_server: AcpServer
) -> None:
    acp_server.script("message/send", [Reply(updates=[word("ha"), word("lf")])])
    async with connect(stream=True) as connection:
        lines = await connection.rest()

    assert [line["result"]["type"] for line in lines] == ["start", "delta", "delta", "done"]
    done = lines[-1]["result"]["parent_task_message"]
    assert (done["content"]["content"], done["streaming_status"]) == ("half", "DONE")
