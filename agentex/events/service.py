"""Events: made by a client's event/send, or in bulk by a page of runs (bulk.py)."""

from __future__ import annotations

from uuid import UUID

from sqlmodel.ext.asyncio.session import AsyncSession

from agentex.database import JsonObject
from agentex.events.bulk import NewEvent, ensure_events
from agentex.events.models import Event, EventRead
from agentex.ids import new_id, rpc_delivery_key


async def add(
    session: AsyncSession, *, account_id: str, task_id: UUID, agent_id: UUID, content: JsonObject | None
) -> EventRead:
    """A new event of this task; the caller has checked that the task is the agent's."""
    event_id = new_id()
    key = rpc_delivery_key(event_id)
    made = await ensure_events(session, [NewEvent(event_id, account_id, task_id, agent_id, content, key)])
    return made[key]


def wire_event(event: Event | EventRead) -> JsonObject:
    """The event as an agent gets it (wire.md §1b)."""
    return EventRead.model_validate(event).model_dump(mode="json")
