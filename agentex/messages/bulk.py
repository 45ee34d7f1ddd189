"""Many messages in one statement: of a page of runs, of an answer as it grows, of a client's batch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import RowMapping
from sqlmodel.ext.asyncio.session import AsyncSession

from agentex.database import JsonObject, rows
from agentex.messages.models import MessageRead, StreamingStatus
from agentex.resources import ClosedTask


@dataclass(frozen=True)
class NewMessage:
    """A message to make unless its id exists; place orders those that are made at one moment."""

    id: UUID
    account_id: str
    task_id: UUID
    content: JsonObject
    place: int = 0
    streaming_status: StreamingStatus | None = StreamingStatus.DONE


async def ensure_messages(session: AsyncSession, messages: Sequence[NewMessage]) -> None:
    """Make the messages that lack; a repeat makes none."""
    if not messages:
        return
    await rows(session, f"{_INSERT_SQL} ON CONFLICT (id) DO NOTHING", messages=_as_json(messages))


async def write_messages(session: AsyncSession, messages: Sequence[NewMessage]) -> list[MessageRead]:
    """Make the messages that lack, give the others this content and status; returns all in this order.

    For an answer that grows: its start, and its end under the same id. Ids must differ. One that exists in
    another task or account is neither changed nor returned.
    """
    if not messages:
        return []
    written = await rows(
        session,
        f"""
        {_INSERT_SQL}
        ON CONFLICT (id) DO UPDATE SET content = excluded.content,
            streaming_status = excluded.streaming_status, updated_at = clock_timestamp()
            WHERE messages.account_id = excluded.account_id AND messages.task_id = excluded.task_id
        RETURNING id, task_id, content::text AS content, streaming_status, created_at, updated_at
        """,
        messages=_as_json(messages),
    )
    by_id = {row["id"]: read_row(row) for row in written}
    return [by_id[message.id] for message in messages if message.id in by_id]


async def end_open_messages(session: AsyncSession, closed: ClosedTask) -> None:
    """The tasks' hook: what was being written in a task that is closed is done as it stands.

    But not what a message/send still writes (rpc/sends.py): that ends by itself, or with its claim.
    """
    await rows(
        session,
        """
        UPDATE messages SET streaming_status = 'DONE', updated_at = clock_timestamp()
        WHERE id IN (
            SELECT m.id FROM messages m
            WHERE m.task_id = :task_id AND m.streaming_status = 'IN_PROGRESS' AND NOT EXISTS (
                SELECT 1 FROM message_sends s
                WHERE s.task_id = :task_id AND s.ended_at IS NULL AND m.id = ANY(s.message_ids))
            ORDER BY m.id FOR NO KEY UPDATE)
        """,
        task_id=closed.task_id,
    )


def read_row(row: RowMapping) -> MessageRead:
    """A message from a textual statement, whose content is text."""
    return MessageRead.model_validate({**row, "content": json.loads(row["content"])})


_INSERT_SQL = """
    INSERT INTO messages (id, account_id, task_id, content, streaming_status, created_at, updated_at)
    SELECT id, account_id, task_id, content, streaming_status,
        statement_timestamp() + make_interval(secs => place / 1000000.0), statement_timestamp()
    FROM jsonb_to_recordset(CAST(:messages AS jsonb)) AS m (
        id uuid, account_id text, task_id uuid, content jsonb, place int, streaming_status text)
    ORDER BY id
"""


def _as_json(messages: Sequence[NewMessage]) -> str:
    return json.dumps(
        [
            {
                "id": str(message.id),
                "account_id": message.account_id,
                "task_id": str(message.task_id),
                "content": message.content,
                "place": message.place,
                "streaming_status": message.streaming_status,
            }
            for message in messages
        ]
    )


# A client's messages, made or not as a whole: `contents` are JSON texts in the order of `ids`, each a
# millisecond behind the one before. The lock of idempotency.find_entry comes first, so that a repeat waits
# for its original; then KEY SHARE, as the foreign key would take it, but before the write: a task that is
# being forgotten is then not found, rather than a violation.
CREATE_SQL = """
    WITH held AS MATERIALIZED (SELECT pg_advisory_xact_lock(:entry_lock))
    INSERT INTO messages (id, account_id, task_id, content, streaming_status, created_at, updated_at)
    SELECT c.id, t.account_id, t.id, c.content, :streaming_status,
        coalesce(CAST(:created_at AS timestamptz), now()) + make_interval(secs => (c.place - 1) / 1000.0),
        now()
    FROM (SELECT id, account_id FROM tasks WHERE id = :task_id AND account_id = :account_id
            AND (SELECT count(*) FROM held) = 1 FOR KEY SHARE) t,
        ROWS FROM (unnest(CAST(:ids AS uuid[])), unnest(CAST(:contents AS jsonb[])))
            WITH ORDINALITY AS c (id, content, place)
    RETURNING id, task_id, streaming_status, created_at, updated_at
"""
# The same for changes, of which a repeat is none: nothing is written unless each of them is a message of the
# task. The rows are locked in the order of their ids, so that two batches cannot wait for each other.
UPDATE_BATCH_SQL = """
    WITH given AS (
        SELECT * FROM ROWS FROM (unnest(CAST(:ids AS uuid[])), unnest(CAST(:contents AS jsonb[])))
            AS g (id, content)
    ), found AS (
        SELECT m.id FROM messages m
        WHERE m.id = ANY(CAST(:ids AS uuid[])) AND m.task_id = :task_id AND m.account_id = :account_id
        ORDER BY m.id FOR NO KEY UPDATE
    )
    UPDATE messages m SET content = g.content, updated_at = now()
    FROM given g
    WHERE m.id = g.id AND m.id IN (SELECT id FROM found)
        AND (SELECT count(*) FROM found) = cardinality(CAST(:ids AS uuid[]))
    RETURNING m.id, m.task_id, m.streaming_status, m.created_at, m.updated_at
"""
