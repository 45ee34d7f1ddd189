"""/agents/{id}/deployments: made, registered into, promoted, tried, deleted."""

from __future__ import annotations

import asyncio

import httpx2
import pytest

from agentex.auth.authorize import Operation, ResourceType
from agentex.resources import Resources
from tests.api.deployments.conftest import Deployments
from tests.api.ledger.stage import fetch
from tests.support.acp_server import AcpServer
from tests.support.api import UNKNOWN_ID, Json, problem, read_agent, register, registration, rpc
from tests.support.authz import ScriptedAuthz
from tests.support.plans import explain_sent, statements

ELSEWHERE = {"x-test-account": "elsewhere"}
NEW_URL = "http://127.0.0.1:7777"
OTHER_URL = "http://127.0.0.1:6666"


async def test_a_deployment_waits_for_its_process(deployments: Deployments) -> None:
    given = {
        "docker_image": "registry.example.com/greeter:2",
        "registration_metadata": {"commit_hash": "abc", "branch_name": "main"},
        "sgp_deploy_id": "d-1",
        "helm_release_name": "greeter-2",
    }
    made = await deployments.create(**given)

    assert made == {
        "id": made["id"],
        "agent_id": deployments.agent["id"],
        **given,
        "status": "Pending",
        "is_production": False,
        "acp_url": None,
        "created_at": made["created_at"],
        "promoted_at": None,
        "expires_at": None,
    }
    assert await deployments.read(made) == made


@pytest.mark.parametrize(
    ("field", "body"),
    [
        ("docker_image", {}),
        ("docker_image", {"docker_image": ""}),
        ("docker_image", {"docker_image": "x" * 2_001}),
        ("docker_image", {"docker_image": "a\x00b"}),
        ("registration_metadata", {"docker_image": "a", "registration_metadata": []}),
        ("sgp_deploy_id", {"docker_image": "a", "sgp_deploy_id": "x" * 256}),
        ("helm_release_name", {"docker_image": "a", "helm_release_name": 7}),
    ],
)
async def test_bad_input_is_named(deployments: Deployments, field: str, body: Json) -> None:
    response = await deployments.client.post(deployments.path, json=body)
    assert (response.status_code, field in response.json()["message"]) == (422, True)


async def test_a_silent_repeat_makes_no_second(deployments: Deployments) -> None:
    made = await deployments.create()
    again = await deployments.client.post(
        deployments.path, json={"docker_image": "greeter:2"}, headers={"x-stainless-retry-count": "1"}
    )

    assert again.json() == made
    assert (await deployments.client.get(deployments.path)).json() == [made]


async def test_a_process_registers_into_its_deployment_and_the_agent_stays_as_it_is(
    deployments: Deployments, client: httpx2.AsyncClient
) -> None:
    made = await deployments.create(registration_metadata={"branch_name": "main"})
    before = await deployments.agent_now()

    answered = await deployments.starts(made, NEW_URL, acp_type="sync", description="another")

    metadata = {"branch_name": "main", "deployment_id": made["id"], "commit_sha": f"sha-{made['id']}"}
    changed = {"status": "Ready", "acp_url": NEW_URL, "registration_metadata": metadata}
    assert await deployments.read(made) == made | changed
    assert (read_agent(answered), await deployments.agent_now()) == (before, before)
    assert (await client.get("/deployment-history", params={"agent_name": "greeter"})).json() == []


async def test_a_promotion_makes_the_agent_be_the_deployment(
    deployments: Deployments, resources: Resources
) -> None:
    made = await deployments.create()
    await deployments.starts(made, NEW_URL, acp_type="sync")
    before = await deployments.agent_now()

    response = await deployments.promote(made)

    promoted, after = response.json(), await deployments.agent_now()
    ready = await deployments.read(made)
    assert (response.status_code, promoted) == (200, ready)
    assert (ready["is_production"], ready["promoted_at"] > ready["created_at"]) == (True, True)
    assert after == before | {
        "acp_type": "sync",
        "production_deployment_id": made["id"],
        "registration_metadata": {"deployment_id": made["id"], "commit_sha": f"sha-{made['id']}"},
        "updated_at": after["updated_at"],
    }
    assert [row["acp_url"] for row in await fetch(resources, "SELECT acp_url FROM agents")] == [NEW_URL]


async def test_the_process_in_production_moves_its_agent(
    deployments: Deployments, resources: Resources
) -> None:
    made = await deployments.ready(NEW_URL)
    await deployments.promote(made)
    moved = "http://127.0.0.1:8888"

    answered = await deployments.starts(made, moved, description="moved")

    assert (answered["description"], answered["production_deployment_id"]) == ("moved", made["id"])
    assert [row["acp_url"] for row in await fetch(resources, "SELECT acp_url FROM agents")] == [moved]
    assert (await deployments.read(made))["acp_url"] == moved


