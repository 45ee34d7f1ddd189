"""/api_keys: made, shown once, listed, rotated, revoked; and no key gives more than what it comes from."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime, timedelta

import httpx2
import pytest

from agentex.auth.authorize import ResourceType
from agentex.auth.models import Grant
from agentex.auth.rules import Role
from agentex.resources import Resources
from agentex.settings import Settings
from tests.api.ledger.stage import fetch
from tests.support.api import UNKNOWN_ID, Json, problem
from tests.support.keys import another_process, bearer, key_of
from tests.support.plans import explain_sent, statements

PATH = "/api_keys"
LATER = datetime(2999, 1, 1, tzinfo=UTC)


async def make(client: httpx2.AsyncClient, key: str, **body: object) -> Json:
    response = await client.post(PATH, json={"name": "laptop", **body}, headers=bearer(key))
    assert response.status_code == 200, response.text
    return response.json()


def read(made: Json) -> Json:
    """A key as it is read."""
    return {name: value for name, value in made.items() if name not in {"api_key", "replaced"}}


async def opens(client: httpx2.AsyncClient, key: str) -> int:
    return (await client.get("/whoami", headers=bearer(key))).status_code


async def ids(client: httpx2.AsyncClient, key: str, **params: str | int) -> list[str]:
    response = await client.get(PATH, params=params, headers=bearer(key))
    assert response.status_code == 200, response.text
    return [one["id"] for one in response.json()["api_keys"]]


async def test_a_key_is_shown_once_and_opens(client: httpx2.AsyncClient, editor: str) -> None:
    made = await make(client, editor, scopes=["task.read", "task.read", "agent.*"])

    assert made == {
        "id": made["id"],
        "member": "user:eve",
        "name": "laptop",
        "key_prefix": made["api_key"][:10],
        "scopes": ["agent.*", "task.read"],
        "created_by": "user:eve",
        "created_at": made["created_at"],
        "expires_at": None,
        "last_used_at": None,
        "revoked_at": None,
        "api_key": made["api_key"],
    }
    assert re.fullmatch(r"agx_[A-Za-z0-9_-]{43}", made["api_key"])
    who = (await client.get("/whoami", headers=bearer(made["api_key"]))).json()
    assert who == {
        "member": "user:eve",
        "principal_type": "user",
        "user_id": "eve",
        "service_account_id": None,
        "account_id": "default",
        "role": "editor",
        "scopes": ["agent.*", "task.read"],
        "expires_at": None,
        "auth": "api_keys",
    }
    found = (await client.get(f"{PATH}/{made['id']}", headers=bearer(editor))).json()
    assert found["last_used_at"] is not None
    assert found == read(made) | {"last_used_at": found["last_used_at"]}


async def test_a_key_is_kept_nowhere_in_the_clear(
    client: httpx2.AsyncClient, resources: Resources, admin: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    await client.put("/members/agent:greeter", json={"role": "agent"}, headers=bearer(admin))
    made = [await make(client, admin, member=member) for member in ("user:ann", "agent:greeter")]
    rotated = await client.post(f"{PATH}/{made[0]['id']}/rotate", json={}, headers=bearer(admin))
    keys = [*[one["api_key"] for one in made], rotated.json()["api_key"], admin]

    tables = "SELECT k::text AS row FROM api_keys k UNION ALL SELECT i::text FROM idempotency_keys i"
    kept = "".join(row["row"] for row in await fetch(resources, tables))
    listed = (await client.get(PATH, headers=bearer(admin))).text
    assert [key for key in keys if key in kept + listed + caplog.text] == []


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": "x" * 256}, "name"),
        ({"name": "a\x00b"}, "NUL"),
        ({"scopes": ["task.fly"]}, "scopes"),
        ({"scopes": ["task"]}, "scopes"),
        ({"scopes": ["task.read.more"]}, "scopes"),
        ({"scopes": ["x" * 101]}, "scopes"),
        ({"scopes": ["task.read"] * 101}, "scopes"),
        ({"scope": ["task.read"]}, "scope"),
        ({"expires_at": "2020-01-01T00:00:00Z"}, "expires_at"),
        ({"expires_at": "2999-01-01T00:00:00"}, "expires_at"),
        ({"expires_at": 4102444800}, "expires_at"),
        ({"member": "alice"}, "member"),
        ({"member": "user:"}, "member"),
        ({"member": "user:a b"}, "member"),
        ({"member": "robot:r2"}, "member"),
    ],
)
async def test_bad_input_is_named(client: httpx2.AsyncClient, admin: str, body: Json, field: str) -> None:
    response = await client.post(PATH, json={"name": "laptop", **body}, headers=bearer(admin))
    assert (response.status_code, field in response.json()["message"]) == (422, True), response.text


async def test_own_keys_are_listed_and_to_admins_all(
    client: httpx2.AsyncClient, admin: str, editor: str
) -> None:
    mine = [await make(client, editor, name=f"k{number}") for number in range(3)]
    theirs = await make(client, admin)

    own, every = await ids(client, editor), await ids(client, admin)
    assert own[:3] == [one["id"] for one in reversed(mine)]
    assert theirs["id"] not in own
    assert (len(own), len(every), every[0]) == (4, 6, theirs["id"])
    assert await ids(client, admin, member="user:eve") == own
    assert await ids(client, editor, member="user:ann") == []
    response = await client.get(f"{PATH}/{theirs['id']}", headers=bearer(editor))
    assert response.status_code == 404


async def test_a_list_goes_on_behind_its_cursor(client: httpx2.AsyncClient, editor: str) -> None:
    for number in range(4):
        await make(client, editor, name=f"k{number}")
    found: list[str] = []
    cursor: str | None = None
    while True:
        params = {"limit": "2"} | ({"cursor": cursor} if cursor else {})
        page = (await client.get(PATH, params=params, headers=bearer(editor))).json()
        found += [one["id"] for one in page["api_keys"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert found == await ids(client, editor)
    assert len(found) == 5
    for broken in ("x", "W10", f"{found[0]}"):
        response = await client.get(PATH, params={"cursor": broken}, headers=bearer(editor))
        assert (response.status_code, "cursor" in response.json()["message"]) == (422, True)


async def test_a_list_comes_from_an_index(
    client: httpx2.AsyncClient, resources: Resources, admin: str
) -> None:
    await fetch(
        resources,
        """
        INSERT INTO api_keys (id, account_id, member, name, key_prefix, key_hash, created_by, created_at)
        SELECT gen_random_uuid(), 'default', 'user:ann', n::text, 'agx_', n::text, 'a test',
            now() - n * interval '1 s' FROM generate_series(1, 3000) n
        """,
    )
    await fetch(resources, "ANALYZE api_keys")
    with statements(resources) as sent:
        await ids(client, admin, limit=5)
    plans = [await explain_sent(resources, one) for one in sent if "ORDER BY api_keys" in one[0]]
    assert [plan.indexes_of("api_keys") for plan in plans] == [{"ix_api_keys_account_id_created_at"}]
    assert plans[0].most_of("api_keys") <= 6


async def test_a_revoked_key_opens_nothing_in_no_process(
    client: httpx2.AsyncClient, settings: Settings, editor: str
) -> None:
    made = await make(client, editor)
    key = made["api_key"]
    async with another_process(settings) as second:
        assert [await opens(client, key), await opens(second, key)] == [200, 200]

        gone = await client.delete(f"{PATH}/{made['id']}", headers=bearer(editor))
        assert [await opens(client, key), await opens(second, key)] == [401, 401]

    again = await client.delete(f"{PATH}/{made['id']}", headers=bearer(editor))
    assert gone.json()["revoked_at"] is not None
    assert (gone.status_code, again.status_code, again.json()) == (200, 200, gone.json())


async def test_a_key_ends_by_itself(client: httpx2.AsyncClient, resources: Resources, editor: str) -> None:
    made = await make(client, editor, expires_at=LATER.isoformat())
    assert await opens(client, made["api_key"]) == 200
    await fetch(resources, "UPDATE api_keys SET expires_at = clock_timestamp() WHERE expires_at IS NOT NULL")
    assert await opens(client, made["api_key"]) == 401
    response = await client.post(f"{PATH}/{made['id']}/rotate", json={}, headers=bearer(editor))
    assert (response.status_code, "has expired" in response.json()["message"]) == (400, True)


async def test_a_rotated_key_overlaps_with_the_new_one(
    client: httpx2.AsyncClient, resources: Resources, editor: str
) -> None:
    made = await make(client, editor, scopes=["task.*", "api_key.*"])
    path = f"{PATH}/{made['id']}/rotate"
    response = await client.post(path, json={"overlap_seconds": 600}, headers=bearer(made["api_key"]))

    new = response.json()
    assert response.status_code == 200, response.text
    ends = datetime.fromisoformat(new["replaced"]["expires_at"])
    assert timedelta(0) < ends - datetime.now(UTC) <= timedelta(seconds=610)
    assert new["replaced"] == read(made) | {
        "expires_at": new["replaced"]["expires_at"],
        "last_used_at": new["replaced"]["last_used_at"],
    }
    assert (new["id"] != made["id"], new["api_key"] != made["api_key"]) == (True, True)
    assert (new["name"], new["scopes"], new["expires_at"]) == ("laptop", made["scopes"], None)
    assert [await opens(client, one["api_key"]) for one in (made, new)] == [200, 200]
    await fetch(
        resources,
        "UPDATE api_keys SET expires_at = expires_at - interval '600 s' WHERE expires_at IS NOT NULL",
    )
    assert [await opens(client, one["api_key"]) for one in (made, new)] == [401, 200]


async def test_a_rotation_without_overlap_ends_the_old_key_at_once(
    client: httpx2.AsyncClient, editor: str
) -> None:
    made = await make(client, editor)
    path = f"{PATH}/{made['id']}/rotate"
    new = await client.post(path, json={"overlap_seconds": 0}, headers=bearer(editor))
    again = await client.post(path, json={}, headers=bearer(editor))

    assert [await opens(client, one) for one in (made["api_key"], new.json()["api_key"])] == [401, 200]
    assert again.status_code == 400


async def test_a_rotation_never_makes_the_old_key_live_longer(
    client: httpx2.AsyncClient, editor: str
) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=60)
    made = await make(client, editor, expires_at=soon.isoformat())
    path = f"{PATH}/{made['id']}/rotate"
    new = (await client.post(path, json={"overlap_seconds": 3600}, headers=bearer(editor))).json()
    assert datetime.fromisoformat(new["replaced"]["expires_at"]) == soon
    assert datetime.fromisoformat(new["expires_at"]) == soon


@pytest.mark.parametrize("seconds", [-1, 30 * 86_400 + 1, 1.5, "x", 10**30])
async def test_an_overlap_that_cannot_be_is_refused(
    client: httpx2.AsyncClient, editor: str, seconds: object
) -> None:
    made = await make(client, editor)
    path = f"{PATH}/{made['id']}/rotate"
    response = await client.post(path, json={"overlap_seconds": seconds}, headers=bearer(editor))
    assert (response.status_code, "overlap_seconds" in response.json()["message"]) == (422, True)


@pytest.mark.parametrize("key_id", [UNKNOWN_ID, "x", "a%00b"])
async def test_an_unknown_key_is_not_found(client: httpx2.AsyncClient, admin: str, key_id: str) -> None:
    answers = [
        await client.get(f"{PATH}/{key_id}", headers=bearer(admin)),
        await client.delete(f"{PATH}/{key_id}", headers=bearer(admin)),
        await client.post(f"{PATH}/{key_id}/rotate", json={}, headers=bearer(admin)),
    ]
    assert [answer.status_code for answer in answers] == [404] * 3


# Nobody gets more by a key than it has.


@pytest.mark.parametrize(
    ("held", "wanted"),
    [
        (["api_key.create", "task.read"], None),
        (["api_key.create", "task.read"], ["*"]),
        (["api_key.create", "task.read"], ["*.*"]),
        (["api_key.create", "task.read"], ["task.*"]),
        (["api_key.create", "task.read"], ["*.read"]),
        (["api_key.create", "task.read"], ["task.read", "agent.read"]),
        (["api_key.*", "task.*"], ["*.read"]),
    ],
)
async def test_a_key_makes_no_wider_one(
    client: httpx2.AsyncClient, resources: Resources, held: list[str], wanted: list[str] | None
) -> None:
    key = await key_of(resources, "user:ann", Role.ADMIN, scopes=held)
    response = await client.post(PATH, json={"name": "x", "scopes": wanted}, headers=bearer(key))
    assert (response.status_code, "scopes" in response.json()["message"]) == (403, True)
    found = await fetch(resources, "SELECT count(*) AS n FROM api_keys")
    assert found[0]["n"] == 1


@pytest.mark.parametrize(
    ("held", "wanted"),
    [
        (["api_key.create", "task.read"], ["task.read"]),
        (["api_key.create", "task.*"], ["task.read", "task.*"]),
        (["api_key.create", "*.read"], ["agent.read", "*.read"]),
        (["*"], None),
        (["*.*"], ["*"]),
        (["api_key.create"], []),
    ],
)
async def test_a_key_makes_a_narrower_one(
    client: httpx2.AsyncClient, resources: Resources, held: list[str], wanted: list[str] | None
) -> None:
    key = await key_of(resources, "user:ann", Role.ADMIN, scopes=held)
    made = await make(client, key, scopes=wanted)
    assert made["scopes"] == (sorted(wanted) if wanted is not None else None)


async def test_a_key_without_scopes_left_does_nothing(client: httpx2.AsyncClient, admin: str) -> None:
    nothing = await make(client, admin, scopes=[])
    answer = await client.get(PATH, headers=bearer(nothing["api_key"]))
    assert (answer.json()["api_keys"], await opens(client, nothing["api_key"])) == ([], 200)
    assert (await client.get("/members", headers=bearer(nothing["api_key"]))).status_code == 403


@pytest.mark.parametrize("wanted", [None, LATER])
async def test_a_key_makes_none_that_outlives_it(
    client: httpx2.AsyncClient, resources: Resources, wanted: datetime | None
) -> None:
    ends = datetime.now(UTC) + timedelta(days=1)
    key = await key_of(resources, "user:ann", Role.ADMIN, expires_at=ends)
    body = {"name": "x", "expires_at": wanted.isoformat() if wanted else None}
    response = await client.post(PATH, json=body, headers=bearer(key))
    assert (response.status_code, "expires_at" in response.json()["message"]) == (403, True)

    made = await make(client, key, expires_at=(ends - timedelta(hours=1)).isoformat())
    path = f"{PATH}/{made['id']}/rotate"
    later = {"expires_at": (ends + timedelta(hours=1)).isoformat()}
    assert (await client.post(path, json=later, headers=bearer(key))).status_code == 403


async def test_a_narrow_key_gets_no_wide_one_by_rotation(
    client: httpx2.AsyncClient, resources: Resources, editor: str
) -> None:
    wide = await make(client, editor)
    narrow = await key_of(resources, "user:eve", Role.EDITOR, scopes=["api_key.*"])
    path = f"{PATH}/{wide['id']}/rotate"
    response = await client.post(path, json={}, headers=bearer(narrow))
    assert (response.status_code, "scopes" in response.json()["message"]) == (403, True)
    assert await opens(client, wide["api_key"]) == 200


@pytest.mark.parametrize("role", [Role.OPERATOR, Role.EDITOR, Role.VIEWER, None])
async def test_only_admins_make_keys_for_others(
    client: httpx2.AsyncClient, resources: Resources, admin: str, role: Role | None
) -> None:
    key = await key_of(resources, "user:eve", role)
    theirs = {"name": "x", "member": "user:ann"}
    refused = await client.post(PATH, json=theirs, headers=bearer(key))
    made = await client.post(PATH, json={"name": "x", "member": "user:eve"}, headers=bearer(admin))
    own = await client.post(PATH, json={"name": "x"}, headers=bearer(key))

    may = role in {Role.OPERATOR, Role.EDITOR}
    assert (refused.status_code, made.status_code, made.json()["member"]) == (403, 200, "user:eve")
    assert made.json()["created_by"] == "user:ann"
    assert own.status_code == (200 if may else 403)


async def test_an_agents_key_makes_none_but_rotates_its_own(
    client: httpx2.AsyncClient, resources: Resources
) -> None:
    key = await key_of(resources, "agent:greeter", Role.AGENT)
    refused = await client.post(PATH, json={"name": "x"}, headers=bearer(key))
    (own,) = await ids(client, key)
    rotated = await client.post(f"{PATH}/{own}/rotate", json={}, headers=bearer(key))
    assert (refused.status_code, rotated.status_code) == (403, 200)
    assert await opens(client, rotated.json()["api_key"]) == 200


async def test_a_viewer_sees_and_revokes_its_own_key(
    client: httpx2.AsyncClient, resources: Resources
) -> None:
    key = await key_of(resources, "user:vic", Role.VIEWER)
    (own,) = await ids(client, key)
    gone = await client.delete(f"{PATH}/{own}", headers=bearer(key))
    assert (gone.status_code, await opens(client, key)) == (200, 401)


async def test_a_grant_of_a_key_gives_nobody_its_successor(
    client: httpx2.AsyncClient, resources: Resources, admin: str, editor: str
) -> None:
    theirs = await make(client, admin)
    async with resources.db.begin() as session:
        session.add(
            Grant(
                account_id="default",
                member="user:eve",
                resource_type=ResourceType.API_KEY,
                resource_id=theirs["id"],
                operations=["read", "update", "delete"],
                granted_by="user:ann",
                created_at=datetime.now(UTC),
            )
        )
    path = f"{PATH}/{theirs['id']}"
    seen = await client.get(path, headers=bearer(editor))
    rotated = await client.post(f"{path}/rotate", json={}, headers=bearer(editor))
    assert (seen.status_code, rotated.status_code) == (200, 403)
    assert theirs["id"] in await ids(client, editor)


async def test_a_key_is_of_a_member_who_is_there(client: httpx2.AsyncClient, admin: str, editor: str) -> None:
    message = "member {!r} not found, or it has left; an admin can PUT /members/{}"
    for name in ("user:nobody", "user:eve"):
        await client.delete("/members/user:eve", headers=bearer(admin))
        response = await client.post(PATH, json={"name": "x", "member": name}, headers=bearer(admin))
        expected = problem(PATH, 404, "not-found", message.format(name, name))
        assert (response.status_code, response.json()) == (404, expected)


async def test_of_rotations_at_once_one_is_made(client: httpx2.AsyncClient, editor: str) -> None:
    made = await make(client, editor)
    path = f"{PATH}/{made['id']}/rotate"
    body = {"overlap_seconds": 0}
    answers = await asyncio.gather(*[client.post(path, json=body, headers=bearer(editor)) for _ in range(10)])
    assert sorted(answer.status_code for answer in answers) == [200, *[400] * 9]
    assert await opens(client, made["api_key"]) == 401


async def test_another_account_has_other_keys(
    client: httpx2.AsyncClient, resources: Resources, admin: str
) -> None:
    made = await make(client, admin)
    other = await key_of(resources, "user:ann", Role.ADMIN, account="elsewhere")
    path = f"{PATH}/{made['id']}"
    answers = [
        await client.get(path, headers=bearer(other)),
        await client.delete(path, headers=bearer(other)),
        await client.post(f"{path}/rotate", json={}, headers=bearer(other)),
    ]
    assert [answer.status_code for answer in answers] == [404] * 3
    assert len(await ids(client, other)) == 1
    assert await opens(client, made["api_key"]) == 200
