"""Retention: runs that ended long ago are forgotten, and with each the task it made and what hangs on that.

What else hangs on the task goes with it by its foreign key (ON DELETE CASCADE): there is little of it.

Nothing younger than AGENTEX_RUN_RETENTION_DAYS goes: a run stays while its task is spoken in. Nor does what
others may need: an unfinished run, a task that another run uses, the row of an instant that a clock of its
schedule has not passed, which would be opened again. Nothing here waits for a lock; what somebody holds
stays for the next round.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import partial
from uuid import UUID

from sqlmodel.ext.asyncio.session import AsyncSession

from agentex.auth.authorize import ResourceType
from agentex.database import after_commit, clock_now, rows
from agentex.ids import first_id_of, run_task_id
from agentex.resources import Resources
from agentex.telemetry.metrics import RUNS_FORGOTTEN

# Runs, and rows of each table behind a task, that one transaction removes: the sweep is not held up for long.
FORGET_AT_ONCE = 5_000

# Subqueries for a value: each is one look into an index, which a join need not be. Postgres guesses one half
# for their answers; comparisons with NULL it takes to be rare, and sorts all that is old before the LIMIT.
_SPOKEN_SQL = """(
    t.updated_at >= :cutoff
    OR coalesce(
        (SELECT true FROM events e WHERE e.task_id = t.id AND e.created_at >= :cutoff LIMIT 1), false)
    OR coalesce(
        (SELECT true FROM messages m WHERE m.task_id = t.id AND m.updated_at >= :cutoff LIMIT 1), false)
    OR coalesce(
        (SELECT true FROM spans s WHERE s.task_id = t.id AND s.updated_at >= :cutoff LIMIT 1), false)
    OR coalesce(
        (SELECT true FROM checkpoints c WHERE c.task_id = t.id AND c.created_at >= :cutoff LIMIT 1), false)
    OR coalesce(
        (SELECT true FROM states s WHERE s.task_id = t.id AND s.updated_at >= :cutoff LIMIT 1), false)
)"""
# What hangs on a task and may be much; a tracker is one row, and goes with its task.
_CONTENTS = ("events", "messages", "spans", "checkpoints", "checkpoint_blobs", "checkpoint_writes")
_TASK_SPOKEN_SQL = f"coalesce((SELECT {_SPOKEN_SQL} FROM tasks t WHERE t.id = r.task_id), false)"
_NOT_PASSED_SQL = """coalesce((
    SELECT true FROM schedule_clocks sc JOIN clocks c ON c.id = sc.clock_id
    WHERE sc.schedule_id = r.schedule_id AND (c.next_due_at <= r.due_at
        OR (sc.checked_at IS NULL AND sc.active_from < r.due_at))
    LIMIT 1), false)"""
# By the ids, which are in the order of their making: what ended before the cutoff was made before it. The
# two instants are one expression, so that no index of due_at is taken, which would not be in that order.
LOCK_RUNS_SQL = f"""
    SELECT r.id, r.task_id FROM runs r
    WHERE r.id < :first_young AND r.finished_at IS NOT NULL AND greatest(r.due_at, r.finished_at) < :cutoff
        AND NOT {_NOT_PASSED_SQL} AND NOT {_TASK_SPOKEN_SQL}
    ORDER BY r.id LIMIT :limit FOR UPDATE OF r SKIP LOCKED
"""
_SHARED_SQL = """
    EXISTS (SELECT 1 FROM runs o WHERE o.task_id = t.id AND o.id <> ALL(CAST(:run_ids AS uuid[])))
