"""/tracker: how far an agent has come with the events of a task. Trackers are made with their tasks."""

from __future__ import annotations

from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Path, Query

from agentex.deps import Caller, Limit, PageNumber, ReadSession, ResourcesDep
from agentex.trackers import service
from agentex.trackers.models import TrackerOrder, TrackerRead, TrackerUpdate

router = APIRouter(prefix="/tracker", tags=["tracker"])

TrackerId = Annotated[str, Path(description="The tracker's id")]


@router.get("")
async def list_trackers(
    session: ReadSession,
    resources: ResourcesDep,
    caller: Caller,
    agent_id: Annotated[UUID | None, Query(description="Only trackers of this agent")] = None,
    task_id: Annotated[UUID | None, Query(description="Only trackers of this task")] = None,
    order_by: Annotated[
        TrackerOrder, Query(description="What they are ordered by")
    ] = TrackerOrder.CREATED_AT,
    order_direction: Annotated[Literal["asc", "desc"], Query(description="Which end comes first")] = "desc",
    limit: Limit = 50,
    page_number: PageNumber = 1,
) -> list[TrackerRead]:
    """Trackers, newest first."""
    found = await service.list_page(
        session,
        resources,
        caller,
        service.TrackerFilter(agent_id, task_id),
        direction=order_direction,
        limit=limit,
        page_number=page_number,
    )
    return [TrackerRead.model_validate(tracker) for tracker in found]


@router.get("/{tracker_id}")
async def get_tracker(
    tracker_id: TrackerId, session: ReadSession, resources: ResourcesDep, caller: Caller
) -> TrackerRead:
    """One tracker."""
    return TrackerRead.model_validate(await service.get(session, resources, caller, tracker_id))


@router.put("/{tracker_id}")
async def update_tracker(
    tracker_id: TrackerId, body: TrackerUpdate, resources: ResourcesDep, caller: Caller
) -> TrackerRead:
    """Change what is given; the place in the events moves forward only."""
    return await service.change(resources, caller, tracker_id, body)
