"""/messages: what user and agent said in a task."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query

from agentex.deps import Caller, Limit, PageNumber, ReadSession, ResourcesDep
from agentex.messages import service
from agentex.messages.models import MessageCreate, MessageRead

router = APIRouter(prefix="/messages", tags=["messages"])


@router.post("")
async def create_message(body: MessageCreate, resources: ResourcesDep, caller: Caller) -> MessageRead:
    """Add a message to a task."""
    return await service.add(resources, caller, body)


@router.get("")
async def list_messages(
    session: ReadSession,
    resources: ResourcesDep,
    caller: Caller,
    task_id: Annotated[UUID, Query(description="The task whose messages these are")],
    limit: Limit = 50,
    page_number: PageNumber = 1,
) -> list[MessageRead]:
    """A task's messages, newest first."""
    found = await service.list_page(session, resources, caller, task_id, limit=limit, page_number=page_number)
    return [MessageRead.model_validate(message) for message in found]


@router.get("/{message_id}")
async def get_message(
    message_id: str, session: ReadSession, resources: ResourcesDep, caller: Caller
) -> MessageRead:
    """One message."""
    return MessageRead.model_validate(await service.get(session, resources, caller, message_id))
