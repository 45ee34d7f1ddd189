"""The demo agents as the server sees them, against a small server of the wire's shape."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from agentex.dev.agents import echo_async, echo_sync
from agentex.dev.agents.base import DemoAgent, Options
from agentex.dev.ports import free_port

AgentClient = TestClient[web.Request, web.Application]
ASYNC_PORT, SYNC_PORT = 8101, 8102


class FakeServer:
    """Takes registrations and messages; the first registration is answered 503."""

    def __init__(self) -> None:
        self.registered: list[dict[str, Any]] = []
        self.messages: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def register(self, request: web.Request) -> web.Response:
        self.registered.append(await request.json())
        if len(self.registered) == 1:
            return web.json_response({"message": "starting"}, status=503)
        return web.json_response({"id": "agent-1", "name": "demo", "agent_api_key": None})

    async def message(self, request: web.Request) -> web.Response:
        await self.messages.put(await request.json())
        return web.json_response({"id": "message-1"})


@pytest.fixture
async def server() -> AsyncIterator[tuple[FakeServer, str]]:
    fake = FakeServer()
    app = web.Application()
    app.add_routes([web.post("/agents/register", fake.register), web.post("/messages", fake.message)])
    async with TestServer(app) as running:
        yield fake, str(running.make_url("")).rstrip("/")


async def registered(client: AgentClient) -> dict[str, Any]:
    """The health answer once the agent knows its id."""
    while True:
        answer = await client.get("/healthz")
        health: dict[str, Any] = await answer.json()
        if health["agent_id"]:
            return health
        await asyncio.sleep(0.02)


async def call(client: AgentClient, method: str, params: dict[str, Any]) -> dict[str, Any]:
    """A JSON-RPC call with id `7`, answered with one JSON document."""
    answer = await client.post("/api", json={"jsonrpc": "2.0", "method": method, "id": "7", "params": params})
    assert answer.status == 200
    body: dict[str, Any] = await answer.json()
    return body


def result(value: object) -> dict[str, Any]:
    """The envelope of a success."""
    return {"jsonrpc": "2.0", "result": value, "error": None, "id": "7"}


def build_async(url: str) -> DemoAgent:
    return echo_async.build(Options("127.0.0.1", ASYNC_PORT, url, "demo-async"))


def build_sync(url: str) -> DemoAgent:
    return echo_sync.build(Options("127.0.0.1", SYNC_PORT, url, "demo-sync"))


async def test_agent_registers_until_the_server_takes_it(server: tuple[FakeServer, str]) -> None:
    fake, url = server
    async with TestClient(TestServer(build_async(url).application())) as client:
        assert await registered(client) == {"status": "healthy", "agent_id": "agent-1"}
    body = {
        "name": "demo-async",
        "description": "Echoes what it is told, as a message",
        "acp_url": f"http://127.0.0.1:{ASYNC_PORT}",
        "acp_type": "async",
        "principal_context": None,
        "registration_metadata": None,
    }
    assert fake.registered == [body, body]


async def test_async_agent_acknowledges_and_posts_its_answer_once(server: tuple[FakeServer, str]) -> None:
    fake, url = server
    event = {"id": "event-1", "task_id": "task-1", "content": {"type": "text", "content": "Hello"}}
    async with TestClient(TestServer(build_async(url).application())) as client:
        assert await call(client, "task/create", {"task": {"id": "task-1"}}) == result(None)
        for _ in range(2):
            assert await call(client, "event/send", {"event": event}) == result({"status": "processing"})
        assert await call(client, "event/send", {"event": {**event, "id": "event-2"}}) == result(
            {"status": "processing"}
        )
        answers = [await fake.messages.get() for _ in range(2)]
        assert await call(client, "task/cancel", {"task": {"id": "task-1"}}) == result(
            {"status": "processing"}
        )
    content = {"type": "text", "author": "agent", "content": "You said: Hello"}
    assert answers == [{"task_id": "task-1", "content": content}] * 2
    assert fake.messages.empty()


async def test_sync_agent_streams_start_deltas_and_done(server: tuple[FakeServer, str]) -> None:
    _, url = server
    request = {
        "jsonrpc": "2.0",
        "method": "message/send",
        "id": "7",
        "params": {"content": {"type": "text", "content": "good morning"}, "stream": True},
    }
    async with TestClient(TestServer(build_sync(url).application())) as client:
        answer = await client.post("/api", json=request)
        lines = [json.loads(line) for line in (await answer.text()).splitlines()]
    shared = {"index": 0, "parent_task_message": None}
    empty = {"type": "text", "author": "agent", "style": "static", "format": "plain", "content": ""}
    deltas = [
        {"type": "delta", "delta": {"type": "text", "text_delta": text}}
        for text in ("You", " said:", " good", " morning")
    ]
    updates = [{"type": "start", "content": empty}, *deltas, {"type": "done"}]
    assert answer.headers["Content-Type"] == "application/x-ndjson"
    assert lines == [result({**update, **shared}) for update in updates]


@pytest.mark.parametrize(
    ("body", "error", "request_id"),
    [
        (
            json.dumps({"jsonrpc": "2.0", "method": "task/fly", "id": 9}),
            {"code": -32601, "message": "unknown method 'task/fly'"},
            9,
        ),
        ("[]", {"code": -32600, "message": "the body is not a JSON-RPC request"}, None),
        ("{", {"code": -32600, "message": "the body is not a JSON-RPC request"}, None),
    ],
)
async def test_unknown_methods_and_garbage_get_their_codes(
    server: tuple[FakeServer, str], body: str, error: dict[str, Any], request_id: int | None
) -> None:
    _, url = server
    async with TestClient(TestServer(build_sync(url).application())) as client:
        answer = await client.post("/api", data=body)
        assert await answer.json() == {"jsonrpc": "2.0", "result": None, "error": error, "id": request_id}


async def test_agent_ends_while_the_server_is_away() -> None:
    agent = build_async(f"http://127.0.0.1:{free_port()}")
    async with TestClient(TestServer(agent.application())) as client:
        answer = await client.get("/healthz")
        assert await answer.json() == {"status": "healthy", "agent_id": None}
