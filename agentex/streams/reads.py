"""The statements of streams: which tasks are watched, and what came after a cursor."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlmodel.ext.asyncio.session import AsyncSession

from agentex.database import JsonObject, rows
from agentex.streams.cursor import Cursor, Part, Snapshot


@dataclass(frozen=True, slots=True)
class Position:
    """Where to read a task on; without a cursor only how it stands, and which messages are being written."""

    task_id: UUID
    cursor: Cursor | None


@dataclass(frozen=True, slots=True)
class MessageRow:
    """A message that was written after the position: as a row, in JSON."""

    xid: int
    at: datetime
    id: UUID
    row: JsonObject

    def place(self) -> tuple[int, datetime, bytes]:
        """Its place in the order in which rows come."""
        return self.xid, self.at, self.id.bytes


@dataclass(frozen=True, slots=True)
class Found:
    """What came at one position. `status` None: there is no such task any more.

    `task` is the task's row, where it was written after the position; `open_ids` are the messages that are
    still being written, where no message but they were asked for.
    """

    messages: list[MessageRow]
    status: str | None
    task: JsonObject | None
    task_xid: int
    open_ids: list[UUID]


@dataclass(frozen=True, slots=True)
class Scan:
    """What one statement has found, by position, and its snapshot; not complete where the limit cut it."""

    now: Snapshot
    found: list[Found]
    complete: bool

    def target(self, cursor: Cursor) -> Snapshot:
        """The snapshot that a position at this cursor is on its way to."""
        return cursor.part.target if cursor.part is not None else self.now

    def is_now(self, cursor: Cursor) -> bool:
        """Whether a position that was at this cursor has come all the way to this moment."""
        return self.complete and cursor.part is None

    def task_of(self, found: Found, cursor: Cursor) -> JsonObject | None:
        """The task, if it was written on this part of the way: it comes when all of its messages have."""
        if found.task is None or not self.complete or not self.target(cursor).sees(found.task_xid):
            return None
        return found.task

    def behind(self, cursor: Cursor) -> Cursor:
        """Where a position has come to that was at this cursor."""
        target = self.target(cursor)
        if self.complete:
            return Cursor(target)
        last = max((one.messages[-1] for one in self.found if one.messages), key=MessageRow.place)
        return Cursor(cursor.seen, Part(target, last.xid, last.id))


# xmin has 32 bits; the snapshot's xmax, above all that is visible, has the rest.
_XID_SQL = "c.xmax - ((c.xmax - {}.xmin::text::bigint) & 4294967295)"
_SEEN_SQL = "({xid} < {by}_xmin OR ({xid} < {by}_xmax AND {xid} <> ALL ({by}_running)))"
_SCAN_SQL = f"""
    WITH c AS MATERIALIZED (
        SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint AS xmax,
            pg_current_snapshot()::text AS now
    ), p AS MATERIALIZED (
        SELECT p.*, coalesce(u.created_at, '-infinity') AS upto_instant
        FROM jsonb_to_recordset(CAST(:positions AS jsonb)) AS p (number int, task_id uuid, whole bool,
            seen_xmin bigint, seen_xmax bigint, seen_running bigint[],
            target_xmin bigint, target_xmax bigint, target_running bigint[],
            upto_xid bigint, upto_row uuid)
        LEFT JOIN messages u ON u.id = p.upto_row
    ), m AS (
        SELECT p.number, x.xid, m.created_at, m.id
        FROM c CROSS JOIN p JOIN messages m ON m.task_id = p.task_id
            CROSS JOIN LATERAL (SELECT {_XID_SQL.format("m")} AS xid) x
        WHERE p.whole
            AND NOT {_SEEN_SQL.format(xid="x.xid", by="p.seen")}
            AND (p.target_xmin IS NULL OR {_SEEN_SQL.format(xid="x.xid", by="p.target")})
            AND (p.upto_xid IS NULL
                OR (x.xid, m.created_at, m.id) > (p.upto_xid, p.upto_instant, p.upto_row))
        ORDER BY x.xid, m.created_at, m.id LIMIT :limit
    )
    SELECT -1 AS number, 0::bigint AS xid, NULL::timestamptz AS at, NULL::uuid AS id, c.now AS row,
        NULL::text AS status, NULL::uuid[] AS open_ids
    FROM c
    UNION ALL
    SELECT m.number, m.xid, m.created_at, m.id, (SELECT to_jsonb(w)::text FROM messages w WHERE w.id = m.id),
        NULL, NULL
    FROM m
    UNION ALL
    SELECT p.number, x.xid, NULL, t.id,
        CASE WHEN NOT p.whole OR NOT {_SEEN_SQL.format(xid="x.xid", by="p.seen")}
            THEN to_jsonb(t)::text END,
        t.status, CASE WHEN NOT p.whole AND :open THEN
            ARRAY(SELECT o.id FROM messages o WHERE o.task_id = t.id AND o.streaming_status = 'IN_PROGRESS')
        END
    FROM c CROSS JOIN p JOIN tasks t ON t.id = p.task_id
        CROSS JOIN LATERAL (SELECT {_XID_SQL.format("t")} AS xid) x
