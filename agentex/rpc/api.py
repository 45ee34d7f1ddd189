"""/agents/{id}/rpc: JSON-RPC to an agent."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, cast
from uuid import UUID

from fastapi import APIRouter, Request, Response

from agentex.acp.headers import passed_headers, trace_headers
from agentex.agents import service as agents
from agentex.database import JsonObject
from agentex.deps import Caller, RepeatDep, ResourcesDep
from agentex.errors import AgentCallFailed
from agentex.noted import Audited, Note, note_of
from agentex.rpc.calls import ClientHeaders, RpcCall
from agentex.rpc.lines import is_error_line
from agentex.rpc.models import RpcMethod, RpcRequest, RpcResponse
from agentex.rpc.respond import JSON, NDJSON, StreamedAnswer, whole
from agentex.rpc.service import answer

# An answer that its agent ends just in time still goes out to its last line.
STALLED_GRACE_SECONDS = 5.0
UNKNOWN_METHOD = "unknown"

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
    note = note_of(request)
    _note_call(note, call.request)
    answered = await answer(call, note)
    is_streamed = call.request.method == RpcMethod.MESSAGE_SEND and call.request.params.get("stream") is True
    if isinstance(answered, RpcResponse):
        _note_task(note, answered.result)
        line = answered.model_dump_json() + "\n"
        return Response(line, media_type=NDJSON if is_streamed else JSON)
    note.concerns(Audited.TASK, answered.task_id)
    if not is_streamed:
        response = await whole(answered, request.receive, call.request.id)
        if is_error_line(bytes(response.body)):
            note.status = AgentCallFailed.status
        return response
    seconds = call.resources.settings.answer_timeout_seconds
    return StreamedAnswer(answered, call.request.id, stalled_seconds=seconds + STALLED_GRACE_SECONDS)


def _note_call(note: Note, asked: RpcRequest) -> None:
    """What is asked for, and of which task; what the client made up is no method."""
    note.rpc_method = asked.method if asked.method in set(RpcMethod) else UNKNOWN_METHOD
    with suppress(ValueError):
        note.concerns(Audited.TASK, UUID(str(asked.params.get("task_id"))))


def _note_task(note: Note, result: Any) -> None:
    """The task that is answered, or whose event is."""
    if isinstance(result, dict):
        found = cast("JsonObject", result)
        note.concerns(Audited.TASK, found.get("task_id") or found.get("id"))
