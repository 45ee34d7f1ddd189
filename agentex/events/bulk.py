"""Events of a whole page of runs in one statement."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlmodel.ext.asyncio.session import AsyncSession

from agentex.database import JsonObject, rows
from agentex.events.models import EventRead


@dataclass(frozen=True)
class NewEvent:
    """An event to make unless its delivery_key exists in the task."""

    id: UUID
    account_id: str
    task_id: UUID
    agent_id: UUID
    content: JsonObject | None
    delivery_key: str


async def ensure_events(session: AsyncSession, events: Sequence[NewEvent]) -> dict[str, EventRead]:
    """Make the events that lack, leave those that are there; returns all of them by delivery_key."""
    await rows(session, _INSERT_SQL, events=json.dumps([_as_json(event) for event in events]))
    found = await rows(
        session,
        """
        SELECT e.id, e.sequence_id, e.task_id, e.agent_id, e.content::text AS content, e.created_at,
            e.delivery_key
        FROM events e JOIN unnest(CAST(:tasks AS uuid[]), CAST(:keys AS text[])) AS k (task_id, delivery_key)
            ON e.task_id = k.task_id AND e.delivery_key = k.delivery_key
        """,
        tasks=[event.task_id for event in events],
        keys=[event.delivery_key for event in events],
    )
    return {
        row["delivery_key"]: EventRead.model_validate(
            {**row, "content": json.loads(row["content"]) if row["content"] else None}
        )
        for row in found
    }


_INSERT_SQL = """
    INSERT INTO events (id, account_id, task_id, agent_id, content, delivery_key, created_at)
    SELECT id, account_id, task_id, agent_id, content, delivery_key, clock_timestamp()
    FROM jsonb_to_recordset(CAST(:events AS jsonb)) AS e (
        id uuid, account_id text, task_id uuid, agent_id uuid, content jsonb, delivery_key text)
    ORDER BY task_id, delivery_key
    ON CONFLICT (task_id, delivery_key) DO NOTHING
"""


def _as_json(event: NewEvent) -> JsonObject:
    row: JsonObject = {
        "id": str(event.id),
        "account_id": event.account_id,
        "task_id": str(event.task_id),
        "agent_id": str(event.agent_id),
        "delivery_key": event.delivery_key,
    }
    # A key that is absent is SQL NULL; a JSON null would be the JSON literal.
    if event.content is not None:
        row["content"] = event.content
    return row
