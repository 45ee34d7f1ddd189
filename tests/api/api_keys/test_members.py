"""/members and /whoami: administered by admins, of whom there is always one."""

from __future__ import annotations

import asyncio

import httpx2
import pytest

from agentex.auth.rules import Role
from agentex.resources import Resources
from tests.support.api import Json, problem
from tests.support.keys import bearer, key_of

PATH = "/members"


async def put(client: httpx2.AsyncClient, key: str, name: str, role: str | None) -> httpx2.Response:
    return await client.put(f"{PATH}/{name}", json={"role": role}, headers=bearer(key))


async def names(client: httpx2.AsyncClient, key: str) -> list[tuple[str, str | None]]:
    response = await client.get(PATH, headers=bearer(key))
    assert response.status_code == 200, response.text
    return [(one["name"], one["role"]) for one in response.json()["members"]]


@pytest.mark.parametrize(
    "name", ["user:auth0|abc/def@example.com", "service_account:ci", "user:https://issuer.example/1"]
)
async def test_a_member_is_made_and_changed_and_gets_a_key(
    client: httpx2.AsyncClient, admin: str, name: str
) -> None:
    made = await put(client, admin, name, "viewer")
    changed = await put(client, admin, name, "editor")
    key = await client.post("/api_keys", json={"name": "x", "member": name}, headers=bearer(admin))

    assert (made.status_code, made.json()["role"], made.json()["disabled_at"]) == (200, "viewer", None)
    assert changed.json() == made.json() | {"role": "editor", "updated_at": changed.json()["updated_at"]}
    assert (await client.get(f"{PATH}/{name}", headers=bearer(admin))).json() == changed.json()
    who = (await client.get("/whoami", headers=bearer(key.json()["api_key"]))).json()
    assert (who["member"], who["role"], who["scopes"]) == (name, "editor", None)
    assert await names(client, admin) == sorted([("user:ann", "admin"), (name, "editor")])


async def test_members_are_listed_by_page(client: httpx2.AsyncClient, admin: str) -> None:
    for number in range(4):
        await put(client, admin, f"user:b{number}", None)
    first = (await client.get(PATH, params={"limit": 3}, headers=bearer(admin))).json()
    behind = {"limit": 3, "cursor": first["next_cursor"]}
    second = (await client.get(PATH, params=behind, headers=bearer(admin))).json()

    found = [one["name"] for one in first["members"] + second["members"]]
    assert found == ["user:ann", "user:b0", "user:b1", "user:b2", "user:b3"]
    assert second["next_cursor"] is None


@pytest.mark.parametrize("cursor", ["!", "AA", "_w", "a"])
async def test_a_cursor_that_is_none_is_refused(client: httpx2.AsyncClient, admin: str, cursor: str) -> None:
    response = await client.get(PATH, params={"cursor": cursor}, headers=bearer(admin))
    assert (response.status_code, "cursor" in response.json()["message"]) == (422, True)


@pytest.mark.parametrize("role", [Role.OPERATOR, Role.EDITOR, Role.VIEWER, None])
async def test_only_admins_administer_members(
    client: httpx2.AsyncClient, resources: Resources, admin: str, role: Role | None
) -> None:
    key = await key_of(resources, "user:eve", role)
    answers = [
        await client.get(PATH, headers=bearer(key)),
        await client.get(f"{PATH}/user:eve", headers=bearer(key)),
        await put(client, key, "user:eve", "admin"),
        await put(client, key, "user:mallory", "viewer"),
        await client.delete(f"{PATH}/user:ann", headers=bearer(key)),
    ]
    assert [answer.status_code for answer in answers] == [403] * 5
    having = f"user:eve has {f'role {role}' if role else 'no role'} and no grant of it"
    message = f"members are administered by admins, with leave to member.read: {having}"
    assert answers[0].json() == problem(PATH, 403, "forbidden", message)
    assert await names(client, admin) == [("user:ann", "admin"), ("user:eve", role)]


@pytest.mark.parametrize("scopes", [["task.*", "api_key.*"], ["*.read"], ["*.create"]])
async def test_a_narrow_key_of_an_admin_raises_nobody(
    client: httpx2.AsyncClient, resources: Resources, admin: str, scopes: list[str]
) -> None:
    key = await key_of(resources, "user:ann", Role.ADMIN, scopes=scopes)
    assert (await put(client, key, "user:eve", "admin")).status_code == 403
    theirs: Json = {"name": "x", "member": "user:eve", "scopes": []}
    await put(client, admin, "user:eve", "viewer")
    assert (await client.post("/api_keys", json=theirs, headers=bearer(key))).status_code == 403


