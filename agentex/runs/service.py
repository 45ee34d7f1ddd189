"""Reading the ledger, making single runs, and canceling."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import ColumnElement
from sqlalchemy.orm import aliased
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession
from sqlmodel.sql.expression import SelectOfScalar

from agentex.auth.authorize import Operation, ResourceRef, ResourceType, require
from agentex.auth.lists import creator_of, seen_by
from agentex.auth.principal import Principal
from agentex.database import JsonObject, after_commit, rows
from agentex.errors import BadRequest, NotFound
from agentex.executors.base import Lane
from agentex.ids import parse_id
from agentex.pagination import after_cursor, encode_cursor
from agentex.resources import Resources
from agentex.runs.models import (
    REASONED_STATUSES,
    UNFINISHED_STATUSES,
    Run,
    RunCause,
    RunPage,
    RunRead,
    RunStatus,
)
from agentex.runs.stop import stop_at_agent
from agentex.telemetry.metrics import RUNS_ENDED

# Rows that one page looks at for those that a filter without an index wants, so that no page takes long.
WALK_ROWS = 10_000
_NEWEST_FIRST = (col(Run.due_at).desc(), col(Run.id).desc())


@dataclass(frozen=True)
class RunFilter:
    """Which runs a list has; None does not filter. Bounds of due_at: after inclusive, before exclusive."""

    agent_id: UUID | None = None
    schedule_id: UUID | None = None
    status: RunStatus | None = None
    cause: RunCause | None = None
    due_after: datetime | None = None
    due_before: datetime | None = None


@dataclass(frozen=True)
class NewRun:
    """A single run of a schedule, made by a call rather than by its cadence."""

    account_id: str
    agent_id: UUID
    schedule_id: UUID
    schedule_version: int
    fire_id: str
    principal: JsonObject
    resend_unknown: bool
    finishes_on_task: bool
    id: UUID


def run_ref(run: Run) -> ResourceRef:
    """The run as a resource; its owner is who it runs for."""
    owner = Principal.model_validate(run.principal).creator
    return ResourceRef(ResourceType.RUN, str(run.id), run.account_id, owner)


async def get(session: AsyncSession, resources: Resources, principal: Principal, run_id: str) -> Run:
    """One run; NotFound when there is none that the caller can see."""
    run = await find(session, principal, run_id)
    await require(resources.authz, session, principal, Operation.READ, run_ref(run))
    return run


async def list_page(
    session: AsyncSession,
    resources: Resources,
    principal: Principal,
    wanted: RunFilter,
    *,
    limit: int,
    cursor: str | None,
) -> RunPage:
    """Runs of the caller's account, newest instant first, by keyset.

    A page filtered by status or cause may be short, or empty, and yet have a cursor: it looks at WALK_ROWS.
    """
    seen = await resources.authz.visible(session, principal, ResourceType.RUN)
    owner = creator_of("runs.principal")
    bounds = [
        *_bounds(principal, wanted),
        seen_by(seen, id="runs.id", owner=owner, agent_id="runs.agent_id"),
    ]
    if cursor is not None:
        bounds.append(after_cursor(cursor, col(Run.due_at), col(Run.id)))
    walk = select(Run).where(*bounds).order_by(*_NEWEST_FIRST)
    found = (await session.exec(_sifted(walk, wanted).limit(limit + 1))).all()
    page = found[:limit]
    more = encode_cursor(page[-1].due_at, page[-1].id) if len(found) > limit else None
    if more is None and _sifts(wanted):
        more = await _end_of_walk(session, bounds)
    return RunPage(runs=[RunRead.model_validate(run) for run in page], next_cursor=more)


def _bounds(principal: Principal, wanted: RunFilter) -> list[ColumnElement[bool]]:
    """What an index finds in the list's order."""
    bounds = [col(Run.account_id) == principal.account_id]
    if wanted.agent_id is not None:
        bounds.append(col(Run.agent_id) == wanted.agent_id)
    if wanted.schedule_id is not None:
        bounds.append(col(Run.schedule_id) == wanted.schedule_id)
    if wanted.due_after is not None:
        bounds.append(col(Run.due_at) >= wanted.due_after)
    if wanted.due_before is not None:
        bounds.append(col(Run.due_at) < wanted.due_before)
    if wanted.status in REASONED_STATUSES:
        bounds.append(col(Run.reason).is_not(None))
    elif wanted.status in UNFINISHED_STATUSES:
        bounds.append(col(Run.finished_at).is_(None))
    return bounds


def _sifts(wanted: RunFilter) -> bool:
    return wanted.status is not None or wanted.cause is not None


def _sifted(walk: SelectOfScalar[Run], wanted: RunFilter) -> SelectOfScalar[Run]:
    """The walk, or what the filters for which there is no index leave of its first WALK_ROWS."""
    if not _sifts(wanted):
        return walk
    run = aliased(Run, walk.limit(WALK_ROWS).subquery())
    left = select(run).order_by(col(run.due_at).desc(), col(run.id).desc())
    if wanted.status is not None:
        left = left.where(col(run.status) == wanted.status)
    if wanted.cause is not None:
        left = left.where(col(run.cause) == wanted.cause)
    return left


async def _end_of_walk(session: AsyncSession, bounds: list[ColumnElement[bool]]) -> str | None:
    """The cursor behind the last row that the page has looked at; None where the list ends before."""
    walk = select(Run.due_at, Run.id).where(*bounds).order_by(*_NEWEST_FIRST)
    last = (await session.exec(walk.offset(WALK_ROWS - 1).limit(1))).first()
    return encode_cursor(*last) if last else None


