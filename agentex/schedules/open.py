"""open_due: what clocks owe becomes rows of the ledger, set-based, in one transaction a round.

The clock's cadence says which instants exist; one statement makes the runs of all its schedules, each
decided by DECISIONS, first match wins; the same transaction moves next_due_at past them. So no instant can
be jumped over or opened twice, whatever order ticks arrive in.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

from sqlalchemy import RowMapping
from sqlmodel.ext.asyncio.session import AsyncSession

from agentex.clocks.service import mark_broken, read_owed
from agentex.database import after_commit, clock_now, rows
from agentex.executors.base import Lane
from agentex.ids import FIRE_ID_SQL, UUID7_SQL
from agentex.runs.models import RunReason, RunStatus
from agentex.runs.pages import PLACE_SQL
from agentex.schedules.catch_up import LATE_SQL, MISSED_SQL
from agentex.schedules.models import MAX_STAGGER_SECONDS, FinishesOn
from agentex.settings import Settings
from agentex.telemetry.metrics import INSTANTS_OPENED, OPEN_SECONDS, RUNS_ENDED

# Clocks a round: 500 cadences × 40 rows opened in 0.67 s with batches of 50.
CLOCKS_PER_ROUND = 50
# Rows a transaction: ~1 s, so that a create or pause that meets it waits no longer.
ROWS_PER_ROUND = 20_000

# Why an owed instant is not run, in order; what no condition takes is due. Each condition reads `owed`.
DECISIONS: tuple[tuple[RunReason, str], ...] = (
    (RunReason.SKIPPED_BY_USER, "skipped_by_user"),
    (RunReason.MISSED, MISSED_SQL),
)
_REASON_SQL = (
    "CASE " + " ".join(f"WHEN {condition} THEN '{reason}'" for reason, condition in DECISIONS) + " END"
)

# A schedule's place in its stagger: the same each time, spread evenly.
_STAGGER_SQL = """make_interval(secs => CASE WHEN coalesce((s.policies->>'stagger_seconds')::int, 0) > 0
    THEN (hashtext(s.id::text)::bigint + 2147483648) % (s.policies->>'stagger_seconds')::int ELSE 0 END)"""

# Whether the schedule s, attached by sc, owes the instant i.
_INSIDE_SQL = """sc.active_from < i.due_at
        AND (s.start_at IS NULL OR i.due_at >= s.start_at) AND (s.end_at IS NULL OR i.due_at <= s.end_at)"""

_OWED_SQL = f"""
    SELECT s.id AS schedule_id, s.account_id, s.agent_id, s.version, s.creator_principal, a.acp_type,
        i.clock_id, i.due_at, {FIRE_ID_SQL.format("i.due_at")} AS fire_id,
        i.due_at + {_STAGGER_SQL} AS start_at,
        s.skipped_action_times ? {FIRE_ID_SQL.format("i.due_at")} AS skipped_by_user,
        coalesce((s.policies->'retries'->>'resend_unknown')::boolean, false) AS resend_unknown,
        coalesce(s.policies->>'finishes_on' = '{FinishesOn.TASK}', false) AS finishes_on_task
    FROM unnest(CAST(:clock_ids AS uuid[]), CAST(:due_ats AS timestamptz[])) AS i (clock_id, due_at)
    JOIN schedule_clocks sc ON sc.clock_id = i.clock_id {{attachments}}
    JOIN agent_run_schedules s ON s.id = sc.schedule_id
    JOIN agents a ON a.id = s.agent_id
    WHERE s.deleted_at IS NULL AND NOT s.paused AND a.deleted_at IS NULL AND {_INSIDE_SQL}
        AND NOT EXISTS (
            SELECT 1 FROM runs r
            WHERE r.schedule_id = s.id AND r.fire_id = {FIRE_ID_SQL.format("i.due_at")})
