"""Sharing: by whom, what, with whom; and that it ends with what was shared."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import httpx2
import pytest

from agentex.auth.rules import Role
from agentex.ids import first_id_of, run_task_id
from agentex.resources import Resources
from agentex.runs.models import RunStatus
from agentex.runs.retention import forget_old_runs
from tests.api.authz.members import SECOND, calling, join, join_agent, user
from tests.api.ledger.stage import add_agent, add_run, fetch
from tests.api.schedules.schedules import Schedules
from tests.support.acp_server import AcpServer
from tests.support.api import TEXT, UNKNOWN_ID, Json, create_task, register


@pytest.fixture
async def owner_key(resources: Resources) -> str:
    """Olga is an editor."""
    return await join(resources, user("olga"), Role.EDITOR)


@pytest.fixture
async def task(
    client: httpx2.AsyncClient, resources: Resources, owner_key: str, acp_server: AcpServer
) -> Json:
    """A task of olga's, of the admin's agent."""
    agent = await register(client, acp_url=acp_server.url)
    async with calling(owner_key) as olga:
        return await create_task(olga, agent, name="olgas")


def wanted(task: Json, *operations: str, member: str = "user:gus") -> Json:
    return {
        "member": member,
        "resource_type": "task",
        "resource_id": task["id"],
        "operations": list(operations),
    }


async def test_an_owner_shares_and_takes_back(resources: Resources, owner_key: str, task: Json) -> None:
    guest_key = await join(resources, user("gus"), None)
    message = {"task_id": task["id"], "content": TEXT}
    async with calling(owner_key) as olga, calling(guest_key) as gus:
        assert (await gus.get(f"/tasks/{task['id']}")).status_code == 404
        made = await olga.post("/grants", json=wanted(task, "cancel"))
        assert made.status_code == 200, made.text
        grant = made.json()
        assert grant == {
            "id": grant["id"],
            "member": "user:gus",
            "resource_type": "task",
            "resource_id": task["id"],
            # Reading goes with all.
            "operations": ["cancel", "read"],
            "granted_by": "user:olga",
            "created_at": grant["created_at"],
        }
        assert [one["id"] for one in (await gus.get("/tasks")).json()] == [task["id"]]
        assert (await gus.get("/messages", params={"task_id": task["id"]})).status_code == 200
        assert (await gus.post("/messages", json=message)).status_code == 403
        # Again is instead, not beside.
        again = await olga.post("/grants", json=wanted(task, "update"))
        assert (again.json()["id"], again.json()["operations"]) == (grant["id"], ["read", "update"])
        assert (await gus.post("/messages", json=message)).status_code == 200
        assert (await gus.post(f"/tasks/{task['id']}/cancel")).status_code == 403

        assert (await olga.delete(f"/grants/{grant['id']}")).json() == again.json()
        assert (await gus.get(f"/tasks/{task['id']}")).status_code == 404
        assert (await gus.get("/tasks")).json() == []
        assert (await olga.delete(f"/grants/{grant['id']}")).status_code == 404


async def test_what_was_shared_is_not_shared_on(resources: Resources, owner_key: str, task: Json) -> None:
    guest_key = await join(resources, user("gus"), None)
    operator_key = await join(resources, user("oscar"), Role.OPERATOR)
    await join(resources, user("third"), None)
    async with calling(owner_key) as olga:
        everything = wanted(task, "read", "update", "delete", "execute", "cancel")
        assert (await olga.post("/grants", json=everything)).status_code == 200
    for key in (guest_key, operator_key):
        async with calling(key) as other:
            on = await other.post("/grants", json=wanted(task, "read", member="user:third"))
            assert (on.status_code, on.json()["message"]) == (
                403,
                f"task {task['id']} is user:olga's: only its owner or an admin may share it or give it away",
            )
            shared = {"resource_type": "task", "resource_id": task["id"]}
            assert (await other.get("/grants", params=shared)).status_code == 403


async def test_nobody_shares_more_than_its_key_allows(
    resources: Resources, owner_key: str, task: Json
) -> None:
    await join(resources, user("gus"), None)
    scoped = await join(resources, user("olga"), Role.EDITOR, ["task.read", "task.update"])
    async with calling(scoped) as olga:
        too_much = await olga.post("/grants", json=wanted(task, "delete"))
        assert (too_much.status_code, too_much.json()["message"]) == (
            403,
            f"delete on task {task['id']} is not yours to share: the key's scopes lack task.delete",
        )
        assert (await olga.post("/grants", json=wanted(task, "update"))).status_code == 200


async def test_members_and_things_of_another_account_are_not_found(
    client: httpx2.AsyncClient, resources: Resources, task: Json
) -> None:
    eve_key = await join(resources, user("eve", SECOND), Role.ADMIN)
    await join(resources, user("gus"), None)
    grant = (await client.post("/grants", json=wanted(task, "read"))).json()
    absent = await client.post("/grants", json=wanted(task, "read", member="user:eve"))
    assert (absent.status_code, absent.json()["message"]) == (404, "member 'user:eve' not found")
    async with calling(eve_key) as eve:
        for kind in ("agent", "task", "schedule", "run"):
            body = wanted(task, "read", member="user:eve") | {"resource_type": kind}
            there = await eve.post("/grants", json=body)
            nowhere = await eve.post("/grants", json=body | {"resource_id": UNKNOWN_ID})
            words = there.json()["message"].replace(task["id"], UNKNOWN_ID)
            assert (there.status_code, words) == (404, nowhere.json()["message"])
            shared = {"resource_type": kind, "resource_id": task["id"]}
            assert (await eve.get("/grants", params=shared)).status_code == 404
        assert (await eve.delete(f"/grants/{grant['id']}")).status_code == 404
    shared = {"resource_type": "task", "resource_id": task["id"]}
    assert (await client.get("/grants", params=shared)).json()["grants"] == [grant]


async def test_who_has_left_gets_nothing_and_a_member_gives_up_what_it_has(
    client: httpx2.AsyncClient, resources: Resources, task: Json
) -> None:
    guest_key = await join(resources, user("gus"), None)
    grant = (await client.post("/grants", json=wanted(task, "read"))).json()
    async with calling(guest_key) as gus:
        assert (await gus.delete(f"/grants/{grant['id']}")).status_code == 200
        assert (await gus.get(f"/tasks/{task['id']}")).status_code == 404
    await fetch(resources, "UPDATE members SET disabled_at = now() WHERE name = 'user:gus'")
    assert (await client.post("/grants", json=wanted(task, "read"))).status_code == 404


@pytest.mark.parametrize(
    "changes",
    [
        {"operations": []},
        {"operations": ["create"]},
        {"operations": ["own"]},
        {"resource_type": "api_key"},
        {"resource_type": "account"},
        {"resource_id": "x"},
        {"member": ""},
        {"member": "a" * 301},
        {"member": "user:\x00"},
    ],
    ids=str,
)
async def test_what_cannot_be_shared(client: httpx2.AsyncClient, task: Json, changes: Json) -> None:
    answer = await client.post("/grants", json=wanted(task, "read") | changes)
    assert answer.status_code == 422
    assert next(iter(changes)) in answer.json()["message"]


async def test_grants_of_a_thing_page_by_keyset(
    client: httpx2.AsyncClient, resources: Resources, task: Json
) -> None:
    names = [f"user:g{n}" for n in range(5)]
    for name in names:
        await join(resources, user(name.removeprefix("user:")), None)
        assert (await client.post("/grants", json=wanted(task, "read", member=name))).status_code == 200
    shared = {"resource_type": "task", "resource_id": task["id"], "limit": 2}
    found: list[str] = []
    cursor = None
    while True:
        more = {"cursor": cursor} if cursor else {}
        page = (await client.get("/grants", params={**shared, **more})).json()
        found += [grant["member"] for grant in page["grants"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert found == names[::-1]
    bad = await client.get("/grants", params={**shared, "cursor": "zzzz"})
    assert bad.status_code == 422


async def test_an_agent_is_shown_another_agents_task(
    client: httpx2.AsyncClient, resources: Resources, task: Json
) -> None:
    key = await join_agent(resources, "helper")
    async with calling(key) as helper:
        assert (await helper.get(f"/tasks/{task['id']}")).status_code == 404
        body = wanted(task, "read", member="agent:helper")
        assert (await client.post("/grants", json=body)).status_code == 200
        assert (await helper.get(f"/tasks/{task['id']}")).status_code == 200
        assert [one["id"] for one in (await helper.get("/tasks")).json()] == [task["id"]]


async def test_a_schedule_and_a_run_are_shared_as_well(
    client: httpx2.AsyncClient, resources: Resources, task: Json
) -> None:
    """A schedule's path goes through its agent, which has to be shared for reading, too."""
    resources.hooks.run_opened = None
    guest_key = await join(resources, user("gus"), None)
    agent = (await client.get("/agents")).json()[0]
    schedules = Schedules(client, resources, agent["id"])
    schedule = await schedules.create()
    run_id = (await schedules.act(schedule, "trigger")).json()["run_id"]
    path = f"{schedules.url}/{schedule['id']}"
    async with calling(guest_key) as gus:
        for kind, id_ in (("schedule", schedule["id"]), ("run", run_id)):
            body = wanted(task, "read") | {"resource_type": kind, "resource_id": id_}
            assert (await client.post("/grants", json=body)).status_code == 200
        assert (await gus.get(f"/runs/{run_id}")).status_code == 200
        assert [run["id"] for run in (await gus.get("/runs")).json()["runs"]] == [run_id]
        assert (await gus.get(path)).status_code == 404
        body = wanted(task, "read") | {"resource_type": "agent", "resource_id": agent["id"]}
        assert (await client.post("/grants", json=body)).status_code == 200
        assert (await gus.get(path)).status_code == 200
        assert (await gus.post(f"{path}/trigger")).status_code == 403


