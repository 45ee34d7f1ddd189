"""Clocks: attach schedules to them, and retire those that nobody needs."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import RowMapping
from sqlmodel.ext.asyncio.session import AsyncSession

from agentex.cadence.base import Cadence
from agentex.cadence.registry import from_json
from agentex.database import after_commit, rows
from agentex.errors import InvalidInput
from agentex.ids import new_id
from agentex.settings import Settings
from agentex.telemetry.metrics import CLOCKS_UNREADABLE

log = logging.getLogger(__name__)

# What a stored cadence may raise that is none any more: its zone is gone from tzdata, its JSON was changed.
CADENCE_ERRORS = (
    InvalidInput,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    OSError,
)
# Broken clocks that one look takes, the longest unseen first: a zone not yet read costs 1 ms.
LOOK_AGAIN_AT_ONCE = 500

_NOTE_IDLE = """
    UPDATE clocks SET idle_since = {value} WHERE id IN (
        SELECT c.id FROM clocks c
        WHERE c.retired_at IS NULL AND c.idle_since {was}
          AND {has} (SELECT 1 FROM schedule_clocks sc WHERE sc.clock_id = c.id)
        ORDER BY c.id LIMIT 500 FOR NO KEY UPDATE SKIP LOCKED)
"""


@dataclass(frozen=True)
class Owed:
    """Instants of a clock, oldest first, and the first one after them; None when there is none."""

    instants: list[datetime]
    next_due_at: datetime | None


@dataclass(frozen=True)
class OwnClock:
    """A clock that a Temporal Schedule of its own rings; its cadence is an interval."""

    id: UUID
    interval_seconds: int


async def attach(session: AsyncSession, cadence: Cadence, now: datetime) -> UUID:
    """The id of the cadence's clock, made when there is none, brought back when it is retired.

    The row is held FOR KEY SHARE until the transaction ends: that keeps it from being retired and, unlike
    FOR UPDATE, does not wait for a tick that is opening it (4–17 ms against 1.8–8 s).
    """
    await rows(
        session,
        """
        INSERT INTO clocks (id, cadence_key, cadence, whole_minutes, next_due_at, created_at)
        VALUES (:id, :key, CAST(:cadence AS jsonb), :whole_minutes, :next_due_at, clock_timestamp())
        ON CONFLICT (cadence_key) DO NOTHING
        """,
        id=new_id(),
        key=cadence.key,
        cadence=json.dumps(cadence.to_json()),
        whole_minutes=cadence.whole_minutes,
        next_due_at=cadence.next_after(now),
    )
    found = await rows(
        session,
        "SELECT id, retired_at FROM clocks WHERE cadence_key = :key FOR KEY SHARE",
        key=cadence.key,
    )
    clock = found[0]
    if clock["retired_at"] is not None:
        await rows(
            session,
            """
            UPDATE clocks SET retired_at = NULL, synced_at = NULL, broken_at = NULL,
                next_due_at = :next_due_at
            WHERE id = :id AND retired_at IS NOT NULL
            """,
            id=clock["id"],
            next_due_at=cadence.next_after(now),
        )
    return clock["id"]


async def retire_unused(session: AsyncSession, settings: Settings) -> int:
    """Retire clocks that no schedule has had for a while; returns how many.

    Lock first, look second: an attach that holds the clock makes it skipped here, and the second
    statement sees what an earlier one attached. A clock that a tick is opening is left for next time.
    """
    await rows(session, _NOTE_IDLE.format(was="IS NULL", has="NOT EXISTS", value="clock_timestamp()"))
    await rows(session, _NOTE_IDLE.format(was="IS NOT NULL", has="EXISTS", value="NULL"))
    idle = await rows(
        session,
        """
        SELECT id FROM clocks
        WHERE retired_at IS NULL AND idle_since < clock_timestamp() - make_interval(secs => :idle)
        ORDER BY id LIMIT 500 FOR UPDATE SKIP LOCKED
        """,
        idle=settings.clock_retire_after_seconds,
    )
    retired = await rows(
        session,
        """
        UPDATE clocks c SET retired_at = clock_timestamp(), idle_since = NULL
        WHERE c.id = ANY(CAST(:ids AS uuid[]))
          AND NOT EXISTS (SELECT 1 FROM schedule_clocks sc WHERE sc.clock_id = c.id)
        RETURNING c.id
        """,
        ids=[row["id"] for row in idle],
    )
    return len(retired)


async def own_clocks(session: AsyncSession) -> list[OwnClock]:
    """Every clock that needs a Temporal Schedule of its own; not those whose interval cannot be read."""
    found = await rows(
        session,
        """
        SELECT id, CASE WHEN cadence->>'seconds' ~ '^[1-9][0-9]{0,7}$' THEN (cadence->>'seconds')::int END
            AS seconds
        FROM clocks WHERE retired_at IS NULL AND NOT whole_minutes ORDER BY id
        """,
    )
    return [OwnClock(row["id"], row["seconds"]) for row in found if row["seconds"] is not None]


def read_owed(
    session: AsyncSession, clock: RowMapping, first: datetime, until: datetime, *, limit: int, by: str
) -> Owed | None:
    """A clock's instants from first to until; None, logged and counted, when its cadence cannot be read.

    The next one is after the last of them, or after `until` when there are none.
    """
    try:
        cadence = from_json(json.loads(clock["cadence"]))
        instants = cadence.between(first, until, limit=limit)
        return Owed(instants, cadence.next_after(instants[-1] if instants else until))
    except CADENCE_ERRORS as error:
        log.error(  # noqa: TRY400 - the line says it all, and it comes every minute
            "a clock stands still: its cadence cannot be read",
            extra={"action": "clock.unreadable", "clock_id": str(clock["id"]), "by": by, "error": str(error)},
        )
        after_commit(session, CLOCKS_UNREADABLE.labels(by=by).inc)
        return None


async def mark_broken(session: AsyncSession, ids: Sequence[UUID]) -> None:
    """Take clocks that the caller has locked out of what is owed; where they stand is kept."""
    await rows(
        session,
        "UPDATE clocks SET broken_at = clock_timestamp() WHERE id = ANY(CAST(:ids AS uuid[]))",
        ids=list(ids),
    )


async def look_again(session: AsyncSession) -> int:
    """Let broken clocks go on whose cadence can be read again, from where they stood; returns how many."""
    broken = await rows(
        session,
        """
        SELECT id, cadence::text AS cadence, coalesce(next_due_at, clock_timestamp()) AS due_at FROM clocks
        WHERE retired_at IS NULL AND broken_at IS NOT NULL
        ORDER BY broken_at, id LIMIT :limit FOR NO KEY UPDATE SKIP LOCKED
        """,
        limit=LOOK_AGAIN_AT_ONCE,
    )
    if not broken:
        return 0
    mended = [
        clock["id"]
        for clock in broken
        if read_owed(session, clock, clock["due_at"], clock["due_at"], limit=1, by="sweep") is not None
    ]
    await mark_broken(session, [clock["id"] for clock in broken])
    await rows(session, "UPDATE clocks SET broken_at = NULL WHERE id = ANY(CAST(:ids AS uuid[]))", ids=mended)
    return len(mended)


async def mark_synced(session: AsyncSession, ids: Sequence[UUID]) -> None:
    """Note, once, that Temporal has these clocks' schedules; no lock is waited for or kept from a tick."""
    await rows(
        session,
        """
        UPDATE clocks SET synced_at = clock_timestamp() WHERE id IN (
            SELECT id FROM clocks WHERE id = ANY(CAST(:ids AS uuid[])) AND synced_at IS NULL
            ORDER BY id FOR NO KEY UPDATE SKIP LOCKED)
        """,
        ids=list(ids),
    )