"""

# The newest instant of an `owed` row's clock, opened now or later, that its schedule owes and the user has
# not skipped. Looked for backwards from the end, so that most schedules cost one look and not one for each
# instant: an hour of seconds for 1,000 schedules is 3.6 million pairs, which took 23 s. Ordinality is what
# Postgres knows to be sorted, and a subquery compared with NULL is what it makes no join of that would lose
# the order.
_NEWEST_SQL = f"""(
    SELECT (
        SELECT i.due_at FROM unnest(ahead.due_ats) WITH ORDINALITY AS i (due_at, place)
        WHERE {_INSIDE_SQL} AND NOT s.skipped_action_times ? {FIRE_ID_SQL.format("i.due_at")}
            AND (SELECT r.id FROM runs r
                WHERE r.schedule_id = s.id AND r.fire_id = {FIRE_ID_SQL.format("i.due_at")}) IS NULL
        ORDER BY i.place LIMIT 1)
    FROM ahead
    JOIN schedule_clocks sc ON sc.clock_id = ahead.clock_id AND sc.schedule_id = owed.schedule_id
    JOIN agent_run_schedules s ON s.id = sc.schedule_id
    WHERE ahead.clock_id = owed.clock_id)"""

_OPEN_SQL = f"""
    WITH found AS ({_OWED_SQL}), ahead AS MATERIALIZED (
        SELECT clock_id, array_agg(due_at ORDER BY due_at DESC) AS due_ats
        FROM unnest(CAST(:clock_ids AS uuid[]) || CAST(:ahead_clock_ids AS uuid[]),
            CAST(:due_ats AS timestamptz[]) || CAST(:ahead_due_ats AS timestamptz[])) AS i (clock_id, due_at)
        GROUP BY clock_id
    ), owed AS (
        SELECT *, {LATE_SQL} AS late,
            row_number() OVER (PARTITION BY schedule_id, clock_id ORDER BY due_at) AS nth
        FROM found
    ), compared AS (
        -- Once for each schedule that has a late one: its oldest is late then.
        SELECT *, max(CASE WHEN late AND nth = 1 THEN {_NEWEST_SQL} END) OVER (PARTITION BY schedule_id)
            AS newest
        FROM owed
    ), decided AS (
        SELECT *, {_REASON_SQL} AS reason, row_number() OVER (ORDER BY due_at, schedule_id) AS place
        FROM compared
    ), chosen AS (
        SELECT *, schedule_id AS id_key, reason IS NULL AS waits FROM decided WHERE place <= :limit
    ), {PLACE_SQL.format(source="chosen")}, inserted AS (
        INSERT INTO runs (id, account_id, agent_id, schedule_id, schedule_version, fire_id, cause, due_at,
            batch_id, lane, page, status, reason, next_attempt_at, opened_at, finished_at, updated_at,
            principal, resend_unknown, finishes_on_task)
        SELECT {UUID7_SQL}, c.account_id, c.agent_id, c.schedule_id, c.version, c.fire_id,
            CASE WHEN c.late AND c.reason IS NULL THEN 'catch_up' ELSE 'cadence' END, c.due_at,
            CAST(:batch_id AS uuid), c.lane, c.page,
            CASE WHEN c.reason IS NULL THEN 'due' ELSE 'skipped' END, c.reason,
            CASE WHEN c.reason IS NULL THEN c.start_at END, :now,
            CASE WHEN c.reason IS NOT NULL THEN CAST(:now AS timestamptz) END, :now, c.creator_principal,
            c.resend_unknown, c.finishes_on_task
        FROM placed c
        ORDER BY c.schedule_id, c.fire_id
        ON CONFLICT (schedule_id, fire_id) DO NOTHING
        RETURNING schedule_id, due_at, status, reason, lane, page
    ), totals AS (
        INSERT INTO schedule_totals AS t (schedule_id, opened, last_due_at)
        SELECT schedule_id, count(*), max(due_at) FROM inserted WHERE status = 'due'
        GROUP BY schedule_id ORDER BY schedule_id
        ON CONFLICT (schedule_id) DO UPDATE SET opened = t.opened + excluded.opened,
            last_due_at = greatest(t.last_due_at, excluded.last_due_at)
    )
    SELECT
        (SELECT coalesce(jsonb_object_agg(as_, n), '{{}}') FROM
            (SELECT coalesce(reason, 'due') AS as_, count(*) AS n FROM inserted GROUP BY 1) x)::text
            AS opened,
        (SELECT coalesce(jsonb_object_agg(lane, n), '{{}}') FROM
            (SELECT lane, max(page) + 1 AS n FROM inserted WHERE status = 'due' GROUP BY 1) x)::text
            AS lanes,
        (SELECT coalesce(jsonb_object_agg(clock_id, left_at), '{{}}') FROM
            (SELECT clock_id, min(due_at) AS left_at FROM decided WHERE place > :limit GROUP BY 1) x)::text
            AS left_over
