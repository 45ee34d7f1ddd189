"""A sync agent's answer while it is read: stored as it comes, and ended whatever happens.

However a request ends (an answer, an error of the agent, a client that goes away, a stop of this process, a
fault of ours), what came is stored, its messages are DONE, and the end is on record for a repeat. That is
written in the background, so that nothing that ends the request can cut it off. No connection and no
transaction is held while the agent is waited for.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from typing import Protocol, TypeVar
from uuid import UUID

from agentex.acp.accumulate import Accumulator, empty_content
from agentex.acp.messages import (
    AcpCall,
    AcpMethod,
    DeltaUpdate,
    DoneUpdate,
    FullUpdate,
    MessageContent,
    StartUpdate,
    StreamUpdate,
)
from agentex.agents.service import wire_agent
from agentex.database import DATABASE_ERRORS, JsonObject, is_unavailable, storable
from agentex.errors import (
    AgentCallFailed,
    AgentexError,
    AgentProtocolError,
    AgentUnreachable,
    DatabaseUnavailable,
    NotFound,
)
from agentex.ids import new_id
from agentex.messages.models import MessageRead, StreamingStatus
from agentex.rpc import sends
from agentex.rpc.calls import RpcCall, message_key
from agentex.rpc.claims import Claim
from agentex.rpc.lines import error_line, message_json, result_line, update_line
from agentex.rpc.sends import AgentMessage, End, Times
from agentex.tasks.models import TaskRead
from agentex.tasks.service import wire_task

log = logging.getLogger(__name__)

T = TypeVar("T")

BROKEN_OFF = (
    "the answer was broken off before it was complete, since the client went away or this service stopped; "
    "whether the agent did the work is not known, so the message is not sent again"
)
# An answer is paid for, so a database that is away is waited for; the client hears of it after this.
STORE_SECONDS = 60.0
STORE_AGAIN_SECONDS = 0.5


@dataclass(frozen=True)
class Opened:
    """A message/send that is stored and has to be carried to the agent."""

    send_id: UUID
    task: TaskRead
    content: MessageContent


class _GivenUp(AgentCallFailed):
    """The task was interrupted or closed while the agent answered; what came until then is kept."""


class Answering(Protocol):
    """What a client's message/send is answered with; one of the two is asked for, once."""

    @property
    def task_id(self) -> UUID | None:
        """The task that it is in, where that is known."""
        ...

    async def whole(self) -> bytes:
        """One line: the messages, or the error in their place."""
        ...

    def lines(self) -> AsyncGenerator[bytes]:
        """An empty line, then one for each update, then one for the error that cut them short, if one did."""
        ...


@dataclass
class _Stored:
    """A message of the answer that has a row: as JSON for the client, and whether its row is complete."""

    id: UUID
    wire: bytes
    is_complete: bool


@dataclass(frozen=True)
class _Failure:
    """What stands in the answer's place; unsent when the agent certainly has not begun."""

    message: str
    unsent: bool = False


@dataclass(frozen=True)
class _Ending:
    """The end that has to be written, the messages that go with it by index, and why, if not well."""

    end: End
    contents: dict[int, MessageContent]
    failure: _Failure | None


