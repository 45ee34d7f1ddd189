"""Schedules over HTTP (wire.md §3), by id and by name."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Response
from fastapi.responses import JSONResponse

from agentex.agents.models import Deleted
from agentex.auth.owners import Transfer
from agentex.database import JsonObject
from agentex.deps import Caller, ReadSession, RepeatDep, ResourcesDep
from agentex.errors import InvalidInput
from agentex.instants import Instant
from agentex.runs.models import RunPage
from agentex.runs.service import RunFilter
from agentex.runs.service import list_page as list_run_page
from agentex.schedules import service
from agentex.schedules.models import (
    NAME_PREFIX_PATTERN,
    ScheduleCreate,
    ScheduleInstant,
    ScheduleList,
    ScheduleNote,
    ScheduleRead,
    ScheduleState,
    ScheduleTriggered,
    ScheduleUpdate,
)
from agentex.schedules.reads import ScheduleFilter
from agentex.schedules.service import Target


class _Versioned(JSONResponse):
    """An answer whose ETag is the version of the schedule that it is; lists and deletions have none."""

    # FastAPI reads the document's status from this signature.
    def __init__(self, content: JsonObject, status_code: int = 200, **more: Any) -> None:
        super().__init__(content, status_code, **more)
        if "version" in content:
            self.headers["ETag"] = f'"{content["version"]}"'


router = APIRouter(
    prefix="/agents/{agent_id}/schedules", tags=["schedules"], default_response_class=_Versioned
)

Limit = Annotated[int, Query(ge=1, le=1000)]
Cursor = Annotated[str | None, Query(max_length=200, description="next_cursor of the page before")]
NamePrefix = Annotated[
    str | None, Query(pattern=NAME_PREFIX_PATTERN, max_length=64, description="how the name begins")
]
IfMatch = Annotated[str | None, Header(description="the ETag that was read: the schedule's version")]


@router.post("")
async def create_schedule(
    agent_id: str, body: ScheduleCreate, resources: ResourcesDep, caller: Caller, repeat: RepeatDep
) -> ScheduleRead:
    """Make a schedule for an agent."""
    return await service.create(resources, caller, agent_id, body, repeat)


@router.get("")
async def list_schedules(
    agent_id: str,
    session: ReadSession,
    resources: ResourcesDep,
    caller: Caller,
    *,
    updated_after: Annotated[Instant | None, Query(description="inclusive")] = None,
    state: ScheduleState | None = None,
    name_prefix: NamePrefix = None,
    limit: Limit = 100,
    cursor: Cursor = None,
    include_live: bool = False,
) -> ScheduleList:
    """An agent's schedules, newest first; include_live adds the next instants."""
    wanted = ScheduleFilter(updated_after=updated_after, state=state, name_prefix=name_prefix)
    return await service.list_page(
        session, resources, caller, agent_id, wanted, limit=limit, cursor=cursor, include_live=include_live
    )


@router.get("/name/{name}")
async def get_schedule_by_name(
    agent_id: str,
    name: str,
    session: ReadSession,
    resources: ResourcesDep,
    caller: Caller,
) -> ScheduleRead:
    """One schedule."""
    return await service.retrieve(session, resources, caller, Target(agent_id, name=name))


@router.patch("/name/{name}")
async def update_schedule_by_name(
    agent_id: str,
    name: str,
    body: ScheduleUpdate,
    resources: ResourcesDep,
    caller: Caller,
    if_match: IfMatch = None,
) -> ScheduleRead:
    """Change the given keys; with If-Match only if nobody else has changed it since."""
    target = Target(agent_id, name=name)
    return await service.update(resources, caller, target, body, version=_version(if_match))


@router.delete("/name/{name}")
async def delete_schedule_by_name(
    agent_id: str, name: str, resources: ResourcesDep, caller: Caller
) -> Deleted:
    """Delete a schedule; its runs stay and its name is free."""
    return await service.delete(resources, caller, Target(agent_id, name=name))


@router.post("/name/{name}/pause")
async def pause_schedule_by_name(
    agent_id: str, name: str, resources: ResourcesDep, caller: Caller, body: ScheduleNote | None = None
) -> ScheduleRead:
    """Stop a schedule's runs. Idempotent."""
    note = body.note if body else None
    return await service.pause(resources, caller, Target(agent_id, name=name), note)


@router.post("/name/{name}/resume")
async def resume_schedule_by_name(
    agent_id: str, name: str, resources: ResourcesDep, caller: Caller, body: ScheduleNote | None = None
) -> ScheduleRead:
    """Let a schedule run again, from its next instant on. Idempotent."""
    note = body.note if body else None
    return await service.resume(resources, caller, Target(agent_id, name=name), note)


@router.post("/name/{name}/trigger")
async def trigger_schedule_by_name(
    agent_id: str,
    name: str,
    resources: ResourcesDep,
    caller: Caller,
    repeat: RepeatDep,
    response: Response,
) -> ScheduleTriggered:
    """Run a schedule once now, paused or not; Location names the run."""
    triggered = await service.trigger(resources, caller, Target(agent_id, name=name), repeat)
    response.headers["Location"] = f"/runs/{triggered.run_id}"
    return triggered


@router.post("/name/{name}/skip")
async def skip_instant_by_name(
    agent_id: str, name: str, body: ScheduleInstant, resources: ResourcesDep, caller: Caller
) -> ScheduleRead:
    """Take one coming instant out. Idempotent."""
    target = Target(agent_id, name=name)
    return await service.skip(resources, caller, target, body.scheduled_time)