"""


async def forget_old_runs(resources: Resources) -> bool:
    """Forget one batch, oldest first; returns whether there may be more."""
    days = resources.settings.run_retention_days
    if days == 0:
        return False
    async with resources.db.begin() as session:
        cutoff = await clock_now(session) - timedelta(days=days)
        return await _forget(session, cutoff)


async def _forget(session: AsyncSession, cutoff: datetime) -> bool:
    old = await rows(
        session,
        LOCK_RUNS_SQL,
        first_young=first_id_of(cutoff),
        cutoff=cutoff,
        limit=FORGET_AT_ONCE,
    )
    run_ids = [row["id"] for row in old]
    made = [row["task_id"] for row in old if row["task_id"] == run_task_id(row["id"])]
    quiet = await _lock_quiet(session, made, run_ids, cutoff)
    contents = [await _empty(session, table, quiet) for table in _CONTENTS]
    await rows(session, _FORGET_TASKS_SQL, ids=quiet)
    forgotten = await rows(session, _FORGET_RUNS_SQL, made=made, run_ids=run_ids)
    after_commit(session, partial(RUNS_FORGOTTEN.inc, len(forgotten)))
    return FORGET_AT_ONCE in {len(old), *contents}


async def _lock_quiet(
    session: AsyncSession, made: Sequence[UUID], run_ids: Sequence[UUID], cutoff: datetime
) -> list[UUID]:
    """Of the tasks that these runs made, those that nobody else uses or has just spoken in."""
    locked = await rows(
        session,
        "SELECT id FROM tasks WHERE id = ANY(CAST(:ids AS uuid[])) ORDER BY id FOR UPDATE SKIP LOCKED",
        ids=list(made),
    )
    # Looked at again once they are locked: from here on nobody can add an event or a message.
    found = await rows(
        session,
        f"""
        SELECT t.id FROM tasks t
        WHERE t.id = ANY(CAST(:ids AS uuid[])) AND NOT {_SPOKEN_SQL} AND NOT {_SHARED_SQL}
        """,
        ids=[row["id"] for row in locked],
        run_ids=list(run_ids),
        cutoff=cutoff,
    )
    return [row["id"] for row in found]


async def _empty(session: AsyncSession, table: str, task_ids: Sequence[UUID]) -> int:
    """Remove so many rows at most; a task with more goes in a later round, and its run with it."""
    removed = await rows(
        session,
        f"""
        DELETE FROM {table} WHERE ctid = ANY(ARRAY(
            SELECT ctid FROM {table} WHERE task_id = ANY(CAST(:ids AS uuid[])) LIMIT :limit))
        RETURNING 1
        """,
        ids=list(task_ids),
        limit=FORGET_AT_ONCE,
    )
    return len(removed)


# Else a task's rows would all go at once, by its foreign keys, however many they are.
_IS_EMPTY_SQL = " ".join(
    f"AND NOT EXISTS (SELECT 1 FROM {table} c WHERE c.task_id = t.id)" for table in _CONTENTS
)
# Grants are of several tables' rows, so no foreign key takes them along.
_UNSHARED_SQL = """
    unshared AS (DELETE FROM grants g USING gone WHERE g.resource_type = '{kind}' AND g.resource_id = gone.id)
"""
_FORGET_TASKS_SQL = f"""
    WITH gone AS (
        DELETE FROM tasks t WHERE t.id = ANY(CAST(:ids AS uuid[])) {_IS_EMPTY_SQL} RETURNING t.id
    ), {_UNSHARED_SQL.format(kind=ResourceType.TASK)}
    SELECT id FROM gone
"""
# A run whose task must wait waits with it, else nobody would know afterwards that the task may go.
_FORGET_RUNS_SQL = f"""
    WITH gone AS (
        DELETE FROM runs r WHERE r.id = ANY(CAST(:run_ids AS uuid[]))
            AND NOT coalesce(r.task_id = ANY(ARRAY(
                SELECT t.id FROM tasks t WHERE t.id = ANY(CAST(:made AS uuid[])) AND NOT {_SHARED_SQL})),
                false)
        RETURNING r.id
    ), {_UNSHARED_SQL.format(kind=ResourceType.RUN)}
    SELECT id FROM gone
"""
