"""message/send: to a sync agent, once, and its answer to the client, whole or as it arrives.

The message is in the database before the agent is called, and how the answer ended is written before the
client hears of it. A repeat of the request finds that: it gets the same answer, waits for it while a process
reads it, or is told that its outcome is unknown; only what the agent certainly has not begun is sent again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress
from dataclasses import dataclass
from uuid import UUID

from sqlmodel.ext.asyncio.session import AsyncSession

from agentex.acp.messages import FullUpdate
from agentex.agents import service as agents
from agentex.agents.service import agent_ref
from agentex.auth.authorize import Operation, ResourceType, hidden_as, type_ref
from agentex.errors import NotFound
from agentex.idempotency import find_entry
from agentex.ids import new_id
from agentex.messages.models import MessageRead
from agentex.rpc import sends
from agentex.rpc.answers import Answering, OpenAnswer, Opened
from agentex.rpc.calls import RpcCall
from agentex.rpc.lines import error_line, message_json, result_line, update_line
from agentex.rpc.models import MessageSendParams
from agentex.rpc.sends import LAPSE_GRACE_SECONDS, Ended, NewSend, Session, notice_key
from agentex.tasks import service as tasks
from agentex.tasks.models import Task, TaskRead, TaskStatus
from agentex.tasks.service import task_ref

# A renewal and a notice may have gone past each other: look again a little after the claim's end.
LOOK_AGAIN_SECONDS = 0.5


@dataclass(frozen=True)
class Sent:
    """A message/send that another request has made."""

    send_id: UUID


async def send(call: RpcCall) -> Answering:
    """Store the message, or find the one that this request repeats; what is returned goes on from there."""
    wanted = MessageSendParams.model_validate(call.request.params)
    # Before anything is written: on it the answer hears that its task was given up.
    await call.resources.notices.open()
    made = await _open(call, wanted)
    return RepeatedAnswer(call, made.send_id) if isinstance(made, Sent) else OpenAnswer(call, made)


class RepeatedAnswer:
    """The answer to a message that was sent before, when it has ended."""

    def __init__(self, call: RpcCall, send_id: UUID) -> None:
        self._call = call
        self._send_id = send_id

    @property
    def task_id(self) -> None:
        """Told by the entry of the request that is repeated."""
        return

    async def whole(self) -> bytes:
        """The same as was answered, messages or error."""
        answer = await self._answer()
        if isinstance(answer, str):
            return error_line(self._call.request.id, answer)
        return result_line(self._call.request.id, [message_json(message) for message in answer])

    async def lines(self) -> AsyncGenerator[bytes]:
        """The same as updates: each message in full, or the error."""
        yield b""
        answer = await self._answer()
        if isinstance(answer, str):
            yield error_line(self._call.request.id, answer)
            return
        for index, message in enumerate(answer):
            update = FullUpdate(content=message.content)
            yield update_line(self._call.request.id, update, index, message_json(message))

    async def _answer(self) -> list[MessageRead] | str:
        ended = await _end_of(self._call, self._send_id)
        if ended is None:
            return "the message was sent, and has been deleted with its task since"
        if ended.error is not None:
            return ended.error
        messages = await sends.read_messages(self._call.resources.db, ended.message_ids)
        if len(messages) < len(ended.message_ids):
            return "the message was answered, and messages of the answer have been deleted since"
        return messages


async def _open(call: RpcCall, wanted: MessageSendParams) -> Opened | Sent:
    """Store the message, or find the one that this request repeats."""
    while True:
        task = await _allowed_task(call, wanted)

        async def write(task: Task | None = task) -> Opened | Sent | None:
            return await _write(call, wanted, task)

        made = await call.resources.db.retry_deadlock(write)
        if made is not None:
            return made
        # Something has changed since it was read, so that something else is to be allowed, or nothing.
        async with call.resources.db.read() as session:
            await agents.find(session, call.principal, call.agent.id)


async def _allowed_task(call: RpcCall, wanted: MessageSendParams) -> Task | None:
    """The task that the params name, None for a new one; the caller may do that."""
    async with call.resources.db.read() as session:
        await call.require(session, Operation.EXECUTE, agent_ref(call.agent))
        task = await _named_task(session, call, wanted)
        if task is None:
            await call.require(session, Operation.CREATE, type_ref(ResourceType.TASK, call.principal))
        else:
            named = str(wanted.task_id or wanted.task_name)
            with hidden_as(NotFound(f"task {named!r} not found")):
                await call.require(session, Operation.UPDATE, task_ref(task))
    return task


async def _named_task(session: AsyncSession, call: RpcCall, wanted: MessageSendParams) -> Task | None:
    if wanted.task_id is not None:
        return await tasks.find(session, call.principal, wanted.task_id)
    if wanted.task_name is not None:
        return await tasks.find_by_name(session, call.principal, wanted.task_name)
    return None


async def _write(call: RpcCall, wanted: MessageSendParams, task: Task | None) -> Opened | Sent | None:
    """One statement, but for what is rare: a repeat, a task that is interrupted or gets other params."""
    if not call.repeat.may_be_one and not _changes(wanted, task):
        if task is not None:
            call.require_open(task, "messages")
        return await _store(call.resources.db, call, wanted, task)
    async with call.resources.db.begin() as session:
        entry = await find_entry(session, call.repeat)
        if entry is not None:
            return await _take_up(session, call, wanted, UUID(entry.answer["message_send"]))
        if task is not None:
            call.require_open(task, "messages")
            await _change(session, call, wanted, task)
        return await _store(session, call, wanted, task)


def _changes(wanted: MessageSendParams, task: Task | None) -> bool:
    return task is not None and (task.status is TaskStatus.INTERRUPTED or wanted.task_params is not None)


async def _change(session: AsyncSession, call: RpcCall, wanted: MessageSendParams, task: Task) -> None:
    if task.status is TaskStatus.INTERRUPTED:
        await tasks.resume(session, call.resources.hooks, task.id)
    if wanted.task_params is not None:
        await tasks.set_params(session, task.id, wanted.task_params)


async def _store(
    session: Session, call: RpcCall, wanted: MessageSendParams, task: Task | None
) -> Opened | None:
    new = NewSend(
        id=new_id(),
        account_id=call.principal.account_id,
        owner=call.principal.creator,
        agent_id=call.agent.id,
        task_id=task.id if task else new_id(),
        task_is_new=task is None,
        task_name=wanted.task_name,
        task_params=wanted.task_params,
        content=wanted.content.model_dump_json(),
        claim_seconds=call.resources.settings.claim_seconds,
    )
    stored = await sends.open_send(session, new, call.repeat)
    return Opened(new.id, stored, wanted.content) if stored else None


async def _take_up(
    session: AsyncSession, call: RpcCall, wanted: MessageSendParams, send_id: UUID
) -> Opened | Sent:
    """What a repeat has found: to be sent now if the agent certainly has not begun it, else never again."""
    claim_seconds = call.resources.settings.claim_seconds
    task_id = await sends.reopen_unsent(session, send_id, claim_seconds=claim_seconds)
    if task_id is None:
        return Sent(send_id)
    task = await tasks.find(session, call.principal, task_id)
    call.require_open(task, "messages")
    return Opened(send_id, TaskRead.model_validate(task), wanted.content)


async def _end_of(call: RpcCall, send_id: UUID) -> Ended | None:
    """Wait until it has ended, in whichever process; no connection is held. None when it is gone."""
    while True:
        async with call.resources.notices.hearing(notice_key(send_id)) as heard:
            left = await sends.await_end(call.resources.db, send_id)
            if left is None:
                return await sends.read_end(call.resources.db, send_id)
            if left < -LAPSE_GRACE_SECONDS:
                await sends.settle_lapsed(call.resources.db, send_id)
                continue
            with suppress(TimeoutError):
                await asyncio.wait_for(heard.wait(), left + LAPSE_GRACE_SECONDS + LOOK_AGAIN_SECONDS)
