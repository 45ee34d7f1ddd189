"""Settle and attach: what a change of a schedule does to the instants around it.

Before a schedule stops owing what it owed (pause, delete, another cadence or window), every instant that is
owed and not yet opened gets its row in the same transaction. Only schedule rows are locked, never a clock:
else this would deadlock with open_due or wait for a stampede.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlmodel.ext.asyncio.session import AsyncSession

from agentex.cadence.base import Cadence
from agentex.clocks.service import attach as attach_clock
from agentex.clocks.service import read_owed
from agentex.database import after_commit, clock_now, rows
from agentex.ids import FIRE_ID_SQL, UUID7_SQL
from agentex.runs.models import RunReason, RunStatus
from agentex.telemetry.metrics import INSTANTS_OPENED, RUNS_ENDED

# Instants up to this long after a create or a resume are not owed: it is not committed yet then.
ACTIVE_AFTER = timedelta(seconds=1)
# Rows a statement, so that a long backlog stays within the limit on a statement's time.
ROWS_AT_ONCE = 20_000


@dataclass(frozen=True)
class NewWindow:
    """The window that a change gives: only what falls out of it is settled."""

    start_at: datetime | None
    end_at: datetime | None


async def attach(
    session: AsyncSession,
    schedule_id: UUID,
    cadence: Cadence,
    now: datetime,
    *,
    after: timedelta = ACTIVE_AFTER,
) -> UUID:
    """Attach a schedule to its cadence's clock from so long after now; returns the clock's id."""
    clock_id = await attach_clock(session, cadence, now)
    await rows(
        session,
        """
        INSERT INTO schedule_clocks (schedule_id, clock_id, active_from)
        VALUES (:schedule, :clock, :active_from)
        ON CONFLICT (schedule_id, clock_id) DO NOTHING
        """,
        schedule=schedule_id,
        clock=clock_id,
        active_from=now + after,
    )
    return clock_id


async def detach(session: AsyncSession, schedule_ids: Sequence[UUID]) -> None:
    """Take schedules off their clocks; settle first."""
    await rows(
        session,
        """
        DELETE FROM schedule_clocks WHERE (schedule_id, clock_id) IN (
            SELECT schedule_id, clock_id FROM schedule_clocks WHERE schedule_id = ANY(CAST(:ids AS uuid[]))
            ORDER BY schedule_id, clock_id FOR UPDATE)
        """,
        ids=list(schedule_ids),
    )


async def detach_ended(session: AsyncSession) -> None:
    """Take schedules whose window is over, and all of it opened, off their clocks."""
    await rows(
        session,
        """
        WITH ended AS (
            -- Locked, so that a change that gives it a new window goes before or after, not in between.
            SELECT s.id, s.end_at FROM agent_run_schedules s
            WHERE s.end_at < clock_timestamp()
                AND EXISTS (SELECT 1 FROM schedule_clocks a WHERE a.schedule_id = s.id)
            ORDER BY s.id FOR NO KEY UPDATE SKIP LOCKED
        )
        DELETE FROM schedule_clocks sc USING ended e, clocks c
        WHERE e.id = sc.schedule_id AND c.id = sc.clock_id
            AND sc.checked_at IS NOT NULL AND (c.next_due_at IS NULL OR c.next_due_at > e.end_at)
        """,
    )


async def settle(
    session: AsyncSession, schedule_ids: Sequence[UUID], reason: RunReason, *, window: NewWindow | None = None
) -> datetime:
    """Give every owed instant without a row its skipped row; returns the moment up to which that is done.

    Nobody can tell what a clock owes whose cadence cannot be read: it is passed over, and the log says so.
    Call it before the schedule's row is written: it reads what was owed until now.
    """
    now = await clock_now(session)
    clocks = await rows(
        session,
        """
        SELECT c.id, c.cadence::text AS cadence, least(min(c.next_due_at), min(sc.active_from)
            FILTER (WHERE sc.checked_at IS NULL)) AS first
        FROM schedule_clocks sc JOIN clocks c ON c.id = sc.clock_id
        WHERE sc.schedule_id = ANY(CAST(:ids AS uuid[]))
        GROUP BY c.id
        """,
        ids=list(schedule_ids),
    )
    at_once = max(ROWS_AT_ONCE // max(len(schedule_ids), 1), 1)
    for clock in clocks:
        first = clock["first"]
        while first is not None and first <= now:
            owed = read_owed(session, clock, first, now, limit=at_once, by="settle")
            if owed is None:
                break
            inserted = await rows(
                session,
                _SETTLE_SQL + (_OUTSIDE_SQL if window else "") + _ON_CONFLICT_SQL,
                ids=list(schedule_ids),
                clock_id=clock["id"],
                due_ats=owed.instants,
                reason=reason,
                now=now,
                **({"new_start": window.start_at, "new_end": window.end_at} if window else {}),
            )
            for row in inserted:
                after_commit(session, INSTANTS_OPENED.labels(by="settle", outcome=row["reason"]).inc)
                ended = RUNS_ENDED.labels(status=RunStatus.SKIPPED, reason=row["reason"])
                after_commit(session, ended.inc)
            first = owed.next_due_at
    return now


_FIRE = FIRE_ID_SQL.format("i.due_at")
_SETTLE_SQL = f"""
    INSERT INTO runs (id, account_id, agent_id, schedule_id, schedule_version, fire_id, cause, due_at, status,
        reason, opened_at, finished_at, updated_at, principal)
    SELECT {UUID7_SQL}, s.account_id, s.agent_id, s.id, s.version, {_FIRE}, 'cadence', i.due_at, 'skipped',
        CASE WHEN s.skipped_action_times ? {_FIRE} THEN 'skipped_by_user' ELSE :reason END,
        :now, :now, :now, s.creator_principal
    FROM unnest(CAST(:due_ats AS timestamptz[])) AS i (due_at)
    JOIN schedule_clocks sc ON sc.clock_id = :clock_id AND sc.active_from < i.due_at
    JOIN agent_run_schedules s ON s.id = sc.schedule_id
    WHERE s.id = ANY(CAST(:ids AS uuid[]))
        AND (s.start_at IS NULL OR i.due_at >= s.start_at) AND (s.end_at IS NULL OR i.due_at <= s.end_at)
"""
_OUTSIDE_SQL = """
        AND (i.due_at < CAST(:new_start AS timestamptz) OR i.due_at > CAST(:new_end AS timestamptz))
"""
_ON_CONFLICT_SQL = """
    ORDER BY s.id, i.due_at ON CONFLICT (schedule_id, fire_id) DO NOTHING RETURNING reason
"""
