"""Schedules and agents are given to another member, by their owner or an admin."""

from __future__ import annotations

import httpx2
import pytest

from agentex.auth.principal import agent_principal
from agentex.auth.rules import Role
from agentex.resources import Resources
from tests.api.authz.members import FIRST, SECOND, calling, join, join_agent, user
from tests.api.ledger.stage import fetch
from tests.api.schedules.schedules import Schedules
from tests.support.acp_server import AcpServer
from tests.support.api import Json, register


@pytest.fixture
async def keys(resources: Resources) -> dict[str, str]:
    """Olga, who owns the agent and the schedule, and others."""
    resources.hooks.run_opened = None
    roles = {
        "olga": Role.EDITOR,
        "bob": Role.EDITOR,
        "oscar": Role.OPERATOR,
        "vera": Role.VIEWER,
        "gus": None,
    }
    return {name: await join(resources, user(name), role) for name, role in roles.items()}


@pytest.fixture
async def agent(keys: dict[str, str], acp_server: AcpServer) -> Json:
    async with calling(keys["olga"]) as olga:
        return await register(olga, acp_url=acp_server.url)


@pytest.fixture
async def schedule(keys: dict[str, str], resources: Resources, agent: Json) -> Json:
    async with calling(keys["olga"]) as olga:
        return await Schedules(olga, resources, agent["id"]).create()


def path(agent: Json, schedule: Json, form: str) -> str:
    end = schedule["id"] if form == "by-id" else f"name/{schedule['name']}"
    return f"/agents/{agent['id']}/schedules/{end}/transfer"


async def revision(resources: Resources) -> tuple[str, str | None, str]:
    found = await fetch(
        resources,
        """
        SELECT change, note, changed_by->>'user_id' AS by FROM schedule_revisions
        ORDER BY version DESC LIMIT 1
        """,
    )
    return found[0]["change"], found[0]["note"], found[0]["by"]


@pytest.mark.parametrize("by", ["olga", "alice"])
@pytest.mark.parametrize("form", ["by-id", "by-name"])
async def test_a_schedule_runs_for_its_new_owner(
    client: httpx2.AsyncClient,
    keys: dict[str, str],
    resources: Resources,
    agent: Json,
    schedule: Json,
    by: str,
    form: str,
) -> None:
    schedules = Schedules(client, resources, agent["id"])
    before = (await schedules.act(schedule, "trigger")).json()["run_id"]
    async with calling(keys["olga"]) as olga:
        caller = olga if by == "olga" else client
        given = await caller.post(path(agent, schedule, form), json={"owner": "user:bob"})
        assert given.status_code == 200, given.text
        # It is as it was, but whose it is.
        expected = {
            "creator_principal": user("bob").model_dump(mode="json"),
            "version": 2,
            "updated_at": given.json()["updated_at"],
            "num_actions_taken": 1,
            "last_action_time": given.json()["last_action_time"],
        }
        assert given.json() == schedule | expected
        assert await revision(resources) == ("transfer", "from user:olga to user:bob", by)
        # Who had it has it no more, and cannot take it back.
        back = await olga.post(path(agent, schedule, form), json={"owner": "user:olga"})
        assert back.status_code == 403
    after = (await schedules.act(schedule, "trigger")).json()["run_id"]
    runs = await fetch(resources, "SELECT id::text AS id, principal->>'user_id' AS of FROM runs")
    # What was opened before runs for who it was opened for.
    assert {row["id"]: row["of"] for row in runs} == {before: "olga", after: "bob"}
    async with calling(keys["bob"]) as bob:
        assert (await bob.post(path(agent, schedule, form)[:-9] + "/pause")).status_code == 200


async def test_once_more_is_no_other_version(
    client: httpx2.AsyncClient, resources: Resources, agent: Json, schedule: Json
) -> None:
    for _ in range(2):
        given = await client.post(path(agent, schedule, "by-id"), json={"owner": "user:bob"})
        assert (given.status_code, given.json()["version"]) == (200, 2)


