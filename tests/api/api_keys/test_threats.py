"""What somebody without a right would try: each is refused, and says no more than it must."""

from __future__ import annotations

import asyncio

import httpx2
import pytest

from agentex.auth.keys import hash_key
from agentex.auth.rules import Role
from agentex.resources import Resources
from agentex.settings import Settings
from tests.api.ledger.stage import fetch
from tests.support.api import problem
from tests.support.keys import another_process, bearer, key_of, of_agent

WHO = "/whoami"
NOTHING = "an API key is missing: send `Authorization: Bearer agx_…`, or x-api-key"
UNKNOWN = "the API key is unknown, has expired or was revoked"
# Under which proxies, gateways and the incumbent say who calls.
IDENTITIES = [
    "x-agent-id",
    "x-user-id",
    "x-acting-as-agent",
    "x-acting-user-api-key",
    "x-principal",
    "x-principal-context",
    "x-account-id",
    "x-selected-account-id",
    "x-forwarded-user",
    "x-remote-user",
    "x-authenticated-user",
    "x-test-user",
    "x-service-account-id",
    "cookie",
]


@pytest.mark.parametrize("header", IDENTITIES)
async def test_an_identity_without_a_secret_opens_nothing(
    client: httpx2.AsyncClient, admin: str, header: str
) -> None:
    for value in ("ann", "user:ann", '{"user_id": "ann", "account_id": "default"}'):
        response = await client.get(WHO, headers={header: value})
        expected = problem(WHO, 401, "unauthorized", NOTHING)
        assert (response.status_code, response.json()) == (401, expected)


@pytest.mark.parametrize("header", IDENTITIES)
async def test_an_identity_beside_a_key_changes_nothing(
    client: httpx2.AsyncClient, admin: str, editor: str, header: str
) -> None:
    response = await client.get(WHO, headers=bearer(editor) | {header: "ann"})
    assert (response.status_code, response.json()["member"]) == (200, "user:eve")


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": "Bearer agx_wrong"},
        {"authorization": "Bearer " + "x" * 10_240},
        {"x-api-key": "x" * 10_240},
        {"x-agent-api-key": "agx_" + "\xe9" * 40},
        {"x-api-key": "' OR 1=1 --"},
        {"x-api-key": "%"},
    ],
)
async def test_what_is_no_key_opens_nothing(
    client: httpx2.AsyncClient, admin: str, headers: dict[str, str]
) -> None:
    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    response = await client.get(WHO, headers=raw)
    assert (response.status_code, response.json()) == (401, problem(WHO, 401, "unauthorized", UNKNOWN))


@pytest.mark.parametrize(
    "authorization", ["", "Bearer", "Bearer ", "Basic YW5uOng=", "agx_x", "Bearer\tagx_x"]
)
async def test_no_bearer_is_no_credential(client: httpx2.AsyncClient, authorization: str) -> None:
    response = await client.get(WHO, headers={"authorization": authorization})
    assert (response.status_code, response.json()) == (401, problem(WHO, 401, "unauthorized", NOTHING))


async def test_the_hash_of_a_key_is_none(
    client: httpx2.AsyncClient, resources: Resources, admin: str
) -> None:
    for guess in (hash_key(admin), admin[:10], admin[:-1], admin + "=", admin.swapcase()):
        response = await client.get(WHO, headers={"x-api-key": guess})
        assert response.status_code == 401


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("authorization", "x-api-key"),
        ("authorization", "x-agent-api-key"),
        ("x-api-key", "x-agent-api-key"),
        ("authorization", "authorization"),
        ("x-api-key", "x-api-key"),
        ("x-agent-api-key", "x-agent-api-key"),
    ],
)
async def test_two_different_credentials_open_nothing(
    client: httpx2.AsyncClient, admin: str, editor: str, first: str, second: str
) -> None:
    def value(header: str, key: str) -> str:
        return f"Bearer {key}" if header == "authorization" else key

    message = "authorization, x-api-key and x-agent-api-key hold different credentials; send one"
    for keys in ((admin, editor), (editor, "agx_wrong"), ("agx_wrong", editor)):
        both = [(header, value(header, key)) for header, key in zip((first, second), keys, strict=True)]
        response = await client.get(WHO, headers=both)
        expected = problem(WHO, 401, "unauthorized", message)
        assert (response.status_code, response.json()) == (401, expected)
    same = [(header, value(header, editor)) for header in (first, second)]
    assert (await client.get(WHO, headers=same)).json()["member"] == "user:eve"


async def test_a_key_in_the_query_or_body_opens_nothing(client: httpx2.AsyncClient, admin: str) -> None:
    answers = [
        await client.get(WHO, params={"api_key": admin, "x-api-key": admin, "access_token": admin}),
        await client.post("/api_keys", json={"name": "x", "api_key": admin}),
    ]
    assert [answer.status_code for answer in answers] == [401, 401]
    assert admin not in "".join(answer.text for answer in answers)


@pytest.mark.parametrize("how", ["revoked", "expired", "disabled", "rotated"])
async def test_a_key_that_is_over_opens_nothing_in_any_process(
    client: httpx2.AsyncClient, resources: Resources, settings: Settings, admin: str, editor: str, how: str
) -> None:
    (key_id,) = [
        row["id"] for row in await fetch(resources, "SELECT id FROM api_keys WHERE member = 'user:eve'")
    ]
    async with another_process(settings) as second:
        assert (await second.get(WHO, headers=bearer(editor))).status_code == 200
        match how:
            case "revoked":
                await client.delete(f"/api_keys/{key_id}", headers=bearer(admin))
            case "expired":
                await fetch(resources, "UPDATE api_keys SET expires_at = now() WHERE member = 'user:eve'")
            case "disabled":
                await client.delete("/members/user:eve", headers=bearer(admin))
            case _:
                body = {"overlap_seconds": 0}
                await client.post(f"/api_keys/{key_id}/rotate", json=body, headers=bearer(editor))
        for process in (client, second):
            response = await process.get(WHO, headers=bearer(editor))
            assert (response.status_code, response.json()["message"]) == (401, UNKNOWN)


async def test_a_role_that_is_taken_away_counts_at_once_in_another_process(
    client: httpx2.AsyncClient, settings: Settings, admin: str, editor: str
) -> None:
    async with another_process(settings) as second:
        body = {"name": "greeter", "description": ""}
        before = await second.post("/agents/register-build", json=body, headers=bearer(editor))
        await client.put("/members/user:eve", json={"role": "viewer"}, headers=bearer(admin))
        after = await second.post(
            "/agents/register-build", json=body | {"name": "other"}, headers=bearer(editor)
        )
    assert (before.status_code, after.status_code) == (200, 403)


async def test_an_admin_of_one_account_is_nobody_in_another(
    client: httpx2.AsyncClient, resources: Resources, admin: str
) -> None:
    other = await key_of(resources, "user:ann", Role.ADMIN, account="elsewhere")
    who = [(await client.get(WHO, headers=bearer(key))).json() for key in (admin, other)]
    assert [one["account_id"] for one in who] == ["default", "elsewhere"]
    agent = {"name": "greeter", "description": ""}
    made = (await client.post("/agents/register-build", json=agent, headers=bearer(admin))).json()
    answers = await asyncio.gather(
        client.get(f"/agents/{made['id']}", headers=bearer(other)),
        client.get("/agents/name/greeter", headers=of_agent(other)),
        client.delete(f"/agents/{made['id']}", headers=bearer(other)),
    )
    assert [answer.status_code for answer in answers] == [404] * 3
