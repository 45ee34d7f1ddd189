"""Claims: which process works at which runs, and what becomes of runs whose process is gone.

A claim is a token and an expiry in the row. Every later write of a launch carries the token, so a process
that was stopped past its claim can no longer mark, send or record anything.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from uuid import UUID

from sqlmodel.ext.asyncio.session import AsyncSession

from agentex.auth.principal import Principal
from agentex.database import after_commit, rows
from agentex.resources import DefinitionRef
from agentex.runs.pages import PageRef
from agentex.settings import Settings
from agentex.telemetry.metrics import RUN_RETRIES, RUNS_ENDED, SWEEP_REPAIRED


@dataclass(frozen=True)
class Claimed:
    """A run that this launch may send, as its row says."""

    id: UUID
    account_id: str
    agent_id: UUID
    definition: DefinitionRef | None
    fire_id: str
    cause: str
    due_at: datetime
    principal: Principal
    attempt: int
    launched_at: datetime
    task_created: bool
    # Never sent and late, and either too late or not the schedule's newest: the catch-up rule skips it.
    missed: bool
    cancel_requested: bool


@dataclass(frozen=True)
class Held:
    """Which runs of a launch are still its own, and which of them somebody wants canceled."""

    ids: frozenset[UUID]
    cancel: frozenset[UUID]


# A run that was never sent is judged once more when a launch gets to it (design.md §4, catch-up rule): two
# hours without Temporal end in one delivery, not in 120. Before its first attempt next_attempt_at is the
# instant plus the schedule's stagger.
_MISSED_SQL = """
    picked.attempt = 0 AND picked.cause IN ('cadence', 'catch_up')
    AND picked.next_attempt_at < clock_timestamp() - make_interval(secs => :late_seconds)
    AND (picked.next_attempt_at <= clock_timestamp() - make_interval(secs => :catch_up_seconds)
        OR EXISTS (
            SELECT 1 FROM runs newer
            WHERE newer.schedule_id = picked.schedule_id AND newer.due_at > picked.due_at
                AND newer.cause IN ('cadence', 'catch_up') AND newer.status <> 'skipped'))
"""


async def claim_page(
    session: AsyncSession, settings: Settings, page: PageRef, token: UUID, *, leave: Collection[UUID] = ()
) -> list[Claimed]:
    """Claim the runs of a page that are due now; expired claims of the page are settled first.

    `leave` are runs that the caller is at work on: neither settled nor claimed.
    """
    await settle_expired(session, page=page, leave=leave)
    found = await rows(
        session,
        f"""
        WITH picked AS (
            SELECT * FROM runs
            WHERE batch_id = :batch_id AND lane = :lane AND page = :page AND status = 'due'
                AND next_attempt_at <= clock_timestamp() AND id <> ALL(CAST(:leave AS uuid[]))
            ORDER BY id FOR NO KEY UPDATE SKIP LOCKED
        )
        UPDATE runs r SET status = 'launching', attempt = r.attempt + 1, claimed_by = :token,
            claimed_until = clock_timestamp() + make_interval(secs => :claim_seconds),
            launched_at = coalesce(r.launched_at, clock_timestamp()), updated_at = clock_timestamp(),
            cause = CASE WHEN picked.cause = 'cadence' AND picked.attempt = 0 AND picked.next_attempt_at
                < clock_timestamp() - make_interval(secs => :late_seconds) THEN 'catch_up' ELSE r.cause END
        FROM picked WHERE r.id = picked.id
        RETURNING r.id, r.account_id, r.agent_id, r.schedule_id, r.schedule_version, r.fire_id, r.cause,
            r.due_at, r.principal::text AS principal,
            r.attempt, r.launched_at, r.task_created_at IS NOT NULL AS task_created,
            r.cancel_requested_at IS NOT NULL AS cancel_requested, ({_MISSED_SQL}) AS missed
        """,
        batch_id=page.batch_id,
        lane=page.lane,
        page=page.page,
        token=token,
        leave=list(leave),
        claim_seconds=settings.claim_seconds,
        late_seconds=settings.late_after_seconds,
        catch_up_seconds=settings.catch_up_within_seconds,
    )
    return [
        Claimed(
            id=row["id"],
            account_id=row["account_id"],
            agent_id=row["agent_id"],
            definition=DefinitionRef(row["schedule_id"], row["schedule_version"])
            if row["schedule_id"]
            else None,
            fire_id=row["fire_id"],
            cause=row["cause"],
            due_at=row["due_at"],
            principal=_principal(row["principal"]),
            attempt=row["attempt"],
            launched_at=row["launched_at"],
            task_created=row["task_created"],
            missed=row["missed"],
            cancel_requested=row["cancel_requested"],
        )
        for row in found
    ]


@lru_cache(maxsize=1024)
def _principal(stored: str) -> Principal:
    # A page's runs have few creators.
    return Principal.model_validate_json(stored)


async def seconds_to_next_attempt(session: AsyncSession, page: PageRef) -> float | None:
    """How long until a run of the page can be claimed (0 when one can), or None when none is left.

    A claim of a process that is gone counts: it expires, and then somebody must look.
    """
    found = await rows(
        session,
        """
        SELECT extract(epoch FROM min(CASE status WHEN 'due' THEN next_attempt_at ELSE claimed_until END)
            - clock_timestamp())::float8 AS seconds
        FROM runs
        WHERE batch_id = :batch_id AND lane = :lane AND page = :page AND status IN ('due', 'launching')
        """,
        batch_id=page.batch_id,
        lane=page.lane,
        page=page.page,
    )
    seconds: float | None = found[0]["seconds"]
    return None if seconds is None else max(seconds, 0.0)


async def read_held(session: AsyncSession, token: UUID, ids: Collection[UUID]) -> Held:
    """Which of these runs a launch still holds; an expired claim that nobody has settled is its own yet."""
    found = await rows(
        session,
        """
        SELECT id, cancel_requested_at IS NOT NULL AS cancel FROM runs
        WHERE id = ANY(CAST(:ids AS uuid[])) AND claimed_by = :token
            AND status IN ('launching', 'running')
        """,
        ids=list(ids),
        token=token,
    )
    return Held(frozenset(row["id"] for row in found), frozenset(row["id"] for row in found if row["cancel"]))


async def renew(session: AsyncSession, settings: Settings, token: UUID, ids: Collection[UUID]) -> None:
    """Extend a launch's claims, also expired ones that nobody has settled: Postgres may have been away."""
    await rows(
        session,
        """
        UPDATE runs r SET claimed_until = clock_timestamp() + make_interval(secs => :claim_seconds)
        FROM (
            SELECT id FROM runs WHERE id = ANY(CAST(:ids AS uuid[])) AND claimed_by = :token
                AND status IN ('launching', 'running')
            ORDER BY id FOR NO KEY UPDATE) mine
        WHERE r.id = mine.id
        """,
        ids=list(ids),
        token=token,
        claim_seconds=settings.claim_seconds,
    )


