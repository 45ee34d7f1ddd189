"""AGENTEX_AUTH=remote: what the authorizer is told of what is made and removed."""

from __future__ import annotations

import httpx2
import pytest

from agentex.database import rows
from agentex.resources import Resources
from agentex.sweep.sweep import Sweep
from tests.api.auth.conftest import Remote
from tests.api.auth.remote import ALICE, BOB, SCHEDULE, is_outage, make, selector
from tests.support.acp_server import AcpServer
from tests.support.api import TEXT, create_task, register, rpc
from tests.support.auth_stub import AuthStub


async def pending(resources: Resources) -> list[tuple[str, str]]:
    found = await rows(
        resources.db, "SELECT action, resource_type FROM registrations WHERE told_at IS NULL ORDER BY id"
    )
    return [(row["action"], row["resource_type"]) for row in found]


async def test_a_schedule_is_made_by_leave_to_update_its_agent_and_registered_under_it(
    remote: Remote, stub: AuthStub
) -> None:
    agent = await register(remote.alice)
    asked_before = len(stub.asked.get("check", []))
    schedule = await make(remote.alice, agent)
    checks = stub.asked["check"][asked_before:]
    assert [(check["operation"], check["resource"]) for check in checks][-1] == (
        "update",
        {"type": "agent", "selector": agent["id"]},
    )
    assert all(check["principal"] == ALICE for check in checks)
    assert (await remote.alice.get(f"/agents/{agent['id']}/schedules/{schedule['id']}")).status_code == 200
    resource = {"type": "schedule", "selector": selector(schedule)}
    assert stub.asked["register"][-1] == {
        "principal": ALICE,
        "resource": resource,
        "parent": {"type": "agent", "selector": agent["id"]},
    }
    assert stub.asked["grant"][-1] == {"principal": ALICE, "resource": resource, "operation": "create"}
    stub.deny = {("update", "agent")}
    refused = await remote.alice.post(f"/agents/{agent['id']}/schedules", json=SCHEDULE | {"name": "x"})
    assert refused.status_code == 403


async def test_what_is_deleted_is_revoked_and_deregistered(remote: Remote, stub: AuthStub) -> None:
    agent = await register(remote.alice)
    schedule = await make(remote.alice, agent)
    await remote.provider.tell_pending()
    assert {agent["id"], selector(schedule)} == set(stub.registered)
    url = f"/agents/{agent['id']}"
    assert (await remote.alice.delete(f"{url}/schedules/{schedule['id']}")).status_code == 200
    assert (await remote.alice.delete(url)).status_code == 200
    assert await remote.provider.tell_pending() == 2
    assert (stub.registered, stub.granted, await pending(remote.resources)) == ({}, set(), [])


async def test_a_key_of_an_agent_is_registered_under_it(remote: Remote, stub: AuthStub) -> None:
    agent = await register(remote.alice)
    made = await remote.alice.post("/agent_api_keys", json={"name": "k", "agent_id": agent["id"]})
    url = f"/agent_api_keys/{made.json()['id']}"
    assert [(await user.get(url)).status_code for user in (remote.alice, remote.bob)] == [200, 404]
    assert stub.registered[made.json()["id"]]["parent"] == {"type": "agent", "selector": agent["id"]}
    assert (await remote.alice.delete(url)).status_code == 200
    await remote.provider.tell_pending()
    assert made.json()["id"] not in stub.registered


@pytest.mark.parametrize("status", [0, 401, 403, 422, 502])
async def test_a_registration_that_fails_loses_nothing_and_opens_nothing(
    remote: Remote, stub: AuthStub, status: int
) -> None:
    agent = await register(remote.alice)
    await remote.provider.tell_pending()
    stub.status["register"] = status
    schedule = await make(remote.alice, agent)
    url = f"/agents/{agent['id']}/schedules"
    # To its maker the authorizer's no is not the last word; to others it is.
    stub.granted.add(("bob", agent["id"]))
    assert is_outage(await remote.alice.get(f"{url}/{schedule['id']}"))
    assert (await remote.bob.get(f"{url}/{schedule['id']}")).status_code == 404
    assert (await remote.alice.get(url)).json()["run_schedules"] == []
    assert await remote.provider.tell_pending() == 0
    assert await pending(remote.resources) == [("register", "schedule")]
    del stub.status["register"]
    assert (await remote.alice.get(f"{url}/{schedule['id']}")).status_code == 200
    assert (await remote.bob.get(f"{url}/{schedule['id']}")).status_code == 200
    assert await pending(remote.resources) == []


async def test_the_sweep_tells_what_was_not_told(remote: Remote, stub: AuthStub) -> None:
    stub.status["register"] = 502
    agent = await register(remote.alice)
    assert await remote.provider.tell_pending() == 0
    del stub.status["register"]
    # Not before its time.
    assert await remote.provider.tell_pending() == 0
    await rows(remote.resources.db, "UPDATE registrations SET next_attempt_at = now()")
    sweep = Sweep(remote.resources)
    await sweep.sweep_once()
    await remote.resources.settle_background()
    await sweep.close()
    assert (agent["id"] in stub.registered, await pending(remote.resources)) == (True, [])


