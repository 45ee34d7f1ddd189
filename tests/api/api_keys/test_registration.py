"""POST /agents/register where AGENTEX_AUTH asks: who may, under which name, and which key comes of it."""

from __future__ import annotations

import asyncio

import httpx2
import pytest

from agentex.auth.rules import Role
from agentex.resources import Resources
from agentex.sealing import unseal
from tests.api.ledger.stage import fetch
from tests.support.api import Json, problem, read_agent, registration
from tests.support.keys import bearer, key_of, of_agent

PATH = "/agents/register"


async def register(client: httpx2.AsyncClient, headers: dict[str, str], **changes: object) -> Json:
    response = await client.post(PATH, json=registration(**changes), headers=headers)
    assert response.status_code == 200, response.text
    return response.json()


async def known_by(resources: Resources, name: str = "greeter") -> str | None:
    """The key that the server calls the agent with."""
    found = await fetch(resources, "SELECT sealed_key FROM agents WHERE name = :name", name=name)
    sealed = found[-1]["sealed_key"]
    return unseal(resources.settings, sealed) if sealed is not None else None


async def agents(resources: Resources) -> list[tuple[str, str, str | None]]:
    found = await fetch(resources, "SELECT name, owner, acp_url FROM agents ORDER BY created_at")
    return [(row["name"], row["owner"], row["acp_url"]) for row in found]


@pytest.mark.parametrize("headers", [{}, {"x-agent-id": "greeter"}])
async def test_without_a_key_nobody_registers(
    client: httpx2.AsyncClient, resources: Resources, headers: dict[str, str]
) -> None:
    response = await client.post(PATH, json=registration(), headers=headers)
    assert (response.status_code, await agents(resources)) == (401, [])


async def test_an_agent_registers_itself_with_a_key_that_was_made_beforehand(
    client: httpx2.AsyncClient, resources: Resources
) -> None:
    key = await key_of(resources, "agent:greeter", Role.AGENT)
    first = await register(client, of_agent(key))
    again = await register(client, of_agent(key), description="again")

    assert (first["agent_api_key"], again["agent_api_key"], again["id"]) == (None, None, first["id"])
    assert await agents(resources) == [("greeter", "agent:greeter", "http://127.0.0.1:9")]
    assert await known_by(resources) == key
    kept = await fetch(resources, "SELECT a::text AS row FROM agents a")
    assert key not in kept[0]["row"]


async def test_who_makes_agents_gets_the_first_key_of_a_new_one_once(
    client: httpx2.AsyncClient, resources: Resources, editor: str
) -> None:
    first = await register(client, bearer(editor))
    again = await register(client, bearer(editor))

    key = first["agent_api_key"]
    assert (key[:4], again["agent_api_key"], await known_by(resources)) == ("agx_", None, key)
    assert await agents(resources) == [("greeter", "user:eve", "http://127.0.0.1:9")]
    who = (await client.get("/whoami", headers=of_agent(key))).json()
    assert (who["member"], who["role"], who["service_account_id"]) == ("agent:greeter", "agent", "greeter")
    for path in (f"/agents/{first['id']}", "/agents", "/agents/name/greeter"):
        assert key not in (await client.get(path, headers=bearer(editor))).text
    # The agent goes on by itself with it, and its owner may still move it.
    moved = await register(client, of_agent(key), acp_url="http://127.0.0.1:10")
    assert read_agent(moved) == read_agent(first) | {
        "updated_at": moved["updated_at"],
        "registered_at": moved["registered_at"],
    }