@pytest.mark.parametrize("deployment_id", [UNKNOWN_ID, "not an id", 7, None])
async def test_a_process_of_a_deployment_that_is_not_known_is_the_agent(
    deployments: Deployments, resources: Resources, deployment_id: object
) -> None:
    metadata = {"deployment_id": deployment_id}
    answered = await register(deployments.client, acp_url=NEW_URL, registration_metadata=metadata)

    assert answered["id"] == deployments.agent["id"]
    assert [row["acp_url"] for row in await fetch(resources, "SELECT acp_url FROM agents")] == [NEW_URL]


@pytest.mark.parametrize("deployment_id", [UNKNOWN_ID, "not an id", 7])
async def test_a_deployment_that_is_not_known_does_not_take_the_place_of_the_one_in_production(
    deployments: Deployments, deployment_id: object
) -> None:
    made = await deployments.ready(NEW_URL)
    await deployments.promote(made)
    before = await deployments.agent_now()
    body = registration(
        acp_url="http://127.0.0.1:7777", registration_metadata={"deployment_id": deployment_id}
    )

    response = await deployments.client.post("/agents/register", json=body)

    message = (
        f"registration_metadata.deployment_id: {str(deployment_id)!r} is no deployment of this agent, and "
        f"deployment {made['id']} is in production; register with the id of one, or with none"
    )
    assert response.status_code == 400
    assert response.json() == problem("/agents/register", 400, "bad-request", message)
    assert await deployments.agent_now() == before


async def test_a_process_without_a_deployment_is_the_agent_and_none_is_in_production_then(
    deployments: Deployments, resources: Resources
) -> None:
    made = await deployments.ready(NEW_URL)
    await deployments.promote(made)

    answered = await register(deployments.client, acp_url=OTHER_URL)

    assert answered["production_deployment_id"] is None
    assert (await deployments.read(made))["is_production"] is False
    assert [row["acp_url"] for row in await fetch(resources, "SELECT acp_url FROM agents")] == [OTHER_URL]


async def test_the_process_in_production_may_leave_its_deployment_unsaid(deployments: Deployments) -> None:
    made = await deployments.ready(NEW_URL)
    await deployments.promote(made)

    answered = await register(deployments.client, acp_url=NEW_URL)

    assert answered["production_deployment_id"] == made["id"]


async def test_a_process_does_not_register_into_another_agents_deployment(
    deployments: Deployments, client: httpx2.AsyncClient
) -> None:
    other = Deployments(client, await register(client, name="other"))
    theirs = await other.create()

    await deployments.starts(theirs, NEW_URL)

    assert await other.read(theirs) == theirs


async def test_a_deployment_that_has_not_registered_is_not_promoted(deployments: Deployments) -> None:
    made, before = await deployments.create(), await deployments.agent_now()
    response = await deployments.promote(made)

    message = (
        f"deployment {made['id']} is Pending, so it cannot be promoted; it is Ready once its agent process "
        "has registered with its id as registration_metadata.deployment_id"
    )
    expected = problem(f"{deployments.path}/{made['id']}/promote", 400, "bad-request", message)
    assert (response.status_code, response.json()) == (400, expected)
    assert (await deployments.agent_now(), await deployments.read(made)) == (before, made)


async def test_a_deployment_is_deleted_once_and_stays_listed_for_cleanup(deployments: Deployments) -> None:
    made = await deployments.ready(NEW_URL)

    gone = await deployments.delete(made)
    marked = await deployments.read(made)
    again = await deployments.delete(made)

    answer = {"id": made["id"], "message": f"Deployment '{made['id']}' was deleted"}
    assert [(one.status_code, one.json()) for one in (gone, again)] == [(200, answer)] * 2
    assert marked == made | {"expires_at": marked["expires_at"]}
    assert marked["expires_at"] > made["created_at"]
    assert (await deployments.client.get(deployments.path)).json() == [marked]


async def test_a_deleted_deployment_is_neither_promoted_nor_called_nor_registered_into(
    deployments: Deployments,
) -> None:
    made = await deployments.ready(NEW_URL)
    await deployments.delete(made)
    marked, before = await deployments.read(made), await deployments.agent_now()

    promoted = await deployments.promote(made)
    body: Json = {"method": "task/create", "params": {}}
    called = await deployments.client.post(f"{deployments.path}/{made['id']}/rpc", json=body)
    await deployments.starts(made, "http://127.0.0.1:8888")

    said = [(one.status_code, one.json()["message"]) for one in (promoted, called)]
    about = f"deployment {made['id']} is deleted, so it cannot be"
    assert said == [(400, f"{about} promoted"), (400, f"{about} called")]
    assert (await deployments.read(made), await deployments.agent_now()) == (marked, before)


