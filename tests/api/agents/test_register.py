"""POST /agents/register."""

from __future__ import annotations

import asyncio

import httpx2
import pytest

from agentex.auth.authorize import Operation, ResourceType
from agentex.resources import Resources
from tests.api.ledger.stage import fetch
from tests.support.acp_server import AcpServer
from tests.support.api import UNKNOWN_ID, at_once, create_task, problem, register, registration
from tests.support.authz import ScriptedAuthz

PATH = "/agents/register"


async def test_a_new_agent_is_ready_and_has_no_key(client: httpx2.AsyncClient) -> None:
    given = registration(
        principal_context=None, registration_metadata={"commit_sha": "abc"}, agent_input_type="text"
    )

    response = await client.post(PATH, json=given)

    agent = response.json()
    assert (response.status_code, agent) == (
        200,
        {
            "id": agent["id"],
            "name": "greeter",
            "description": "says hello",
            "acp_type": "async",
            "status": "Ready",
            "status_reason": None,
            "registration_metadata": {"commit_sha": "abc"},
            "registered_at": agent["created_at"],
            "agent_input_type": "text",
            "production_deployment_id": None,
            "created_at": agent["created_at"],
            "updated_at": agent["created_at"],
            "agent_api_key": None,
        },
    )


async def test_registering_again_by_name_brings_the_agent_up_to_date(client: httpx2.AsyncClient) -> None:
    first = await register(client)

    again = await register(client, description="says goodbye", acp_type="sync")

    assert again["updated_at"] > first["updated_at"]
    assert again == {
        **first,
        "description": "says goodbye",
        "acp_type": "sync",
        "updated_at": again["updated_at"],
        "registered_at": again["registered_at"],
    }


async def test_registering_by_a_known_id_renames_the_agent(client: httpx2.AsyncClient) -> None:
    first = await register(client)

    renamed = await register(client, name="farewell", agent_id=first["id"])

    assert (renamed["id"], renamed["name"]) == (first["id"], "farewell")
    assert [agent["name"] for agent in (await client.get("/agents")).json()] == ["farewell"]


@pytest.mark.parametrize("agent_id", [UNKNOWN_ID, "not-a-uuid", ""])
async def test_an_unknown_agent_id_registers_by_name(client: httpx2.AsyncClient, agent_id: str) -> None:
    first = await register(client)

    again = await register(client, agent_id=agent_id)

    assert again["id"] == first["id"]


async def test_renaming_to_a_name_in_use_is_refused(client: httpx2.AsyncClient) -> None:
    await register(client, name="taken")
    other = await register(client, name="other")

    response = await client.post(PATH, json=registration(name="taken", agent_id=other["id"]))

    assert response.status_code == 400
    assert response.json() == problem(
        PATH, 400, "already-exists", "agent 'taken' already exists, with another id"
    )


async def test_a_deleted_agents_name_registers_as_a_new_agent(client: httpx2.AsyncClient) -> None:
    first = await register(client)
    await client.delete(f"/agents/{first['id']}")

    again = await register(client, agent_id=first["id"])

    assert again["id"] != first["id"]


async def test_accounts_have_agents_of_the_same_name(client: httpx2.AsyncClient) -> None:
    first = await register(client)
    response = await client.post(PATH, json=registration(), headers={"x-test-account": "other"})

    assert response.json()["id"] != first["id"]


async def test_twenty_at_once_of_one_name_make_one_agent(client: httpx2.AsyncClient) -> None:
    answers = await at_once(20, client, PATH, registration())

    assert len({agent["id"] for agent in answers}) == 1
    assert [agent["id"] for agent in (await client.get("/agents")).json()] == [answers[0]["id"]]


async def test_the_worker_of_an_agent_erases_nothing_that_its_service_said(
    client: httpx2.AsyncClient,
) -> None:
    """Agents on Temporal register twice under one name, and only the service knows its card."""
    card = {"agent_card": {"metadata": {"region": "eu"}}, "commit_sha": "a", "deployment_id": "d-1"}
    first = await register(client, registration_metadata=card, agent_input_type="json")

    silent = await register(client)
    more = await register(client, registration_metadata={"commit_sha": "b", "source_repo": "r"})
    empty = await register(client, registration_metadata={})

    times = {"updated_at", "registered_at"}
    expected = {key: value for key, value in first.items() if key not in times}
    for answer, metadata in (
        (silent, card),
        (more, card | {"commit_sha": "b", "source_repo": "r"}),
        (empty, card | {"commit_sha": "b", "source_repo": "r"}),
    ):
        found = {key: value for key, value in answer.items() if key not in times}
        assert found == expected | {"registration_metadata": metadata}