@pytest.mark.parametrize(
    ("name", "role", "status"),
    [
        ("agent:greeter", "agent", 200),
        ("agent:greeter", None, 200),
        ("agent:greeter", "admin", 422),
        ("agent:greeter", "editor", 422),
        ("user:eve", "agent", 422),
        ("service_account:ci", "agent", 422),
        ("user:eve", "root", 422),
        ("eve", "viewer", 422),
        ("robot:r2", "viewer", 422),
        ("user:" + "x" * 201, "viewer", 422),
    ],
)
async def test_agents_are_agents_and_nobody_else_is(
    client: httpx2.AsyncClient, admin: str, name: str, role: str | None, status: int
) -> None:
    assert (await put(client, admin, name, role)).status_code == status


@pytest.mark.parametrize("body", [{}, {"role": "viewer", "disabled_at": None}, {"Role": "viewer"}])
async def test_a_body_says_the_role_and_nothing_else(
    client: httpx2.AsyncClient, admin: str, body: Json
) -> None:
    response = await client.put(f"{PATH}/user:eve", json=body, headers=bearer(admin))
    assert response.status_code == 422


async def test_who_has_left_opens_nothing_and_comes_back_without_its_keys(
    client: httpx2.AsyncClient, resources: Resources, admin: str, editor: str
) -> None:
    narrow = await key_of(resources, "user:eve", Role.EDITOR, scopes=["task.read"])
    gone = await client.delete(f"{PATH}/user:eve", headers=bearer(admin))
    again = await client.delete(f"{PATH}/user:eve", headers=bearer(admin))
    assert (gone.status_code, gone.json()["disabled_at"] is not None) == (200, True)
    assert again.json() == gone.json()

    back = await put(client, admin, "user:eve", "viewer")
    assert (back.json()["disabled_at"], back.json()["role"]) == (None, "viewer")
    for key in (editor, narrow):
        assert (await client.get("/whoami", headers=bearer(key))).status_code == 401


async def test_the_last_admin_stays(client: httpx2.AsyncClient, admin: str) -> None:
    message = "'user:ann' is the last admin of the account; make another one first"
    for response in (
        await client.delete(f"{PATH}/user:ann", headers=bearer(admin)),
        await put(client, admin, "user:ann", "editor"),
        await put(client, admin, "user:ann", None),
    ):
        expected = problem(f"{PATH}/user:ann", 400, "bad-request", message)
        assert (response.status_code, response.json()) == (400, expected)

    assert (await put(client, admin, "user:bob", "admin")).status_code == 200
    assert (await put(client, admin, "user:ann", "editor")).status_code == 200


async def test_two_admins_who_remove_each_other_leave_one(
    client: httpx2.AsyncClient, resources: Resources, admin: str
) -> None:
    for _ in range(5):
        ann, bob = [await key_of(resources, f"user:{name}", Role.ADMIN) for name in ("ann", "bob")]
        answers = await asyncio.gather(
            client.delete(f"{PATH}/user:bob", headers=bearer(ann)),
            client.delete(f"{PATH}/user:ann", headers=bearer(bob)),
        )
        assert 200 in [answer.status_code for answer in answers]
        assert [answer.status_code for answer in answers] != [200, 200]


async def test_an_unknown_member_is_not_found(client: httpx2.AsyncClient, admin: str) -> None:
    for method in ("GET", "DELETE"):
        response = await client.request(method, f"{PATH}/user:nobody", headers=bearer(admin))
        expected = problem(f"{PATH}/user:nobody", 404, "not-found", "member 'user:nobody' not found")
        assert (response.status_code, response.json()) == (404, expected)


async def test_another_accounts_members_are_its_own(
    client: httpx2.AsyncClient, resources: Resources, admin: str
) -> None:
    other = await key_of(resources, "user:zoe", Role.ADMIN, account="elsewhere")
    await put(client, other, "user:ann", "viewer")
    assert (await client.delete(f"{PATH}/user:ann", headers=bearer(other))).status_code == 200

    assert await names(client, admin) == [("user:ann", "admin")]
    assert await names(client, other) == [("user:ann", "viewer"), ("user:zoe", "admin")]


async def test_without_auth_everybody_is_the_user(client: httpx2.AsyncClient, resources: Resources) -> None:
    from agentex.auth.providers.none import NoneProvider
    from agentex.settings import Auth

    resources.settings = resources.settings.model_copy(update={"auth": Auth.NONE})
    resources.authz = NoneProvider(resources.settings, resources.db)
    who = (await client.get("/whoami", headers=bearer("anything"))).json()
    assert (who["member"], who["role"], who["scopes"], who["auth"]) == ("user", None, None, "none")
    # What is made before auth is turned on.
    assert (await client.put(f"{PATH}/user:ann", json={"role": "admin"})).status_code == 200
    key = (await client.post("/api_keys", json={"name": "first", "member": "user:ann"})).json()["api_key"]
    resources.settings = resources.settings.model_copy(update={"auth": Auth.API_KEYS})
    assert key.startswith("agx_")
