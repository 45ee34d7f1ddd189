"""/agent_api_keys: made, shown once, found, deleted."""

from __future__ import annotations

import asyncio
import re

import httpx2
import pytest

from agentex.auth.authorize import Operation, ResourceType
from agentex.resources import Resources
from tests.api.ledger.stage import fetch
from tests.support.api import UNKNOWN_ID, Json, problem, register
from tests.support.authz import ScriptedAuthz
from tests.support.plans import explain_sent, statements

PATH = "/agent_api_keys"
ELSEWHERE = {"x-test-account": "elsewhere"}
OWN_KEY = "a-key-of-my-own-16"
ONE_AGENT = "give agent_id or agent_name, and not both"


async def add(client: httpx2.AsyncClient, agent: Json, **changes: object) -> Json:
    response = await client.post(PATH, json={"agent_id": agent["id"], "name": "ci", **changes})
    assert response.status_code == 200, response.text
    return response.json()


def read(created: Json) -> Json:
    """A key as it is read."""
    return {name: value for name, value in created.items() if name != "api_key"}


@pytest.mark.parametrize("by", ["agent_id", "agent_name"])
async def test_a_key_is_shown_once(client: httpx2.AsyncClient, agent: Json, by: str) -> None:
    body = {by: agent["id" if by == "agent_id" else "name"], "name": "ci"}
    response = await client.post(PATH, json=body)

    key = response.json()
    assert (response.status_code, key) == (
        200,
        {
            "id": key["id"],
            "agent_id": agent["id"],
            "created_at": key["created_at"],
            "name": "ci",
            "api_key_type": "external",
            "key_prefix": key["api_key"][:10],
            "api_key": key["api_key"],
        },
    )
    assert re.fullmatch(r"agx_[A-Za-z0-9_-]{43}", key["api_key"])
    assert (await client.get(f"{PATH}/{key['id']}")).json() == read(key)
    assert (await client.get(PATH, params={"agent_id": agent["id"]})).json() == [read(key)]
    assert (await client.get(f"{PATH}/name/ci", params={"agent_name": "greeter"})).json() == read(key)


