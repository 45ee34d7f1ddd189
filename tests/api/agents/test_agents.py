"""GET /agents, and one agent by id and by name; DELETE."""

from __future__ import annotations

from uuid import UUID

import httpx2
import pytest
from sqlmodel.ext.asyncio.session import AsyncSession

from agentex.auth.authorize import Operation, ResourceType
from agentex.auth.principal import Principal
from agentex.errors import BadRequest
from agentex.resources import Resources
from tests.support.acp_server import AcpServer
from tests.support.api import UNKNOWN_ID, create_task, problem, read_agent, register
from tests.support.authz import ScriptedAuthz


async def test_an_agent_is_found_by_id_and_by_name(client: httpx2.AsyncClient) -> None:
    agent = await register(client)

    by_id = await client.get(f"/agents/{agent['id']}")
    by_name = await client.get("/agents/name/greeter")

    assert (by_id.json(), by_name.json()) == (read_agent(agent), read_agent(agent))


@pytest.mark.parametrize("path", [f"/agents/{UNKNOWN_ID}", "/agents/nonsense", "/agents/name/nobody"])
@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_an_unknown_agent_is_404(client: httpx2.AsyncClient, method: str, path: str) -> None:
    response = await client.request(method, path)

    named = path.rpartition("/")[2]
    assert response.status_code == 404
    assert response.headers["x-should-retry"] == "false"
    assert response.json() == problem(path, 404, "not-found", f"agent '{named}' not found")


async def test_another_accounts_agent_is_404(client: httpx2.AsyncClient) -> None:
    agent = await register(client)
    other = {"x-test-account": "other"}

    answers = [
        (await client.get(f"/agents/{agent['id']}", headers=other)).status_code,
        (await client.get("/agents/name/greeter", headers=other)).status_code,
        (await client.delete(f"/agents/{agent['id']}", headers=other)).status_code,
        (await client.get("/agents", headers=other)).json(),
    ]

    assert answers == [404, 404, 404, []]


async def test_an_agent_named_name_or_schedules_is_still_found(client: httpx2.AsyncClient) -> None:
    for name in ("name", "schedules", "rpc", "register"):
        agent = await register(client, name=name)
        assert (await client.get(f"/agents/name/{name}")).json() == read_agent(agent)


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("", ["c", "a", "b"]),
        ("order_direction=asc", ["b", "a", "c"]),
        ("order_by=name&order_direction=asc", ["a", "b", "c"]),
        ("order_by=updated_at", ["b", "c", "a"]),
        ("limit=2", ["c", "a"]),
        ("limit=2&page_number=2", ["b"]),
        ("limit=2&page_number=3", []),
    ],
)
async def test_the_list_is_sorted_and_paged(client: httpx2.AsyncClient, query: str, names: list[str]) -> None:
    for name in ("b", "a", "c", "b"):
        await register(client, name=name)

    response = await client.get(f"/agents?{query}")

    assert [agent["name"] for agent in response.json()] == names


async def test_the_list_can_be_of_one_task(client: httpx2.AsyncClient, acp_server: AcpServer) -> None:
    await register(client, name="other")
    agent = await register(client, acp_url=acp_server.url)
    task = await create_task(client, agent)

    response = await client.get("/agents", params={"task_id": task["id"]})

    assert response.json() == [read_agent(agent)]


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("limit=0", "limit is '0': Input should be greater than or equal to 1"),
        ("limit=1001", "limit is '1001': Input should be less than or equal to 1000"),
        ("page_number=0", "page_number is '0': Input should be greater than or equal to 1"),
        (
            "page_number=9223372036854775807",
            "page_number is '9223372036854775807': Input should be less than or equal to 1000000",
        ),
        ("order_by=id", "order_by is 'id': Input should be 'created_at', 'updated_at' or 'name'"),
        ("order_direction=up", "order_direction is 'up': Input should be 'asc' or 'desc'"),
    ],
)
async def test_a_bad_query_is_422(client: httpx2.AsyncClient, query: str, message: str) -> None:
    response = await client.get(f"/agents?{query}")

    assert response.status_code == 422
    assert response.json() == problem("/agents", 422, "invalid-input", message)


@pytest.mark.parametrize("by", ["id", "name"])
async def test_a_deleted_agent_is_gone_everywhere(client: httpx2.AsyncClient, by: str) -> None:
    agent = await register(client)
    path = f"/agents/{agent['id']}" if by == "id" else "/agents/name/greeter"

    deleted = await client.delete(path)

    assert deleted.json() == {"id": agent["id"], "message": "Agent 'greeter' was deleted"}
    request = {"method": "task/create"}
    answers = [
        (await client.get(f"/agents/{agent['id']}")).status_code,
        (await client.get("/agents/name/greeter")).status_code,
        (await client.delete(path)).status_code,
        (await client.post(f"/agents/{agent['id']}/rpc", json=request)).status_code,
        (await client.post("/agents/name/greeter/rpc", json=request)).status_code,
        (await client.get("/agents")).json(),
    ]
    assert answers == [404, 404, 404, 404, 404, []]


async def test_deleting_tells_the_hook_in_the_same_transaction(
    client: httpx2.AsyncClient, resources: Resources
) -> None:
    agent = await register(client)

    async def refuse(session: AsyncSession, principal: Principal, agent_id: UUID) -> None:
        raise BadRequest(f"{principal.account_id} keeps {agent_id}")

    resources.hooks.agent_deleted = [refuse]
    response = await client.delete(f"/agents/{agent['id']}")

    assert response.json()["message"] == f"default keeps {agent['id']}"
    assert (await client.get(f"/agents/{agent['id']}")).json() == read_agent(agent)


async def test_who_may_read_but_not_delete_gets_403(client: httpx2.AsyncClient, authz: ScriptedAuthz) -> None:
    agent = await register(client)
    authz.deny = {(Operation.DELETE, ResourceType.AGENT)}
    path = f"/agents/{agent['id']}"

    response = await client.delete(path)

    message = f"delete on agent {agent['id']} is not allowed: scripted"
    assert response.status_code == 403
    assert response.json() == problem(path, 403, "forbidden", message)


async def test_who_may_not_read_gets_404(client: httpx2.AsyncClient, authz: ScriptedAuthz) -> None:
    agent = await register(client)
    authz.deny = {(Operation.READ, ResourceType.AGENT)}
    path = f"/agents/{agent['id']}"

    response = await client.get(path)

    assert response.status_code == 404
    assert response.json() == problem(path, 404, "not-found", f"agent '{agent['id']}' not found")


async def test_an_authorizer_that_is_away_is_503(client: httpx2.AsyncClient, authz: ScriptedAuthz) -> None:
    agent = await register(client)
    authz.unavailable = True
    path = f"/agents/{agent['id']}"

    response = await client.get(path)

    message = "The authorizer does not answer just now; repeat the request."
    assert (response.status_code, response.headers["retry-after"]) == (503, "2")
    assert "x-should-retry" not in response.headers
    assert response.json() == problem(path, 503, "authorizer-unavailable", message)
