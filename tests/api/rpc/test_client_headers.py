"""What of a client's headers goes on to the agent."""

from __future__ import annotations

import httpx2
import pytest

from tests.support.acp_server import AcpServer
from tests.support.api import TEXT, Json, create_task, rpc, rpc_problem

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
PASSED = {"x-tenant": "a b", "x-user-token": "theirs", "traceparent": PARENT, "tracestate": "a=1"}
KEPT_BACK = {
    "authorization": "Bearer s3cret",
    "cookie": "s=1",
    "x-api-key": "s3cret",
    "x-agent-api-key": "s3cret",
    "x-forwarded-for": "10.0.0.1",
    "x-real-ip": "10.0.0.1",
    "x-stainless-lang": "python",
    "x-request-id": "theirs",
    "via": "1.1 proxy",
}
METHODS = ["task/create", "event/send", "task/cancel", "task/interrupt", "message/send"]


@pytest.mark.parametrize("method", METHODS)
async def test_a_clients_x_headers_and_its_trace_go_on_without_credentials(
    client: httpx2.AsyncClient, agent: Json, sync_agent: Json, acp_server: AcpServer, method: str
) -> None:
    called = sync_agent if method == "message/send" else agent
    task = await create_task(client, called)
    params: Json = {} if method == "task/create" else {"task_id": task["id"]}
    if method in {"event/send", "message/send"}:
        params["content"] = TEXT

    answer = await rpc(client, called, method, params, headers={**PASSED, **KEPT_BACK})

    assert answer["error"] is None
    sent = acp_server.requests[-1]
    own = {"host", "accept", "content-type", "accept-encoding", "user-agent", "content-length"}
    given = {name: value for name, value in sent.headers.items() if name not in own}
    assert given == {**PASSED, "x-request-id": sent.id, "idempotency-key": sent.id}


async def test_headers_that_are_too_many_are_refused_before_anything_is_made(
    client: httpx2.AsyncClient, agent: Json, acp_server: AcpServer
) -> None:
    path = f"/agents/{agent['id']}/rpc"
    headers = {f"x-h{number}": "1" for number in range(65)}

    answer = await client.post(path, json={"method": "task/create"}, headers=headers)

    message = "x-h64: is one too many; 64 x-* headers go on to an agent"
    assert answer.json() == rpc_problem(path, 422, "invalid-input", message, rpc_code=-32602)
    assert ((await client.get("/tasks")).json(), acp_server.requests) == ([], [])
