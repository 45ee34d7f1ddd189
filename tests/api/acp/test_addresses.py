"""Where an agent is called: its registered address, with the hosts that this server is told to rewrite."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from agentex.acp.client import AcpClient, HttpAnswer
from agentex.acp.messages import AcpMethod
from agentex.errors import AgentCallFailed, AgentUnreachable
from agentex.settings import Settings
from tests.support.acp_calls import acp_call, message_call
from tests.support.acp_replies import Reply
from tests.support.acp_server import AcpServer

# RFC 2606: resolves nowhere, so whoever answers for it was called by another name.
HOST = "agents.invalid"


@pytest.fixture
async def rewriting() -> AsyncIterator[AcpClient]:
    async with AcpClient(Settings(agent_host_rewrites={HOST: "127.0.0.1"})) as opened:
        yield opened


def registered(server: AcpServer) -> str:
    """The server's address as an agent has it that is reached by another name from elsewhere."""
    return server.url.replace("127.0.0.1", HOST)


async def test_a_call_goes_to_the_rewritten_host(rewriting: AcpClient, server: AcpServer) -> None:
    assert await rewriting.call(acp_call(registered(server))) == {"status": "processing"}
    assert [request.method for request in server.requests] == [AcpMethod.EVENT_SEND]


async def test_a_stream_comes_from_the_rewritten_host(rewriting: AcpClient, server: AcpServer) -> None:
    async with rewriting.stream(message_call(registered(server))) as updates:
        assert [update.type async for update in updates] == ["full"]


async def test_health_is_asked_at_the_rewritten_host(rewriting: AcpClient, server: AcpServer) -> None:
    answer = await rewriting.health(registered(server), 5)
    assert answer == HttpAnswer(200, b'{"status": "healthy", "agent_id": null}')
    assert server.probes == 1


async def test_without_the_rewrite_the_name_is_what_is_called(client: AcpClient, server: AcpServer) -> None:
    with pytest.raises(AgentUnreachable) as caught:
        await client.call(acp_call(registered(server)))
    assert str(caught.value).endswith("its host name does not resolve")
    assert server.requests == []


async def test_a_failure_names_the_host_that_was_registered(rewriting: AcpClient) -> None:
    with pytest.raises(AgentUnreachable) as caught:
        await rewriting.health(f"http://{HOST}:9", 5)
    assert str(caught.value).startswith(f"agent {HOST}:9, GET /healthz: no connection: ")


@pytest.mark.parametrize(
    ("acp_url", "called"),
    [
        ("http://agents.invalid:8000", "http://127.0.0.1:8000"),
        ("https://AGENTS.invalid/a/b?q=1", "https://127.0.0.1/a/b?q=1"),
        ("http://user:pass@agents.invalid:8000/", "http://user:pass@127.0.0.1:8000/"),
        ("http://other.invalid:8000", "http://other.invalid:8000"),
        ("http://sub.agents.invalid:8000", "http://sub.agents.invalid:8000"),
    ],
)
def test_nothing_but_the_host_is_rewritten(rewriting: AcpClient, acp_url: str, called: str) -> None:
    assert str(rewriting.url(acp_url)) == called


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        (Reply(status=503, body="away"), HttpAnswer(503, b"away")),
        (Reply(status=302, headers={"location": "/elsewhere"}), HttpAnswer(302, b"")),
        (Reply(body="x" * 70_000), HttpAnswer(200, b"x" * 70_000)),
    ],
)
async def test_health_is_what_was_answered(
    client: AcpClient, server: AcpServer, reply: Reply, answer: HttpAnswer
) -> None:
    server.script("healthz", [reply])
    found = await client.health(server.url, 5)
    assert found.status == answer.status
    # A body is read until it is too large, in the pieces that it comes in.
    assert answer.body.startswith(found.body)
    assert len(found.body) >= min(len(answer.body), 65_536)


@pytest.mark.parametrize("reply", [Reply(hang="before"), Reply(close="reset"), Reply(raw="no HTTP\r\n\r\n")])
async def test_health_that_does_not_come_is_a_failed_call(
    client: AcpClient, server: AcpServer, reply: Reply
) -> None:
    server.script("healthz", [reply], repeat=True)
    with pytest.raises(AgentCallFailed) as caught:
        await client.health(server.url, 0.5)
    assert "GET /healthz" in str(caught.value)
