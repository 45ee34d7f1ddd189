"""/messages: what user and agent said in a task."""

from __future__ import annotations

import json
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request

from agentex.deps import Caller, Limit, PageNumber, ReadSession, RepeatDep, ResourcesDep
from agentex.errors import InvalidInput
from agentex.messages import service
from agentex.messages.filters import MAX_FILTERS, parse_filters
from agentex.messages.models import (
    MessageBatchCreate,
    MessageBatchUpdate,
    MessageCreate,
    MessageOrder,
    MessagePage,
    MessageRead,
    MessageUpdate,
    PageDirection,
)
from agentex.noted import Audited, note_of
from agentex.pagination import OrderDirection

router = APIRouter(prefix="/messages", tags=["messages"])

TaskId = Annotated[UUID, Query(description="The task whose messages these are")]
Filters = Annotated[
    str | None,
    Query(
        description=(
            f"JSON array of up to {MAX_FILTERS} filters, or one filter: `content` (type, author, style, "
            "format, content, attachments, data, tool_call_id, name, arguments, is_error, summary), "
            "`streaming_status`, `exclude`. A message matches a filter when it has all that the filter "
            "names; of `data` and `arguments` any part may be named. The list has what one of the "
            "filters matches, without what one with `exclude` matches."
        ),
        examples=['[{"content": {"type": "data"}}, {"content": {"data": {"kind": "log"}}, "exclude": true}]'],
    ),
]


class _Pairs(list[tuple[str, Any]]):
    """A JSON object as its pairs: a repeated name is still there."""


async def _refuse_repeated_ids(request: Request) -> None:
    """A dict keeps the last of two values for one message, without a word."""
    try:
        document = json.loads(await request.body(), object_pairs_hook=_Pairs)
    except (ValueError, RecursionError):
        # Said better by the route's own parser.
        return
    if not isinstance(document, _Pairs):
        return
    seen: set[str] = set()
    for name, value in document:
        for key, _ in value if name == "updates" and isinstance(value, _Pairs) else ():
            canonical = _canonical(key)
            if canonical in seen:
                raise InvalidInput("updates", f"{key[:80]!r} is there twice; name each message once")
            seen.add(canonical)


def _canonical(key: str) -> str:
    try:
        return str(UUID(key))
    except ValueError:
        return key


@router.post("")
async def create_message(
    body: MessageCreate, resources: ResourcesDep, caller: Caller, repeat: RepeatDep
) -> MessageRead:
    """Add a message to a task."""
    return await service.add(resources, caller, body, repeat)


@router.post("/batch")
async def create_messages(
    body: MessageBatchCreate, resources: ResourcesDep, caller: Caller, repeat: RepeatDep, request: Request
) -> list[MessageRead]:
    """Add messages to a task in their order, all of them or none."""
    note_of(request).concerns(Audited.TASK, body.task_id)
    return await service.add_batch(resources, caller, body, repeat)


@router.put("/batch", dependencies=[Depends(_refuse_repeated_ids)])
async def update_messages(
    body: MessageBatchUpdate, resources: ResourcesDep, caller: Caller, request: Request
) -> list[MessageRead]:
    """Give messages of a task other contents, all of them or none; the answer has them in the order given."""
    note_of(request).concerns(Audited.TASK, body.task_id)
    return await service.change_batch(resources, caller, body)


@router.get("")
async def list_messages(
    session: ReadSession,
    resources: ResourcesDep,
    caller: Caller,
    *,
    task_id: TaskId,
    limit: Limit = 50,
    page_number: PageNumber = 1,
    order_by: Annotated[
        MessageOrder, Query(description="created_at is served by an index")
    ] = MessageOrder.CREATED_AT,
    order_direction: OrderDirection = OrderDirection.DESC,
    filters: Filters = None,
) -> list[MessageRead]:
    """A task's messages, newest first; /messages/paginated does not shift when new ones arrive."""
    wanted = service.ListOptions(limit, page_number, order_by, order_direction, parse_filters(filters))
    found = await service.list_page(session, resources, caller, task_id, wanted)
    return [MessageRead.model_validate(message) for message in found]


@router.get("/paginated")
async def list_messages_paginated(
    session: ReadSession,
    resources: ResourcesDep,
    caller: Caller,
    *,
    task_id: TaskId,
    limit: Limit = 50,
    cursor: Annotated[str | None, Query(max_length=200, description="next_cursor of another page")] = None,
    direction: Annotated[
        PageDirection, Query(description="older: newest first; newer: oldest first")
    ] = PageDirection.OLDER,
    filters: Filters = None,
) -> MessagePage:
    """A task's messages page by page; a cursor goes on behind its page's last one, in either direction."""
    wanted = service.PageOptions(limit, cursor, direction, parse_filters(filters))
    return await service.list_by_cursor(session, resources, caller, task_id, wanted)


@router.get("/{message_id}")
async def get_message(
    message_id: str, session: ReadSession, resources: ResourcesDep, caller: Caller
) -> MessageRead:
    """One message."""
    return await service.get(session, resources, caller, message_id)


@router.put("/{message_id}")
async def update_message(
    message_id: str, body: MessageUpdate, resources: ResourcesDep, caller: Caller
) -> MessageRead:
    """Give a message another content; a streaming_status of null leaves the one that it has."""
    return await service.change(resources, caller, message_id, body)
