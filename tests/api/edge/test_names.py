"""Names that would like to be headers: refused, or never put into one as they are."""

from __future__ import annotations

import httpx2
import pytest
from fastapi.routing import iter_route_contexts

from agentex.resources import Resources
from tests.api.conftest import shared_app
from tests.support.acp_server import AcpServer
from tests.support.api import TEXT, Json, create_task, registration, rpc

SPLIT = "a\r\nx-evil: 1\r\n\r\n<script>"
NAMES = [
    SPLIT,
    "a\nx-evil: 1",
    "a\rx-evil: 1",
    "ä\u2028x-evil: 1",
    "a\x85x-evil: 1",
    "\ud83d\ude00",
    "a\n",
    "a\tb",
]
# Half a surrogate pair each: together they are one character.
EMOJI = "\U0001f600"


def harmless(answer: httpx2.Response) -> bool:
    return "x-evil" not in answer.headers and all(
        value.isascii() and value.isprintable() for value in answer.headers.values()
    )


@pytest.mark.parametrize("name", [name for name in NAMES if name != "\ud83d\ude00"] + [EMOJI])
async def test_agents_and_schedules_have_no_such_names(
    client: httpx2.AsyncClient, agent: Json, name: str
) -> None:
    body = {"name": name, "interval_seconds": 3_600, "initial_input": {"content": TEXT}}
    answers = [
        await client.post("/agents/register", json=registration(name=name)),
        await client.post("/agents/register-build", json={"name": name, "description": ""}),
        await client.post(f"/agents/{agent['id']}/schedules", json=body),
        await client.post(
            "/agent_api_keys/webhook-trigger",
            json={"agent_name": name, "source": "github", "name": name, "forward_path": name},
        ),
    ]
    assert [answer.status_code for answer in answers[:3]] == [422] * 3
    assert 400 <= answers[3].status_code < 500
    assert all(harmless(answer) for answer in answers)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "\ud83d\ude00"] + [EMOJI])
async def test_a_tasks_or_keys_name_is_in_no_header(
    client: httpx2.AsyncClient, resources: Resources, agent: Json, acp_server: AcpServer, name: str
) -> None:
    resources.hooks.run_opened = None
    task = await create_task(client, agent, name=name)
    await rpc(client, agent, "event/send", {"task_name": name, "content": TEXT})
    key = await client.post("/agent_api_keys", json={"agent_id": agent["id"], "name": name})
    world = {"task_id": task["id"], "agent_id": agent["id"], "key_id": key.json()["id"]}

    asked = 0
    for route in iter_route_contexts(shared_app().routes):
        path = (route.path or "").replace(":path}", "}")
        if "GET" not in (route.methods or set()) or path.endswith("/stream") or "{" not in path:
            continue
        if all(f"{{{word}}}" not in path for word in ("task_id", "key_id", "name", "task_name")):
            continue
        quoted = str(httpx2.QueryParams({"n": name}))[2:].replace("+", "%20")
        words = {**world, "name": quoted, "task_name": quoted}
        for word, value in words.items():
            path = path.replace(f"{{{word}}}", value)
        answer = await client.get(path, params={"agent_id": agent["id"]})
        assert answer.status_code < 500 or "query" in path, answer.text
        assert harmless(answer), path
        asked += 1

    assert asked > 5
    assert acp_server.requests
    for request in acp_server.requests:
        assert "x-evil" not in {header.lower() for header in request.headers}


@pytest.mark.parametrize("value", ["a\x85b", "ä", "a\tb", "a" * 200])
async def test_a_request_id_that_is_no_id_comes_back_in_no_header(
    client: httpx2.AsyncClient, value: str
) -> None:
    answer = await client.get("/healthz", headers=[(b"x-request-id", value.encode("latin-1"))])
    assert answer.headers["x-request-id"] != value
    assert harmless(answer)
