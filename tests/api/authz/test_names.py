"""What a name or a repeat of a request could give away: whose task it is, and what was answered to others."""

from __future__ import annotations

import asyncio

import httpx2
import pytest

from agentex.auth.rules import Role
from agentex.resources import Resources
from agentex.rpc import service as rpc_service
from agentex.tasks import service as tasks_service
from tests.api.authz.members import SECOND, calling, join, join_agent, user
from tests.api.ledger.stage import fetch
from tests.support.acp_server import AcpServer
from tests.support.api import TEXT, Json, create_task, register, rpc


@pytest.fixture
async def agent(client: httpx2.AsyncClient, resources: Resources, acp_server: AcpServer) -> Json:
    return await register(client, acp_url=acp_server.url)


async def test_task_create_by_the_name_of_anothers_task_changes_nothing_of_it(
    client: httpx2.AsyncClient, resources: Resources, agent: Json, acp_server: AcpServer
) -> None:
    task = await create_task(client, agent, name="alices", params={"secret": 1})
    told = len(acp_server.requests)
    async with calling(await join(resources, user("eddie"), Role.EDITOR)) as eddie:
        refused = await rpc(eddie, agent, "task/create", {"name": "alices", "params": {"mine": 1}})
        assert refused["error"]["message"].startswith(f"update on task {task['id']} is not allowed")
        # An editor reads all.
        assert (await create_task(eddie, agent, name="alices"))["id"] == task["id"]
    async with calling(await join_agent(resources, "stranger")) as stranger:
        for params in ({}, {"params": {"mine": 1}}):
            hidden = await rpc(stranger, agent, "task/create", {"name": "alices", **params})
            assert hidden["error"]["message"] == "task 'alices' not found"
    found = await fetch(resources, "SELECT params, owner FROM tasks")
    assert [tuple(row.values()) for row in found] == [({"secret": 1}, "user:alice")]
    assert len(acp_server.requests) == told + 1


