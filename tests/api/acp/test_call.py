"""AcpClient.call against a scripted agent: each row of design.md §4, and that nothing is sent twice."""

import asyncio
import gzip
import socket
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

import pytest

from agentex.acp.client import AcpClient
from agentex.acp.messages import AcpMethod, JsonObject
from agentex.errors import (
    AgentCallFailed,
    AgentError,
    AgentMethodUnknown,
    AgentProtocolError,
    AgentRejected,
    AgentUnreachable,
    OutcomeUnknown,
)
from agentex.settings import Settings
from tests.support.acp_calls import INPUT_TEXT, PARAMS, acp_call, within
from tests.support.acp_replies import Reply
from tests.support.acp_server import AcpServer


async def failure(client: AcpClient, server: AcpServer, reply: Reply, seconds: float = 5) -> AgentCallFailed:
    """What a call ends with that gets this reply; it must have been sent once and quote no input."""
    server.script("event/send", [reply])
    with pytest.raises(AgentCallFailed) as caught:
        await client.call(within(acp_call(server.url), seconds))
    message = str(caught.value)
    assert message.startswith(f"agent {server.url.removeprefix('http://')}, event/send: ")
    assert INPUT_TEXT not in message
    assert len(server.requests) == 1
    return caught.value


@pytest.mark.parametrize(
    ("method", "result"),
    [
        (AcpMethod.TASK_CREATE, None),
        (AcpMethod.EVENT_SEND, {"status": "processing"}),
        (AcpMethod.TASK_CANCEL, {"status": "processing"}),
    ],
)
async def test_result_of_each_method(
    client: AcpClient, server: AcpServer, method: str, result: JsonObject | None
):
    assert await client.call(acp_call(server.url, method)) == result


async def test_request_arrives_as_json_rpc_with_our_headers(client: AcpClient, server: AcpServer):
    await client.call(acp_call(server.url))
    (request,) = server.requests
    assert (request.method, request.params, request.id) == ("event/send", PARAMS, "r-1")
    assert request.headers | {"host": "", "content-length": ""} == {
        "host": "",
        "content-length": "",
        "content-type": "application/json",
        "accept": "application/json",
        "accept-encoding": "gzip, deflate",
        "user-agent": "agentex",
        "x-request-id": "r-1",
        "idempotency-key": "k-1",
    }


async def test_request_larger_than_a_mebibyte_arrives_whole(client: AcpClient, server: AcpServer):
    params: JsonObject = {"content": "x" * 3_000_000}
    await client.call(replace(acp_call(server.url), params=params))
    assert [request.params for request in server.requests] == [params]


async def test_connection_is_used_again_after_an_answer_and_after_a_refusal(
    client: AcpClient, server: AcpServer
):
    server.script("event/send", [Reply(), Reply(status=500, body="{}"), Reply()])
    await client.call(acp_call(server.url))
    with pytest.raises(AgentError):
        await client.call(acp_call(server.url))
    await client.call(acp_call(server.url))
    assert (len(server.requests), len(server.connections)) == (3, 1)


async def test_cookies_of_one_agent_are_not_kept(client: AcpClient, server: AcpServer):
    server.script("event/send", [Reply(headers={"Set-Cookie": "a=1"})])
    await client.call(acp_call(server.url))
    await client.call(acp_call(server.url))
    assert "cookie" not in server.requests[1].headers


