"""event/send, and what is the same for every method."""

from __future__ import annotations

from uuid import uuid4

import httpx2
import pytest

from agentex.auth.authorize import Operation, ResourceType
from tests.support.acp_replies import Reply
from tests.support.acp_server import AcpServer
from tests.support.api import (
    TEXT,
    WHOLE_TEXT,
    Json,
    create_task,
    register,
    result,
    rpc,
    rpc_error,
    rpc_problem,
    told_agent,
)
from tests.support.authz import ScriptedAuthz
from tests.support.messages import told_task


@pytest.mark.parametrize("by", ["task_id", "task_name"])
async def test_an_event_is_made_and_sent(
    client: httpx2.AsyncClient, agent: Json, acp_server: AcpServer, by: str
) -> None:
    task = await create_task(client, agent, name="t1")

    answer = await rpc(
        client, agent, "event/send", {by: task["id" if by == "task_id" else "name"], "content": TEXT}
    )

    event = answer["result"]
    assert answer == result(
        {
            "id": event["id"],
            "sequence_id": event["sequence_id"],
            "task_id": task["id"],
            "agent_id": agent["id"],
            "content": WHOLE_TEXT,
            "created_at": event["created_at"],
        }
    )
    sent = acp_server.requests[1]
    assert len(acp_server.requests) == 2
    assert (sent.method, sent.id, sent.headers["idempotency-key"], sent.params) == (
        "event/send",
        f"event:{event['id']}",
        f"event:{event['id']}",
        {
            "agent": told_agent(agent, acp_server.url),
            "task": task,
            "event": event,
            "request": None,
        },
    )


async def test_events_of_a_task_are_numbered_in_order(client: httpx2.AsyncClient, agent: Json) -> None:
    task = await create_task(client, agent)

    numbers = [
        (await rpc(client, agent, "event/send", {"task_id": task["id"], "content": TEXT}))["result"][
            "sequence_id"
        ]
        for _ in range(3)
    ]

    assert numbers == sorted(set(numbers))


async def test_an_event_needs_no_content(client: httpx2.AsyncClient, agent: Json) -> None:
    task = await create_task(client, agent)

    answer = await rpc(client, agent, "event/send", {"task_id": task["id"]})

    assert answer["result"]["content"] is None


async def test_a_silent_repeat_makes_no_second_event_and_no_second_request(
    client: httpx2.AsyncClient, agent: Json, acp_server: AcpServer
) -> None:
    task = await create_task(client, agent)
    params = {"task_id": task["id"], "content": TEXT}
    first = await rpc(client, agent, "event/send", params)

    repeat = await rpc(client, agent, "event/send", params, headers={"x-stainless-retry-count": "1"})
    another = await rpc(client, agent, "event/send", params)

    assert repeat == first
    assert another["result"]["id"] != first["result"]["id"]
    assert dict(acp_server.counts) == {"task/create": 1, "event/send": 2}


async def test_a_repeat_after_the_task_was_closed_gets_the_first_answer(
    client: httpx2.AsyncClient, agent: Json
) -> None:
    task = await create_task(client, agent)
    params = {"task_id": task["id"], "content": TEXT}
    first = await rpc(client, agent, "event/send", params)
    await client.post(f"/tasks/{task['id']}/complete")

    repeat = await rpc(client, agent, "event/send", params, headers={"x-stainless-retry-count": "1"})

    assert repeat == first


async def test_a_failure_at_the_agent_is_said(
    client: httpx2.AsyncClient, agent: Json, acp_server: AcpServer
) -> None:
    task = await create_task(client, agent)
    acp_server.script("event/send", [Reply(status=500)])

    answer = await rpc(client, agent, "event/send", {"task_id": task["id"], "content": TEXT})

    sent = acp_server.requests[1]
    host = acp_server.url.removeprefix("http://")
    assert answer == rpc_error(-32603, f"agent {host}, event/send: answered HTTP 500 ({sent.id} is kept)")


async def test_a_closed_task_takes_no_event(
    client: httpx2.AsyncClient, agent: Json, acp_server: AcpServer
) -> None:
    task = await create_task(client, agent)
    await client.post(f"/tasks/{task['id']}/cancel")

    answer = await rpc(client, agent, "event/send", {"task_id": task["id"], "content": TEXT})

    message = f"task {task['id']} is CANCELED; only a task that is RUNNING or INTERRUPTED takes events"
    assert answer == rpc_error(-32603, message)
    assert dict(acp_server.counts) == {"task/create": 1}


async def test_an_interrupted_task_runs_again_with_its_next_event(
    client: httpx2.AsyncClient, agent: Json, acp_server: AcpServer
) -> None:
    task = await create_task(client, agent)
    await rpc(client, agent, "task/interrupt", {"task_id": task["id"]})

    await rpc(client, agent, "event/send", {"task_id": task["id"], "content": TEXT})

    sent = acp_server.requests[-1]
    read = (await client.get(f"/tasks/{task['id']}")).json()
    assert (sent.method, told_task(sent)["status"], read["status"]) == (
        "event/send",
        "RUNNING",
        "RUNNING",
    )


async def test_another_agents_task_takes_no_event(client: httpx2.AsyncClient, agent: Json) -> None:
    task = await create_task(client, agent)
    other = await register(client, name="other")

    answer = await rpc(client, other, "event/send", {"task_id": task["id"], "content": TEXT})

    assert answer == rpc_error(-32603, f"task {task['id']} belongs to another agent than 'other'")