async def test_one_that_is_refused_does_not_hold_up_the_others(remote: Remote, stub: AuthStub) -> None:
    agents = [await register(remote.alice, name=name) for name in ("a", "b", "c")]
    await rows(
        remote.resources.db,
        "UPDATE registrations SET action = 'grant' WHERE selector = :first",
        first=agents[0]["id"],
    )
    stub.status["grant"] = 422
    assert await remote.provider.tell_pending() == 0
    del stub.status["grant"]
    await rows(remote.resources.db, "UPDATE registrations SET next_attempt_at = now() WHERE id > 0")
    assert await remote.provider.tell_pending() == 3


async def test_an_authorizer_that_is_away_is_left_alone_after_three(remote: Remote, stub: AuthStub) -> None:
    for number in range(5):
        await register(remote.alice, name=f"a{number}")
    stub.status["register"] = 502
    assert await remote.provider.tell_pending() == 0
    assert stub.counts["register"] == 3
    waits = await rows(remote.resources.db, "SELECT attempts, error FROM registrations ORDER BY id")
    assert [row["attempts"] for row in waits] == [1, 1, 1, 0, 0]
    assert waits[0]["error"] == "the remote authorizer answers 502 to register"


async def test_of_one_thing_the_earlier_is_told_first(remote: Remote, stub: AuthStub) -> None:
    stub.status["register"] = 502
    agent = await register(remote.alice)
    await remote.provider.tell_pending()
    await rows(remote.resources.db, "UPDATE agents SET deleted_at = now()")
    # Its registration waits, and with it what came after.
    assert await remote.provider.tell_pending() == 0
    assert stub.counts["deregister"] == 0
    del stub.status["register"]
    await rows(remote.resources.db, "UPDATE registrations SET next_attempt_at = now()")
    assert await remote.provider.tell_pending() == 2
    assert agent["id"] not in stub.registered


async def test_what_is_given_away_is_revoked_and_granted(remote: Remote, stub: AuthStub) -> None:
    agent = await register(remote.alice)
    schedule = await make(remote.alice, agent)
    await remote.provider.tell_pending()
    await rows(remote.resources.db, "UPDATE agents SET owner = 'user:bob'")
    await rows(
        remote.resources.db,
        """UPDATE agent_run_schedules
        SET creator_principal = jsonb_set(creator_principal, '{user_id}', '"bob"')""",
    )
    assert await remote.provider.tell_pending() == 4
    assert stub.granted == {("bob", agent["id"]), ("bob", selector(schedule))}
    assert stub.asked["grant"][-1]["principal"] == BOB


async def test_without_a_remote_authorizer_nothing_is_noted(
    resources: Resources, client: httpx2.AsyncClient
) -> None:
    await register(client)
    assert await pending(resources) == []


async def test_what_was_told_is_forgotten_after_a_while(remote: Remote, stub: AuthStub) -> None:
    await register(remote.alice)
    await remote.provider.tell_pending()
    kept = "SELECT count(*) AS count FROM registrations"
    assert (await rows(remote.resources.db, kept))[0]["count"] == 1
    await rows(remote.resources.db, "UPDATE registrations SET told_at = now() - interval '1 minute'")
    await remote.provider.tell_pending()
    assert (await rows(remote.resources.db, kept))[0]["count"] == 0


async def test_a_task_is_registered_under_its_agent_and_deregistered_when_it_is_forgotten(
    remote: Remote, stub: AuthStub, acp_server: AcpServer
) -> None:
    agent = await register(remote.alice, acp_url=acp_server.url)
    tasks = [await create_task(remote.alice, agent, name=name) for name in ("deleted", "forgotten")]
    listed = await remote.alice.get("/tasks")
    assert {task["id"] for task in listed.json()} == {task["id"] for task in tasks}
    parent = {"type": "agent", "selector": agent["id"]}
    assert [stub.registered[task["id"]]["parent"] for task in tasks] == [parent, parent]
    assert (await remote.bob.get(f"/tasks/{tasks[0]['id']}")).status_code == 404
    assert (await remote.bob.get("/tasks")).json() == []
    assert (await remote.alice.delete(f"/tasks/{tasks[0]['id']}")).status_code == 200
    await rows(remote.resources.db, "DELETE FROM tasks")
    await remote.provider.tell_pending()
    assert stub.registered.keys() == {agent["id"]}
    assert stub.counts["deregister"] == 2


async def test_a_message_makes_a_task_that_is_its_sender_s(
    remote: Remote, stub: AuthStub, acp_server: AcpServer
) -> None:
    agent = await register(remote.alice, acp_url=acp_server.url, acp_type="sync")
    answer = await rpc(remote.alice, agent, "message/send", {"content": TEXT})
    task_id = answer["result"][0]["task_id"]
    statuses = [(await user.get(f"/tasks/{task_id}")).status_code for user in (remote.bob, remote.alice)]
    assert statuses == [404, 200]
    assert stub.registered[task_id]["principal"] == ALICE