async def release(session: AsyncSession, token: UUID, ids: Sequence[UUID]) -> None:
    """Put claimed runs that were not sent back to due, as if this launch had not been."""
    await rows(
        session,
        """
        UPDATE runs r SET status = 'due', claimed_by = NULL, claimed_until = NULL, attempt = r.attempt - 1,
            launched_at = CASE WHEN r.attempt > 1 THEN r.launched_at END, updated_at = clock_timestamp()
        FROM (
            SELECT id FROM runs WHERE id = ANY(CAST(:ids AS uuid[])) AND claimed_by = :token
                AND status = 'launching' AND sending_at IS NULL
            ORDER BY id FOR NO KEY UPDATE) mine
        WHERE r.id = mine.id
        """,
        ids=list(ids),
        token=token,
    )


# Expired claims: what was not being sent goes back to due; what was may have reached the agent, and has
# certainly where its task has spoken since. What is claimed was due, so the index on next_attempt_at, which
# holds nothing else that is old, finds it among any number of runs that are running.
_ALIVE_SQL = "(r.delivered_at IS NOT NULL AND r.lane = 'deliver')"
_UNKNOWN_SQL = f"(r.sending_at IS NOT NULL AND NOT r.resend_unknown AND NOT {_ALIVE_SQL})"
# By an array of ids: with a join the planner, which cannot know how few there are, may scan the whole table.
_SETTLE_EXPIRED_SQL = f"""
    UPDATE runs r SET
        status = CASE WHEN {_ALIVE_SQL} AND r.finishes_on_task THEN 'running'
            WHEN {_ALIVE_SQL} THEN 'delivered' WHEN {_UNKNOWN_SQL} THEN 'failed' ELSE 'due' END,
        reason = CASE WHEN {_UNKNOWN_SQL} THEN 'outcome_unknown' END,
        error = CASE WHEN {_ALIVE_SQL} THEN NULL
            WHEN {_UNKNOWN_SQL} THEN 'the worker stopped while this run was being sent' ELSE r.error END,
        attempt = CASE WHEN r.sending_at IS NULL THEN r.attempt - 1 ELSE r.attempt END,
        -- The retry window counts from the first launch that got as far as sending.
        launched_at = CASE WHEN r.sending_at IS NOT NULL OR r.attempt > 1 THEN r.launched_at END,
        sending_at = CASE WHEN {_UNKNOWN_SQL} OR {_ALIVE_SQL} THEN r.sending_at END,
        finished_at = CASE WHEN {_UNKNOWN_SQL} OR ({_ALIVE_SQL} AND NOT r.finishes_on_task)
            THEN clock_timestamp() END,
        next_attempt_at = CASE WHEN NOT ({_UNKNOWN_SQL} OR {_ALIVE_SQL}) THEN r.next_attempt_at END,
        claimed_by = NULL, claimed_until = NULL, updated_at = clock_timestamp()
    WHERE r.id = ANY(ARRAY(
        SELECT id FROM runs
        WHERE finished_at IS NULL AND next_attempt_at <= statement_timestamp()
            AND status IN ('launching', 'running')
            AND claimed_until < clock_timestamp() - make_interval(secs => :expired_seconds)
            AND id <> ALL(CAST(:leave AS uuid[])) {{page}}
        ORDER BY id FOR NO KEY UPDATE SKIP LOCKED))
    RETURNING r.status
"""


async def settle_expired(
    session: AsyncSession,
    *,
    page: PageRef | None = None,
    expired_seconds: float = 0,
    leave: Collection[UUID] = (),
) -> int:
    """Settle the runs whose claim expired, so long ago or more, of one page or of all; returns how many."""
    of_page = "AND batch_id = :batch_id AND lane = :lane AND page = :page" if page else ""
    where = {"batch_id": page.batch_id, "lane": page.lane, "page": page.page} if page else {}
    settled = await rows(
        session,
        _SETTLE_EXPIRED_SQL.replace("{page}", of_page),
        expired_seconds=expired_seconds,
        leave=list(leave),
        **where,
    )
    for row in settled:
        after_commit(session, SWEEP_REPAIRED.labels(kind="claim_expired").inc)
        if row["status"] == "due":
            after_commit(session, RUN_RETRIES.labels(why="claim_expired").inc)
        elif row["status"] != "running":
            reason = "outcome_unknown" if row["status"] == "failed" else ""
            after_commit(session, RUNS_ENDED.labels(status=row["status"], reason=reason).inc)
    return len(settled)
