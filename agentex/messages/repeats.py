"""Messages under a caller's own key, and silent repeats: one request makes its messages once.

A first request leaves no entry, for that would be a second row with each message. So a silent repeat without
one takes what its original has made by what it looks like: the newest of the task, of the last ten minutes,
that no other repeat of this request has taken yet.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import cast
from uuid import UUID

from sqlmodel.ext.asyncio.session import AsyncSession

from agentex.acp.messages import MessageContent
from agentex.auth.principal import Principal
from agentex.database import rows
from agentex.errors import NotFound
from agentex.idempotency import REPEAT_WINDOW_SECONDS, Repeat, find_entry, remember
from agentex.messages.bulk import read_row
from agentex.messages.models import MessageRead, StreamingStatus


@dataclass(frozen=True)
class Wanted:
    """What a request adds to a task, in its order; without created_at it is now."""

    task_id: UUID
    contents: Sequence[MessageContent]
    created_at: datetime | None = None
    streaming_status: StreamingStatus | None = None

    @cached_property
    def texts(self) -> list[str]:
        """The contents as JSON."""
        return [content.model_dump_json() for content in self.contents]


async def find_made(
    session: AsyncSession, principal: Principal, repeat: Repeat, wanted: Wanted
) -> list[MessageRead] | None:
    """What this request has made before, as it is now; None when it is new, and is to be `note`d.

    Holds the lock of `find_entry` until the transaction ends. Raises NotFound when some of it is gone.
    """
    entry = await find_entry(session, repeat)
    if entry is not None:
        return await _read(session, [UUID(id_) for id_ in cast("list[str]", entry.answer["messages"])])
    ids = await _look_for(session, principal, repeat, wanted) if repeat.key is None else []
    if not ids:
        return None
    await note(session, repeat, ids)
    return await _read(session, ids)


async def note(session: AsyncSession, repeat: Repeat, ids: Sequence[UUID]) -> None:
    """Remember what this request has made."""
    await remember(session, repeat, {"messages": [str(id_) for id_ in ids]})


# What one request makes has one updated_at, and it is looked at as a whole.
_LOOK_SQL = """
    WITH asked AS (
        SELECT * FROM unnest(CAST(:contents AS jsonb[])) WITH ORDINALITY AS c (content, place)
    ), bounds AS (
        SELECT clock_timestamp() - make_interval(secs => :window) AS oldest,
            CAST(:created_at AS timestamptz) AS first, CAST(:number AS int) AS number
    ), taken AS MATERIALIZED (
        SELECT CAST(jsonb_array_elements_text(answer -> 'messages') AS uuid) AS id
        FROM idempotency_keys WHERE fingerprint = :fingerprint
    ), recent AS (
        SELECT m.id, m.content, m.updated_at, count(*) OVER (PARTITION BY m.updated_at) AS number,
            row_number() OVER (PARTITION BY m.updated_at ORDER BY m.created_at, m.id) AS place
        FROM bounds JOIN messages m ON m.task_id = :task_id AND m.account_id = :account_id
            AND m.created_at >= coalesce(first, oldest) AND m.updated_at > oldest
            AND (first IS NULL OR m.created_at < first + make_interval(secs => bounds.number / 1000.0))
            AND m.streaming_status IS NOT DISTINCT FROM :streaming_status
        WHERE m.id NOT IN (SELECT id FROM taken)
    )
    SELECT array_agg(id ORDER BY place) AS ids
    FROM bounds JOIN recent USING (number) JOIN asked USING (place, content)
    GROUP BY updated_at, number HAVING count(*) = number ORDER BY updated_at DESC LIMIT 1
"""


async def _look_for(
    session: AsyncSession, principal: Principal, repeat: Repeat, wanted: Wanted
) -> list[UUID]:
    """Its messages in their order; none where it has made none."""
    found = await rows(
        session,
        _LOOK_SQL,
        contents=wanted.texts,
        number=len(wanted.texts),
        created_at=wanted.created_at,
        streaming_status=wanted.streaming_status,
        task_id=wanted.task_id,
        account_id=principal.account_id,
        fingerprint=repeat.fingerprint,
        window=REPEAT_WINDOW_SECONDS,
    )
    return found[0]["ids"] if found else []


async def _read(session: AsyncSession, ids: Sequence[UUID]) -> list[MessageRead]:
    found = await rows(
        session,
        """
        SELECT m.id, m.task_id, m.content::text AS content, m.streaming_status, m.created_at, m.updated_at
        FROM unnest(CAST(:ids AS uuid[])) WITH ORDINALITY AS i (id, place) JOIN messages m ON m.id = i.id
        ORDER BY i.place
        """,
        ids=list(ids),
    )
    if len(found) < len(ids):
        raise NotFound("this request was carried out before, and what it made has been removed since")
    return [read_row(row) for row in found]
