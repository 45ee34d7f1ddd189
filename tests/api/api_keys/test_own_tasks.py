"""An agent sees and changes what hangs on its own tasks, and nothing of another agent's."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import httpx2
import pytest

from agentex.auth.rules import Role
from agentex.resources import Resources
from tests.api.conftest import shared_app
from tests.support.acp_server import AcpServer
from tests.support.api import TEXT, Json, registration
from tests.support.keys import bearer, key_of, of_agent
from tests.support.sse import serving

SPAN: Json = {"name": "s", "trace_id": "t", "start_time": "2026-01-01T00:00:00Z"}
# Everything that hangs on a task, as an agent reads it.
READS = [
    "/tasks/{task_id}",
    "/tasks/name/{task_name}",
    "/tasks/{task_id}/export",
    "/messages?task_id={task_id}",
    "/messages/paginated?task_id={task_id}",
    "/messages/{message_id}",
    "/events?task_id={task_id}&agent_id={agent_id}",
    "/events/{event_id}",
    "/states/{state_id}",
    "/spans/{span_id}",
    "/tracker/{tracker_id}",
]
# … and in lists, which leave out what is not its own.
LISTS = [
    "/tasks",
    "/states?task_id={task_id}",
    "/states?agent_id={agent_id}",
    "/spans",
    "/spans?task_id={task_id}",
    "/tracker",
    "/tracker?task_id={task_id}",
]
CHECKPOINT: Json = {"thread_id": "{task_id}", "checkpoint_id": "c"}
WRITES: list[tuple[str, str, Json]] = [
    ("POST", "/messages", {"task_id": "{task_id}", "content": TEXT}),
    ("PUT", "/messages/{message_id}", {"task_id": "{task_id}", "content": TEXT}),
    ("POST", "/messages/batch", {"task_id": "{task_id}", "contents": [TEXT]}),
    ("PUT", "/messages/batch", {"task_id": "{task_id}", "updates": {"{message_id}": TEXT}}),
    ("PUT", "/states/{state_id}", {"task_id": "{task_id}", "agent_id": "{agent_id}", "state": {"n": 2}}),
    ("POST", "/spans", SPAN | {"task_id": "{task_id}"}),
    ("PATCH", "/spans/{span_id}", {"name": "changed"}),
    ("PUT", "/tracker/{tracker_id}", {"status": "working"}),
    ("POST", "/checkpoints/put", CHECKPOINT | {"checkpoint": {}}),
    ("POST", "/checkpoints/put-writes", CHECKPOINT | {"writes": []}),
    ("POST", "/checkpoints/get-tuple", {"thread_id": "{task_id}"}),
    ("POST", "/checkpoints/list", {"thread_id": "{task_id}"}),
    ("PUT", "/tasks/{task_id}", {"task_metadata": {"a": 1}}),
    ("POST", "/tasks/{task_id}/interrupt", {}),
    ("POST", "/tasks/{task_id}/complete", {}),
]


@pytest.fixture
async def world(
    client: httpx2.AsyncClient, resources: Resources, acp_server: AcpServer
) -> dict[str, dict[str, str]]:
    """Two agents, each with a task of an editor's with one of everything on it, by the agent's name."""
    user = bearer(await key_of(resources, "user:eve", Role.EDITOR))
    operator = bearer(await key_of(resources, "user:olga", Role.OPERATOR))
    return {
        name: await _one_of_each(client, resources, name, acp_server, user, operator)
        for name in ("greeter", "other")
    }


async def _one_of_each(
    client: httpx2.AsyncClient,
    resources: Resources,
    name: str,
    acp_server: AcpServer,
    user: dict[str, str],
    operator: dict[str, str],
) -> dict[str, str]:
    async def ok(method: str, path: str, body: object = None, *, by: dict[str, str] = user) -> Json:
        response = await client.request(method, path, json=body, headers=by)
        assert response.status_code == 200, response.text
        return response.json()

    key = await key_of(resources, f"agent:{name}", Role.AGENT)
    agent = await ok(
        "POST", "/agents/register", registration(name=name, acp_url=acp_server.url), by=of_agent(key)
    )
    rpc = f"/agents/{agent['id']}/rpc"
    task = (await ok("POST", rpc, {"method": "task/create", "params": {"name": f"of-{name}"}}))["result"]
    params = {"task_id": task["id"], "content": TEXT}
    event = (await ok("POST", rpc, {"method": "event/send", "params": params}))["result"]
    of_task = {"task_id": task["id"]}
    message = await ok("POST", "/messages", of_task | {"content": TEXT})
    kept: Json = of_task | {"agent_id": agent["id"], "state": {}}
    state = await ok("POST", "/states", kept, by=operator)
    span = await ok("POST", "/spans", SPAN | of_task)
    (tracker,) = (await client.get("/tracker", params=of_task, headers=operator)).json()
    return {
        "key": key,
        "agent_id": agent["id"],
        "task_id": task["id"],
        "task_name": task["name"],
        "event_id": event["id"],
        "message_id": message["id"],
        "state_id": state["id"],
        "span_id": span["id"],
        "tracker_id": tracker["id"],
    }


def filled(text: str, words: dict[str, str]) -> str:
    for word, value in words.items():
        text = text.replace(f"{{{word}}}", value)
    return text


@pytest.mark.parametrize("path", READS)
async def test_an_agent_reads_its_own_tasks_only(
    client: httpx2.AsyncClient, world: dict[str, dict[str, str]], path: str
) -> None:
    own, theirs = world["greeter"], world["other"]
    headers = of_agent(own["key"])
    answers = [await client.get(filled(path, words), headers=headers) for words in (own, theirs)]
    assert [answer.status_code for answer in answers] == [200, 404], answers[0].text


@pytest.mark.parametrize("path", LISTS)
async def test_an_agent_lists_its_own_tasks_only(
    client: httpx2.AsyncClient, world: dict[str, dict[str, str]], path: str
) -> None:
    own, theirs = world["greeter"], world["other"]
    headers = of_agent(own["key"])
    mine = await client.get(filled(path, own), headers=headers)
    others = await client.get(filled(path, theirs), headers=headers)

    assert (mine.status_code, len(mine.json())) == (200, 1), mine.text
    if "{" in path:
        assert others.status_code == 404 or (others.status_code, others.json()) == (200, [])
    else:
        assert theirs["task_id"] not in others.text


@pytest.mark.parametrize(("method", "path", "body"), WRITES)
async def test_an_agent_writes_in_its_own_tasks_only(
    client: httpx2.AsyncClient, world: dict[str, dict[str, str]], method: str, path: str, body: Json
) -> None:
    own, theirs = world["greeter"], world["other"]
    headers = of_agent(own["key"])
    statuses: list[int] = []
    for words in (own, theirs):
        content = json.loads(filled(json.dumps(body), words))
        response = await client.request(method, filled(path, words), json=content, headers=headers)
        statuses.append(response.status_code)
    assert (statuses[0] in {200, 204}, statuses[1]) == (True, 404), statuses


async def test_an_agent_keeps_a_state_in_its_own_tasks_only(
    client: httpx2.AsyncClient, resources: Resources, world: dict[str, dict[str, str]]
) -> None:
    own, theirs = world["greeter"], world["other"]
    headers = of_agent(own["key"])
    await client.delete(f"/states/{own['state_id']}", headers=headers)
    answers = [
        await client.post(
            "/states",
            json={"task_id": words["task_id"], "agent_id": own["agent_id"], "state": {}},
            headers=headers,
        )
        for words in (own, theirs)
    ]
    assert [answer.status_code for answer in answers] == [200, 404], answers[0].text


@pytest.fixture
async def url(client: httpx2.AsyncClient, resources: Resources) -> AsyncIterator[str]:
    async with serving(shared_app()) as address:
        yield address
        assert resources.streams is not None
        await resources.streams.aclose()


async def test_an_agent_follows_its_own_tasks_only(url: str, world: dict[str, dict[str, str]]) -> None:
    own, theirs = world["greeter"], world["other"]
    async with httpx2.AsyncClient(base_url=url, headers=of_agent(own["key"])) as client:
        for path in ("/tasks/{task_id}/stream", "/tasks/name/{task_name}/stream"):
            async with client.stream("GET", filled(path, own)) as stream:
                assert (stream.status_code, (await anext(stream.aiter_text()))[:3]) == (200, "id:")
            assert (await client.get(filled(path, theirs))).status_code == 404


async def test_an_agent_makes_tasks_with_other_agents_and_sees_those_it_made(
    client: httpx2.AsyncClient, world: dict[str, dict[str, str]]
) -> None:
    own, theirs = world["greeter"], world["other"]
    headers = of_agent(own["key"])
    request = {"method": "task/create", "params": {"name": "made by greeter"}}
    made = await client.post(f"/agents/{theirs['agent_id']}/rpc", json=request, headers=headers)
    task = made.json()["result"]
    found = await client.get("/tasks", headers=headers)
    assert {one["name"] for one in found.json()} == {"of-greeter", "made by greeter"}
    assert (await client.get(f"/tasks/{task['id']}", headers=headers)).status_code == 200
