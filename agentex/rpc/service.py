"""Carries out clients' requests to an agent: rows first, then the agent, never inside one transaction.

What was answered is remembered with the rows, so that a client's silent repeat makes no second row and no
second request to the agent; a failure at the agent replaces what was remembered.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from pydantic import ValidationError

from agentex.acp.messages import AcpCall, AcpMethod
from agentex.agents.models import AcpType, Agent
from agentex.agents.service import agent_ref, wire_agent
from agentex.auth.authorize import Operation, ResourceRef, ResourceType, require
from agentex.auth.principal import Principal
from agentex.database import JsonObject
from agentex.errors import AgentCallFailed, AgentexError, BadRequest, InvalidInput, Unavailable
from agentex.events.service import add, wire_event
from agentex.idempotency import Repeat, find_answer, remember
from agentex.resources import Resources
from agentex.rpc.models import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    METHOD_NOT_FOUND,
    EventSendParams,
    RpcError,
    RpcMethod,
    RpcRequest,
    RpcResponse,
    TaskCreateParams,
)
from agentex.tasks import service as tasks
from agentex.tasks.models import OPEN_STATUSES, Task
from agentex.tasks.service import TaskWanted, task_ref, wire_task
from agentex.validation import describe

_ASYNC_METHODS = frozenset(
    {RpcMethod.TASK_CREATE, RpcMethod.EVENT_SEND, RpcMethod.TASK_CANCEL, RpcMethod.TASK_INTERRUPT}
)
METHODS = {
    AcpType.SYNC: frozenset({RpcMethod.TASK_CREATE, RpcMethod.MESSAGE_SEND, RpcMethod.TASK_INTERRUPT}),
    AcpType.ASYNC: _ASYNC_METHODS,
    AcpType.AGENTIC: _ASYNC_METHODS,
}


@dataclass(frozen=True)
class RpcCall:
    """One request, by whom, to which agent, and how a repeat of it is known."""

    resources: Resources
    principal: Principal
    agent: Agent
    request: RpcRequest
    repeat: Repeat


@dataclass(frozen=True)
class _Made:
    """What the first transaction left: the answer, and what to tell the agent (None: nothing)."""

    result: JsonObject
    to_agent: AcpCall | None = None


async def answer(call: RpcCall) -> RpcResponse:
    """The answer to one request; errors are answers too, but for Unavailable, which is worth a repeat."""
    try:
        result = await _carry_out(call)
    except Unavailable:
        raise
    except AgentexError as error:
        code = INVALID_PARAMS if isinstance(error, InvalidInput) else INTERNAL_ERROR
        return _failure(call, code, error.message)
    except ValidationError as error:
        problems = describe(error.errors(include_url=False))
        return _failure(call, INVALID_PARAMS, f"params of {call.request.method}: {problems}")
    if isinstance(result, RpcError):
        return RpcResponse(error=result, id=call.request.id)
    return RpcResponse(result=result, id=call.request.id)


async def _carry_out(call: RpcCall) -> JsonObject | RpcError:
    try:
        method = RpcMethod(call.request.method)
    except ValueError:
        known = ", ".join(RpcMethod)
        return RpcError(
            code=METHOD_NOT_FOUND, message=f"Method not found: {call.request.method[:80]}; known are {known}"
        )
    if method not in METHODS[call.agent.acp_type]:
        raise BadRequest(f"Unsupported method: {method} for an agent of type {call.agent.acp_type}")
    carry_out = _CARRIED_OUT.get(method)
    if carry_out is None:
        raise BadRequest(f"Unsupported method: {method} is not implemented yet")
    return await carry_out(call)


async def _create_task(call: RpcCall) -> JsonObject | RpcError:
    wanted = TaskCreateParams.model_validate(call.request.params)

    async def make() -> _Made | RpcError:
        async with call.resources.db.begin() as session:
            await require(
                call.resources.authz, session, call.principal, Operation.EXECUTE, agent_ref(call.agent)
            )
            any_task = ResourceRef(ResourceType.TASK, "*", call.principal.account_id)
            await require(call.resources.authz, session, call.principal, Operation.CREATE, any_task)
            before = await find_answer(session, call.repeat)
            if before is not None:
                return _remembered(before)
            asked = TaskWanted(wanted.name, wanted.params, wanted.task_metadata)
            task = await tasks.create_or_get(session, call.principal, call.agent, asked)
            result = wire_task(task)
            await remember(session, call.repeat, {"result": result})
        return _Made(result, _task_create(call, task) if task.status in OPEN_STATUSES else None)

    return await _make_and_tell(call, make)


async def _send_event(call: RpcCall) -> JsonObject | RpcError:
    wanted = EventSendParams.model_validate(call.request.params)

    async def make() -> _Made | RpcError:
        async with call.resources.db.begin() as session:
            await require(
                call.resources.authz, session, call.principal, Operation.EXECUTE, agent_ref(call.agent)
            )
            if wanted.task_id is not None:
                task = await tasks.get(session, call.resources.authz, call.principal, str(wanted.task_id))
            else:
                task = await tasks.get_by_name(
                    session, call.resources.authz, call.principal, wanted.task_name or ""
                )
            await require(call.resources.authz, session, call.principal, Operation.UPDATE, task_ref(task))
            before = await find_answer(session, call.repeat)
            if before is not None:
                return _remembered(before)
            _require_takes_events(task, call.agent)
            content = wanted.content.model_dump(mode="json") if wanted.content else None
            event = await add(
                session,
                account_id=task.account_id,
                task_id=task.id,
                agent_id=call.agent.id,
                content=content,
            )
            result = wire_event(event)
            await remember(session, call.repeat, {"result": result})
        return _Made(result, _event_send(call, task, result))

    return await _make_and_tell(call, make)


_CARRIED_OUT: dict[RpcMethod, Callable[[RpcCall], Awaitable[JsonObject | RpcError]]] = {
    RpcMethod.TASK_CREATE: _create_task,
    RpcMethod.EVENT_SEND: _send_event,
}


async def _make_and_tell(
    call: RpcCall, make: Callable[[], Awaitable[_Made | RpcError]]
) -> JsonObject | RpcError:
    """Commit the rows, then tell the agent; a failure there is what a repeat gets, too."""
    made = await call.resources.db.retry_deadlock(make)
    if isinstance(made, RpcError):
        return made
    if made.to_agent is None:
        return made.result
    try:
        await call.resources.acp.call(made.to_agent)
    except AgentCallFailed as failure:
        error = RpcError(
            code=INTERNAL_ERROR, message=f"{failure.message} ({made.to_agent.idempotency_key} is kept)"
        )
        async with call.resources.db.begin() as session:
            await remember(session, call.repeat, {"error": error.model_dump()})
        return error
    return made.result


def _remembered(before: JsonObject) -> _Made | RpcError:
    if "error" in before:
        return RpcError.model_validate(before["error"])
    return _Made(before["result"])


def _require_takes_events(task: Task, agent: Agent) -> None:
    if task.agent_id != agent.id:
        raise BadRequest(f"task {task.id} belongs to another agent than {agent.name!r}")
    if task.status not in OPEN_STATUSES:
        raise BadRequest(
            f"task {task.id} is {task.status}; only a task that is RUNNING or INTERRUPTED takes events"
        )


def _task_create(call: RpcCall, task: Task) -> AcpCall | None:
    # A sync agent learns of the task with its first message.
    if call.agent.acp_type is AcpType.SYNC:
        return None
    params: JsonObject = {"agent": wire_agent(call.agent), "task": wire_task(task), "params": task.params}
    seconds = call.resources.settings.task_create_timeout_seconds
    key = f"task:{task.id}"
    return AcpCall(call.agent.acp_url, AcpMethod.TASK_CREATE, params, key, key, seconds)


def _event_send(call: RpcCall, task: Task, event: JsonObject) -> AcpCall:
    params: JsonObject = {
        "agent": wire_agent(call.agent),
        "task": wire_task(task),
        "event": event,
        "request": None,
    }
    seconds = call.resources.settings.event_send_timeout_seconds
    key = f"event:{event['id']}"
    return AcpCall(call.agent.acp_url, AcpMethod.EVENT_SEND, params, key, key, seconds)


def _failure(call: RpcCall, code: int, message: str) -> RpcResponse:
    return RpcResponse(error=RpcError(code=code, message=message), id=call.request.id)