"""


@dataclass(frozen=True)
class Opened:
    """What one round opened: pages by lane, rows by what they became, and whether more may be owed."""

    batch_id: UUID
    lanes: dict[Lane, int]
    rows: dict[str, int]
    more: bool


@dataclass
class _Instants:
    """Instants with their clocks, side by side as `unnest` takes them."""

    clock_ids: list[UUID] = field(default_factory=list[UUID])
    due_ats: list[datetime] = field(default_factory=list[datetime])

    def add(self, clock_id: UUID, due_ats: list[datetime]) -> None:
        self.clock_ids += [clock_id] * len(due_ats)
        self.due_ats += due_ats


@dataclass
class _Backlog:
    """The instants of some clocks to open now and those of later rounds; where each clock stands then."""

    now: _Instants = field(default_factory=_Instants)
    # Only where one of `now` may be the newest: what comes after it decides whether it runs.
    ahead: _Instants = field(default_factory=_Instants)
    next_due_ats: dict[UUID, datetime | None] = field(default_factory=dict[UUID, "datetime | None"])
    broken: list[UUID] = field(default_factory=list[UUID])
    more: bool = False


async def open_due(
    session: AsyncSession, settings: Settings, batch_id: UUID, *, by: str, overdue_seconds: float = 0
) -> Opened:
    """Open one round of what is owed by clocks overdue by at least so many seconds.

    Repeatable: a batch that is there already is returned as it was opened. Skips clocks that another
    process is opening.
    """
    opened_before = await _find_batch(session, batch_id)
    if opened_before is not None:
        return opened_before
    now = await clock_now(session)
    locked = await rows(session, _LOCK_CLOCKS_SQL, before=now - timedelta(seconds=overdue_seconds))
    if not locked:
        return Opened(batch_id, {}, {}, more=False)
    with OPEN_SECONDS.time():
        backlog = _backlog(session, settings, locked, now=now, by=by)
        return await _open(session, settings, batch_id, backlog, now=now, by=by)


async def open_missed_by_attach(
    session: AsyncSession, settings: Settings, batch_id: UUID, *, by: str
) -> Opened:
    """Open instants that passed while the transaction that attached their schedule was still open.

    Looks at each attachment once. The clock is held, so that a tick that is opening it has ended (what it
    could not see is behind next_due_at now) and each later one sees the attachment.
    """
    locked = {row["id"]: row for row in await rows(session, LOCK_UNCHECKED_SQL)}
    # After the lock: no tick has moved these clocks past a later moment.
    now = await clock_now(session)
    # Read after the lock and used throughout: one that is committed from here on is left for the next look.
    attachments = await rows(session, _UNCHECKED_SQL, ids=list(locked), now=now)
    if not attachments:
        return Opened(batch_id, {}, {}, more=False)
    schedule_ids = [row["schedule_id"] for row in attachments]
    backlog = _Backlog(more=len(locked) == CLOCKS_PER_ROUND)
    for clock_id, clock in locked.items():
        first = min((row["active_from"] for row in attachments if row["clock_id"] == clock_id), default=now)
        until = min(now, (clock["next_due_at"] or now) - timedelta(microseconds=1))
        owed = read_owed(session, clock, first, until, limit=ROWS_PER_ROUND, by=by)
        if owed is None:
            backlog.broken.append(clock_id)
        else:
            backlog.now.add(clock_id, owed.instants)
    opened = await _open(session, settings, batch_id, backlog, now=now, by=by, schedule_ids=schedule_ids)
    await rows(
        session,
        """
        UPDATE schedule_clocks SET checked_at = :now
        WHERE (schedule_id, clock_id) IN (
            SELECT schedule_id, clock_id FROM schedule_clocks
            WHERE checked_at IS NULL AND clock_id = ANY(CAST(:ids AS uuid[]))
                AND schedule_id = ANY(CAST(:schedule_ids AS uuid[]))
            ORDER BY schedule_id, clock_id FOR NO KEY UPDATE)
        """,
        ids=[clock_id for clock_id in locked if clock_id not in backlog.broken],
        schedule_ids=schedule_ids,
        now=now,
    )
    return opened


async def is_owed(session: AsyncSession, until: datetime) -> bool:
    """Whether a clock has an instant up to this one that is not opened."""
    found = await rows(
        session,
        """
        SELECT 1 FROM clocks
        WHERE retired_at IS NULL AND broken_at IS NULL AND next_due_at <= :until LIMIT 1
        """,
        until=until,
    )
    return bool(found)


async def _open(
    session: AsyncSession,
    settings: Settings,
    batch_id: UUID,
    backlog: _Backlog,
    *,
    now: datetime,
    by: str,
    schedule_ids: Sequence[UUID] | None = None,
) -> Opened:
    if backlog.broken:
        await mark_broken(session, backlog.broken)
    if not backlog.now.due_ats:
        await _move_clocks(session, backlog.next_due_ats)
        return Opened(batch_id, {}, {}, more=backlog.more)
    found = await rows(
        session,
        _OPEN_SQL.replace("{attachments}", "" if schedule_ids is None else _OF_SCHEDULES_SQL),
        clock_ids=backlog.now.clock_ids,
        due_ats=backlog.now.due_ats,
        ahead_clock_ids=backlog.ahead.clock_ids,
        ahead_due_ats=backlog.ahead.due_ats,
        batch_id=batch_id,
        now=now,
        limit=ROWS_PER_ROUND,
        late_seconds=settings.late_after_seconds,
        catch_up_seconds=settings.catch_up_within_seconds,
        **({} if schedule_ids is None else {"schedule_ids": list(schedule_ids)}),
    )
    left_over = {
        UUID(clock): datetime.fromisoformat(at) for clock, at in json.loads(found[0]["left_over"]).items()
    }
    await _move_clocks(session, backlog.next_due_ats | left_over)
    opened: dict[str, int] = json.loads(found[0]["opened"])
    for outcome, count in opened.items():
        after_commit(session, partial(INSTANTS_OPENED.labels(by=by, outcome=outcome).inc, count))
        if outcome != RunStatus.DUE:
            ended = RUNS_ENDED.labels(status=RunStatus.SKIPPED, reason=outcome)
            after_commit(session, partial(ended.inc, count))
    lanes = {Lane(lane): count for lane, count in json.loads(found[0]["lanes"]).items()}
    return Opened(batch_id, lanes, opened, more=backlog.more or bool(left_over))


_LOCK_CLOCKS_SQL = f"""
    SELECT c.id, c.cadence::text AS cadence, c.next_due_at,
        (SELECT count(*) FROM schedule_clocks sc WHERE sc.clock_id = c.id) AS attached
    FROM clocks c
    WHERE c.retired_at IS NULL AND c.broken_at IS NULL AND c.next_due_at <= :before
    ORDER BY c.next_due_at, c.id LIMIT {CLOCKS_PER_ROUND}
    FOR NO KEY UPDATE SKIP LOCKED
