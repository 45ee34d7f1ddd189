"""Streams over several API processes: written at one, read at another; killed, frozen, without Postgres."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from agentex.dev.ports import free_port
from tests.support.api import TEXT
from tests.support.fault_stack import Stack
from tests.support.postgres import PostgresServer
from tests.support.processes import ManagedProcess, agentex
from tests.support.sse import Following, follow, until

pytestmark = pytest.mark.timeout(120)
Json = dict[str, Any]


@asynccontextmanager
async def second_api(stack: Stack) -> AsyncGenerator[tuple[ManagedProcess, str]]:
    """One more API process of the same installation, and where it listens."""
    port = free_port()
    process = ManagedProcess(
        agentex("serve"),
        environment=stack.environment | {"AGENTEX_PORT": str(port)},
        log=stack.directory / "api-2.log",
    )
    with process:
        await asyncio.to_thread(process.wait_until_ready, f"http://127.0.0.1:{port}/healthz")
        yield process, f"http://127.0.0.1:{port}"


async def new_task(stack: Stack) -> str:
    """A task of an agent that is told of it."""
    agent = await stack.start_agent("async")
    body = {"method": "task/create", "params": {"name": agent.name}}
    answer = await stack.ok("POST", f"/agents/{agent.id}/rpc", body)
    return answer["result"]["id"]


async def say(stack: Stack, task_id: str, text: str) -> None:
    """A message, through the first API."""
    await stack.ok("POST", "/messages", {"task_id": task_id, "content": TEXT | {"content": text}})


async def heard(stream: Following, count: int) -> list[str]:
    """What the next messages say."""
    return [update["content"]["content"] for update in await stream.some(count)]


async def test_written_at_one_process_and_read_at_another(make_stack: Callable[..., Stack]) -> None:
    stack = make_stack()
    stack.start_api()
    task_id = await new_task(stack)
    async with second_api(stack) as (_, other), follow(other, task_id) as stream:
        await stream.next()
        for number in range(20):
            await say(stack, task_id, str(number))
        closed = await stack.ok("POST", f"/tasks/{task_id}/complete")

        assert await heard(stream, 20) == [str(number) for number in range(20)]
        assert await stream.rest() == [{"type": "task_updated", "task": closed}]


async def test_a_killed_process_readers_go_on_at_another(make_stack: Callable[..., Stack]) -> None:
    stack = make_stack()
    stack.start_api()
    task_id = await new_task(stack)
    async with second_api(stack) as (process, other):
        async with follow(other, task_id) as stream:
            await stream.next()
            await say(stack, task_id, "before")
            assert await heard(stream, 1) == ["before"]
            process.kill()
            await say(stack, task_id, "meanwhile")
        async with follow(stack.url, task_id, last_event_id=stream.last_id) as again:
            await again.next()
            await say(stack, task_id, "after")
            assert await heard(again, 2) == ["meanwhile", "after"]
            # What the killed one watched is forgotten as soon as another listens.
            assert [row["n"] for row in await stack.sql("SELECT count(*) AS n FROM stream_watches")] == [1]


async def test_a_stopped_process_ends_its_streams_at_once(make_stack: Callable[..., Stack]) -> None:
    """uvicorn would wait for them up to 65 s."""
    stack = make_stack()
    stack.start_api()
    task_id = await new_task(stack)
    async with second_api(stack) as (process, other), follow(other, task_id) as stream:
        await stream.next()
        began = time.monotonic()
        code = await asyncio.to_thread(process.terminate)
        assert await stream.rest() == []

    assert (code, time.monotonic() - began < 15, "Traceback" in process.output()) == (0, True, False)


async def test_postgres_restarted_while_watching_loses_and_doubles_nothing(
    stack_on_own_postgres: Callable[..., Stack], own_postgres: PostgresServer
) -> None:
    stack = stack_on_own_postgres()
    stack.start_api()
    task_id = await new_task(stack)
    async with second_api(stack) as (_, other), follow(other, task_id) as stream:
        await stream.next()
        await say(stack, task_id, "before")
        own_postgres.postgres.stop()
        own_postgres.postgres.start()
        await _until_said(stack, task_id, "after")
        await say(stack, task_id, "later")

        assert await heard(stream, 3) == ["before", "after", "later"]


async def _until_said(stack: Stack, task_id: str, text: str) -> None:
    """Say it once, as soon as Postgres takes it."""
    body = {"task_id": task_id, "content": TEXT | {"content": text}}

    async def said() -> bool:
        return (await stack.call("POST", "/messages", body)).status == 200

    await until(said)


async def test_a_process_that_is_frozen_catches_up(make_stack: Callable[..., Stack]) -> None:
    stack = make_stack()
    stack.start_api()
    task_id = await new_task(stack)
    async with second_api(stack) as (process, other), follow(other, task_id) as stream:
        await stream.next()
        process.freeze()
        for number in range(10):
            await say(stack, task_id, str(number))
        process.thaw()

        assert await heard(stream, 10) == [str(number) for number in range(10)]
