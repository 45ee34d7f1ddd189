"""POST /agents/register-build: an agent that is known before it is deployed."""

from __future__ import annotations

import httpx2
import pytest

from agentex.auth.authorize import Operation, ResourceType
from agentex.resources import Resources
from tests.api.ledger.stage import fetch
from tests.support.acp_server import AcpServer
from tests.support.api import Json, at_once, problem, read_agent, register, rpc, rpc_error
from tests.support.authz import ScriptedAuthz

PATH = "/agents/register-build"
BUILD: Json = {"name": "greeter", "description": "says hello"}
NUL = "body.registration_metadata.a: holds the character NUL (\\u0000), which cannot be stored; leave it out"
CARD: Json = {"agent_card": {"metadata": {"region": "eu"}}}


async def build(client: httpx2.AsyncClient, **changes: object) -> Json:
    response = await client.post(PATH, json=BUILD | changes)
    assert response.status_code == 200, response.text
    return response.json()


def not_deployed(name: str = "greeter") -> str:
    return (
        f"agent '{name}' is BuildOnly: its build is registered, but it is not deployed, so there is nobody "
        "to call; deploy it, and it registers itself"
    )


async def test_a_build_makes_an_agent_that_is_build_only(client: httpx2.AsyncClient) -> None:
    agent = await build(client, agent_input_type="json", registration_metadata=CARD)

    assert agent == {
        "id": agent["id"],
        "name": "greeter",
        "description": "says hello",
        "acp_type": "async",
        "status": "BuildOnly",
        "status_reason": "its build is registered; it is not deployed yet",
        "registration_metadata": CARD,
        "registered_at": None,
        "agent_input_type": "json",
        "production_deployment_id": None,
        "created_at": agent["created_at"],
        "updated_at": agent["created_at"],
    }
    assert (await client.get(f"/agents/{agent['id']}")).json() == agent
    assert (await client.get("/agents")).json() == [agent]


async def test_another_build_brings_it_up_to_date(client: httpx2.AsyncClient) -> None:
    first = await build(client, registration_metadata=CARD | {"commit_sha": "a"})

    again = await build(client, description="says goodbye", registration_metadata={"commit_sha": "b"})

    assert again == first | {
        "description": "says goodbye",
        "registration_metadata": CARD | {"commit_sha": "b"},
        "updated_at": again["updated_at"],
    }


async def test_registering_itself_makes_it_ready(client: httpx2.AsyncClient) -> None:
    built = await build(client, registration_metadata=CARD)

    registered = await register(client, acp_type="sync")

    assert read_agent(registered) == built | {
        "acp_type": "sync",
        "status": "Ready",
        "status_reason": None,
        "updated_at": registered["updated_at"],
        "registered_at": registered["registered_at"],
    }
    assert registered["registered_at"] is not None


async def test_a_build_leaves_a_deployed_agent_as_it_is(client: httpx2.AsyncClient) -> None:
    registered = await register(client)

    built = await build(client, description="the next version", registration_metadata=CARD)

    assert built == read_agent(registered)
    assert (await client.get(f"/agents/{registered['id']}")).json() == read_agent(registered)


async def test_a_deleted_agents_name_is_built_as_a_new_agent(client: httpx2.AsyncClient) -> None:
    first = await build(client)
    await client.delete(f"/agents/{first['id']}")

    again = await build(client)

    assert (again["id"] != first["id"], again["status"]) == (True, "BuildOnly")


async def test_twenty_builds_at_once_make_one_agent(client: httpx2.AsyncClient) -> None:
    answers = await at_once(20, client, PATH, BUILD)

    assert len({agent["id"] for agent in answers}) == 1


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("task/create", {}),
        ("event/send", {"task_name": "any"}),
        ("task/cancel", {"task_name": "any"}),
        ("message/send", {"content": {"type": "text", "author": "user", "content": "hi"}}),
    ],
)
async def test_it_takes_no_rpc(
    client: httpx2.AsyncClient, resources: Resources, method: str, params: Json
) -> None:
    agent = await build(client)

    assert await rpc(client, agent, method, params) == rpc_error(-32603, not_deployed())
    assert list(await fetch(resources, "SELECT 1 FROM tasks")) == []


async def test_once_it_is_ready_it_takes_rpc(client: httpx2.AsyncClient, acp_server: AcpServer) -> None:
    agent = await build(client)
    await register(client, acp_url=acp_server.url)

    assert (await rpc(client, agent, "task/create", {}))["error"] is None
    assert [request.method for request in acp_server.requests] == ["task/create"]


async def test_who_may_not_create_agents_cannot_build_one(
    client: httpx2.AsyncClient, authz: ScriptedAuthz
) -> None:
    authz.deny = {(Operation.CREATE, ResourceType.AGENT)}

    response = await client.post(PATH, json=BUILD)

    who = "user:tester: it is new, and agent.create is denied: scripted"
    message = f"agent {BUILD['name']!r} cannot be registered by {who}"
    assert (response.status_code, response.json()) == (403, problem(PATH, 403, "forbidden", message))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "Not a name"}, "name is 'Not a name': String should match pattern '^[a-z0-9-]+$'"),
        ({"description": None}, "description: Input should be a valid string"),
        ({"agent_input_type": "xml"}, "agent_input_type is 'xml': Input should be 'text' or 'json'"),
        ({"registration_metadata": []}, "registration_metadata: Input should be a valid dictionary"),
        (
            {"registration_metadata": {"a": "\x00"}},
            NUL,
        ),
    ],
)
async def test_an_invalid_field_is_named(
    client: httpx2.AsyncClient, changes: dict[str, object], message: str
) -> None:
    response = await client.post(PATH, json=BUILD | changes)

    assert (response.status_code, response.json()) == (422, problem(PATH, 422, "invalid-input", message))