async def test_nothing_that_was_shown_is_found_again(
    client: httpx2.AsyncClient, resources: Resources, agent: Json, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    made = [
        await add(client, agent, name=kind, api_key_type=kind, api_key=given)
        for kind, given in [
            ("internal", None),
            ("external", OWN_KEY),
            ("github", None),
            ("slack", "the app's signing secret"),
        ]
    ]
    trigger = {"agent_name": "greeter", "name": "a/b", "forward_path": "c"}
    made.append((await client.post(f"{PATH}/webhook-trigger", json=trigger)).json())
    again = await client.post(PATH, json={"agent_id": agent["id"], "name": "external", "api_key": OWN_KEY})
    assert again.status_code == 400

    secrets = [one.get("api_key") or one["secret"] for one in made]
    tables = "SELECT k::text AS row FROM agent_api_keys k UNION ALL SELECT i::text FROM idempotency_keys i"
    kept = "".join(row["row"] for row in await fetch(resources, tables))
    answers = [await client.get(PATH, params={"agent_id": agent["id"]}), again]
    answers += [await client.get(f"{PATH}/{one.get('id') or one['key_id']}") for one in made]
    told = kept + caplog.text + "".join(answer.text for answer in answers)
    assert len(secrets) == 5
    assert [secret for secret in secrets if secret in told] == []


@pytest.mark.parametrize(
    ("field", "body"),
    [
        ("api_key", {"api_key": "too-short-a-key"}),
        ("api_key", {"api_key": "with a blank in it"}),
        ("api_key", {"api_key": "x" * 513}),
        ("api_key", {"api_key": "not-ascii-\xe9\xe9\xe9\xe9\xe9\xe9\xe9"}),
        ("api_key", {"api_key": ["in-a-list-by-mistake"]}),
        ("api_key", {"api_key_type": "github", "api_key": "seven77"}),
        ("name", {"name": ""}),
        ("name", {"name": "x" * 256}),
        ("name", {"name": None}),
        ("name", {"name": "a\x00b"}),
        ("api_key_type", {"api_key_type": "gitlab"}),
    ],
)
async def test_bad_input_is_named_and_a_key_never_quoted(
    client: httpx2.AsyncClient, agent: Json, field: str, body: Json
) -> None:
    response = await client.post(PATH, json={"agent_id": agent["id"], "name": "ci", **body})

    assert (response.status_code, field in response.json()["message"]) == (422, True)
    given = body.get("api_key", [])
    assert all(key not in response.text for key in ([given] if isinstance(given, str) else given))


@pytest.mark.parametrize("method", ["POST", "GET", "GET name", "DELETE name"])
@pytest.mark.parametrize("both", [True, False])
async def test_exactly_one_agent_is_named(
    client: httpx2.AsyncClient, agent: Json, method: str, both: bool
) -> None:
    named = {"agent_id": agent["id"], "agent_name": "greeter"} if both else {}
    verb, _, by_name = method.partition(" ")
    path = f"{PATH}/name/ci" if by_name else PATH
    if verb == "POST":
        response = await client.post(path, json={"name": "ci", **named})
    else:
        response = await client.request(verb, path, params=named)

    assert (response.status_code, response.json()) == (400, problem(path, 400, "bad-request", ONE_AGENT))


async def test_a_slack_secret_is_the_apps(client: httpx2.AsyncClient, agent: Json) -> None:
    response = await client.post(PATH, json={"agent_id": agent["id"], "name": "A1", "api_key_type": "slack"})

    message = "api_key is missing: Slack signs with the app's own Signing Secret; give that"
    assert (response.status_code, response.json()) == (400, problem(PATH, 400, "bad-request", message))


async def test_a_signing_secret_needs_the_setting(
    client: httpx2.AsyncClient, resources: Resources, agent: Json
) -> None:
    resources.settings = resources.settings.model_copy(update={"secret_key": None})
    body = {"agent_id": agent["id"], "name": "a/b", "api_key_type": "github"}
    response = await client.post(PATH, json=body)

    assert (response.status_code, "AGENTEX_SECRET_KEY" in response.json()["message"]) == (400, True)
    assert list(await fetch(resources, "SELECT 1 FROM agent_api_keys")) == []
    # A key needs none.
    await add(client, agent)


async def test_a_name_is_unique_among_an_agents_keys_of_one_type(
    client: httpx2.AsyncClient, agent: Json
) -> None:
    other = await register(client, name="other")
    body = {"agent_id": agent["id"], "name": "ci"}
    answers = await asyncio.gather(*[client.post(PATH, json=body) for _ in range(8)])

    refused = [answer.json() for answer in answers if answer.status_code != 200]
    message = "agent 'greeter' already has a key 'ci' of type external; delete it first"
    assert refused == [problem(PATH, 400, "already-exists", message)] * 7
    await add(client, agent, api_key_type="internal")
    await add(client, other)


async def test_keys_are_listed_newest_first_by_page(client: httpx2.AsyncClient, agent: Json) -> None:
    await add(client, await register(client, name="other"))
    made = [read(await add(client, agent, name=f"k{number}")) for number in range(5)]

    async def page(**params: str | int) -> list[Json]:
        response = await client.get(PATH, params={"agent_id": agent["id"], **params})
        assert response.status_code == 200
        return response.json()

    assert await page() == made[::-1]
    assert await page(limit=2, page_number=2) == [made[2], made[1]]
    assert await page(limit=2, page_number=4) == []


@pytest.mark.parametrize(
    "params", [{"limit": 0}, {"limit": 1001}, {"limit": "x"}, {"page_number": 0}, {"page_number": 10**20}]
)
async def test_a_page_that_cannot_be_is_refused(
    client: httpx2.AsyncClient, agent: Json, params: dict[str, str | int]
) -> None:
    response = await client.get(PATH, params={"agent_id": agent["id"], **params})
    assert (response.status_code, next(iter(params)) in response.json()["message"]) == (422, True)


async def test_a_list_comes_from_an_index(
    client: httpx2.AsyncClient, resources: Resources, agent: Json
) -> None:
    await fetch(
        resources,
        """
        INSERT INTO agent_api_keys (id, account_id, agent_id, owner, principal, name, api_key_type, key_hash,
            created_at)
        SELECT gen_random_uuid(), account_id, id, owner, '{}', n::text, 'external', n::text,
            now() - n * interval '1 s' FROM agents, generate_series(1, 3000) n
        """,
    )
    await fetch(resources, "ANALYZE agent_api_keys")
    with statements(resources) as sent:
        await client.get(PATH, params={"agent_id": agent["id"], "limit": 5})
        found = await client.get("/agents/forward/name/greeter/x", headers={"x-agent-api-key": "agx_none"})

    assert found.status_code == 401
    plans = [await explain_sent(resources, one) for one in sent if "ORDER BY agent_api_keys" in one[0]]
    listed, opened = plans
    assert listed.indexes_of("agent_api_keys") == {"ix_agent_api_keys_agent_id_created_at"}
    assert listed.most_of("agent_api_keys") == 5
    assert opened.indexes_of("agent_api_keys") == {"ix_agent_api_keys_key_hash"}


async def test_a_key_is_deleted_once(client: httpx2.AsyncClient, agent: Json) -> None:
    key = await add(client, agent)
    path = f"{PATH}/{key['id']}"
    gone, again = await client.delete(path), await client.delete(path)

    assert (gone.status_code, gone.json()) == (200, f"Agent API key {key['id']} was deleted")
    message = f"api_key {key['id']!r} not found"
    assert (again.status_code, again.json()) == (404, problem(path, 404, "not-found", message))


async def test_a_key_is_deleted_by_name_of_its_type_only(client: httpx2.AsyncClient, agent: Json) -> None:
    named = {"agent_id": agent["id"], "api_key_type": "github"}
    secret = await add(client, agent, name="acme/widgets", api_key_type="github")
    key = read(await add(client, agent, name="acme/widgets"))
    path = f"{PATH}/name/acme/widgets"
    assert (await client.get(path, params=named)).json() == read(secret)

    gone, again = await client.delete(path, params=named), await client.delete(path, params=named)

    assert (gone.status_code, gone.json()) == (200, "Agent API key 'acme/widgets' was deleted")
    message = "agent 'greeter' has no key 'acme/widgets' of type github"
    assert (again.status_code, again.json()) == (404, problem(path, 404, "not-found", message))
    assert (await client.get(PATH, params={"agent_id": agent["id"]})).json() == [key]


async def test_an_agents_keys_go_with_it(
    client: httpx2.AsyncClient, resources: Resources, agent: Json
) -> None:
    kept = await add(client, await register(client, name="other"))
    key = await add(client, agent)
    assert (await client.delete(f"/agents/{agent['id']}")).status_code == 200

    assert [str(row["id"]) for row in await fetch(resources, "SELECT id FROM agent_api_keys")] == [kept["id"]]
    assert (await client.get(f"{PATH}/{key['id']}")).status_code == 404


@pytest.mark.parametrize("key_id", [UNKNOWN_ID, "x", "a%00b"])
async def test_an_unknown_key_is_not_found(client: httpx2.AsyncClient, agent: Json, key_id: str) -> None:
    answers = [await client.request(method, f"{PATH}/{key_id}") for method in ("GET", "DELETE")]
    assert [answer.status_code for answer in answers] == [404, 404]


async def test_another_account_sees_no_key(client: httpx2.AsyncClient, agent: Json) -> None:
    key = await add(client, agent)
    of_agent = {"agent_id": agent["id"]}
    client.headers.update(ELSEWHERE)

    answers = [
        await client.get(f"{PATH}/{key['id']}"),
        await client.delete(f"{PATH}/{key['id']}"),
        await client.get(PATH, params=of_agent),
        await client.get(f"{PATH}/name/ci", params=of_agent),
        await client.delete(f"{PATH}/name/ci", params={"agent_name": "greeter"}),
        await client.post(PATH, json={**of_agent, "name": "mine"}),
        await client.post(
            f"{PATH}/webhook-trigger", json={"agent_name": "greeter", "name": "a", "forward_path": ""}
        ),
    ]

    assert [answer.status_code for answer in answers] == [404] * 7
    client.headers.pop("x-test-account")
    assert (await client.get(f"{PATH}/{key['id']}")).status_code == 200


@pytest.mark.parametrize(
    ("denied", "kind", "method", "status"),
    [
        (Operation.UPDATE, ResourceType.AGENT, "POST", 403),
        (Operation.READ, ResourceType.AGENT, "GET", 404),
        (Operation.READ, ResourceType.API_KEY, "GET one", 404),
        (Operation.DELETE, ResourceType.API_KEY, "DELETE one", 403),
        (Operation.READ, ResourceType.API_KEY, "DELETE one", 404),
    ],
    ids=str,
)
async def test_who_may_not_is_refused(
    client: httpx2.AsyncClient, authz: ScriptedAuthz, agent: Json, denied: Operation, kind: ResourceType,
    method: str, status: int,
) -> None:  # fmt: skip
    key = await add(client, agent)
    authz.deny = {(denied, kind)}
    verb, _, one = method.partition(" ")
    path = f"{PATH}/{key['id']}" if one else PATH
    body = {"agent_id": agent["id"], "name": "another"} if verb == "POST" else None
    response = await client.request(verb, path, json=body, params=None if body else {"agent_id": agent["id"]})

    authz.deny = frozenset()
    assert response.status_code == status
    assert (await client.get(PATH, params={"agent_id": agent["id"]})).json() == [read(key)]


async def test_a_list_leaves_out_keys_that_its_caller_may_not_read(
    client: httpx2.AsyncClient, authz: ScriptedAuthz, agent: Json
) -> None:
    await add(client, agent)
    authz.deny = {(Operation.READ, ResourceType.API_KEY)}

    response = await client.get(PATH, params={"agent_id": agent["id"]})

    assert (response.status_code, response.json()) == (200, [])
