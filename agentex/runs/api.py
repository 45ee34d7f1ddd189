"""The run ledger over HTTP."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from agentex.deps import Caller, ReadSession, ResourcesDep
from agentex.ids import parse_id
from agentex.instants import Instant
from agentex.runs import service
from agentex.runs.models import RunCause, RunPage, RunRead, RunStatus

router = APIRouter(tags=["runs"])

Limit = Annotated[int, Query(ge=1, le=1000)]
Cursor = Annotated[str | None, Query(max_length=200, description="next_cursor of the page before")]


@router.get("/runs")
async def list_runs(
    session: ReadSession,
    resources: ResourcesDep,
    caller: Caller,
    *,
    agent_id: str | None = None,
    schedule_id: str | None = None,
    status: RunStatus | None = None,
    cause: RunCause | None = None,
    due_after: Annotated[Instant | None, Query(description="inclusive")] = None,
    due_before: Annotated[Instant | None, Query(description="exclusive")] = None,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> RunPage:
    """Runs, newest instant first: what ran, what did not, and why."""
    wanted = service.RunFilter(
        agent_id=parse_id(agent_id, "agent") if agent_id else None,
        schedule_id=parse_id(schedule_id, "run schedule") if schedule_id else None,
        status=status,
        cause=cause,
        due_after=due_after,
        due_before=due_before,
    )
    return await service.list_page(session, resources, caller, wanted, limit=limit, cursor=cursor)


@router.get("/runs/{run_id}")
async def get_run(run_id: str, session: ReadSession, resources: ResourcesDep, caller: Caller) -> RunRead:
    """One run."""
    return RunRead.model_validate(await service.get(session, resources, caller, run_id))


@router.post("/runs/{run_id}/cancel")
async def cancel_run(run_id: str, resources: ResourcesDep, caller: Caller) -> RunRead:
    """Cancel a run that has not ended; one that an agent works on is canceled there too. Idempotent."""
    return await service.cancel(resources, caller, run_id)
