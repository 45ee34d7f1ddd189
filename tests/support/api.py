"""Requests that many tests of the API make, and the problem bodies that they expect."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import quote

import httpx2

Json = dict[str, Any]

# Well-formed and nobody's. Not a fresh one: pytest-xdist wants the same test ids in each process.
UNKNOWN_ID = "00000000-0000-4000-8000-000000000000"
# A message as a user sends it, and as it is kept.
TEXT: Json = {"type": "text", "author": "user", "content": "hi"}
WHOLE_TEXT: Json = {**TEXT, "style": "static", "format": "plain", "attachments": None}


def registration(**changes: object) -> Json:
    """What an async agent sends at its start."""
    return {
        "name": "greeter",
        "description": "says hello",
        "acp_url": "http://127.0.0.1:9",
        "acp_type": "async",
        **changes,
    }


async def register(client: httpx2.AsyncClient, **changes: object) -> Json:
    """A registered agent, as it was answered."""
    response = await client.post("/agents/register", json=registration(**changes))
    assert response.status_code == 200, response.text
    return response.json()


def read_agent(agent: Json) -> Json:
    """A registered agent as it is read: without the key that registering answers."""
    return {key: value for key, value in agent.items() if key != "agent_api_key"}


def told_agent(agent: Json, acp_url: str) -> Json:
    """A registered agent as it is told about itself (wire.md §1b)."""
    return {**read_agent(agent), "docker_image": None, "acp_url": acp_url}


async def rpc(
    client: httpx2.AsyncClient,
    agent: Json,
    method: str,
    params: Json,
    *,
    headers: dict[str, str] | None = None,
) -> Json:
    """One JSON-RPC request with id 7, as it was answered."""
    request = {"jsonrpc": "2.0", "method": method, "params": params, "id": 7}
    response = await client.post(f"/agents/{agent['id']}/rpc", json=request, headers=headers)
    assert response.status_code == 200, response.text
    return response.json()


async def create_task(client: httpx2.AsyncClient, agent: Json, **params: object) -> Json:
    """A task, as it was answered."""
    answer = await rpc(client, agent, "task/create", dict(params))
    assert answer["error"] is None, answer
    return answer["result"]


def result(value: object) -> Json:
    """The whole answer to `rpc` that carries this result."""
    return {"jsonrpc": "2.0", "result": value, "error": None, "id": 7}


def rpc_error(code: int, message: str) -> Json:
    """The whole answer to `rpc` that carries this error."""
    return {
        "jsonrpc": "2.0",
        "result": None,
        "error": {"code": code, "message": message, "data": None},
        "id": 7,
    }


def problem(path: str, status: int, code: str, message: str) -> Json:
    """The whole body of an error."""
    body: Json = {
        "type": f"urn:agentex:problem:{code}",
        "title": code.replace("-", " ").capitalize(),
        "status": status,
        "detail": message,
        "instance": quote(path),
        "message": message,
        "code": status,
        "data": None,
    }
    return body if status != 422 else {**body, "code": 10422, "status_code": 10422}


def rpc_problem(path: str, status: int, code: str, message: str, **rpc: int | str | None) -> Json:
    """The same of a JSON-RPC request; rpc: its `rpc_code`, and its `id` where it had one."""
    error = {"code": rpc["rpc_code"], "message": message, "data": None}
    as_rpc = {"jsonrpc": "2.0", "id": rpc.get("id"), "result": None, "error": error}
    return {**problem(path, status, code, message), **as_rpc}


async def at_once(count: int, client: httpx2.AsyncClient, path: str, body: Json) -> list[Json]:
    """The same POST many times side by side; all must be answered 200."""
    responses = await asyncio.gather(*[client.post(path, json=body) for _ in range(count)])
    assert [response.status_code for response in responses] == [200] * count
    return [response.json() for response in responses]