"""

# Attachments looked at to find a round's clocks: more than ticks lock at a time, so that some are free.
UNCHECKED_AT_ONCE = 500

# From the few attachments that are unchecked to their clocks, whatever the planner believes of their number:
# an EXISTS was asked of each of 10,000 clocks every sweep, 7 ms of nothing. The moment is the statement's,
# for a volatile function keeps the planner from the index.
LOCK_UNCHECKED_SQL = f"""
    SELECT c.id, c.cadence::text AS cadence, c.next_due_at FROM clocks c
    WHERE c.broken_at IS NULL AND c.id = ANY(ARRAY(
        SELECT DISTINCT sc.clock_id FROM schedule_clocks sc
        WHERE sc.checked_at IS NULL AND sc.active_from < statement_timestamp()
            AND (SELECT b.broken_at FROM clocks b WHERE b.id = sc.clock_id) IS NULL
        ORDER BY sc.clock_id LIMIT {UNCHECKED_AT_ONCE}))
    ORDER BY c.id LIMIT {CLOCKS_PER_ROUND}
    FOR NO KEY UPDATE SKIP LOCKED
"""

_UNCHECKED_SQL = """
    SELECT schedule_id, clock_id, active_from FROM schedule_clocks
    WHERE clock_id = ANY(CAST(:ids AS uuid[])) AND checked_at IS NULL AND active_from < :now