async def test_twenty_at_once_that_say_different_things_all_are_heard(client: httpx2.AsyncClient) -> None:
    bodies = [registration(registration_metadata={f"key-{n}": n}) for n in range(20)]

    responses = await asyncio.gather(*[client.post(PATH, json=body) for body in bodies])

    assert [response.status_code for response in responses] == [200] * 20
    (agent,) = (await client.get("/agents")).json()
    assert agent["registration_metadata"] == {f"key-{n}": n for n in range(20)}


async def test_twenty_at_once_of_one_id_rename_one_agent(client: httpx2.AsyncClient) -> None:
    first = await register(client)

    answers = await at_once(20, client, PATH, registration(name="farewell", agent_id=first["id"]))

    assert {(agent["id"], agent["name"]) for agent in answers} == {(first["id"], "farewell")}
    assert [agent["id"] for agent in (await client.get("/agents")).json()] == [first["id"]]


async def test_twenty_at_once_of_one_id_under_different_names_are_one_agent(
    client: httpx2.AsyncClient,
) -> None:
    first = await register(client)
    bodies = [registration(name=f"name-{n}", agent_id=first["id"]) for n in range(20)]

    responses = await asyncio.gather(*[client.post(PATH, json=body) for body in bodies])

    assert [response.status_code for response in responses] == [200] * 20
    assert {response.json()["id"] for response in responses} == {first["id"]}
    (agent,) = (await client.get("/agents")).json()
    assert (agent["id"], agent["name"].startswith("name-")) == (first["id"], True)


@pytest.mark.parametrize("by", ["name", "agent_id"])
async def test_an_agent_that_moves_is_called_at_its_new_address(
    client: httpx2.AsyncClient, acp_server: AcpServer, by: str
) -> None:
    first = await register(client)
    known = {"agent_id": first["id"]} if by == "agent_id" else {}

    async with AcpServer() as second:
        await register(client, acp_url=acp_server.url, **known)
        await create_task(client, first)
        await register(client, acp_url=second.url, **known)
        await create_task(client, first)

        assert [len(server.requests) for server in (acp_server, second)] == [1, 1]


@pytest.mark.parametrize("context", [None, {"api_key": "k-secret"}, ["a"], "text", 7])
async def test_a_principal_context_is_taken_and_neither_used_nor_kept(
    client: httpx2.AsyncClient, resources: Resources, context: object
) -> None:
    agent = await register(client, principal_context=context)

    (row,) = await fetch(resources, "SELECT owner, account_id, agents::text AS whole FROM agents")
    assert (row["owner"], row["account_id"], "k-secret" in row["whole"]) == ("user:tester", "default", False)
    assert "principal_context" not in agent


async def test_who_may_not_update_an_agent_cannot_move_it(
    client: httpx2.AsyncClient, authz: ScriptedAuthz
) -> None:
    first = await register(client)
    authz.deny = {(Operation.UPDATE, ResourceType.AGENT)}

    response = await client.post(PATH, json=registration(acp_url="http://127.0.0.1:666"))

    message = f"update on agent {first['id']} is not allowed: scripted"
    assert response.status_code == 403
    assert response.json() == problem(PATH, 403, "forbidden", message)
    assert (await client.get(f"/agents/{first['id']}")).json()["updated_at"] == first["updated_at"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "Not a name"}, "name is 'Not a name': String should match pattern '^[a-z0-9-]+$'"),
        ({"name": ""}, "name is '': String should have at least 1 character"),
        ({"acp_type": "fast"}, "acp_type is 'fast': Input should be 'sync', 'async' or 'agentic'"),
        (
            {"acp_url": "ftp://x"},
            "acp_url: 'ftp://x' is not an http(s) URL such as http://127.0.0.1:8000",
        ),
        (
            {"acp_url": "http://h:99999"},
            "acp_url: 'http://h:99999' is not an http(s) URL such as http://127.0.0.1:8000",
        ),
        ({"description": None}, "description: Input should be a valid string"),
        ({"registration_metadata": "x"}, "registration_metadata: Input should be a valid dictionary"),
    ],
)
async def test_an_invalid_field_is_named_with_its_value(
    client: httpx2.AsyncClient, changes: dict[str, object], message: str
) -> None:
    response = await client.post(PATH, json=registration(**changes))

    assert response.status_code == 422
    assert response.json() == problem(PATH, 422, "invalid-input", message)