async def test_a_registration_token_makes_agents_and_nothing_else(
    client: httpx2.AsyncClient, resources: Resources
) -> None:
    token = await key_of(resources, "service_account:ci", Role.EDITOR, scopes=["agent.create"])
    made = await register(client, bearer(token))

    assert made["agent_api_key"] is not None
    answers = [
        await client.get("/agents", headers=bearer(token)),
        await client.get(f"/agents/{made['id']}", headers=bearer(token)),
        await client.get("/tasks", headers=bearer(token)),
        await client.delete(f"/agents/{made['id']}", headers=bearer(token)),
        await client.post("/api_keys", json={"name": "x", "scopes": []}, headers=bearer(token)),
        await client.get("/api_keys", headers=bearer(token)),
        await client.post(PATH, json=registration(), headers=bearer(token)),
    ]
    assert [answer.status_code for answer in answers] == [200, 404, 200, 404, 403, 200, 403]
    assert [answers[0].json(), answers[2].json()] == [[], []]
    assert answers[5].json()["api_keys"] == []


@pytest.mark.parametrize(("role", "status"), [(Role.OPERATOR, 403), (Role.VIEWER, 403), (None, 403)])
async def test_who_makes_no_agents_registers_no_new_one(
    client: httpx2.AsyncClient, resources: Resources, role: Role | None, status: int
) -> None:
    key = await key_of(resources, "user:eve", role)
    response = await client.post(PATH, json=registration(), headers=bearer(key))
    rule = f"user:eve has {f'role {role}' if role else 'no role'} and no grant of it"
    who = "user:eve: it is new, and agent.create is denied"
    message = f"agent 'greeter' cannot be registered by {who}: {rule}"
    assert (response.status_code, response.json()) == (403, problem(PATH, 403, "forbidden", message))
    assert await agents(resources) == []


# Stolen names.


@pytest.mark.parametrize("by", ["name", "id"])
@pytest.mark.parametrize("thief", ["editor", "viewer", "guest", "token", "another agent", "nobody"])
async def test_a_known_name_is_not_stolen(
    client: httpx2.AsyncClient, resources: Resources, thief: str, by: str
) -> None:
    key = await key_of(resources, "agent:greeter", Role.AGENT)
    agent = await register(client, of_agent(key))
    headers = {
        "editor": bearer(await key_of(resources, "user:eve", Role.EDITOR)),
        "viewer": bearer(await key_of(resources, "user:eve2", Role.VIEWER)),
        "guest": bearer(await key_of(resources, "user:eve3", None)),
        "token": of_agent(
            await key_of(resources, "service_account:ci", Role.EDITOR, scopes=["agent.create"])
        ),
        "another agent": of_agent(await key_of(resources, "agent:thief", Role.AGENT)),
        "nobody": {},
    }[thief]
    stolen = registration(acp_url="http://127.0.0.1:666")
    if by == "id":
        stolen |= {"agent_id": agent["id"], "name": "thief"}
    before = await agents(resources)

    register_it = await client.post(PATH, json=stolen, headers=headers)
    build = await client.post(
        "/agents/register-build", json={"name": "greeter", "description": "x"}, headers=headers
    )

    status = 401 if thief == "nobody" else 403
    assert (register_it.status_code, build.status_code) == (status, status)
    assert (await agents(resources), await known_by(resources)) == (before, key)


@pytest.mark.parametrize("role", [Role.OPERATOR, Role.ADMIN])
async def test_who_keeps_things_running_moves_a_known_agent(
    client: httpx2.AsyncClient, resources: Resources, role: Role
) -> None:
    key = await key_of(resources, "agent:greeter", Role.AGENT)
    await register(client, of_agent(key))
    theirs = await key_of(resources, "user:olga", role)

    moved = await register(client, bearer(theirs), acp_url="http://127.0.0.1:10")
    assert (moved["agent_api_key"], await known_by(resources)) == (None, key)
    await register(client, of_agent(theirs))
    assert await known_by(resources) == theirs


async def test_a_key_of_an_agent_registers_no_other_name(
    client: httpx2.AsyncClient, resources: Resources
) -> None:
    key = await key_of(resources, "agent:greeter", Role.AGENT)
    response = await client.post(PATH, json=registration(name="another"), headers=of_agent(key))
    message = (
        "agent 'another' cannot be registered with a key of agent 'greeter': an agent registers itself only"
    )
    assert (response.status_code, response.json()) == (403, problem(PATH, 403, "forbidden", message))