"""

_OF_SCHEDULES_SQL = "AND sc.schedule_id = ANY(CAST(:schedule_ids AS uuid[]))"


async def _find_batch(session: AsyncSession, batch_id: UUID) -> Opened | None:
    found = await rows(
        session,
        "SELECT lane, max(page) + 1 AS pages FROM runs WHERE batch_id = :batch_id GROUP BY lane",
        batch_id=batch_id,
    )
    if not found:
        return None
    lanes = {Lane(row["lane"]): row["pages"] for row in found if row["lane"] is not None}
    return Opened(batch_id, lanes, {}, more=True)


def _backlog(
    session: AsyncSession, settings: Settings, clocks: Sequence[RowMapping], *, now: datetime, by: str
) -> _Backlog:
    """The instants to open now: at most about ROWS_PER_ROUND rows, oldest clocks first.

    A long backlog is taken in pieces. What the pieces to come have is looked at, not opened, where it decides
    which of this piece runs; an instant too old to run is missed whatever comes after it.
    """
    recent_from = now - timedelta(seconds=settings.catch_up_within_seconds + MAX_STAGGER_SECONDS)
    backlog = _Backlog(more=len(clocks) == CLOCKS_PER_ROUND)
    budget = ROWS_PER_ROUND
    for clock in clocks:
        if budget <= 0:
            backlog.more = True
            break
        attached = max(clock["attached"], 1)
        limit = max(budget // attached, 1)
        owed = read_owed(session, clock, clock["next_due_at"], now, limit=limit, by=by)
        if owed is None:
            backlog.broken.append(clock["id"])
            continue
        following = owed.next_due_at
        if following is not None and following <= now:
            backlog.more = True
            if owed.instants[-1] > recent_from:
                ahead = read_owed(session, clock, following, now, limit=MAX_RECENT, by=by)
                backlog.ahead.add(clock["id"], ahead.instants if ahead else [])
        backlog.next_due_ats[clock["id"]] = following
        backlog.now.add(clock["id"], owed.instants)
        budget -= len(owed.instants) * attached
    return backlog


# Two hours of seconds are the most that can be recent (with the default and the longest stagger), and 1 s is
# the shortest interval.
MAX_RECENT = 100_000


async def _move_clocks(session: AsyncSession, next_due_ats: dict[UUID, datetime | None]) -> None:
    moves: dict[str, Any] = {"ids": list(next_due_ats), "next_due_ats": list(next_due_ats.values())}
    await rows(
        session,
        """
        UPDATE clocks c SET next_due_at = m.next_due_at
        FROM (
            SELECT c.id, m.next_due_at
            FROM unnest(CAST(:ids AS uuid[]), CAST(:next_due_ats AS timestamptz[])) AS m (id, next_due_at)
            JOIN clocks c ON c.id = m.id
            ORDER BY c.id FOR NO KEY UPDATE OF c) m
        WHERE c.id = m.id
        """,
        **moves,
    )
