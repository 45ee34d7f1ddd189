"""message/send through API processes that are killed and stopped: sent once, and never left open."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta

import aiohttp
import pytest

from agentex.dev.ports import free_port
from agentex.rpc.answers import BROKEN_OFF
from agentex.rpc.sends import OUTCOME_UNKNOWN
from tests.support.acp_replies import Reply
from tests.support.api import TEXT, Json, rpc_error
from tests.support.fault_agent import FaultAgent
from tests.support.fault_stack import Stack
from tests.support.messages import word
from tests.support.processes import ManagedProcess, agentex

SILENT = {"x-stainless-retry-count": "1"}
KEYED = {"idempotency-key": "k1"}
# A process that is killed holds its claims so long; what is settled later is settled by a grace of 4 s.
CLAIM_SECONDS = 3
HALF = Reply(updates=[word("ha"), word("lf")], hang="in_stream")


@dataclass(frozen=True)
class Api:
    """One API process."""

    process: ManagedProcess
    url: str


@asynccontextmanager
async def second_api(stack: Stack) -> AsyncGenerator[Api]:
    """Another API process on the same database."""
    url = f"http://127.0.0.1:{free_port()}"
    environment = stack.environment | {"AGENTEX_PORT": url.rpartition(":")[2]}
    with ManagedProcess(
        agentex("serve"), environment=environment, log=stack.directory / "api-2.log"
    ) as process:
        await asyncio.to_thread(process.wait_until_ready, f"{url}/healthz")
        yield Api(process, url)


@asynccontextmanager
async def asking(
    url: str, agent: FaultAgent, headers: dict[str, str], *, stream: bool
) -> AsyncGenerator[aiohttp.ClientResponse]:
    """A message/send whose answer is read by the caller."""
    request = {
        "jsonrpc": "2.0",
        "method": "message/send",
        "params": {"content": TEXT, "task_name": "t1", "stream": stream},
        "id": 7,
    }
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as session,
        session.post(f"{url}/agents/{agent.id}/rpc", json=request, headers=headers) as answer,
    ):
        yield answer


async def ask(url: str, agent: FaultAgent, headers: dict[str, str], *, stream: bool = False) -> list[Json]:
    """The lines of an answer."""
    async with asking(url, agent, headers, stream=stream) as answer:
        return [json.loads(line) async for line in answer.content]


async def statuses(stack: Stack) -> list[tuple[str, str | None]]:
    """Author and streaming status of all messages, oldest first."""
    found = await stack.sql(
        "SELECT content ->> 'author' AS author, streaming_status FROM messages ORDER BY created_at, id"
    )
    return [(row["author"], row["streaming_status"]) for row in found]


async def cut_in_the_middle(stack: Stack, agent: FaultAgent, headers: dict[str, str]) -> None:
    """Kill the API while it passes an answer on."""
    await agent.script("message/send", HALF, repeat=True)
    # A connection that a kill cuts ends in one error or another.
    with suppress(aiohttp.ClientError):
        async with asking(stack.url, agent, headers, stream=True) as answer:
            for _ in range(3):
                await answer.content.readline()
            assert await statuses(stack) == [("user", "DONE"), ("agent", "IN_PROGRESS")]
            await asyncio.to_thread(stack.api.kill)


@pytest.mark.timeout(90)
@pytest.mark.parametrize(("first", "again"), [({}, SILENT), (KEYED, KEYED)], ids=["silent", "key"])
async def test_a_repeat_after_a_kill_says_that_the_outcome_is_unknown_and_sends_nothing(
    make_stack: Callable[..., Stack], first: dict[str, str], again: dict[str, str]
) -> None:
    stack = make_stack(claim_seconds=CLAIM_SECONDS)
    stack.start_api()
    agent = await stack.start_agent("sync")
    await cut_in_the_middle(stack, agent, first)
    async with second_api(stack) as other:
        answers = [
            await ask(other.url, agent, {**again, "x-stainless-retry-count": count}, stream=True)
            for count in ("1", "2")
        ]
    assert answers == [[rpc_error(-32603, OUTCOME_UNKNOWN)]] * 2
    assert await statuses(stack) == [("user", "DONE"), ("agent", "DONE")]
    assert len(agent.requests("message/send")) == 1


@pytest.mark.timeout(90)
async def test_the_sweep_ends_what_a_killed_process_has_left_open(make_stack: Callable[..., Stack]) -> None:
    stack = make_stack(claim_seconds=CLAIM_SECONDS)
    stack.start()
    agent = await stack.start_agent("sync")
    await cut_in_the_middle(stack, agent, KEYED)

    async def ended() -> bool:
        return await statuses(stack) == [("user", "DONE"), ("agent", "DONE")]

    await stack.until(ended, "the messages' end")
    [row] = await stack.sql("SELECT error, ended_at IS NOT NULL AS ended FROM message_sends")
    assert (row["error"], row["ended"]) == (OUTCOME_UNKNOWN, True)
    assert len(agent.requests("message/send")) == 1


@pytest.mark.timeout(90)
async def test_a_repeat_at_another_process_waits_for_the_answer_of_the_first(
    make_stack: Callable[..., Stack],
) -> None:
    """For longer than a claim: it is renewed."""
    stack = make_stack(claim_seconds=1)
    stack.start_api()
    agent = await stack.start_agent("sync")
    await agent.script("message/send", Reply(hang="before"), repeat=True)
    async with second_api(stack) as other:
        first = asyncio.create_task(ask(stack.url, agent, KEYED))

        async def hangs() -> bool:
            return await agent.hanging() == 1

        await stack.until(hangs, "the answer open")
        began = await stack.now()
        repeat = asyncio.create_task(ask(other.url, agent, KEYED))

        async def renewed() -> bool:
            [row] = await stack.sql("SELECT claimed_until AS until FROM message_sends")
            return row["until"] > began + timedelta(seconds=7)

        await stack.until(renewed, "the claim's renewals")
        assert not repeat.done()
        await agent.release()
        assert await repeat == await first
    assert len(agent.requests("message/send")) == 1


@pytest.mark.timeout(90)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_sigterm_lets_an_open_answer_end(make_stack: Callable[..., Stack], stream: bool) -> None:
    stack = make_stack()
    stack.start_api()
    agent = await stack.start_agent("sync")
    await agent.script("message/send", HALF)
    asked = asyncio.create_task(ask(stack.url, agent, KEYED, stream=stream))

    async def hangs() -> bool:
        return await agent.hanging() == 1

    async def refuses() -> bool:
        try:
            await stack.call("GET", "/healthz")
        except aiohttp.ClientConnectionError:
            return True
        return False

    await stack.until(hangs, "the answer open")
    stack.api.send(signal.SIGTERM)
    await stack.until(refuses, "the end of listening")
    await agent.release()
    lines = await asked
    assert await asyncio.to_thread(stack.api.wait) == 0
    assert [line["error"] for line in lines] == [None] * (4 if stream else 1)
    assert await statuses(stack) == [("user", "DONE"), ("agent", "DONE")]


@pytest.mark.timeout(90)
async def test_a_drain_that_ends_keeps_what_came_and_says_so_to_a_repeat(
    make_stack: Callable[..., Stack],
) -> None:
    stack = make_stack(drain_seconds=1)
    stack.start_api()
    agent = await stack.start_agent("sync")
    await agent.script("message/send", HALF)
    async with asking(stack.url, agent, KEYED, stream=True) as answer:
        for _ in range(3):
            await answer.content.readline()
        assert await asyncio.to_thread(stack.api.terminate) == 0
        assert [json.loads(line) async for line in answer.content] == [rpc_error(-32603, BROKEN_OFF)]
    [kept] = await stack.sql(
        "SELECT content, streaming_status FROM messages WHERE content ->> 'author' = 'agent'"
    )
    stack.start_api()

    assert await ask(stack.url, agent, KEYED, stream=True) == [rpc_error(-32603, BROKEN_OFF)]
    assert (kept["content"]["content"], kept["streaming_status"]) == ("half", "DONE")
    assert len(agent.requests("message/send")) == 1


@pytest.mark.timeout(90)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
async def test_a_whole_answer_that_a_drain_cuts_is_a_json_rpc_error(
    make_stack: Callable[..., Stack], number: signal.Signals
) -> None:
    stack = make_stack(drain_seconds=1, interrupt_drain_seconds=1)
    stack.start_api()
    agent = await stack.start_agent("sync")
    await agent.script("message/send", HALF)
    asked = asyncio.create_task(ask(stack.url, agent, KEYED))

    async def hangs() -> bool:
        return await agent.hanging() == 1

    await stack.until(hangs, "the answer open")
    stack.api.send(number)
    assert await asked == [rpc_error(-32603, BROKEN_OFF)]
    assert await asyncio.to_thread(stack.api.wait) == 0
    assert await statuses(stack) == [("user", "DONE"), ("agent", "DONE")]