async def insert_manual(session: AsyncSession, new: NewRun) -> UUID:
    """Make a manual run, or find the one of the same fire_id; returns its id.

    It is due at once; the caller hands it to `hooks.run_opened` after the commit.
    """
    found = await rows(
        session,
        """
        WITH inserted AS (
            INSERT INTO runs (id, account_id, agent_id, schedule_id, schedule_version, fire_id, cause, due_at,
                status, next_attempt_at, opened_at, updated_at, principal, resend_unknown,
                finishes_on_task)
            SELECT :id, :account_id, :agent_id, :schedule_id, :version, :fire_id, 'manual', now,
                'due', now, now, now, CAST(:principal AS jsonb), :resend_unknown, :finishes_on_task
            FROM (SELECT clock_timestamp() AS now) c
            ON CONFLICT (schedule_id, fire_id) DO NOTHING
            RETURNING id, schedule_id, due_at
        ), counted AS (
            INSERT INTO schedule_totals AS t (schedule_id, opened, last_due_at)
            SELECT schedule_id, 1, due_at FROM inserted
            ON CONFLICT (schedule_id) DO UPDATE SET opened = t.opened + 1,
                last_due_at = greatest(t.last_due_at, excluded.last_due_at)
        )
        SELECT id FROM inserted
        """,
        id=new.id,
        account_id=new.account_id,
        agent_id=new.agent_id,
        schedule_id=new.schedule_id,
        version=new.schedule_version,
        fire_id=new.fire_id,
        principal=json.dumps(new.principal),
        resend_unknown=new.resend_unknown,
        finishes_on_task=new.finishes_on_task,
    )
    if found:
        return found[0]["id"]
    existing = await rows(
        session,
        "SELECT id FROM runs WHERE schedule_id = :schedule_id AND fire_id = :fire_id",
        schedule_id=new.schedule_id,
        fire_id=new.fire_id,
    )
    return existing[0]["id"]


async def cancel(resources: Resources, principal: Principal, run_id: str) -> RunRead:
    """Cancel a run: at once when it was not sent, at the agent when it was; idempotent.

    Raises BadRequest for a run that has ended otherwise.
    """
    async with resources.db.read() as session:
        run = await get(session, resources, principal, run_id)
        await require(resources.authz, session, principal, Operation.CANCEL, run_ref(run))
    async with resources.db.begin() as session:
        before = await _request_cancel(session, run.id)
    status, lane = before.status, before.lane
    at_agent = status is RunStatus.DELIVERED or (status is RunStatus.RUNNING and lane != Lane.ANSWER)
    # One that waits for its next attempt has a task already, which nobody else would close; nor would anybody
    # close that of one that is canceled, if the process that canceled it has died since.
    has_task = status in {RunStatus.DUE, RunStatus.QUEUED, RunStatus.CANCELED} and before.has_task
    if at_agent or has_task:
        await stop_at_agent(resources, run.id)
    async with resources.db.read() as session:
        return RunRead.model_validate(await find(session, principal, run_id))


@dataclass(frozen=True)
class _Before:
    """A run as a cancel found it."""

    status: RunStatus
    lane: str | None
    has_task: bool


async def _request_cancel(session: AsyncSession, run_id: UUID) -> _Before:
    """Note the request; what waits is canceled here. Returns what the run was before."""
    found = await rows(
        session,
        """
        WITH before AS (
            SELECT id, status, status IN ('due', 'queued', 'launching', 'delivered', 'running',
                'waiting_for_input') AS can FROM runs WHERE id = :id FOR NO KEY UPDATE)
        UPDATE runs r SET
            cancel_requested_at = CASE WHEN b.can THEN coalesce(r.cancel_requested_at, clock_timestamp())
                ELSE r.cancel_requested_at END,
            -- What waits without a task is stopped hereby.
            to_stop_since = CASE WHEN b.can AND (b.status NOT IN ('due', 'queued') OR r.task_id IS NOT NULL)
                THEN coalesce(r.to_stop_since, clock_timestamp()) ELSE r.to_stop_since END,
            status = CASE WHEN b.status IN ('due', 'queued') THEN 'canceled' ELSE r.status END,
            finished_at = CASE WHEN b.status IN ('due', 'queued') THEN clock_timestamp()
                ELSE r.finished_at END,
            updated_at = clock_timestamp()
        FROM before b WHERE r.id = b.id RETURNING b.status, r.lane, r.task_id IS NOT NULL AS has_task
        """,
        id=run_id,
    )
    if not found:
        raise NotFound(f"run {str(run_id)!r} not found")
    status = RunStatus(found[0]["status"])
    if status in {RunStatus.DUE, RunStatus.QUEUED}:
        after_commit(session, RUNS_ENDED.labels(status=RunStatus.CANCELED, reason="").inc)
    if status in {RunStatus.SUCCEEDED, RunStatus.FAILED, RunStatus.TIMED_OUT, RunStatus.SKIPPED}:
        raise BadRequest(f"run {run_id} is {status}; only a run that has not ended can be canceled")
    return _Before(status, found[0]["lane"], found[0]["has_task"])


async def find(session: AsyncSession, principal: Principal, run_id: str) -> Run:
    """One run of the account; whether the caller may see it is yet to be asked."""
    statement = select(Run).where(
        col(Run.id) == parse_id(run_id, "run"), col(Run.account_id) == principal.account_id
    )
    found = (await session.exec(statement)).one_or_none()
    if found is None:
        raise NotFound(f"run {run_id!r} not found")
    return found
