"""Messages: add, change, find, list.

A write is one statement, in the session in which permission was asked, which has no transaction open: another
connection from the pool would cost half as much again. An agent's word also proves that its input arrived
(`Hooks.sign_of_life`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import RowMapping, UnaryExpression
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession
from sqlmodel.sql.expression import SelectOfScalar

from agentex.acp.messages import Author, MessageContent
from agentex.auth.authorize import Operation, hidden_as, require
from agentex.auth.principal import Principal
from agentex.auth.tasks import require_task, task_not_found, task_ref
from agentex.database import rows
from agentex.errors import NotFound
from agentex.idempotency import Repeat, lock_number
from agentex.ids import new_id, parse_id
from agentex.messages.bulk import CREATE_SQL, UPDATE_BATCH_SQL, read_row
from agentex.messages.filters import MessageFilter, conditions
from agentex.messages.models import (
    Message,
    MessageBatchCreate,
    MessageBatchUpdate,
    MessageCreate,
    MessageOrder,
    MessagePage,
    MessageRead,
    MessageUpdate,
    PageDirection,
)
from agentex.messages.repeats import Wanted, find_made, note
from agentex.pagination import OrderDirection, after_cursor, before_cursor, encode_cursor
from agentex.resources import Resources


@dataclass(frozen=True)
class ListOptions:
    """Which part of a task's messages a list has, and in which order; pages count from 1."""

    limit: int = 50
    page_number: int = 1
    order_by: MessageOrder = MessageOrder.CREATED_AT
    direction: OrderDirection = OrderDirection.DESC
    filters: Sequence[MessageFilter] = ()


@dataclass(frozen=True)
class PageOptions:
    """Where a page begins, and which way it goes: without a cursor at the newest, or at the oldest."""

    limit: int = 50
    cursor: str | None = None
    direction: PageDirection = PageDirection.OLDER
    filters: Sequence[MessageFilter] = ()


async def add(resources: Resources, principal: Principal, body: MessageCreate, repeat: Repeat) -> MessageRead:
    """Add a message to a task of the caller's account; a repeat is answered with the one there is."""
    wanted = Wanted(body.task_id, [body.content], body.created_at, body.streaming_status)
    return (await _add(resources, principal, wanted, repeat))[0]


async def change(
    resources: Resources, principal: Principal, message_id: str, body: MessageUpdate
) -> MessageRead:
    """Give a message of this task another content, and another streaming_status unless that is null."""
    async with resources.db.single() as session:
        await require_task(session, resources.authz, principal, Operation.UPDATE, body.task_id)
        changed = await rows(
            session,
            _spoken(resources, [body.content], _UPDATE_SQL),
            id=parse_id(message_id, "message"),
            content=body.content.model_dump_json(),
            streaming_status=body.streaming_status,
            task_id=body.task_id,
            account_id=principal.account_id,
        )
    if not changed:
        raise NotFound(f"message {message_id!r} not found in task {str(body.task_id)!r}")
    return _read(changed[0], body.content)


async def add_batch(
    resources: Resources, principal: Principal, body: MessageBatchCreate, repeat: Repeat
) -> list[MessageRead]:
    """Add messages to a task, all of them or none, in their order; a repeat as of one message."""
    return await _add(resources, principal, Wanted(body.task_id, body.contents, body.created_at), repeat)


async def _add(
    resources: Resources, principal: Principal, wanted: Wanted, repeat: Repeat
) -> list[MessageRead]:
    """One statement, but for what is rare: a repeat, and what has a key of its own."""
    async with resources.db.single() as session:
        await require_task(session, resources.authz, principal, Operation.UPDATE, wanted.task_id)
        if not repeat.may_be_one or not wanted.contents:
            return await _insert(session, resources, principal, wanted, repeat)
    async with resources.db.begin() as session:
        made = await find_made(session, principal, repeat, wanted)
        if made is None:
            made = await _insert(session, resources, principal, wanted, repeat)
            await note(session, repeat, [message.id for message in made])
    return made


async def _insert(
    session: AsyncSession, resources: Resources, principal: Principal, wanted: Wanted, repeat: Repeat
) -> list[MessageRead]:
    ids = [new_id() for _ in wanted.contents]
    made = await rows(
        session,
        _spoken(resources, wanted.contents, CREATE_SQL),
        entry_lock=lock_number(repeat),
        ids=ids,
        contents=wanted.texts,
        streaming_status=wanted.streaming_status,
        created_at=wanted.created_at,
        task_id=wanted.task_id,
        account_id=principal.account_id,
    )
    if ids and not made:
        raise task_not_found(wanted.task_id)
    return _in_order(made, dict(zip(ids, wanted.contents, strict=True)))


async def change_batch(
    resources: Resources, principal: Principal, body: MessageBatchUpdate
) -> list[MessageRead]:
    """Give messages of one task other contents, all of them or none; returns them in the order given."""
    async with resources.db.single() as session:
        await require_task(session, resources.authz, principal, Operation.UPDATE, body.task_id)
        changed = await rows(
            session,
            _spoken(resources, list(body.updates.values()), UPDATE_BATCH_SQL),
            ids=list(body.updates),
            contents=[content.model_dump_json() for content in body.updates.values()],
            task_id=body.task_id,
            account_id=principal.account_id,
        )
        if len(changed) != len(body.updates):
            raise await _unknown(session, principal, body)
    return _in_order(changed, body.updates)


