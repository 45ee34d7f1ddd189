"""/events: what was sent to an async agent. Events are made through an agent's rpc, and by runs."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query

from agentex.deps import Caller, Limit, ReadSession, ResourcesDep
from agentex.events import service
from agentex.events.models import EventRead

router = APIRouter(prefix="/events", tags=["events"])


@router.get("")
async def list_events(
    session: ReadSession,
    resources: ResourcesDep,
    caller: Caller,
    *,
    task_id: Annotated[UUID, Query(description="The task whose events these are")],
    agent_id: Annotated[UUID, Query(description="The agent that they were sent to")],
    last_processed_event_id: Annotated[
        UUID | None, Query(description="Only what came after this event of the task")
    ] = None,
    limit: Limit = 1_000,
) -> list[EventRead]:
    """An agent's events in a task, in the order in which they were made."""
    wanted = service.EventsWanted(task_id, agent_id, last_processed_event_id, limit)
    return await service.list_after(session, resources, caller, wanted)


@router.get("/{event_id}")
async def get_event(
    event_id: str, session: ReadSession, resources: ResourcesDep, caller: Caller
) -> EventRead:
    """One event."""
    return await service.get(session, resources, caller, event_id)