async def test_a_key_whose_scopes_lack_it_registers_nothing(
    client: httpx2.AsyncClient, resources: Resources
) -> None:
    key = await key_of(resources, "agent:greeter", Role.AGENT, scopes=["task.read"])
    response = await client.post(PATH, json=registration(), headers=of_agent(key))
    assert (response.status_code, "scopes lack agent.create" in response.json()["message"]) == (403, True)


@pytest.mark.parametrize("path", [PATH, "/agents/register-build"])
async def test_a_name_for_which_a_key_was_made_is_kept_for_its_holder(
    client: httpx2.AsyncClient, resources: Resources, admin: str, editor: str, path: str
) -> None:
    key = await key_of(resources, "agent:greeter", Role.AGENT)
    refused = await client.post(path, json=registration(), headers=bearer(editor))
    assert (refused.status_code, "is kept for who holds it" in refused.json()["message"]) == (403, True)
    assert await agents(resources) == []

    own = await register(client, of_agent(key))
    assert own["agent_api_key"] is None
    await client.delete(f"/agents/{own['id']}", headers=bearer(admin))
    # Nobody holds a key of it any more.
    assert (await register(client, bearer(editor)))["agent_api_key"] is not None


async def test_an_agent_is_not_renamed_to_a_name_that_is_kept(
    client: httpx2.AsyncClient, resources: Resources, admin: str, editor: str
) -> None:
    await key_of(resources, "agent:kept", Role.AGENT)
    agent = await register(client, bearer(editor))
    renaming = registration(name="kept", agent_id=agent["id"])
    refused = await client.post(PATH, json=renaming, headers=bearer(editor))
    allowed = await client.post(PATH, json=renaming, headers=bearer(admin))
    assert (refused.status_code, allowed.status_code) == (403, 200)


async def test_twenty_at_once_make_one_agent_with_one_key(
    client: httpx2.AsyncClient, resources: Resources, editor: str
) -> None:
    answers = await asyncio.gather(*[register(client, bearer(editor)) for _ in range(20)])
    keys = [answer["agent_api_key"] for answer in answers if answer["agent_api_key"] is not None]
    assert (len({answer["id"] for answer in answers}), keys) == (1, [await known_by(resources)])


async def test_the_keys_of_an_agent_are_revoked_with_it(
    client: httpx2.AsyncClient, resources: Resources, admin: str, editor: str
) -> None:
    agent = await register(client, bearer(editor))
    keys = [agent["agent_api_key"], await key_of(resources, "agent:greeter", Role.AGENT)]
    other = (await register(client, bearer(editor), name="other"))["agent_api_key"]
    deleted = await client.delete(f"/agents/{agent['id']}", headers=bearer(admin))

    assert deleted.status_code == 200
    for key, status in [(keys[0], 401), (keys[1], 401), (other, 200)]:
        assert (await client.get("/whoami", headers=of_agent(key))).status_code == status
        again = await client.post(PATH, json=registration(), headers=of_agent(key))
        assert again.status_code == (401 if status == 401 else 403)


async def test_a_new_agent_of_a_deleted_ones_name_inherits_nothing(
    client: httpx2.AsyncClient, resources: Resources, admin: str
) -> None:
    await register(client, of_agent(await key_of(resources, "agent:greeter", Role.AGENT)))
    await fetch(
        resources,
        """
        INSERT INTO tasks (id, account_id, owner, agent_id, name, status, created_at, updated_at)
        SELECT gen_random_uuid(), account_id, 'user:ann', id, 'old', 'RUNNING', now(), now() FROM agents
        """,
    )
    old = await fetch(resources, "SELECT id::text FROM tasks")
    await client.delete("/agents/name/greeter", headers=bearer(admin))
    key = await key_of(resources, "agent:greeter", Role.AGENT)
    await register(client, of_agent(key))

    assert (await client.get("/tasks", headers=of_agent(key))).json() == []
    answer = await client.get(f"/tasks/{old[0]['id']}", headers=of_agent(key))
    assert answer.status_code == 404