class OpenAnswer:
    """One answer: `whole()` or `lines()`, once."""

    def __init__(self, call: RpcCall, opened: Opened) -> None:
        self._call = call
        self._resources = call.resources
        self._db = call.resources.db
        self._opened = opened
        self._claim = Claim(call.resources, opened.send_id, opened.task.id, self._give_up)
        self._is_given_up = False
        # The request while it waits for the agent: only then it may be cut short.
        self._waiting: asyncio.Task[object] | None = None
        self._answer = Accumulator()
        self._stored: dict[int, _Stored] = {}

    @property
    def task_id(self) -> UUID:
        """The task that the message is in."""
        return self._opened.task.id

    async def whole(self) -> bytes:
        """The answer as one line: its messages, or the error in their place."""
        try:
            async with aclosing(self._updates()) as updates:
                async for update in updates:
                    self._answer.add(update)
            failure = None
        except AgentCallFailed as error:
            failure = self._failure(error)
        except BaseException:
            self._break_off()
            raise
        failure = await self._end(failure)
        if failure is not None:
            return error_line(self._call.request.id, failure.message)
        return result_line(self._call.request.id, [self._stored[i].wire for i in self._answer.indexes])

    async def lines(self) -> AsyncGenerator[bytes]:
        """The answer's updates as they arrive, and behind them the error that cut it short, if one did.

        An empty line stands before all: once that has been taken, the end is written however this is left.
        """
        try:
            yield b""
            async with aclosing(self._updates()) as updates:
                async for update in updates:
                    for line in await self._pass_on(update):
                        yield line
            failure = None
        except (AgentCallFailed, DatabaseUnavailable, NotFound) as error:
            failure = self._failure(error)
        except BaseException:
            self._break_off()
            raise
        unfinished = [
            i for i in self._answer.indexes if i in self._stored and not self._stored[i].is_complete
        ]
        failure = await self._end(failure)
        if failure is not None:
            yield error_line(self._call.request.id, failure.message)
            return
        for index in unfinished:
            # The agent has left it out, and the message is done all the same.
            yield update_line(self._call.request.id, DoneUpdate(), index, self._stored[index].wire)

    async def _updates(self) -> AsyncGenerator[StreamUpdate]:
        """What the agent says; raises _GivenUp as soon as the task is given up."""
        async with AsyncExitStack() as stack:
            stream = self._resources.acp.stream(self._acp_call())
            updates = await self._from_agent(lambda: stack.enter_async_context(stream))
            while (update := await self._from_agent(lambda: anext(updates, None))) is not None:
                yield update

    async def _from_agent(self, say: Callable[[], Awaitable[T]]) -> T:
        if self._is_given_up:
            raise _GivenUp
        self._waiting = working = asyncio.current_task()
        try:
            return await say()
        except asyncio.CancelledError:
            # Another cancel, of a client that has gone, goes first.
            if not self._is_given_up or working is None or working.uncancel() > 0:
                raise
            raise _GivenUp from None
        finally:
            self._waiting = None

    def _give_up(self) -> None:
        if not self._is_given_up and self._waiting is not None:
            self._waiting.cancel()
        self._is_given_up = True

    async def _pass_on(self, update: StreamUpdate) -> list[bytes]:
        """Store what the update begins or completes; its line, behind a start where the agent left it out."""
        index = self._answer.add(update)
        lines: list[bytes] = []
        stored = self._stored.get(index)
        if stored is None:
            stored = await self._begin(index, update)
            if stored is not None and isinstance(update, DeltaUpdate) and update.delta is not None:
                start = StartUpdate(content=empty_content(update.delta))
                lines.append(update_line(self._call.request.id, start, index, stored.wire))
        elif isinstance(update, FullUpdate | DoneUpdate):
            await self._complete(index, stored)
        elif isinstance(update, StartUpdate):
            stored.is_complete = False
        lines.append(update_line(self._call.request.id, update, index, stored.wire if stored else None))
        return lines

    async def _begin(self, index: int, update: StreamUpdate) -> _Stored | None:
        """The row of a message that begins with this update; None when nothing begins yet."""
        if isinstance(update, StartUpdate | FullUpdate):
            content = update.content
        elif isinstance(update, DeltaUpdate) and update.delta is not None:
            content = empty_content(update.delta)
        else:
            return None
        content = _storable(content)
        is_complete = isinstance(update, FullUpdate)
        status = StreamingStatus.DONE if is_complete else StreamingStatus.IN_PROGRESS
        # Known before it is written: if that is cut off, the end is written to the same row.
        stored = self._stored[index] = _Stored(new_id(), b"null", is_complete=False)
        message = AgentMessage(stored.id, content.model_dump_json())
        times = await self._written(sends.add_message(self._db, self._opened.send_id, message, status))
        if times is None:
            raise NotFound(f"task {self._opened.task.id} has been deleted")
        stored.wire = self._wire(stored.id, content, status, times)
        stored.is_complete = is_complete
        return stored

    async def _complete(self, index: int, stored: _Stored) -> None:
        """Write a message that is complete."""
        content = _storable(self._answer.content(index))
        message = AgentMessage(stored.id, content.model_dump_json())
        times = await self._written(sends.complete_message(self._db, message))
        if times is not None:
            stored.wire = self._wire(stored.id, content, StreamingStatus.DONE, times)
        stored.is_complete = True

    async def _written(self, write: Awaitable[T]) -> T:
        try:
            return await write
        except DATABASE_ERRORS as error:
            if is_unavailable(error):
                raise DatabaseUnavailable(
                    "the database does not answer, so the answer was broken off"
                ) from None
            raise

    def _break_off(self) -> None:
        """The request is over before the answer is; what came is stored in the background."""
        self._resources.in_background(self._write_end(self._ending(_Failure(BROKEN_OFF))))

    async def _end(self, failure: _Failure | None) -> _Failure | None:
        """Write the end; returns what stands in the answer's place now."""
        ending = self._ending(failure)
        try:
            return await self._write_end(ending)
        except asyncio.CancelledError:
            # Written once more, to the same effect if it has been written.
            self._resources.in_background(self._write_end(ending))
            raise

    def _ending(self, failure: _Failure | None) -> _Ending:
        """What has to be written: messages whose rows lack or are not complete, and the failure if one is."""
        contents: dict[int, MessageContent] = {}
        for index in self._answer.indexes:
            stored = self._stored.get(index)
            if stored is not None and stored.is_complete:
                continue
            try:
                content = self._answer.content(index, partial=failure is not None)
            except AgentProtocolError as error:
                failure = self._failure(error)
                content = self._answer.content(index, partial=True)
            contents[index] = _storable(content)
            if stored is None:
                self._stored[index] = _Stored(new_id(), b"null", is_complete=False)
        unstored = [
            AgentMessage(self._stored[index].id, content.model_dump_json())
            for index, content in contents.items()
        ]
        ids = [self._stored[index].id for index in sorted(self._stored)]
        error, unsent = (failure.message, failure.unsent) if failure else (None, False)
        return _Ending(End(ids, unstored, error, unsent), contents, failure)

    async def _write_end(self, ending: _Ending) -> _Failure | None:
        try:
            times = await self._store(ending.end)
        except DatabaseUnavailable:
            return ending.failure or _Failure("the answer could not be stored: the database does not answer")
        finally:
            self._claim.drop()
        if times is None:
            return ending.failure or _Failure(f"task {self._opened.task.id} has been deleted")
        for index, content in ending.contents.items():
            stored = self._stored[index]
            stored.wire = self._wire(stored.id, content, StreamingStatus.DONE, times[stored.id])
        return ending.failure

    async def _store(self, end: End) -> dict[UUID, Times] | None:
        """Keeps trying for a while: what an agent has done must not be lost. Raises DatabaseUnavailable."""
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + STORE_SECONDS
        while True:
            try:
                return await self._written(sends.end_send(self._db, self._opened.send_id, end))
            except DatabaseUnavailable:
                log.warning("an answer waits for the database", extra={"action": "rpc.answer"})
                if loop.time() >= give_up_at:
                    raise
            await asyncio.sleep(STORE_AGAIN_SECONDS)

    def _acp_call(self) -> AcpCall:
        params: JsonObject = {
            "agent": wire_agent(self._call.agent),
            "task": wire_task(self._opened.task),
            "content": self._opened.content.model_dump(mode="json"),
            "stream": True,
        }
        seconds = self._resources.settings.answer_timeout_seconds
        return self._call.to_agent(AcpMethod.MESSAGE_SEND, message_key(self._opened.send_id), params, seconds)

    def _failure(self, error: AgentexError) -> _Failure:
        # The task may be one that this request has made, so the client learns its id here.
        message = f"{error.message} (task {self._opened.task.id} keeps what came)"
        return _Failure(message, unsent=isinstance(error, AgentUnreachable))

    def _wire(
        self, message_id: UUID, content: MessageContent, status: StreamingStatus, times: Times
    ) -> bytes:
        return message_json(
            MessageRead.model_construct(
                id=message_id,
                task_id=self._opened.task.id,
                content=content,
                streaming_status=status,
                created_at=times.created_at,
                updated_at=times.updated_at,
            )
        )


def _storable(content: MessageContent) -> MessageContent:
    """The content as Postgres can keep it; JSON from outside holds no half surrogates, but may hold NUL."""
    if "\\u0000" not in content.model_dump_json():
        return content
    return type(content).model_validate(storable(content.model_dump(mode="json")))
