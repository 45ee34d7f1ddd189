"""/agents/{id}/rpc: JSON-RPC to an agent."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from agentex.acp.headers import passed_headers, trace_headers
from agentex.agents import service as agents
from agentex.deps import Caller, RepeatDep, ResourcesDep
from agentex.rpc.calls import ClientHeaders, RpcCall
from agentex.rpc.models import RpcMethod, RpcRequest, RpcResponse
from agentex.rpc.respond import JSON, NDJSON, StreamedAnswer, whole
from agentex.rpc.service import answer

# An answer that its agent ends just in time still goes out to its last line.
STALLED_GRACE_SECONDS = 5.0

router = APIRouter(prefix="/agents", tags=["rpc"])

ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": (
            "A result or an error, under the request's id. To a message/send with params.stream: NDJSON, one "
            "such object a line, whose result is an update of the answer; an error ends it."
        ),
        "content": {NDJSON: {"schema": {"type": "string"}}},
    }
}


# No dependency: FastAPI takes 0.03 ms for each, a fortieth of a message/send.
def client_headers(request: Request) -> ClientHeaders:
    """What goes on to the agent of the request's headers; raises InvalidInput for too many of them."""
    return ClientHeaders(passed_headers(request.headers), trace_headers(request.headers))


@router.post("/name/{name}/rpc", response_model=RpcResponse, responses=ANSWERS)
async def call_agent_by_name(
    name: str,
    body: RpcRequest,
    resources: ResourcesDep,
    caller: Caller,
    repeat: RepeatDep,
    request: Request,
) -> Response:
    """A JSON-RPC request to an agent by name. Its errors are 200, too."""
    agent = await agents.get_to_call(resources, caller, name=name)
    return await answered(RpcCall(resources, caller, agent, body, repeat, client_headers(request)), request)


@router.post("/{agent_id}/rpc", response_model=RpcResponse, responses=ANSWERS)
async def call_agent(
    agent_id: str,
    body: RpcRequest,
    resources: ResourcesDep,
    caller: Caller,
    repeat: RepeatDep,
    request: Request,
) -> Response:
    """A JSON-RPC request to an agent. Its errors are 200, too."""
    agent = await agents.get_to_call(resources, caller, agent_id=agent_id)
    return await answered(RpcCall(resources, caller, agent, body, repeat, client_headers(request)), request)


async def answered(call: RpcCall, request: Request) -> Response:
    """The answer to a call: a line of JSON, or lines while the agent speaks. A client that goes ends it."""
    answered = await answer(call)
    is_streamed = call.request.method == RpcMethod.MESSAGE_SEND and call.request.params.get("stream") is True
    if isinstance(answered, RpcResponse):
        line = answered.model_dump_json() + "\n"
        return Response(line, media_type=NDJSON if is_streamed else JSON)
    if not is_streamed:
        return await whole(answered, request.receive, call.request.id)
    seconds = call.resources.settings.answer_timeout_seconds
    return StreamedAnswer(answered, call.request.id, stalled_seconds=seconds + STALLED_GRACE_SECONDS)