async def test_proxies_of_the_environment_are_not_used(
    client: AcpClient, server: AcpServer, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    await client.call(acp_call(server.url))
    assert len(server.requests) == 1


# Certainly not begun.


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port that takes no connection: its backlog is full, so a SYN gets no answer."""
    with closing(socket.socket()) as listener, closing(socket.socket()) as filler:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        filler.connect(listener.getsockname())
        yield listener.getsockname()[1]


async def unreachable(client: AcpClient, url: str) -> str:
    with pytest.raises(AgentUnreachable) as caught:
        await client.call(acp_call(url))
    assert caught.value.retry_after_seconds is None
    return str(caught.value)


async def test_refused_connection_is_unreachable(client: AcpClient):
    with closing(socket.socket()) as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        message = await unreachable(client, f"http://127.0.0.1:{port}")
    assert message.startswith(f"agent 127.0.0.1:{port}, event/send: no connection: ")


async def test_unknown_host_is_unreachable(client: AcpClient, monkeypatch: pytest.MonkeyPatch):
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    # A resolver without a network may take longer than the connect limit to say so.
    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    message = await unreachable(client, "http://agent.invalid:8000")
    assert message == "agent agent.invalid:8000, event/send: its host name does not resolve"


async def test_failed_tls_handshake_is_unreachable(client: AcpClient, server: AcpServer):
    message = await unreachable(client, server.url.replace("http:", "https:"))
    assert message.endswith("event/send: the TLS handshake failed")
    assert server.requests == []


async def test_connection_that_is_not_taken_within_the_connect_limit_is_unreachable(silent_port: int):
    async with AcpClient(Settings(agent_connect_timeout_seconds=0.3)) as hasty:
        message = await unreachable(hasty, f"http://127.0.0.1:{silent_port}")
    assert message.endswith("event/send: no connection within the time limit")


async def test_connecting_longer_than_the_whole_call_may_take_is_unreachable(silent_port: int):
    async with AcpClient(Settings(agent_connect_timeout_seconds=60)) as patient:
        with pytest.raises(AgentUnreachable):
            await patient.call(within(acp_call(f"http://127.0.0.1:{silent_port}"), 0.3))


async def test_address_that_is_none_is_unreachable(client: AcpClient):
    assert "not an http or https address" in await unreachable(client, "ftp://agent")


@pytest.mark.parametrize(
    ("status", "headers", "retry_after_seconds"),
    [
        (429, {}, None),
        (429, {"Retry-After": "7"}, 7.0),
        (429, {"Retry-After": "soon"}, None),
        (503, {"Retry-After": "7"}, 7.0),
        (503, {"Retry-After": "86400"}, 600.0),
        (503, {"Retry-After": "Thu, 01 Jan 2026 00:00:00 GMT"}, 0.0),
    ],
)
async def test_busy_agent_is_unreachable_with_its_retry_after(
    client: AcpClient,
    server: AcpServer,
    status: int,
    headers: dict[str, str],
    retry_after_seconds: float | None,
):
    error = await failure(client, server, Reply(status=status, headers=headers))
    assert isinstance(error, AgentUnreachable)
    assert error.retry_after_seconds == retry_after_seconds


# Answered with a failure.


@pytest.mark.parametrize(
    "reply",
    [
        Reply(status=500),
        Reply(status=502, body="<html>the secret prompt</html>", content_type="text/html"),
        Reply(status=503),
        Reply(status=503, headers={"Retry-After": "soon"}),
        Reply(status=408),
        Reply(error_code=-32603),
        Reply(error_code=-32000),
        Reply(error_code=-32099),
        Reply(error_code=-32700),
        Reply(error_code=7),
    ],
)
async def test_server_error_is_agent_error(client: AcpClient, server: AcpServer, reply: Reply):
    assert type(await failure(client, server, reply)) is AgentError


@pytest.mark.parametrize(
    "reply",
    [
        Reply(status=400),
        Reply(status=401),
        Reply(status=404),
        Reply(status=413),
        Reply(status=422),
        Reply(error_code=-32600),
        Reply(error_code=-32600, answer_id=None),
        Reply(error_code=-32601),
        Reply(error_code=-32602),
    ],
)
async def test_refusal_is_agent_rejected(client: AcpClient, server: AcpServer, reply: Reply):
    kind = AgentMethodUnknown if reply.error_code == -32601 else AgentRejected
    assert type(await failure(client, server, reply)) is kind


async def test_refusal_whose_body_is_cut_or_endless_keeps_its_meaning(client: AcpClient, server: AcpServer):
    raw = "HTTP/1.1 422 Nope\r\nContent-Length: 1000\r\n\r\nhalf"
    assert type(await failure(client, server, Reply(raw=raw))) is AgentRejected


async def test_agents_error_message_is_in_ours(client: AcpClient, server: AcpServer):
    error = await failure(client, server, Reply(error_code=-32602, error_message="no\r\nsuch task"))
    assert str(error).endswith("event/send: answered error -32602: no such task")


# Answered with something that is no ACP.


@pytest.mark.parametrize(
    ("reply", "what"),
    [
        (Reply(body="<html>the secret prompt</html>"), "(30 bytes) is not JSON"),
        (Reply(body=""), "(0 bytes) is not JSON"),
        (Reply(status=204), "(0 bytes) is not JSON"),
        (Reply(body='{"jsonrpc":"2.0","id":"r-1"}'), "neither result nor error"),
        (Reply(body='{"jsonrpc":"2.0","result":1}'), "id is missing"),
        (Reply(answer_id="r-2"), "id is missing or not"),
        (Reply(answer_id=None), "id is missing or not"),
        (Reply(answer_id="r-2", error_code=-32603), "id is missing or not"),
        (Reply(body_bytes=200_000), "larger than 100000 bytes"),
        (Reply(raw="SSH-2.0-OpenSSH_9.6\r\n"), "not HTTP"),
        (Reply(status=302, headers={"Location": "/api"}), "HTTP 302; redirects are not followed"),
        (Reply(status=307, headers={"Location": "/api"}), "HTTP 307; redirects are not followed"),
        (Reply(headers={"Content-Encoding": "gzip"}), "content encoding is broken"),
    ],
)
async def test_garbage_is_agent_protocol_error(client: AcpClient, server: AcpServer, reply: Reply, what: str):
    error = await failure(client, server, reply)
    assert (type(error), what in str(error)) == (AgentProtocolError, True), str(error)


async def test_small_gzip_body_that_unpacks_beyond_the_limit_is_refused(client: AcpClient, server: AcpServer):
    bomb = gzip.compress(b" " * 50_000_000)
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {len(bomb)}\r\n\r\n"
    error = await failure(client, server, Reply(raw=head + bomb.decode("latin-1")))
    assert (type(error), "larger than 100000 bytes" in str(error)) == (AgentProtocolError, True), str(error)


async def test_answer_may_be_as_large_as_the_limit_and_no_byte_larger(client: AcpClient, server: AcpServer):
    around = len('{"jsonrpc":"2.0","result":"","error":null,"id":"r-1"}\n')
    fits, too_large = Reply(body_bytes=100_000 - around), Reply(body_bytes=100_001 - around)
    server.script("event/send", [fits, too_large])
    assert await client.call(acp_call(server.url)) == "x" * fits.body_bytes
    with pytest.raises(AgentProtocolError):
        await client.call(acp_call(server.url))


async def test_gzip_answer_within_the_limit_is_read(client: AcpClient, server: AcpServer):
    body = gzip.compress(b'{"jsonrpc":"2.0","id":"r-1","result":{"padding":"' + b"x" * 50_000 + b'"}}')
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {len(body)}\r\n\r\n"
    server.script("event/send", [Reply(raw=head + body.decode("latin-1"))])
    assert await client.call(acp_call(server.url)) == {"padding": "x" * 50_000}


# Written, and no answer.


@pytest.mark.parametrize(
    "reply",
    [
        Reply(close="close"),
        Reply(close="reset"),
        Reply(raw="HTTP/1.1 200 OK\r\nContent-Le"),
        Reply(raw="HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{"),
        Reply(raw="HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{"),
    ],
    ids=["close", "reset", "half a head", "half a body", "half a chunk"],
)
async def test_connection_lost_before_the_answer_was_complete_is_outcome_unknown(
    client: AcpClient, server: AcpServer, reply: Reply
):
    assert type(await failure(client, server, reply)) is OutcomeUnknown


async def test_keep_alive_connection_closed_as_the_request_arrives_is_not_sent_again(
    client: AcpClient, server: AcpServer
):
    server.script("event/send", [Reply(), Reply(close="close"), Reply()])
    await client.call(acp_call(server.url))
    with pytest.raises(OutcomeUnknown):
        await client.call(acp_call(server.url))
    assert (len(server.requests), len(server.connections)) == (2, 1)


async def test_no_answer_in_time_is_outcome_unknown(client: AcpClient, server: AcpServer):
    error = await failure(client, server, Reply(hang="before"), seconds=1)
    assert (type(error), str(error).endswith("no complete answer within 1 s")) == (OutcomeUnknown, True)
    await server.has_dropped()


async def test_connection_lost_while_the_request_is_written_is_outcome_unknown(client: AcpClient):
    async def read_a_little(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(1000)
        writer.transport.abort()

    listener = await asyncio.start_server(read_a_little, "127.0.0.1", 0)
    async with listener:
        url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
        with pytest.raises(OutcomeUnknown):
            await client.call(replace(acp_call(url), params={"content": "x" * 30_000_000}))


async def test_cancelled_call_stays_cancelled_and_drops_its_connection(client: AcpClient, server: AcpServer):
    server.script("event/send", [Reply(hang="before")])
    calling = asyncio.create_task(client.call(acp_call(server.url)))
    await server.arrived(1)
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling
    await server.has_dropped()
    assert len(server.requests) == 1


async def test_client_closed_while_a_call_waits_ends_it_as_outcome_unknown(server: AcpServer):
    client = AcpClient(Settings())
    server.script("event/send", [Reply(hang="before")])
    calling = asyncio.create_task(client.call(acp_call(server.url)))
    await server.arrived(1)
    await client.aclose()
    with pytest.raises(OutcomeUnknown):
        await calling


async def test_many_calls_at_once_have_no_limit_in_the_client(client: AcpClient, server: AcpServer):
    server.script("event/send", [Reply(hang="before")], repeat=True)
    calls = [asyncio.create_task(client.call(acp_call(server.url))) for _ in range(150)]
    await server.arrived(150)
    server.release()
    assert await asyncio.gather(*calls) == [{"status": "processing"}] * 150