# Who asks, for whom, and what it is told.
REFUSED = [
    ("bob", "user:bob", 403, "is not allowed: user:bob has role editor and no grant of it"),
    ("oscar", "user:oscar", 403, "is user:olga's: only its owner or an admin may share it or give it away"),
    ("vera", "user:vera", 403, "is not allowed: user:vera has role viewer and no grant of it"),
    ("gus", "user:gus", 404, "not found"),
    ("olga", "user:vera", 400, "user:vera cannot have it, for it may not execute agent"),
    ("olga", "user:gus", 400, "user:gus cannot have it, for it may not execute agent"),
    ("olga", "user:nobody", 404, "member 'user:nobody' not found"),
    # Another account's.
    ("olga", "user:eve", 404, "member 'user:eve' not found"),
    ("olga", "agent:nobody", 404, "member 'agent:nobody' not found"),
    ("olga", "bob", 422, "owner: 'bob' names no member; it is one of user:NAME"),
    ("olga", "group:bob", 422, "owner: 'group:bob' names no member; it is one of user:NAME"),
    ("olga", "user:", 422, "owner: 'user:' names no member"),
    ("olga", "", 422, "owner"),
    ("olga", "user:" + "x" * 400, 422, "owner"),
]


@pytest.mark.parametrize(
    ("by", "to", "status", "words"), REFUSED, ids=[f"{r[0]}-{r[1][:20]}" for r in REFUSED]
)
async def test_what_is_not_given(
    resources: Resources,
    keys: dict[str, str],
    agent: Json,
    schedule: Json,
    by: str,
    to: str,
    status: int,
    words: str,
) -> None:
    await join(resources, user("eve", SECOND), Role.ADMIN)
    async with calling(keys[by]) as caller:
        for url in (path(agent, schedule, "by-id"), f"/agents/{agent['id']}/transfer"):
            answer = await caller.post(url, json={"owner": to})
            assert answer.status_code == status, answer.text
            assert words in answer.json()["message"]
    owners = await fetch(
        resources, "SELECT owner, (SELECT max(version) FROM schedule_revisions) AS version FROM agents"
    )
    assert [tuple(row.values()) for row in owners] == [("user:olga", 1)]


async def test_who_was_granted_everything_cannot_take_it(
    client: httpx2.AsyncClient, keys: dict[str, str], agent: Json, schedule: Json
) -> None:
    for kind, id_ in (("agent", agent["id"]), ("schedule", schedule["id"])):
        grant = {
            "member": "user:bob",
            "resource_type": kind,
            "resource_id": id_,
            "operations": ["update", "delete", "execute", "cancel"],
        }
        assert (await client.post("/grants", json=grant)).status_code == 200
    async with calling(keys["bob"]) as bob:
        for url in (path(agent, schedule, "by-id"), f"/agents/{agent['id']}/transfer"):
            assert (await bob.post(url, json={"owner": "user:bob"})).status_code == 403


async def test_an_agent_is_given_and_its_schedules_stay(
    resources: Resources, keys: dict[str, str], agent: Json, schedule: Json
) -> None:
    async with calling(keys["olga"]) as olga, calling(keys["bob"]) as bob:
        given = await olga.post(f"/agents/{agent['id']}/transfer", json={"owner": "user:bob"})
        expected = {"id": agent["id"], "owner": "user:bob", "previous_owner": "user:olga"}
        assert (given.status_code, given.json()) == (200, expected)
        assert (await olga.delete(f"/agents/{agent['id']}")).status_code == 403
        read = (await bob.get(f"/agents/{agent['id']}/schedules/{schedule['id']}")).json()
        assert read["creator_principal"] == schedule["creator_principal"]
        assert (await bob.delete(f"/agents/{agent['id']}")).status_code == 200


async def test_a_schedule_is_given_to_an_agent(
    client: httpx2.AsyncClient, resources: Resources, agent: Json, schedule: Json
) -> None:
    await join_agent(resources, "helper")
    given = await client.post(path(agent, schedule, "by-id"), json={"owner": "agent:helper"})
    assert given.json()["creator_principal"] == agent_principal(FIRST, "helper").model_dump(mode="json")


async def test_a_schedule_that_was_paused_for_its_creator_goes_on_when_it_is_given_and_resumed(
    client: httpx2.AsyncClient, resources: Resources, agent: Json, schedule: Json
) -> None:
    schedules = Schedules(client, resources, agent["id"])
    note = "paused: its creator user:olga is no member of the account any more"
    await schedules.act(schedule, "pause", note=note)
    await fetch(resources, "UPDATE members SET disabled_at = now() WHERE name = 'user:olga'")
    given = await client.post(path(agent, schedule, "by-id"), json={"owner": "user:bob"})
    assert (given.json()["paused"], given.json()["state_note"]) == (True, note)
    resumed = (await schedules.act(schedule, "resume")).json()
    assert (resumed["state"], resumed["state_note"]) == ("ACTIVE", None)