@router.post("/name/{name}/unskip")
async def unskip_instant_by_name(
    agent_id: str, name: str, body: ScheduleInstant, resources: ResourcesDep, caller: Caller
) -> ScheduleRead:
    """Put a skipped instant back. Idempotent."""
    target = Target(agent_id, name=name)
    return await service.unskip(resources, caller, target, body.scheduled_time)


@router.post("/name/{name}/transfer")
async def transfer_schedule_by_name(
    agent_id: str, name: str, body: Transfer, resources: ResourcesDep, caller: Caller
) -> ScheduleRead:
    """Give a schedule to another member, for whom it runs from now on; for its owner or an admin."""
    target = Target(agent_id, name=name)
    return await service.transfer(resources, caller, target, body.owner)


@router.get("/name/{name}/runs")
async def list_schedule_runs_by_name(
    agent_id: str,
    name: str,
    session: ReadSession,
    resources: ResourcesDep,
    caller: Caller,
    *,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> RunPage:
    """A schedule's runs, newest instant first."""
    found = await service.retrieve(session, resources, caller, Target(agent_id, name=name))
    wanted = RunFilter(schedule_id=found.id)
    return await list_run_page(session, resources, caller, wanted, limit=limit, cursor=cursor)


@router.get("/{schedule_id}")
async def get_schedule(
    agent_id: str,
    schedule_id: str,
    session: ReadSession,
    resources: ResourcesDep,
    caller: Caller,
) -> ScheduleRead:
    """One schedule."""
    return await service.retrieve(session, resources, caller, Target(agent_id, schedule_id=schedule_id))


@router.patch("/{schedule_id}")
async def update_schedule(
    agent_id: str,
    schedule_id: str,
    body: ScheduleUpdate,
    resources: ResourcesDep,
    caller: Caller,
    if_match: IfMatch = None,
) -> ScheduleRead:
    """Change the given keys; with If-Match only if nobody else has changed it since."""
    target = Target(agent_id, schedule_id=schedule_id)
    return await service.update(resources, caller, target, body, version=_version(if_match))


@router.delete("/{schedule_id}")
async def delete_schedule(
    agent_id: str, schedule_id: str, resources: ResourcesDep, caller: Caller
) -> Deleted:
    """Delete a schedule; its runs stay and its name is free."""
    return await service.delete(resources, caller, Target(agent_id, schedule_id=schedule_id))


@router.post("/{schedule_id}/pause")
async def pause_schedule(
    agent_id: str, schedule_id: str, resources: ResourcesDep, caller: Caller, body: ScheduleNote | None = None
) -> ScheduleRead:
    """Stop a schedule's runs. Idempotent."""
    note = body.note if body else None
    return await service.pause(resources, caller, Target(agent_id, schedule_id=schedule_id), note)


@router.post("/{schedule_id}/resume")
async def resume_schedule(
    agent_id: str, schedule_id: str, resources: ResourcesDep, caller: Caller, body: ScheduleNote | None = None
) -> ScheduleRead:
    """Let a schedule run again, from its next instant on. Idempotent."""
    note = body.note if body else None
    return await service.resume(resources, caller, Target(agent_id, schedule_id=schedule_id), note)


@router.post("/{schedule_id}/trigger")
async def trigger_schedule(
    agent_id: str,
    schedule_id: str,
    resources: ResourcesDep,
    caller: Caller,
    repeat: RepeatDep,
    response: Response,
) -> ScheduleTriggered:
    """Run a schedule once now, paused or not; Location names the run."""
    triggered = await service.trigger(resources, caller, Target(agent_id, schedule_id=schedule_id), repeat)
    response.headers["Location"] = f"/runs/{triggered.run_id}"
    return triggered


@router.post("/{schedule_id}/skip")
async def skip_instant(
    agent_id: str, schedule_id: str, body: ScheduleInstant, resources: ResourcesDep, caller: Caller
) -> ScheduleRead:
    """Take one coming instant out. Idempotent."""
    target = Target(agent_id, schedule_id=schedule_id)
    return await service.skip(resources, caller, target, body.scheduled_time)


@router.post("/{schedule_id}/unskip")
async def unskip_instant(
    agent_id: str, schedule_id: str, body: ScheduleInstant, resources: ResourcesDep, caller: Caller
) -> ScheduleRead:
    """Put a skipped instant back. Idempotent."""
    target = Target(agent_id, schedule_id=schedule_id)
    return await service.unskip(resources, caller, target, body.scheduled_time)


@router.post("/{schedule_id}/transfer")
async def transfer_schedule(
    agent_id: str, schedule_id: str, body: Transfer, resources: ResourcesDep, caller: Caller
) -> ScheduleRead:
    """Give a schedule to another member, for whom it runs from now on; for its owner or an admin."""
    target = Target(agent_id, schedule_id=schedule_id)
    return await service.transfer(resources, caller, target, body.owner)


@router.get("/{schedule_id}/runs")
async def list_schedule_runs(
    agent_id: str,
    schedule_id: str,
    session: ReadSession,
    resources: ResourcesDep,
    caller: Caller,
    *,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> RunPage:
    """A schedule's runs, newest instant first."""
    found = await service.retrieve(session, resources, caller, Target(agent_id, schedule_id=schedule_id))
    wanted = RunFilter(schedule_id=found.id)
    return await list_run_page(session, resources, caller, wanted, limit=limit, cursor=cursor)


def _version(if_match: str | None) -> int | None:
    if if_match is None or if_match == "*":
        return None
    version = if_match.strip('"')
    if not (version.isascii() and version.isdigit()):
        raise InvalidInput("If-Match", f'{if_match[:80]!r} is not the ETag of a schedule, such as "3"')
    return int(version)
