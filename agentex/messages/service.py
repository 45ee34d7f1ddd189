"""Messages: add, find, list."""

from __future__ import annotations

import json
from uuid import UUID

from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from agentex.acp.messages import Author
from agentex.auth.authorize import Operation, ResourceRef, ResourceType, require
from agentex.auth.principal import Principal
from agentex.database import rows
from agentex.errors import NotFound
from agentex.ids import new_id, parse_id
from agentex.messages.models import Message, MessageCreate, MessageRead
from agentex.resources import Resources


async def add(resources: Resources, principal: Principal, body: MessageCreate) -> MessageRead:
    """Add a message to a task of the caller's account; an agent's word also proves that its input arrived."""
    async with resources.db.read() as session:
        await _require(session, resources, principal, Operation.UPDATE, body.task_id)
    async with resources.db.begin() as session:
        added = await _insert(session, principal, body)
        if body.content.author is Author.AGENT:
            for hook in resources.hooks.task_alive:
                await hook(session, body.task_id)
    return added


async def _insert(session: AsyncSession, principal: Principal, body: MessageCreate) -> MessageRead:
    content = body.content.model_dump(mode="json")
    made = await rows(
        session,
        """
        INSERT INTO messages (id, account_id, task_id, content, streaming_status, created_at, updated_at)
        SELECT :id, t.account_id, t.id, CAST(:content AS jsonb), :streaming_status,
            coalesce(CAST(:created_at AS timestamptz), now()), now()
        FROM tasks t WHERE t.id = :task_id AND t.account_id = :account_id
        RETURNING id, task_id, streaming_status, created_at, updated_at
        """,
        id=new_id(),
        content=json.dumps(content),
        streaming_status=body.streaming_status,
        created_at=body.created_at,
        task_id=body.task_id,
        account_id=principal.account_id,
    )
    if not made:
        raise NotFound(f"task {str(body.task_id)!r} not found")
    return MessageRead.model_validate({**made[0], "content": content})


async def get(session: AsyncSession, resources: Resources, principal: Principal, message_id: str) -> Message:
    """One message, for those who may read its task."""
    statement = select(Message).where(
        col(Message.id) == parse_id(message_id, "message"), col(Message.account_id) == principal.account_id
    )
    message = (await session.exec(statement)).one_or_none()
    if message is None:
        raise NotFound(f"message {message_id!r} not found")
    await _require(session, resources, principal, Operation.READ, message.task_id)
    return message


async def list_page(
    session: AsyncSession,
    resources: Resources,
    principal: Principal,
    task_id: UUID,
    *,
    limit: int,
    page_number: int,
) -> list[Message]:
    """A task's messages, newest first; pages count from 1."""
    await _require(session, resources, principal, Operation.READ, task_id)
    statement = (
        select(Message)
        .where(col(Message.task_id) == task_id)
        .order_by(col(Message.created_at).desc(), col(Message.id).desc())
    )
    return list((await session.exec(statement.limit(limit).offset((page_number - 1) * limit))).all())


async def _require(
    session: AsyncSession, resources: Resources, principal: Principal, operation: Operation, task_id: UUID
) -> None:
    found = await rows(
        session,
        "SELECT owner FROM tasks WHERE id = :task_id AND account_id = :account_id",
        task_id=task_id,
        account_id=principal.account_id,
    )
    if not found:
        raise NotFound(f"task {str(task_id)!r} not found")
    task = ResourceRef(ResourceType.TASK, str(task_id), principal.account_id, found[0]["owner"])
    await require(resources.authz, session, principal, operation, task)
