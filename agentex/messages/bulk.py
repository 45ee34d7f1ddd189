"""Messages of a whole group of runs in one statement."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlmodel.ext.asyncio.session import AsyncSession

from agentex.database import JsonObject, rows


@dataclass(frozen=True)
class NewMessage:
    """A message to make unless its id exists; place orders those that are made at one moment."""

    id: UUID
    account_id: str
    task_id: UUID
    content: JsonObject
    place: int = 0


async def ensure_messages(session: AsyncSession, messages: Sequence[NewMessage]) -> None:
    """Make the messages that lack; a repeat makes none."""
    if not messages:
        return
    await rows(session, _INSERT_SQL, messages=json.dumps([_as_json(message) for message in messages]))


_INSERT_SQL = """
    INSERT INTO messages (id, account_id, task_id, content, streaming_status, created_at, updated_at)
    SELECT id, account_id, task_id, content, 'DONE',
        statement_timestamp() + make_interval(secs => place / 1000000.0), statement_timestamp()
    FROM jsonb_to_recordset(CAST(:messages AS jsonb)) AS m (
        id uuid, account_id text, task_id uuid, content jsonb, place int)
    ORDER BY id
    ON CONFLICT (id) DO NOTHING
"""


def _as_json(message: NewMessage) -> JsonObject:
    return {
        "id": str(message.id),
        "account_id": message.account_id,
        "task_id": str(message.task_id),
        "content": message.content,
        "place": message.place,
    }
