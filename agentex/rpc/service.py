"""Carries out clients' requests to an agent: rows first, then the agent, never inside one transaction.

What is answered is remembered with the rows, so that a repeat makes no second row: as untold first, and as
told once the agent has answered. A repeat that finds it untold tells the agent again, under the same ids and
the same idempotency key, whether the first request was cut behind its commit or still waits for the agent:
from outside the two look the same, so it does not wait. These methods bear that: event/send, task/cancel and
task/interrupt are acknowledged before the work and their id tells that it is a repeat, task/create is
idempotent. A failure at the agent takes the answer's place, unless the agent has certainly not begun: then it
stays untold. message/send bears no repeat, and is in messages.py.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from uuid import UUID

from pydantic import ValidationError
from sqlmodel.ext.asyncio.session import AsyncSession

from agentex.acp.messages import AcpCall, AcpMethod
from agentex.agents import service as agents
from agentex.agents.models import AcpType
from agentex.agents.service import agent_ref, wire_agent
from agentex.auth.authorize import Operation, ResourceType, hidden_as, type_ref
from agentex.database import JsonObject
from agentex.errors import (
    AgentCallFailed,
    AgentexError,
    AgentMethodUnknown,
    AgentUnreachable,
    BadRequest,
    InvalidInput,
    NotFound,
    Unavailable,
)
from agentex.events.service import add, wire_event
from agentex.idempotency import Remembered, amend, find_entry, remember
from agentex.noted import Note
from agentex.rpc.answers import Answering
from agentex.rpc.calls import RpcCall
from agentex.rpc.messages import send as send_message
from agentex.rpc.models import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    METHOD_NOT_FOUND,
    EventSendParams,
    OneTaskParams,
    RpcError,
    RpcMethod,
    RpcResponse,
    TaskCreateParams,
)
from agentex.rpc.sends import tell_open_sends
from agentex.tasks import service as tasks
from agentex.tasks.models import OPEN_STATUSES, Task, TaskStatus
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
class _Made:
    """What the transaction left: the remembered answer, and what the agent has yet to be told."""

    entry: Remembered
    to_agent: AcpCall | None = None


async def answer(call: RpcCall, note: Note) -> RpcResponse | Answering:
    """The answer to one request, or what will give that of an agent.

    Errors are answers too, but for Unavailable, which is worth a repeat; the note has which it is.
    """
    try:
        result = await _carry_out(call)
    except Unavailable:
        raise
    except AgentexError as error:
        code = INVALID_PARAMS if isinstance(error, InvalidInput) else INTERNAL_ERROR
        note.status = error.status
        return _failure(call, code, error.message)
    except ValidationError as error:
        problems = describe(error.errors(include_url=False))
        note.status = InvalidInput.status
        return _failure(call, INVALID_PARAMS, f"params of {call.request.method}: {problems}")
    if isinstance(result, RpcError):
        note.status = NotFound.status if result.code == METHOD_NOT_FOUND else AgentCallFailed.status
        return RpcResponse(error=result, id=call.request.id)
    return RpcResponse(result=result, id=call.request.id) if isinstance(result, dict) else result


async def _carry_out(call: RpcCall) -> JsonObject | RpcError | Answering:
    # Before anything is written, also for what would not be sent at once.
    agents.address(call.agent)
    call.resources.acp.check_key(call.agent.sealed_key)
    try:
        method = RpcMethod(call.request.method)
    except ValueError:
        known = ", ".join(RpcMethod)
        return RpcError(
            code=METHOD_NOT_FOUND, message=f"Method not found: {call.request.method[:80]}; known are {known}"
        )
    if method not in METHODS[call.agent.acp_type]:
        raise BadRequest(f"Unsupported method: {method} for an agent of type {call.agent.acp_type}")
    return await _CARRIED_OUT[method](call)


async def _create_task(call: RpcCall) -> JsonObject | RpcError:
    wanted = TaskCreateParams.model_validate(call.request.params)
    while True:
        try:
            return await _make_task(call, wanted, await _known_task(call, wanted))
        except _OvertakenError:
            # Somebody has made it since it was looked for: may the caller have that one?
            continue


class _OvertakenError(Exception):
    """There is another task of this name than the one that the caller was allowed to have."""


async def _known_task(call: RpcCall, wanted: TaskCreateParams) -> UUID | None:
    """The task that has this name already, which the caller may have; None for a new one."""
    async with call.resources.db.read() as session:
        await call.require(session, Operation.EXECUTE, agent_ref(call.agent))
        await call.require(session, Operation.CREATE, type_ref(ResourceType.TASK, call.principal))
        known = await tasks.find_by_name(session, call.principal, wanted.name) if wanted.name else None
        if known is None:
            return None
        # Its params would be replaced.
        operation = Operation.READ if wanted.params is None else Operation.UPDATE
        with hidden_as(NotFound(f"task {wanted.name!r} not found")):
            await call.require(session, operation, task_ref(known))
        return known.id


async def _make_task(call: RpcCall, wanted: TaskCreateParams, known: UUID | None) -> JsonObject | RpcError:
    async def make() -> _Made:
        async with call.resources.db.begin() as session:
            entry = await find_entry(session, call.repeat)
            if entry is not None and _is_told(entry):
                return _Made(entry)
            if entry is not None:
                task = await tasks.find(session, call.principal, entry.answer["result"]["id"])
                return _Made(entry, _task_create(call, task))
            agent = await agents.find(session, call.principal, call.agent.id)
            asked = TaskWanted(wanted.name, wanted.params, wanted.task_metadata)
            task = await tasks.create_or_get(session, call.principal, agent, asked)
            if task.id not in {asked.id, known}:
                raise _OvertakenError
            to_agent = _task_create(call, task)
            answer: JsonObject = {"result": wire_task(task), "told": to_agent is None}
            return _Made(await remember(session, call.repeat, answer), to_agent)

    return await _make_and_tell(call, make)


async def _send_event(call: RpcCall) -> JsonObject | RpcError:
    wanted = EventSendParams.model_validate(call.request.params)
    async with call.resources.db.read() as session:
        await call.require(session, Operation.EXECUTE, agent_ref(call.agent))
    task_id = await _allowed_task(call, wanted, Operation.UPDATE)

    async def make() -> _Made:
        async with call.resources.db.begin() as session:
            entry = await find_entry(session, call.repeat)
            if entry is not None and _is_told(entry):
                return _Made(entry)
            task = await tasks.find(session, call.principal, task_id)
            call.require_open(task, "events")
            if entry is None:
                # The next input ends an interruption.
                task = await tasks.resume(session, call.resources.hooks, task.id) or task
                content = wanted.content.model_dump(mode="json") if wanted.content else None
                event = await add(
                    session,
                    account_id=task.account_id,
                    task_id=task.id,
                    agent_id=call.agent.id,
                    content=content,
                )
                answer: JsonObject = {"result": wire_event(event), "told": False}
                entry = await remember(session, call.repeat, answer)
            return _Made(entry, _event_send(call, task, entry.answer["result"]))

    return await _make_and_tell(call, make)


async def _cancel_task(call: RpcCall) -> JsonObject | RpcError:
    async def cancel(session: AsyncSession, task_id: UUID) -> Task:
        return await tasks.close(session, call.resources.hooks, task_id, TaskStatus.CANCELED, None)

    return await _stop_task(call, AcpMethod.TASK_CANCEL, Operation.CANCEL, cancel)


async def _interrupt_task(call: RpcCall) -> JsonObject | RpcError:
    async def interrupt(session: AsyncSession, task_id: UUID) -> Task:
        task = await tasks.interrupt(session, call.resources.hooks, task_id, None)
        # Only here: an agent interrupts itself over REST, and may go on to say so.
        await tell_open_sends(session, task_id)
        return task

    return await _stop_task(call, AcpMethod.TASK_INTERRUPT, Operation.UPDATE, interrupt)


async def _stop_task(
    call: RpcCall,
    method: AcpMethod,
    operation: Operation,
    stop: Callable[[AsyncSession, UUID], Awaitable[Task]],
) -> JsonObject | RpcError:
    """Give the task its status, with all that follows from it, then tell the agent."""
    wanted = OneTaskParams.model_validate(call.request.params)
    task_id = await _allowed_task(call, wanted, operation)

    async def make() -> _Made:
        async with call.resources.db.begin() as session:
            entry = await find_entry(session, call.repeat)
            if entry is not None and _is_told(entry):
                return _Made(entry)
            if entry is None:
                call.require_own(await tasks.find(session, call.principal, task_id))
                stopped = await stop(session, task_id)
                entry = await remember(session, call.repeat, {"result": wire_task(stopped), "told": False})
            params: JsonObject = {"agent": wire_agent(call.agent), "task": entry.answer["result"]}
            # A task may be interrupted more than once, so the task's id alone would not do.
            key = f"{method.rpartition('/')[2]}:{entry.id}"
            seconds = call.resources.settings.event_send_timeout_seconds
            return _Made(entry, call.to_agent(method, key, params, seconds))

    return await _make_and_tell(call, make)


async def _allowed_task(call: RpcCall, wanted: OneTaskParams, operation: Operation) -> UUID:
    """The task that the params name; the caller may do that to it."""
    resources, principal = call.resources, call.principal
    async with resources.db.read() as session:
        if wanted.task_id is not None:
            task = await tasks.get(session, resources.authz, principal, str(wanted.task_id))
        else:
            task = await tasks.get_by_name(session, resources.authz, principal, wanted.task_name or "")
        named = str(wanted.task_id or wanted.task_name)
        with hidden_as(NotFound(f"task {named!r} not found")):
            await call.require(session, operation, task_ref(task))
        return task.id


_CARRIED_OUT: dict[RpcMethod, Callable[[RpcCall], Awaitable[JsonObject | RpcError | Answering]]] = {
    RpcMethod.TASK_CREATE: _create_task,
    RpcMethod.TASK_CANCEL: _cancel_task,
    RpcMethod.TASK_INTERRUPT: _interrupt_task,
    RpcMethod.EVENT_SEND: _send_event,
    RpcMethod.MESSAGE_SEND: send_message,
}


async def _make_and_tell(call: RpcCall, make: Callable[[], Awaitable[_Made]]) -> JsonObject | RpcError:
    """Commit the rows, then tell the agent unless it has been told.

    A failure is what a repeat gets, too; but an agent that could not be reached is told by the repeat.
    """
    made = await call.resources.db.retry_deadlock(make)
    answer = made.entry.answer
    if made.to_agent is not None:
        try:
            answer = await _tell(call, made.to_agent, answer)
        except AgentUnreachable as failure:
            return _agent_error(made.to_agent, failure)
        async with call.resources.db.single() as session:
            await amend(session, made.entry, answer)
    return RpcError.model_validate(answer["error"]) if "error" in answer else answer["result"]


async def _tell(call: RpcCall, to_agent: AcpCall, answer: JsonObject) -> JsonObject:
    """The answer as it is once the agent has been told, or has failed; raises AgentUnreachable."""
    try:
        await call.resources.acp.call(to_agent)
    except AgentUnreachable:
        raise
    except AgentCallFailed as failure:
        if isinstance(failure, AgentMethodUnknown) and call.agent.acp_type is AcpType.SYNC:
            # Its turn was broken off here, which is all there is to stop: most of them leave it at that.
            return {**answer, "told": True}
        return {"error": _agent_error(to_agent, failure).model_dump()}
    return {**answer, "told": True}


def _agent_error(to_agent: AcpCall, failure: AgentCallFailed) -> RpcError:
    message = f"{failure.message} ({to_agent.idempotency_key} is kept)"
    return RpcError(code=INTERNAL_ERROR, message=message)


def _is_told(entry: Remembered) -> bool:
    # An error is told, too: the agent was asked.
    return entry.answer.get("told", True)


def _task_create(call: RpcCall, task: Task) -> AcpCall | None:
    # A sync agent learns of the task with its first message; of one that is closed nobody needs to know.
    if call.agent.acp_type is AcpType.SYNC or task.status not in OPEN_STATUSES:
        return None
    params: JsonObject = {"agent": wire_agent(call.agent), "task": wire_task(task), "params": task.params}
    seconds = call.resources.settings.task_create_timeout_seconds
    return call.to_agent(AcpMethod.TASK_CREATE, f"task:{task.id}", params, seconds)


def _event_send(call: RpcCall, task: Task, event: JsonObject) -> AcpCall:
    params: JsonObject = {
        "agent": wire_agent(call.agent),
        "task": wire_task(task),
        "event": event,
        "request": None,
    }
    seconds = call.resources.settings.event_send_timeout_seconds
    return call.to_agent(AcpMethod.EVENT_SEND, f"event:{event['id']}", params, seconds)


def _failure(call: RpcCall, code: int, message: str) -> RpcResponse:
    return RpcResponse(error=RpcError(code=code, message=message), id=call.request.id)