async def test_a_task_that_somebody_makes_meanwhile_is_looked_at_again(
    client: httpx2.AsyncClient, resources: Resources, agent: Json, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look for the name and the write: that finds another's task, and gives nothing of it."""
    look = tasks_service.find_by_name
    made: list[Json] = []

    async def find_by_name(*given: object) -> object:
        found = await look(*given)  # pyright: ignore[reportArgumentType] - what it was given
        if not made:
            monkeypatch.undo()
            made.append(await create_task(client, agent, name="contested", params={"secret": 1}))
        return found

    async with calling(await join_agent(resources, "stranger")) as stranger:
        monkeypatch.setattr(rpc_service.tasks, "find_by_name", find_by_name)
        refused = await rpc(stranger, agent, "task/create", {"name": "contested", "params": {"mine": 1}})
    assert refused["error"]["message"] == "task 'contested' not found"
    found = await fetch(resources, "SELECT params, owner FROM tasks")
    assert [tuple(row.values()) for row in found] == [({"secret": 1}, "user:alice")]


async def test_many_who_make_one_task_at_once_all_get_it(
    resources: Resources, agent: Json, client: httpx2.AsyncClient
) -> None:
    made = await asyncio.gather(
        *[create_task(client, agent, name="shared", params={"n": n}) for n in range(8)]
    )
    assert len({task["id"] for task in made}) == 1


async def test_a_repeat_under_anothers_key_is_a_request_of_its_own(
    client: httpx2.AsyncClient, resources: Resources, agent: Json, acp_server: AcpServer
) -> None:
    """The same key, path, body and address: answers are kept per principal."""
    headers = {"idempotency-key": "the-same", "x-stainless-retry-count": "1"}
    path, body = f"/agents/{agent['id']}/deployments", {"docker_image": "i:1"}
    first = (await client.post(path, json=body, headers=headers)).json()
    again = (await client.post(path, json=body, headers=headers)).json()
    assert again == first
    # Of her account another admin, somebody who may not, and somebody of the same name elsewhere.
    async with calling(await join(resources, user("anna"), Role.ADMIN)) as anna:
        assert (await anna.post(path, json=body, headers=headers)).json()["id"] != first["id"]
    async with calling(await join(resources, user("vera"), Role.VIEWER)) as vera:
        assert (await vera.post(path, json=body, headers=headers)).status_code == 403
    async with calling(await join(resources, user("alice", SECOND), Role.ADMIN)) as namesake:
        assert (await namesake.post(path, json=body, headers=headers)).status_code == 404
    # Who may no more is not answered from what was kept either.
    await fetch(resources, "UPDATE members SET role = 'viewer' WHERE name = 'user:alice'")
    assert (await client.post(path, json=body, headers=headers)).status_code == 403


async def test_what_has_no_task_is_its_makers(resources: Resources) -> None:
    span = {"id": "s1", "name": "mine", "trace_id": "t", "start_time": "2026-01-01T00:00:00Z"}
    keys = {name: await join(resources, user(name), Role.EDITOR) for name in ("olga", "eddie")}
    async with calling(keys["olga"]) as olga, calling(keys["eddie"]) as eddie:
        assert (await olga.post("/spans", json=span)).status_code == 200
        assert (await eddie.get("/spans/s1")).status_code == 200
        assert (await eddie.patch("/spans/s1", json={"name": "taken"})).status_code == 403
        assert (await olga.patch("/spans/s1", json={"name": "changed"})).json()["name"] == "changed"
    async with calling(await join(resources, user("oscar"), Role.OPERATOR)) as oscar:
        assert (await oscar.patch("/spans/s1", json={"name": "mended"})).status_code == 200
    async with calling(await join_agent(resources, "greeter")) as greeter:
        # In the same words as of a span that there is not.
        for method, url in (("GET", "/spans/s1"), ("PATCH", "/spans/s1"), ("GET", "/spans/s2")):
            answer = await greeter.request(method, url, json={"name": "x"} if method == "PATCH" else None)
            expected = f"span {url.rpartition('/')[2]!r} not found"
            assert (answer.status_code, answer.json()["message"]) == (404, expected)
        assert (await greeter.get("/spans")).json() == []
        own = {**span, "id": "s3"}
        assert (await greeter.post("/spans", json=own)).status_code == 200
        assert [one["id"] for one in (await greeter.get("/spans")).json()] == ["s3"]


async def test_a_thread_that_is_no_tasks_is_not_an_agents(resources: Resources) -> None:
    """Nobody owns it: one agent would write into another's memory."""
    put: Json = {"thread_id": "shared", "checkpoint_id": "c", "checkpoint": {}}
    async with calling(await join(resources, user("olga"), Role.EDITOR)) as olga:
        assert (await olga.post("/checkpoints/put", json=put)).status_code == 200
    async with calling(await join_agent(resources, "greeter")) as greeter:
        for thread in ("shared", "another"):
            for verb in ("get-tuple", "list", "delete-thread"):
                answer = await greeter.post(f"/checkpoints/{verb}", json={"thread_id": thread})
                assert (answer.status_code, thread in answer.json()["message"]) == (404, True)


async def test_an_agent_goes_on_with_its_own_task(
    client: httpx2.AsyncClient, resources: Resources, agent: Json
) -> None:
    """All that an agent does in a task: read it, speak, keep a state, trace, keep its place, close it."""
    task = await create_task(client, agent)
    event = await rpc(client, agent, "event/send", {"task_id": task["id"], "content": TEXT})
    of = {"task_id": task["id"]}
    async with calling(await join_agent(resources, agent["name"])) as greeter:
        said = await greeter.post("/messages", json={**of, "content": {**TEXT, "author": "agent"}})
        assert said.status_code == 200
        state = {**of, "agent_id": agent["id"], "state": {"turns": 1}}
        assert (await greeter.post("/states", json=state)).status_code == 200
        span = {**of, "name": "s", "trace_id": "t", "start_time": "2026-01-01T00:00:00Z"}
        assert (await greeter.post("/spans", json=span)).status_code == 200
        tracker = (await greeter.get("/tracker", params=of)).json()[0]
        place = {"last_processed_event_id": event["result"]["id"]}
        assert (await greeter.put(f"/tracker/{tracker['id']}", json=place)).status_code == 200
        put: Json = {"thread_id": task["id"], "checkpoint_id": "c", "checkpoint": {}}
        assert (await greeter.post("/checkpoints/put", json=put)).status_code == 200
        for url in ("/messages", "/states", "/spans", "/tracker"):
            assert len((await greeter.get(url, params=of)).json()) == 1, url
        events = {**of, "agent_id": agent["id"]}
        assert len((await greeter.get("/events", params=events)).json()) == 1
        assert (await greeter.post(f"/tasks/{task['id']}/complete")).status_code == 200
        # What it may not with its own: delete what was said.
        assert (await greeter.delete(f"/tasks/{task['id']}")).status_code == 403