async def test_the_deployment_in_production_is_not_deleted(deployments: Deployments) -> None:
    made = await deployments.ready(NEW_URL)
    await deployments.promote(made)
    response = await deployments.delete(made)

    message = f"deployment {made['id']} is in production; promote another one before you delete it"
    expected = problem(f"{deployments.path}/{made['id']}", 400, "bad-request", message)
    assert (response.status_code, response.json()) == (400, expected)
    assert (await deployments.read(made))["expires_at"] is None


async def test_a_preview_is_called_where_it_runs_and_the_agent_where_it_did(
    deployments: Deployments, client: httpx2.AsyncClient, acp_server: AcpServer
) -> None:
    async with AcpServer() as preview:
        made = await deployments.ready(preview.url)
        request = {"jsonrpc": "2.0", "method": "task/create", "params": {"name": "t1"}, "id": "x"}
        response = await client.post(f"{deployments.path}/{made['id']}/rpc", json=request)
        await rpc(client, deployments.agent, "task/create", {"name": "t2"})
        before = ([r.params["task"] for r in preview.requests], [r.method for r in acp_server.requests])
        await deployments.promote(made)
        await rpc(client, deployments.agent, "task/create", {"name": "t3"})

        task = response.json()["result"]
        assert (response.status_code, response.json()["id"], task["name"]) == (200, "x", "t1")
        assert before == ([task], ["task/create"])
        told = preview.requests[0].params["agent"]
        assert isinstance(told, dict)
        assert (told["id"], told["acp_url"]) == (deployments.agent["id"], preview.url)
        assert (len(preview.requests), len(acp_server.requests)) == (2, 1)


async def test_a_preview_of_another_kind_takes_its_own_methods(
    deployments: Deployments, client: httpx2.AsyncClient
) -> None:
    made = await deployments.create()
    await deployments.starts(made, NEW_URL, acp_type="sync")
    request: Json = {"method": "event/send", "params": {}, "id": 1}
    response = await client.post(f"{deployments.path}/{made['id']}/rpc", json=request)

    message = "Unsupported method: event/send for an agent of type sync"
    assert response.json()["error"] == {"code": -32603, "message": message, "data": None}


async def test_a_preview_that_has_not_registered_is_not_called(deployments: Deployments) -> None:
    made = await deployments.create()
    body: Json = {"method": "task/create", "params": {}}
    response = await deployments.client.post(f"{deployments.path}/{made['id']}/rpc", json=body)

    assert (response.status_code, "is Pending, so it cannot be called" in response.json()["message"]) == (
        400,
        True,
    )


async def test_promotions_at_once_leave_one_in_production(
    deployments: Deployments, resources: Resources
) -> None:
    made = [await deployments.ready(f"http://127.0.0.1:{7000 + number}") for number in range(6)]
    for _ in range(5):
        answers = await asyncio.gather(*[deployments.promote(one) for one in made])
        assert [answer.status_code for answer in answers] == [200] * 6

        now = [await deployments.read(one) for one in made]
        urls = [row["acp_url"] for row in await fetch(resources, "SELECT acp_url FROM agents")]
        assert [one["acp_url"] for one in now if one["is_production"]] == urls
        newest = max(now, key=lambda one: one["promoted_at"])
        assert newest["is_production"]


async def test_what_is_promoted_and_deleted_at_once_is_one_of_both(deployments: Deployments) -> None:
    for number in range(10):
        made = await deployments.ready(f"http://127.0.0.1:{7000 + number}")
        answers = await asyncio.gather(deployments.promote(made), deployments.delete(made))

        now = await deployments.read(made)
        statuses = [answer.status_code for answer in answers]
        assert sorted(statuses) == [200, 400]
        assert (now["is_production"], now["expires_at"] is None) == (statuses[0] == 200, statuses[0] == 200)


async def test_a_process_that_moves_while_it_is_promoted_is_found_where_it_is(
    deployments: Deployments, resources: Resources
) -> None:
    for number in range(15):
        made = await deployments.ready(NEW_URL)
        moved = f"http://127.0.0.1:{7000 + number}"
        answers = await asyncio.gather(deployments.starts(made, moved), deployments.promote(made))

        assert (answers[0]["id"], answers[1].status_code) == (deployments.agent["id"], 200)
        assert [row["acp_url"] for row in await fetch(resources, "SELECT acp_url FROM agents")] == [moved]


