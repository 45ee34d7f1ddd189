"""Trackers: find, list, move on. They are made with their tasks (tasks/service.py, tasks/bulk.py)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal
from uuid import UUID

from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from agentex.auth.authorize import Operation, ResourceType, hidden_as
from agentex.auth.lists import seen_through_tasks
from agentex.auth.principal import Principal
from agentex.auth.tasks import require_task
from agentex.database import rows
from agentex.errors import BadRequest, NotFound
from agentex.ids import parse_id
from agentex.pagination import not_of_deleted_task
from agentex.resources import Resources
from agentex.trackers.models import Tracker, TrackerRead, TrackerUpdate

# Two that move it side by side take turns at the row, and each looks at the place that it then has.
_UPDATE_SQL = """
    UPDATE trackers AS t SET
        last_processed_event_id = coalesce(CAST(:event_id AS uuid), t.last_processed_event_id),
        status = CASE WHEN :sets_status THEN CAST(:status AS text) ELSE t.status END,
        status_reason = CASE WHEN :sets_reason THEN CAST(:reason AS text) ELSE t.status_reason END,
        updated_at = clock_timestamp()
    WHERE t.id = :id AND t.account_id = :account_id
        AND (CAST(:event_id AS uuid) IS NULL OR (
            SELECT e.sequence_id >= coalesce(
                (SELECT p.sequence_id FROM events p WHERE p.id = t.last_processed_event_id), e.sequence_id)
            FROM events e WHERE e.id = :event_id AND e.task_id = t.task_id))
    RETURNING id, agent_id, task_id, last_processed_event_id, status, status_reason, created_at, updated_at
"""


@dataclass(frozen=True)
class TrackerFilter:
    """Which trackers a list has; None does not filter."""

    agent_id: UUID | None = None
    task_id: UUID | None = None


async def get(session: AsyncSession, resources: Resources, principal: Principal, tracker_id: str) -> Tracker:
    """One tracker, for those who may read its task."""
    tracker = await _find(session, principal, tracker_id)
    with hidden_as(_not_found(tracker_id)):
        await require_task(session, resources.authz, principal, Operation.READ, tracker.task_id)
    return tracker


async def list_page(
    session: AsyncSession,
    resources: Resources,
    principal: Principal,
    wanted: TrackerFilter,
    *,
    direction: Literal["asc", "desc"],
    limit: int,
    page_number: int,
) -> list[Tracker]:
    """Trackers of the caller's account in the order of their making; pages count from 1."""
    statement = select(Tracker).where(col(Tracker.account_id) == principal.account_id)
    statement = statement.where(not_of_deleted_task(col(Tracker.task_id)))
    if wanted.task_id is None:
        seen = await resources.authz.visible(session, principal, ResourceType.TASK)
        statement = statement.where(seen_through_tasks(seen, "trackers.task_id"))
    else:
        await require_task(session, resources.authz, principal, Operation.READ, wanted.task_id)
        statement = statement.where(col(Tracker.task_id) == wanted.task_id)
    if wanted.agent_id is not None:
        statement = statement.where(col(Tracker.agent_id) == wanted.agent_id)
    order = [col(Tracker.created_at), col(Tracker.id)]
    statement = statement.order_by(*[by.asc() if direction == "asc" else by.desc() for by in order])
    return list((await session.exec(statement.limit(limit).offset((page_number - 1) * limit))).all())


async def change(
    resources: Resources, principal: Principal, tracker_id: str, body: TrackerUpdate
) -> TrackerRead:
    """Change what is given. Raises BadRequest for another task's event, or one before the place it has."""
    async with resources.db.read() as session:
        tracker = await _find(session, principal, tracker_id)
        with hidden_as(_not_found(tracker_id)):
            await require_task(session, resources.authz, principal, Operation.UPDATE, tracker.task_id)
    async with resources.db.single() as session:
        changed = await rows(
            session,
            _UPDATE_SQL,
            id=tracker.id,
            account_id=principal.account_id,
            event_id=body.last_processed_event_id,
            sets_status="status" in body.model_fields_set,
            status=body.status,
            sets_reason="status_reason" in body.model_fields_set,
            reason=body.status_reason,
        )
        if not changed:
            raise await _not_changed(session, principal, tracker_id, body)
    return TrackerRead.model_validate(changed[0])


async def _not_changed(
    session: AsyncSession, principal: Principal, tracker_id: str, body: TrackerUpdate
) -> BadRequest:
    tracker = await _find(session, principal, tracker_id)
    event_id = body.last_processed_event_id
    found = await rows(
        session,
        "SELECT 1 FROM events WHERE id = :event_id AND task_id = :task_id",
        event_id=event_id,
        task_id=tracker.task_id,
    )
    if not found:
        return BadRequest(f"last_processed_event_id: task {tracker.task_id} has no event {event_id}")
    return BadRequest(
        f"last_processed_event_id: event {event_id} is before {tracker.last_processed_event_id}, "
        "which is processed already; it moves forward only"
    )


async def _find(session: AsyncSession, principal: Principal, tracker_id: str) -> Tracker:
    statement = select(Tracker).where(
        col(Tracker.id) == parse_id(tracker_id, "tracker"), col(Tracker.account_id) == principal.account_id
    )
    tracker = (await session.exec(statement)).one_or_none()
    if tracker is None:
        raise _not_found(tracker_id)
    return tracker


def _not_found(tracker_id: str) -> NotFound:
    return NotFound(f"tracker {tracker_id!r} not found")
