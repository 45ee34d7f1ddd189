"""AcpClient.stream against a scripted agent: updates as they come, and what a break means."""

import asyncio
import json

import pytest
from pydantic import TypeAdapter

from agentex.acp.accumulate import Accumulator
from agentex.acp.client import AcpClient
from agentex.acp.messages import (
    AcpCall,
    Author,
    DeltaUpdate,
    DoneUpdate,
    FullUpdate,
    JsonObject,
    StartUpdate,
    StreamUpdate,
    TextContent,
    TextDelta,
)
from agentex.errors import (
    AgentCallFailed,
    AgentError,
    AgentMethodUnknown,
    AgentProtocolError,
    AgentRejected,
    AgentUnreachable,
    OutcomeUnknown,
)
from tests.support.acp_calls import INPUT_TEXT, message_call, within
from tests.support.acp_replies import Reply
from tests.support.acp_server import AcpServer

UPDATES: TypeAdapter[list[StreamUpdate]] = TypeAdapter(list[StreamUpdate])
TWO_WORDS = [
    StartUpdate(index=0, content=TextContent(author=Author.AGENT, content="")),
    DeltaUpdate(index=0, delta=TextDelta(text_delta="word0 ")),
    DeltaUpdate(index=0, delta=TextDelta(text_delta="word1 ")),
    DoneUpdate(index=0),
]
HELLO = FullUpdate(index=0, content=TextContent(author=Author.AGENT, content="Hello"))


async def read(client: AcpClient, call: AcpCall, into: list[StreamUpdate]) -> None:
    async with client.stream(call) as updates:
        async for update in updates:
            into.append(update)  # noqa: PERF401 - what came before a break must be in the list


async def broken(
    client: AcpClient, server: AcpServer, reply: Reply, seconds: float = 5
) -> tuple[type[AgentCallFailed], list[StreamUpdate]]:
    """How a stream with this reply fails, and what was read before; it must have been sent once."""
    server.script("message/send", [reply])
    got: list[StreamUpdate] = []
    with pytest.raises(AgentCallFailed) as caught:
        await read(client, within(message_call(server.url), seconds), got)
    assert INPUT_TEXT not in str(caught.value)
    assert len(server.requests) == 1
    return type(caught.value), got


async def answered(client: AcpClient, server: AcpServer, reply: Reply) -> list[StreamUpdate]:
    server.script("message/send", [reply])
    got: list[StreamUpdate] = []
    await read(client, message_call(server.url), got)
    return got


async def test_default_answer_is_one_full(client: AcpClient, server: AcpServer):
    assert await answered(client, server, Reply()) == [HELLO]


async def test_stream_asks_for_ndjson(client: AcpClient, server: AcpServer):
    await answered(client, server, Reply())
    assert server.requests[0].headers["accept"] == "application/x-ndjson, application/json"


async def test_deltas_come_one_by_one_and_the_connection_is_used_again(client: AcpClient, server: AcpServer):
    assert await answered(client, server, Reply(deltas=2)) == TWO_WORDS
    assert len(await answered(client, server, Reply(deltas=200))) == 202
    assert len(server.connections) == 1


async def test_update_is_there_before_the_stream_ends(client: AcpClient, server: AcpServer):
    server.script("message/send", [Reply(deltas=2, hang="in_stream")])
    async with client.stream(message_call(server.url)) as updates:
        assert await anext(updates) == TWO_WORDS[0]
        server.release()
        assert [update async for update in updates] == TWO_WORDS[1:]


async def test_clean_end_without_any_update_is_an_empty_answer(client: AcpClient, server: AcpServer):
    assert await answered(client, server, Reply(updates=[])) == []


@pytest.mark.parametrize("content_type", ["application/json", "application/x-ndjson"])
async def test_plain_json_answer_is_read_too(client: AcpClient, server: AcpServer, content_type: str):
    content: JsonObject = {"type": "text", "author": "agent", "content": "Hello"}
    assert await answered(client, server, Reply(result=[content], content_type=content_type)) == [HELLO]


async def test_plain_json_answer_may_span_lines(client: AcpClient, server: AcpServer):
    document = {"jsonrpc": "2.0", "id": "r-1", "result": {"type": "done", "index": 0}}
    body = json.dumps(document, indent=2)
    assert await answered(client, server, Reply(body=body)) == [DoneUpdate(index=0)]


async def test_blank_lines_and_a_missing_last_newline_are_fine(client: AcpClient, server: AcpServer):
    line = json.dumps({"jsonrpc": "2.0", "id": "r-1", "result": {"type": "done", "index": 1}})
    got = await answered(client, server, Reply(deltas=2, tail=f"\r\n\n{line}\r\n\n{line}"))
    assert got == [*TWO_WORDS, DoneUpdate(index=1), DoneUpdate(index=1)]


