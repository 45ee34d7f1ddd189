"""task/create."""

from __future__ import annotations

import asyncio

import httpx2
import pytest

from agentex.auth.authorize import Operation, ResourceType
from tests.support.acp_replies import Reply
from tests.support.acp_server import AcpServer
from tests.support.api import Json, at_once, create_task, register, result, rpc, rpc_error, told_agent
from tests.support.authz import ScriptedAuthz


async def test_a_task_is_made_and_the_agent_is_told(
    client: httpx2.AsyncClient, agent: Json, acp_server: AcpServer
) -> None:
    wanted = {"name": "t1", "params": {"depth": 3}, "task_metadata": {"team": "a"}}

    answer = await rpc(client, agent, "task/create", wanted)

    task = answer["result"]
    expected = {
        "id": task["id"],
        "name": "t1",
        "status": "RUNNING",
        "status_reason": None,
        "created_at": task["created_at"],
        "updated_at": task["created_at"],
        "cleaned_at": None,
        "params": {"depth": 3},
        "task_metadata": {"team": "a"},
    }
    assert answer == result(expected)
    sent = acp_server.requests[0]
    assert len(acp_server.requests) == 1
    assert (sent.method, sent.id, sent.headers["idempotency-key"], sent.params) == (
        "task/create",
        f"task:{task['id']}",
        f"task:{task['id']}",
        {"agent": told_agent(agent, acp_server.url), "task": task, "params": {"depth": 3}},
    )


async def test_the_agent_may_call_back_before_it_has_answered(
    client: httpx2.AsyncClient, agent: Json, acp_server: AcpServer
) -> None:
    acp_server.script("task/create", [Reply(hang="before")])
    asked = asyncio.create_task(rpc(client, agent, "task/create", {"name": "t1"}))
    await acp_server.is_hanging()
    task = (await client.get("/tasks/name/t1")).json()

    content = {"type": "text", "author": "agent", "content": "hello"}
    added = await client.post("/messages", json={"task_id": task["id"], "content": content})
    completed = await client.post(f"/tasks/{task['id']}/complete")
    acp_server.release()

    assert (added.status_code, completed.status_code) == (200, 200)
    assert (await asked)["result"]["id"] == task["id"]


async def test_a_name_gets_the_same_task_new_params_and_old_metadata(
    client: httpx2.AsyncClient, agent: Json
) -> None:
    first = await create_task(client, agent, name="t1", params={"a": 1}, task_metadata={"m": 1})

    unchanged = await create_task(client, agent, name="t1", task_metadata={"m": 2})
    changed = await create_task(client, agent, name="t1", params={"b": 2}, task_metadata={"m": 3})

    assert unchanged == first
    assert changed == {**first, "params": {"b": 2}, "updated_at": changed["updated_at"]}


async def test_without_a_name_each_task_is_new(client: httpx2.AsyncClient, agent: Json) -> None:
    made = [await create_task(client, agent) for _ in range(2)]

    assert [task["name"] for task in made] == [None, None]
    assert made[0]["id"] != made[1]["id"]


async def test_a_closed_task_is_returned_and_the_agent_not_told(
    client: httpx2.AsyncClient, agent: Json, acp_server: AcpServer
) -> None:
    first = await create_task(client, agent, name="t1")
    await client.post(f"/tasks/{first['id']}/complete")

    again = await create_task(client, agent, name="t1")

    assert (again["id"], again["status"]) == (first["id"], "COMPLETED")
    assert acp_server.counts == {"task/create": 1}


async def test_the_name_of_another_agents_task_is_refused(
    client: httpx2.AsyncClient, agent: Json, acp_server: AcpServer
) -> None:
    task = await create_task(client, agent, name="t1", params={"a": 1})
    other = await register(client, name="other", acp_url=acp_server.url)

    answer = await rpc(client, other, "task/create", {"name": "t1", "params": {"a": 2}})

    assert answer == rpc_error(-32603, "task 't1' belongs to another agent; choose another name")
    assert (await client.get(f"/tasks/{task['id']}")).json()["params"] == {"a": 1}


async def test_twenty_at_once_of_one_name_make_one_task(client: httpx2.AsyncClient, agent: Json) -> None:
    request = {"method": "task/create", "params": {"name": "t1"}}

    answers = await at_once(20, client, f"/agents/{agent['id']}/rpc", request)

    assert len({answer["result"]["id"] for answer in answers}) == 1
    assert [task["name"] for task in (await client.get("/tasks")).json()] == ["t1"]


async def test_a_sync_agent_is_not_told(client: httpx2.AsyncClient, acp_server: AcpServer) -> None:
    agent = await register(client, acp_type="sync", acp_url=acp_server.url)

    task = await create_task(client, agent)

    assert (task["status"], dict(acp_server.counts)) == ("RUNNING", {})