@pytest.mark.parametrize("by", ["task_id", "task_name"])
async def test_an_unknown_task_is_named(client: httpx2.AsyncClient, agent: Json, by: str) -> None:
    named = str(uuid4())

    answer = await rpc(client, agent, "event/send", {by: named, "content": TEXT})

    assert answer == rpc_error(-32603, f"task '{named}' not found")


async def test_who_may_not_update_the_task_sends_no_event(
    client: httpx2.AsyncClient, agent: Json, authz: ScriptedAuthz, acp_server: AcpServer
) -> None:
    task = await create_task(client, agent)
    authz.deny = {(Operation.UPDATE, ResourceType.TASK)}

    answer = await rpc(client, agent, "event/send", {"task_id": task["id"], "content": TEXT})

    assert answer == rpc_error(-32603, f"update on task {task['id']} is not allowed: scripted")
    assert dict(acp_server.counts) == {"task/create": 1}


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"content": TEXT}, "give task_id or task_name, and not both"),
        (
            {"task_id": str(uuid4()), "task_name": "t1", "content": TEXT},
            "give task_id or task_name, and not both",
        ),
        (
            {"task_name": "t1", "content": {"type": "text", "author": "user", "content": ["secret"]}},
            "content.text.content: Input should be a valid string",
        ),
    ],
)
async def test_invalid_params_are_named_without_the_content(
    client: httpx2.AsyncClient, agent: Json, params: Json, message: str
) -> None:
    answer = await rpc(client, agent, "event/send", params)

    assert answer == rpc_error(-32602, f"params of event/send: {message}")


@pytest.mark.parametrize(
    ("acp_type", "method", "error"),
    [
        ("sync", "event/send", "Unsupported method: event/send for an agent of type sync"),
        ("sync", "task/cancel", "Unsupported method: task/cancel for an agent of type sync"),
        ("async", "message/send", "Unsupported method: message/send for an agent of type async"),
        ("agentic", "message/send", "Unsupported method: message/send for an agent of type agentic"),
    ],
)
async def test_a_method_that_does_not_fit_the_agent_is_refused(
    client: httpx2.AsyncClient, acp_type: str, method: str, error: str
) -> None:
    agent = await register(client, acp_type=acp_type)

    assert await rpc(client, agent, method, {}) == rpc_error(-32603, error)


async def test_an_agentic_agent_takes_events(client: httpx2.AsyncClient, acp_server: AcpServer) -> None:
    agent = await register(client, acp_type="agentic", acp_url=acp_server.url)
    task = await create_task(client, agent)

    answer = await rpc(client, agent, "event/send", {"task_id": task["id"], "content": TEXT})

    assert (answer["error"], dict(acp_server.counts)) == (None, {"task/create": 1, "event/send": 1})


async def test_an_unknown_method_is_named(client: httpx2.AsyncClient, agent: Json) -> None:
    answer = await rpc(client, agent, "task/explode", {})

    known = "task/create, task/cancel, task/interrupt, event/send, message/send"
    assert answer == rpc_error(-32601, f"Method not found: task/explode; known are {known}")


@pytest.mark.parametrize("request_id", ["seven", 7, 2**70, None])
async def test_the_answer_has_the_requests_id_on_one_line(
    client: httpx2.AsyncClient, agent: Json, request_id: object
) -> None:
    request = {"method": "task/create", "params": {"name": "a\nb"}, "id": request_id}

    response = await client.post(f"/agents/{agent['id']}/rpc", json=request)

    assert (response.json()["id"], response.json()["error"]) == (request_id, None)
    assert "\n" not in response.text.strip()


@pytest.mark.parametrize(
    ("body", "message", "code", "request_id"),
    [
        ({"params": {}, "id": 4}, "method: Field required", -32600, 4),
        ({"method": "task/create", "params": []}, "params: Input should be a valid dictionary", -32600, None),
        (
            {"method": "task/create", "params": {}, "jsonrpc": "1.0", "id": "a"},
            "jsonrpc is '1.0': Input should be '2.0'",
            -32602,
            "a",
        ),
        (
            {"method": "task/create", "params": {"name": "\x00"}, "id": 5},
            "body.params.name: holds the character NUL (\\u0000), which cannot be stored; leave it out",
            -32602,
            5,
        ),
        ([], "body: Input should be a valid dictionary or object to extract fields from", -32600, None),
    ],
)
async def test_what_is_no_json_rpc_is_422_and_an_error_under_the_requests_id(
    client: httpx2.AsyncClient,
    agent: Json,
    body: object,
    message: str,
    code: int,
    request_id: int | str | None,
) -> None:
    path = f"/agents/{agent['id']}/rpc"

    response = await client.post(path, json=body)

    assert response.status_code == 422
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json() == rpc_problem(path, 422, "invalid-input", message, rpc_code=code, id=request_id)


async def test_a_request_that_is_no_json_is_a_parse_error(client: httpx2.AsyncClient, agent: Json) -> None:
    path = f"/agents/{agent['id']}/rpc"

    response = await client.post(path, content=b'{"id": 1,', headers={"content-type": "application/json"})

    assert (response.status_code, response.json()["error"]["code"]) == (422, -32700)
    assert response.json()["id"] is None


async def test_a_request_to_no_agent_is_404_and_an_error_under_the_requests_id(
    client: httpx2.AsyncClient,
) -> None:
    path = "/agents/name/nobody/rpc"

    response = await client.post(path, json={"method": "task/create", "id": "call-1"})

    message = "agent 'nobody' not found"
    assert response.status_code == 404
    assert response.json() == rpc_problem(path, 404, "not-found", message, rpc_code=-32603, id="call-1")
