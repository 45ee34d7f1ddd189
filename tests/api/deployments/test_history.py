"""/deployment-history: a row each time that another commit begins to serve as an agent."""

from __future__ import annotations

import asyncio

import httpx2
import pytest

from agentex.auth.authorize import Operation, ResourceType
from agentex.resources import Resources
from tests.api.deployments.conftest import Deployments
from tests.api.ledger.stage import fetch
from tests.support.api import UNKNOWN_ID, Json, problem, register, registration
from tests.support.authz import ScriptedAuthz
from tests.support.plans import explain_sent, statements

PATH = "/deployment-history"
ONE_AGENT = "give agent_id or agent_name, and not both"


async def serves(client: httpx2.AsyncClient, commit: str, **metadata: object) -> Json:
    """A process of this commit registers."""
    return await register(client, registration_metadata={"commit_sha": commit, **metadata})


async def history(client: httpx2.AsyncClient, **params: str | int) -> list[Json]:
    response = await client.get(PATH, params={"agent_name": "greeter", **params})
    assert response.status_code == 200, response.text
    return response.json()


async def commits(client: httpx2.AsyncClient, **params: str | int) -> list[str]:
    return [row["commit_hash"] for row in await history(client, **params)]


async def test_a_commit_that_registers_is_noted(client: httpx2.AsyncClient) -> None:
    agent = await serves(
        client,
        "abc",
        branch_name="main",
        author_name="Ada",
        author_email="ada@example.com",
        build_timestamp="2026-11-01T10:00:00+02:00",
    )

    [row] = await history(client)
    assert row == {
        "id": row["id"],
        "agent_id": agent["id"],
        "commit_hash": "abc",
        "branch_name": "main",
        "author_name": "Ada",
        "author_email": "ada@example.com",
        "build_timestamp": "2026-11-01T08:00:00Z",
        "deployment_timestamp": row["deployment_timestamp"],
    }
    assert row["deployment_timestamp"] >= agent["created_at"]
    assert (await client.get(f"{PATH}/{row['id']}")).json() == row
    assert (await client.get(PATH, params={"agent_id": agent["id"]})).json() == [row]


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"build_timestamp": "2026-11-01T10:00:00"},
        {"build_timestamp": "yesterday"},
        {"build_timestamp": "0001-01-01T00:00:00+23:59"},
        {"build_timestamp": "9999-12-31T23:59:59-23:59"},
        {"build_timestamp": 7, "branch_name": {}, "author_name": " ", "author_email": None},
    ],
)
async def test_what_is_not_said_has_a_word_for_it(client: httpx2.AsyncClient, said: Json) -> None:
    await serves(client, "abc", **said)

    [row] = await history(client)
    assert (row["branch_name"], row["author_name"], row["author_email"]) == ("N/A", "N/A", "N/A")
    assert row["build_timestamp"][:19] == row["deployment_timestamp"][:19]


@pytest.mark.parametrize("key", ["commit_hash", "agent_commit"])
async def test_other_names_of_a_commit_count_too(client: httpx2.AsyncClient, key: str) -> None:
    await register(client, registration_metadata={key: "abc"})
    assert await commits(client) == ["abc"]


@pytest.mark.parametrize(
    "metadata", [None, {}, {"commit_sha": ""}, {"commit_sha": 7}, {"branch_name": "main"}]
)
async def test_without_a_commit_there_is_nothing_to_note(
    client: httpx2.AsyncClient, metadata: Json | None
) -> None:
    await register(client, registration_metadata=metadata)
    assert await history(client) == []


async def test_only_another_commit_than_the_last_is_noted(client: httpx2.AsyncClient) -> None:
    for commit in ("a", "a", "b", "b", "a"):
        await serves(client, commit)
    assert await commits(client) == ["a", "b", "a"]


async def test_processes_that_register_at_once_leave_one_row(client: httpx2.AsyncClient) -> None:
    body = registration(registration_metadata={"commit_sha": "abc"})
    answers = await asyncio.gather(*[client.post("/agents/register", json=body) for _ in range(10)])

    assert [answer.status_code for answer in answers] == [200] * 10
    assert await commits(client) == ["abc"]