async def test_by_the_agents_name(client: httpx2.AsyncClient, agent: Json) -> None:
    request = {"method": "task/create", "params": {"name": "t1"}, "id": "seven"}

    response = await client.post("/agents/name/greeter/rpc", json=request)

    task = (await client.get("/tasks/name/t1")).json()
    del task["agents"]
    assert response.json() == {**result(task), "id": "seven"}


@pytest.mark.parametrize("name", [None, "t1"])
async def test_a_silent_repeat_makes_no_second_task_and_no_second_request(
    client: httpx2.AsyncClient, agent: Json, acp_server: AcpServer, name: str | None
) -> None:
    params = {"name": name} if name else {}
    first = await rpc(client, agent, "task/create", params, headers={"x-stainless-retry-count": "0"})

    repeats = [
        await rpc(client, agent, "task/create", params, headers={"x-stainless-retry-count": count})
        for count in ("1", "2")
    ]

    assert repeats == [first, first]
    assert dict(acp_server.counts) == {"task/create": 1}
    assert len((await client.get("/tasks")).json()) == 1


@pytest.mark.parametrize("count", ["garbage", "-1", "1e3", "99999999999999999999", "", "\u00b2"])
async def test_a_count_that_is_none_makes_no_repeat(
    client: httpx2.AsyncClient, agent: Json, count: str
) -> None:
    first = await create_task(client, agent)
    headers = [(b"x-stainless-retry-count", count.encode())]

    second = await client.post(f"/agents/{agent['id']}/rpc", json={"method": "task/create"}, headers=headers)

    assert second.json()["result"]["id"] != first["id"]


async def test_the_same_idempotency_key_has_one_effect(
    client: httpx2.AsyncClient, agent: Json, acp_server: AcpServer
) -> None:
    key = {"idempotency-key": "k1"}

    answers = [await rpc(client, agent, "task/create", {}, headers=key) for _ in range(3)]
    other = await rpc(client, agent, "task/create", {"name": "x"}, headers=key)

    assert answers == [answers[0]] * 3
    assert dict(acp_server.counts) == {"task/create": 1}
    message = "Idempotency-Key: 'k1' was used with another body; use a new key"
    assert other == rpc_error(-32602, message)


@pytest.mark.parametrize(
    ("reply", "what"),
    [
        (Reply(status=500), "answered HTTP 500"),
        (Reply(error_code=-32603, error_message="no luck"), "answered error -32603: no luck"),
        (Reply(body="<html>"), "the answer (6 bytes) is not JSON"),
        (Reply(close="close"), "the connection was lost before the answer was complete"),
    ],
)
async def test_a_failure_at_the_agent_is_said_and_not_repeated(
    client: httpx2.AsyncClient, agent: Json, acp_server: AcpServer, reply: Reply, what: str
) -> None:
    acp_server.script("task/create", [reply])

    answer = await rpc(client, agent, "task/create", {"name": "t1"})
    repeat = await rpc(client, agent, "task/create", {"name": "t1"}, headers={"x-stainless-retry-count": "1"})

    task = (await client.get("/tasks/name/t1")).json()
    host = acp_server.url.removeprefix("http://")
    message = f"agent {host}, task/create: {what} (task:{task['id']} is kept)"
    assert (answer, repeat) == (rpc_error(-32603, message), rpc_error(-32603, message))
    assert dict(acp_server.counts) == {"task/create": 1}


async def test_an_agent_that_is_away_is_named(client: httpx2.AsyncClient) -> None:
    agent = await register(client, acp_url="http://127.0.0.1:9")

    answer = await rpc(client, agent, "task/create", {"name": "t1"})

    task = (await client.get("/tasks/name/t1")).json()
    assert answer["error"]["message"].startswith("agent 127.0.0.1:9, task/create: no connection: ")
    assert answer["error"]["message"].endswith(f" (task:{task['id']} is kept)")


@pytest.mark.parametrize(
    ("denied", "message"),
    [
        ((Operation.EXECUTE, ResourceType.AGENT), "execute on agent {id} is not allowed: scripted"),
        ((Operation.CREATE, ResourceType.TASK), "create on task * is not allowed: scripted"),
    ],
)
async def test_who_may_not_makes_no_task(
    client: httpx2.AsyncClient,
    agent: Json,
    authz: ScriptedAuthz,
    denied: tuple[Operation, ResourceType],
    message: str,
) -> None:
    authz.deny = {denied}

    answer = await rpc(client, agent, "task/create", {})

    assert answer == rpc_error(-32603, message.format(id=agent["id"]))
    assert (await client.get("/tasks")).json() == []


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"name": ""}, "name is '': String should have at least 1 character"),
        ({"name": 5}, "name is 5: Input should be a valid string"),
        ({"name": "n" * 513}, f"name is '{'n' * 78}…: String should have at most 512 characters"),
        ({"params": ["secret"]}, "params: Input should be a valid dictionary"),
    ],
)
async def test_invalid_params_are_named(
    client: httpx2.AsyncClient, agent: Json, params: Json, message: str
) -> None:
    answer = await rpc(client, agent, "task/create", params)

    assert answer == rpc_error(-32602, f"params of task/create: {message}")