async def get(
    session: AsyncSession, resources: Resources, principal: Principal, message_id: str
) -> MessageRead:
    """One message, for those who may read its task."""
    found = await rows(
        session,
        """
        SELECT m.id, m.task_id, m.content::text AS content, m.streaming_status, m.created_at, m.updated_at,
            t.owner
        FROM messages m JOIN tasks t ON t.id = m.task_id
        WHERE m.id = :id AND m.account_id = :account_id AND t.status <> 'DELETED'
        """,
        id=parse_id(message_id, "message"),
        account_id=principal.account_id,
    )
    absent = NotFound(f"message {message_id!r} not found")
    if not found:
        raise absent
    task = task_ref(principal, found[0]["task_id"], found[0]["owner"])
    with hidden_as(absent):
        await require(resources.authz, session, principal, Operation.READ, task)
    return read_row(found[0])


async def list_page(
    session: AsyncSession, resources: Resources, principal: Principal, task_id: UUID, wanted: ListOptions
) -> list[Message]:
    """A task's messages, newest first unless asked otherwise."""
    await require_task(session, resources.authz, principal, Operation.READ, task_id)
    statement = _messages_of(principal, task_id, wanted.filters).order_by(*_order(wanted))
    statement = statement.limit(wanted.limit).offset((wanted.page_number - 1) * wanted.limit)
    return list((await session.exec(statement)).all())


async def list_by_cursor(
    session: AsyncSession, resources: Resources, principal: Principal, task_id: UUID, wanted: PageOptions
) -> MessagePage:
    """A page of a task's messages by keyset: what arrives meanwhile moves no page."""
    await require_task(session, resources.authz, principal, Operation.READ, task_id)
    statement = _messages_of(principal, task_id, wanted.filters)
    key = (col(Message.created_at), col(Message.id))
    newer = wanted.direction is PageDirection.NEWER
    if wanted.cursor is not None:
        statement = statement.where((before_cursor if newer else after_cursor)(wanted.cursor, *key))
    order = [column.asc() if newer else column.desc() for column in key]
    found = (await session.exec(statement.order_by(*order).limit(wanted.limit + 1))).all()
    page, has_more = found[: wanted.limit], len(found) > wanted.limit
    return MessagePage(
        data=[MessageRead.model_validate(message) for message in page],
        next_cursor=encode_cursor(page[-1].created_at, page[-1].id) if has_more else None,
        has_more=has_more,
    )


_UPDATE_SQL = """
    UPDATE messages SET content = CAST(:content AS jsonb),
        streaming_status = coalesce(:streaming_status, streaming_status), updated_at = now()
    WHERE id = :id AND task_id = :task_id AND account_id = :account_id
    RETURNING id, task_id, streaming_status, created_at, updated_at
"""


def _spoken(resources: Resources, contents: Sequence[MessageContent], write: str) -> str:
    """The write, which proves the task alive if one of the contents is an agent's."""
    by_agent = any(content.author is Author.AGENT for content in contents)
    return resources.hooks.sign_of_life(write) if by_agent else write


def _read(row: RowMapping, content: MessageContent) -> MessageRead:
    # The content is the one that came in: Postgres need not send it back.
    return MessageRead.model_validate({**row, "content": content})


def _in_order(written: Sequence[RowMapping], contents: dict[UUID, MessageContent]) -> list[MessageRead]:
    by_id = {row["id"]: row for row in written}
    return [_read(by_id[id_], content) for id_, content in contents.items()]


async def _unknown(session: AsyncSession, principal: Principal, body: MessageBatchUpdate) -> NotFound:
    """Which of a batch is no message of its task."""
    found = await rows(
        session,
        "SELECT id FROM messages WHERE id = ANY(CAST(:ids AS uuid[])) AND task_id = :task_id "
        "AND account_id = :account_id",
        ids=list(body.updates),
        task_id=body.task_id,
        account_id=principal.account_id,
    )
    lacking = [str(id_) for id_ in body.updates if id_ not in {row["id"] for row in found}]
    named = ", ".join(repr(id_) for id_ in lacking[:10])
    return NotFound(f"message {named} not found in task {str(body.task_id)!r}; nothing was changed")


def _messages_of(
    principal: Principal, task_id: UUID, filters: Sequence[MessageFilter]
) -> SelectOfScalar[Message]:
    mine = (col(Message.task_id) == task_id, col(Message.account_id) == principal.account_id)
    return select(Message).where(*mine, *conditions(filters))


def _order(wanted: ListOptions) -> list[UnaryExpression[Any]]:
    columns = {
        MessageOrder.CREATED_AT: (Message.created_at, Message.id),
        MessageOrder.UPDATED_AT: (Message.updated_at, Message.id),
        MessageOrder.ID: (Message.id,),
    }[wanted.order_by]
    ascending = wanted.direction is OrderDirection.ASC
    return [col(column).asc() if ascending else col(column).desc() for column in columns]