async def test_grants_go_with_what_retention_forgets(resources: Resources) -> None:
    await join(resources, user("gus"), None)
    agent = await add_agent(resources, account_id="first")
    long_ago = datetime.now(UTC) - timedelta(days=400)
    # An id of that time: retention goes by it.
    run_id = UUID(int=first_id_of(long_ago).int | uuid4().int >> 80)
    task_id = run_task_id(run_id)
    await fetch(
        resources,
        """
        INSERT INTO tasks (id, account_id, owner, agent_id, status, created_at, updated_at)
        VALUES (:id, 'first', 'user:olga', :agent, 'COMPLETED', :then, :then)
        """,
        id=task_id,
        agent=agent.id,
        then=long_ago,
    )
    old = {"due_at": long_ago, "finished_at": long_ago, "next_attempt_at": None, "task_id": task_id}
    await add_run(resources, agent, RunStatus.DELIVERED, id=run_id, **old)
    for kind, id_ in (("task", task_id), ("run", run_id), ("task", agent.id)):
        await fetch(
            resources,
            """
            INSERT INTO grants (id, account_id, member, resource_type, resource_id, operations, granted_by,
                created_at)
            VALUES (gen_random_uuid(), 'first', 'user:gus', :kind, :id, '["read"]', 'test', now())
            """,
            kind=kind,
            id=id_,
        )
    await forget_old_runs(resources)
    left = await fetch(resources, "SELECT resource_type, resource_id FROM grants")
    assert [tuple(row.values()) for row in left] == [("task", agent.id)]
    assert await fetch(resources, "SELECT id FROM tasks") == []
