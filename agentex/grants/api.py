"""/grants: sharing one agent, task, schedule or run with another member of the account."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query

from agentex.deps import Caller, Limit, ReadSession, ResourcesDep
from agentex.grants import service
from agentex.grants.models import GrantCreate, GrantPage, GrantRead, SharedType

router = APIRouter(prefix="/grants", tags=["grants"])


@router.post("")
async def create_grant(body: GrantCreate, resources: ResourcesDep, caller: Caller) -> GrantRead:
    """Share something of one's own, with no more than one may do oneself; replaces what was shared before."""
    return await service.create(resources, caller, body)


@router.get("")
async def list_grants(
    session: ReadSession,
    resources: ResourcesDep,
    caller: Caller,
    *,
    resource_type: Annotated[SharedType, Query(description="What kind of thing is shared")],
    resource_id: Annotated[UUID, Query(description="Which one")],
    limit: Limit = 100,
    cursor: Annotated[str | None, Query(max_length=200, description="next_cursor of the page before")] = None,
) -> GrantPage:
    """With whom something is shared; for its owner or an admin."""
    shared = service.Shared(resource_type, resource_id)
    return await service.list_page(session, resources, caller, shared, limit=limit, cursor=cursor)


@router.delete("/{grant_id}")
async def delete_grant(grant_id: str, resources: ResourcesDep, caller: Caller) -> GrantRead:
    """Take back what was shared, or give up what one was given; it counts at once."""
    return await service.delete(resources, caller, grant_id)