async def test_a_preview_is_noted_when_it_is_promoted(client: httpx2.AsyncClient) -> None:
    deployments = Deployments(client, await serves(client, "old"))
    made = await deployments.ready("http://127.0.0.1:7777")
    before = await commits(client)
    await deployments.promote(made)
    await deployments.promote(made)

    assert (before, await commits(client)) == (["old"], [f"sha-{made['id']}", "old"])


async def test_lists_are_sorted_and_paged(client: httpx2.AsyncClient) -> None:
    await register(client, name="other", registration_metadata={"commit_sha": "theirs"})
    for day, commit in ((3, "a"), (1, "b"), (2, "c")):
        await serves(client, commit, build_timestamp=f"2026-11-0{day}T00:00:00Z")

    assert await commits(client) == ["c", "b", "a"]
    assert await commits(client, order_direction="asc", limit=1, page_number=2) == ["b"]
    assert await commits(client, order_by="build_timestamp") == ["a", "c", "b"]
    assert await commits(client, order_by="build_timestamp", order_direction="asc") == ["b", "c", "a"]


@pytest.mark.parametrize(
    "params",
    [{"limit": 1001}, {"page_number": 0}, {"order_by": "author_name"}, {"order_direction": "down"}],
)
async def test_a_list_that_cannot_be_is_refused(
    client: httpx2.AsyncClient, agent: Json, params: dict[str, str | int]
) -> None:
    response = await client.get(PATH, params={"agent_id": agent["id"], **params})
    assert (response.status_code, next(iter(params)) in response.json()["message"]) == (422, True)


@pytest.mark.parametrize("both", [True, False])
async def test_exactly_one_agent_is_named(client: httpx2.AsyncClient, agent: Json, both: bool) -> None:
    params = {"agent_id": agent["id"], "agent_name": "greeter"} if both else {}
    response = await client.get(PATH, params=params)
    assert (response.status_code, response.json()) == (400, problem(PATH, 400, "bad-request", ONE_AGENT))


@pytest.mark.parametrize("order_by", ["deployment_timestamp", "build_timestamp"])
async def test_a_list_comes_from_an_index(
    client: httpx2.AsyncClient, resources: Resources, agent: Json, order_by: str
) -> None:
    await fetch(
        resources,
        """
        INSERT INTO deployment_history (id, account_id, agent_id, commit_hash, branch_name, author_name,
            author_email, build_timestamp, deployment_timestamp)
        SELECT gen_random_uuid(), account_id, id, n::text, 'x', 'x', 'x', now() - n * interval '1 s',
            now() - n * interval '1 s' FROM agents, generate_series(1, 3000) n
        """,
    )
    await fetch(resources, "ANALYZE deployment_history")
    with statements(resources) as sent:
        await history(client, limit=5, order_by=order_by)

    plan = await explain_sent(resources, next(one for one in sent if "ORDER BY deployment_history" in one[0]))
    assert plan.indexes_of("deployment_history") == {f"ix_deployment_history_agent_id_{order_by}"}
    assert plan.most_of("deployment_history") == 5


async def test_only_who_may_read_the_agent_sees_its_history(
    client: httpx2.AsyncClient, authz: ScriptedAuthz
) -> None:
    agent = await serves(client, "abc")
    [row] = await history(client)
    paths = [f"{PATH}/{row['id']}", f"{PATH}?agent_id={agent['id']}", f"{PATH}?agent_name=greeter"]

    elsewhere = [(await client.get(path, headers={"x-test-account": "x"})).status_code for path in paths]
    authz.deny = {(Operation.READ, ResourceType.AGENT)}
    denied = [(await client.get(path)).status_code for path in paths]

    assert (elsewhere, denied) == ([404] * 3, [404] * 3)


@pytest.mark.parametrize("history_id", [UNKNOWN_ID, "x"])
async def test_an_unknown_row_is_not_found(client: httpx2.AsyncClient, history_id: str) -> None:
    path = f"{PATH}/{history_id}"
    response = await client.get(path)
    message = f"deployment {history_id!r} not found"
    assert (response.status_code, response.json()) == (404, problem(path, 404, "not-found", message))