"""


async def scan(
    session: AsyncSession, positions: Sequence[Position], *, limit: int, open_ids: bool = False
) -> Scan:
    """What came after each position, at one moment; at most `limit` messages, by transaction, instant, id."""
    given = json.dumps([_as_json(number, position) for number, position in enumerate(positions)])
    result = await rows(session, _SCAN_SQL, positions=given, limit=limit, open=open_ids)
    found = [Found([], None, None, 0, []) for _ in positions]
    now, count = "", 0
    for row in result:
        number: int = row["number"]
        if number < 0:
            now = row["row"]
        elif row["at"] is None:
            task = None if row["row"] is None else json.loads(row["row"])
            messages = found[number].messages
            found[number] = Found(messages, row["status"], task, row["xid"], row["open_ids"] or [])
        else:
            count += 1
            found[number].messages.append(
                MessageRow(row["xid"], row["at"], row["id"], json.loads(row["row"]))
            )
    for one in found:
        one.messages.sort(key=MessageRow.place)
    return Scan(Snapshot.parse(now), found, count < limit)


def _as_json(number: int, position: Position) -> dict[str, Any]:
    cursor = position.cursor
    given: dict[str, Any] = {"number": number, "task_id": str(position.task_id), "whole": cursor is not None}
    if cursor is None:
        return given
    part = cursor.part
    for name, snapshot in (("seen", cursor.seen), ("target", part.target if part else None)):
        if snapshot is not None:
            given[f"{name}_xmin"], given[f"{name}_xmax"] = snapshot.xmin, snapshot.xmax
            given[f"{name}_running"] = list(snapshot.running)
    if part is not None:
        given["upto_xid"], given["upto_row"] = part.xid, str(part.row)
    return given


async def watch(session: AsyncSession, listener: int, task_ids: Iterable[UUID]) -> None:
    """From its commit on each write to these tasks is told to the listening connection."""
    await rows(
        session,
        """
        INSERT INTO stream_watches (task_id, listener)
        SELECT id, :listener FROM unnest(CAST(:ids AS uuid[])) AS id ORDER BY id
        ON CONFLICT (task_id, listener) DO NOTHING
        """,
        listener=listener,
        ids=list(task_ids),
    )


async def unwatch(session: AsyncSession, listener: int, task_ids: Iterable[UUID]) -> None:
    """These tasks need not be told any more."""
    await rows(
        session,
        "DELETE FROM stream_watches WHERE listener = :listener AND task_id = ANY(CAST(:ids AS uuid[]))",
        listener=listener,
        ids=list(task_ids),
    )


async def forget_listeners(session: AsyncSession, listener: int) -> None:
    """Remove what connections have left that are gone, and what an earlier one of this number has left."""
    await rows(
        session,
        """
        DELETE FROM stream_watches w WHERE w.listener = :listener
            OR NOT EXISTS (SELECT 1 FROM pg_stat_activity a WHERE a.pid = w.listener)
        """,
        listener=listener,
    )
