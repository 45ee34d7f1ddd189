"""Events: made by a client's event/send, or in bulk by a page of runs (bulk.py); found and listed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import RowMapping
from sqlmodel.ext.asyncio.session import AsyncSession

from agentex.auth.authorize import Operation, hidden_as, require
from agentex.auth.principal import Principal
from agentex.auth.tasks import require_task, task_not_found, task_ref
from agentex.database import JsonObject, rows
from agentex.errors import InvalidInput, NotFound
from agentex.events.models import Event, EventRead
from agentex.ids import new_id, parse_id, rpc_delivery_key
from agentex.resources import Resources


@dataclass(frozen=True)
class EventsWanted:
    """Which of a task's events an agent asks for: those behind one of them, or from the first on."""

    task_id: UUID
    agent_id: UUID
    after: UUID | None
    limit: int


async def add(
    session: AsyncSession, *, account_id: str, task_id: UUID, agent_id: UUID, content: JsonObject | None
) -> EventRead:
    """A new event of this task; the caller has checked that the task is the agent's.

    Events of one task are numbered one after the other is committed: a reader that has seen a number would
    never come back for a lower one.
    """
    event_id = new_id()
    made = await rows(
        session,
        """
        WITH task AS (
            SELECT id, account_id FROM tasks WHERE id = :task_id AND account_id = :account_id
            FOR NO KEY UPDATE
        )
        INSERT INTO events (id, account_id, task_id, agent_id, content, delivery_key, created_at)
        SELECT :id, account_id, id, :agent_id, CAST(:content AS jsonb), :delivery_key, clock_timestamp()
        FROM task
        RETURNING id, sequence_id, task_id, agent_id, content::text AS content, created_at
        """,
        id=event_id,
        account_id=account_id,
        task_id=task_id,
        agent_id=agent_id,
        content=None if content is None else json.dumps(content),
        delivery_key=rpc_delivery_key(event_id),
    )
    if not made:
        raise task_not_found(task_id)
    return _read(made[0])


async def get(session: AsyncSession, resources: Resources, principal: Principal, event_id: str) -> EventRead:
    """One event, for those who may read its task."""
    found = await rows(
        session,
        """
        SELECT e.id, e.sequence_id, e.task_id, e.agent_id, e.content::text AS content, e.created_at, t.owner
        FROM events e JOIN tasks t ON t.id = e.task_id
        WHERE e.id = :id AND e.account_id = :account_id AND t.status <> 'DELETED'
        """,
        id=parse_id(event_id, "event"),
        account_id=principal.account_id,
    )
    absent = NotFound(f"event {event_id!r} not found")
    if not found:
        raise absent
    task = task_ref(principal, found[0]["task_id"], found[0]["owner"])
    with hidden_as(absent):
        await require(resources.authz, session, principal, Operation.READ, task)
    return _read(found[0])


async def list_after(
    session: AsyncSession, resources: Resources, principal: Principal, wanted: EventsWanted
) -> list[EventRead]:
    """An agent's events in a task, by sequence_id; raises InvalidInput for an `after` that is not of it."""
    await require_task(session, resources.authz, principal, Operation.READ, wanted.task_id)
    after = await _sequence_id(session, principal, wanted)
    found = await rows(
        session,
        LIST_SQL,
        task_id=wanted.task_id,
        agent_id=wanted.agent_id,
        account_id=principal.account_id,
        after=after,
        limit=wanted.limit,
    )
    return [_read(row) for row in found]


LIST_SQL = """
    SELECT id, sequence_id, task_id, agent_id, content::text AS content, created_at FROM events
    WHERE task_id = :task_id AND agent_id = :agent_id AND account_id = :account_id AND sequence_id > :after
    ORDER BY sequence_id LIMIT :limit
"""


async def _sequence_id(session: AsyncSession, principal: Principal, wanted: EventsWanted) -> int:
    """Behind which number the events are; also looks whether the agent exists."""
    found = await rows(
        session,
        """
        SELECT EXISTS (SELECT 1 FROM agents WHERE id = :agent_id AND account_id = :account_id) AS agent,
            (SELECT sequence_id FROM events WHERE id = :after AND task_id = :task_id) AS sequence_id
        """,
        agent_id=wanted.agent_id,
        account_id=principal.account_id,
        after=wanted.after,
        task_id=wanted.task_id,
    )
    if not found[0]["agent"]:
        raise NotFound(f"agent {str(wanted.agent_id)!r} not found")
    if wanted.after is None:
        return 0
    if found[0]["sequence_id"] is None:
        message = f"{str(wanted.after)!r} is no event of task {str(wanted.task_id)!r}"
        raise InvalidInput("last_processed_event_id", message)
    return found[0]["sequence_id"]


def wire_event(event: Event | EventRead) -> JsonObject:
    """The event as an agent gets it (wire.md §1b)."""
    return EventRead.model_validate(event).model_dump(mode="json")


def _read(row: RowMapping) -> EventRead:
    content = row["content"]
    return EventRead.model_validate({**row, "content": None if content is None else json.loads(content)})