# What breaks it, and what was read before.


async def test_connection_cut_in_the_middle_is_outcome_unknown_and_keeps_the_partial_output(
    client: AcpClient, server: AcpServer
):
    kind, got = await broken(client, server, Reply(deltas=2, cut=True))
    accumulator = Accumulator()
    for update in got:
        accumulator.add(update)
    words = TextContent(author=Author.AGENT, content="word0 word1 ")
    assert (kind, accumulator.partial_contents()) == (OutcomeUnknown, [words])


async def test_connection_cut_before_the_first_update_is_outcome_unknown(
    client: AcpClient, server: AcpServer
):
    assert await broken(client, server, Reply(updates=[], cut=True)) == (OutcomeUnknown, [])


async def test_connection_cut_in_half_a_line_is_outcome_unknown(client: AcpClient, server: AcpServer):
    reply = Reply(deltas=2, tail='{"jsonrpc":"2.0","res', cut=True)
    assert await broken(client, server, reply) == (OutcomeUnknown, TWO_WORDS)


async def test_clean_end_in_half_a_line_is_outcome_unknown(client: AcpClient, server: AcpServer):
    reply = Reply(deltas=2, tail='{"jsonrpc":"2.0","res')
    assert await broken(client, server, reply) == (OutcomeUnknown, TWO_WORDS)


async def test_closed_before_any_answer_is_outcome_unknown(client: AcpClient, server: AcpServer):
    assert await broken(client, server, Reply(close="close")) == (OutcomeUnknown, [])


async def test_no_end_in_time_is_outcome_unknown(client: AcpClient, server: AcpServer):
    reply = Reply(deltas=2, hang="in_stream")
    assert await broken(client, server, reply, seconds=1) == (OutcomeUnknown, TWO_WORDS)
    await server.has_dropped()


async def test_garbage_line_is_agent_protocol_error(client: AcpClient, server: AcpServer):
    reply = Reply(deltas=2, tail="<html>the secret prompt</html>\n")
    assert await broken(client, server, reply) == (AgentProtocolError, TWO_WORDS)


async def test_unknown_delta_is_agent_protocol_error(client: AcpClient, server: AcpServer):
    unknown: JsonObject = {"type": "delta", "index": 0, "delta": {"type": "video", "video_delta": "x"}}
    assert await broken(client, server, Reply(updates=[unknown])) == (AgentProtocolError, [])


async def test_wrong_id_in_a_line_is_agent_protocol_error(client: AcpClient, server: AcpServer):
    assert await broken(client, server, Reply(deltas=2, answer_id="r-2")) == (AgentProtocolError, [])


async def test_stream_beyond_the_size_limit_is_agent_protocol_error(client: AcpClient, server: AcpServer):
    kind, got = await broken(client, server, Reply(deltas=5_000))
    assert (kind, got[:3]) == (AgentProtocolError, TWO_WORDS[:3])


async def test_line_without_end_beyond_the_size_limit_is_agent_protocol_error(
    client: AcpClient, server: AcpServer
):
    reply = Reply(tail='{"jsonrpc":"2.0","result":"' + "x" * 200_000)
    assert await broken(client, server, reply) == (AgentProtocolError, [])


@pytest.mark.parametrize(("code", "kind"), [(-32603, AgentError), (-32602, AgentRejected)])
async def test_error_line_means_the_same_before_and_behind_updates(
    client: AcpClient, server: AcpServer, code: int, kind: type[AgentCallFailed]
):
    assert await broken(client, server, Reply(deltas=2, error_code=code)) == (kind, TWO_WORDS)


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (Reply(status=429), AgentUnreachable),
        (Reply(status=500), AgentError),
        (Reply(status=404), AgentRejected),
        (Reply(error_code=-32601), AgentMethodUnknown),
        (Reply(status=307), AgentProtocolError),
        (Reply(body="<html></html>"), AgentProtocolError),
    ],
)
async def test_failures_before_the_stream_are_those_of_a_call(
    client: AcpClient, server: AcpServer, reply: Reply, kind: type[AgentCallFailed]
):
    assert await broken(client, server, reply) == (kind, [])


async def test_leaving_the_block_early_drops_the_connection(client: AcpClient, server: AcpServer):
    server.script("message/send", [Reply(deltas=2, hang="in_stream")])
    async with client.stream(message_call(server.url)) as updates:
        assert await anext(updates) == TWO_WORDS[0]
    await server.has_dropped()


async def test_cancelled_stream_stays_cancelled_and_drops_its_connection(
    client: AcpClient, server: AcpServer
):
    server.script("message/send", [Reply(deltas=2, hang="in_stream")])
    got: list[StreamUpdate] = []
    reading = asyncio.create_task(read(client, message_call(server.url), got))
    await server.is_hanging()
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    await server.has_dropped()