async def test_lists_are_sorted_and_paged(deployments: Deployments) -> None:
    made = [await deployments.ready(f"http://127.0.0.1:{7000 + number}") for number in range(4)]
    for number in (2, 0):
        await deployments.promote(made[number])

    async def ids(**params: str | int) -> list[int]:
        response = await deployments.client.get(deployments.path, params=params)
        assert response.status_code == 200, response.text
        return [[one["id"] for one in made].index(found["id"]) for found in response.json()]

    assert await ids() == [3, 2, 1, 0]
    assert await ids(order_direction="asc", limit=2, page_number=2) == [2, 3]
    assert await ids(order_by="promoted_at") == [0, 2, 3, 1]
    assert await ids(order_by="promoted_at", order_direction="asc") == [1, 3, 2, 0]


@pytest.mark.parametrize(
    "params",
    [{"limit": 0}, {"limit": 10**20}, {"page_number": 0}, {"order_by": "owner"}, {"order_direction": "up"}],
)
async def test_a_list_that_cannot_be_is_refused(
    deployments: Deployments, params: dict[str, str | int]
) -> None:
    response = await deployments.client.get(deployments.path, params=params)
    assert (response.status_code, next(iter(params)) in response.json()["message"]) == (422, True)


@pytest.mark.parametrize("order_by", ["created_at", "promoted_at"])
@pytest.mark.parametrize("order_direction", ["asc", "desc"])
async def test_a_list_comes_from_an_index(
    deployments: Deployments, resources: Resources, order_by: str, order_direction: str
) -> None:
    await fetch(
        resources,
        """
        INSERT INTO deployments (id, account_id, agent_id, owner, docker_image, status, created_at,
            promoted_at)
        SELECT gen_random_uuid(), account_id, id, owner, 'x', 'Pending', now() - n * interval '1 s',
            CASE WHEN n % 2 = 0 THEN now() - n * interval '1 s' END FROM agents, generate_series(1, 3000) n
        """,
    )
    await fetch(resources, "ANALYZE deployments")
    with statements(resources) as sent:
        params = {"limit": 5, "order_by": order_by, "order_direction": order_direction}
        await deployments.client.get(deployments.path, params=params)

    plan = await explain_sent(resources, next(one for one in sent if "ORDER BY deployments" in one[0]))
    assert plan.indexes_of("deployments") == {f"ix_deployments_agent_id_{order_by}"}
    assert plan.most_of("deployments") == 5


def everything(deployments: Deployments, deployment_id: str) -> list[tuple[str, str, Json | None]]:
    one = f"{deployments.path}/{deployment_id}"
    return [
        ("POST", deployments.path, {"docker_image": "x"}),
        ("GET", deployments.path, None),
        ("GET", one, None),
        ("POST", f"{one}/promote", None),
        ("POST", f"{one}/rpc", {"method": "task/create", "params": {}}),
        ("DELETE", one, None),
    ]


async def test_another_account_sees_and_changes_nothing(deployments: Deployments) -> None:
    made = await deployments.ready(NEW_URL)
    answers = [
        await deployments.client.request(method, path, json=body, headers=ELSEWHERE)
        for method, path, body in everything(deployments, made["id"])
    ]

    assert [answer.status_code for answer in answers] == [404] * 6
    assert (await deployments.client.get(deployments.path)).json() == [made]


@pytest.mark.parametrize("deployment_id", [UNKNOWN_ID, "x", "theirs"])
async def test_only_an_agents_own_deployments_are_found(
    deployments: Deployments, client: httpx2.AsyncClient, deployment_id: str
) -> None:
    other = Deployments(client, await register(client, name="other"))
    theirs = (await other.create())["id"] if deployment_id == "theirs" else deployment_id
    answers = [
        await client.request(method, path, json=body)
        for method, path, body in everything(deployments, theirs)[2:]
    ]

    assert [answer.status_code for answer in answers] == [404] * 4
    message = f"agent 'greeter' has no deployment {theirs!r}"
    if deployment_id == "x":
        message = "deployment 'x' not found"
    assert {answer.json()["message"] for answer in answers} == {message}


async def test_who_may_only_read_changes_nothing(deployments: Deployments, authz: ScriptedAuthz) -> None:
    made = await deployments.ready(NEW_URL)
    agent = await deployments.agent_now()
    authz.deny = {(Operation.UPDATE, ResourceType.AGENT), (Operation.EXECUTE, ResourceType.AGENT)}
    answers = [
        await deployments.client.request(method, path, json=body)
        for method, path, body in everything(deployments, made["id"])
    ]

    # An RPC's refusal is an answer of its own.
    assert [answer.status_code for answer in answers] == [403, 200, 200, 403, 200, 403]
    assert answers[4].json()["error"]["message"].startswith("execute on agent")
    assert (await deployments.agent_now(), (await deployments.client.get(deployments.path)).json()) == (
        agent,
        [made],
    )
