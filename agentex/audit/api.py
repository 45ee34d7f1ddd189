"""The audit over HTTP."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from agentex.audit import service
from agentex.audit.models import MAX_TEXT, AuditPage, Outcome
from agentex.audit.service import AuditFilter
from agentex.deps import Caller, Limit, ResourcesDep
from agentex.instants import Instant
from agentex.noted import Audited

router = APIRouter(tags=["audit"])

Text = Annotated[str | None, Query(max_length=MAX_TEXT)]
Principal = Annotated[str | None, Query(max_length=MAX_TEXT, description="Such as user:alice")]


@router.get("/audit")
async def list_audit_entries(
    resources: ResourcesDep,
    caller: Caller,
    *,
    principal: Principal = None,
    operation: Annotated[str | None, Query(max_length=MAX_TEXT, description="Such as delete_task")] = None,
    resource_type: Audited | None = None,
    resource_id: Text = None,
    outcome: Outcome | None = None,
    at_after: Annotated[Instant | None, Query(description="inclusive")] = None,
    at_before: Annotated[Instant | None, Query(description="exclusive")] = None,
    limit: Limit = 100,
    cursor: Annotated[str | None, Query(max_length=200, description="next_cursor of the page before")] = None,
) -> AuditPage:
    """Who did what when, to which object, from where, newest first. For admins of the account."""
    wanted = AuditFilter(principal, operation, resource_type, resource_id, outcome, at_after, at_before)
    return await service.list_page(resources, caller, wanted, limit=limit, cursor=cursor)
