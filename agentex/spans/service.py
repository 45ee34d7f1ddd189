"""Spans: take in, change, find, list."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import func
from sqlmodel import col, select, update
from sqlmodel.ext.asyncio.session import AsyncSession

from agentex.auth.authorize import Operation, ResourceType, hidden_as
from agentex.auth.lists import seen_through_tasks
from agentex.auth.principal import Principal
from agentex.auth.tasks import require_owned, require_task, task_owner
from agentex.database import rows
from agentex.errors import AlreadyExists, NotFound
from agentex.ids import new_id
from agentex.pagination import not_of_deleted_task
from agentex.resources import Resources
from agentex.spans.models import Span, SpanCreate, SpanJson, SpanRead, SpanUpdate

# What a span cannot be without: a null for one of these changes nothing.
_REQUIRED = ("trace_id", "name", "start_time")

# The task is locked against its deletion, so that a span never fails on a task that has just gone. A repeat
# fills in what it knows more: a span may be sent at its start and again, whole, at its end, in any order.
_INSERT_SQL = """
    WITH task AS (
        SELECT id FROM tasks WHERE id = :task_id AND account_id = :account_id FOR KEY SHARE)
    INSERT INTO spans AS s (account_id, id, owner, task_id, trace_id, parent_id, name, start_time, end_time,
        input, output, data, created_at, updated_at)
    SELECT :account_id, :id, :owner, CAST(:task_id AS uuid), :trace_id, :parent_id, :name,
        CAST(:start_time AS timestamptz), CAST(:end_time AS timestamptz),
        CAST(:input AS jsonb), CAST(:output AS jsonb), CAST(:data AS jsonb),
        clock_timestamp(), clock_timestamp()
    WHERE CAST(:task_id AS uuid) IS NULL OR EXISTS (SELECT 1 FROM task)
    ON CONFLICT (account_id, id) DO UPDATE SET
        trace_id = excluded.trace_id, name = excluded.name, start_time = excluded.start_time,
        parent_id = coalesce(excluded.parent_id, s.parent_id),
        end_time = coalesce(excluded.end_time, s.end_time),
        input = coalesce(excluded.input, s.input), output = coalesce(excluded.output, s.output),
        data = coalesce(excluded.data, s.data), updated_at = excluded.updated_at
    WHERE s.task_id = excluded.task_id
        OR (s.task_id IS NULL AND excluded.task_id IS NULL AND s.owner = excluded.owner)
    RETURNING id, trace_id, task_id, parent_id, name, start_time, end_time, input::text AS input,
        output::text AS output, data::text AS data
"""


@dataclass(frozen=True)
class SpanFilter:
    """Which spans a list has; None does not filter."""

    trace_id: str | None = None
    task_id: UUID | None = None


async def add(resources: Resources, principal: Principal, body: SpanCreate) -> SpanRead:
    """Take a span in; one of a task also proves that the task's input arrived.

    A repeat with the same id is the same span, and adds what the first lacked. Raises AlreadyExists when the
    id is that of another task's span, or of another caller's that has no task.
    """
    async with resources.db.read() as session:
        if body.task_id is None:
            await require_owned(
                session, resources.authz, principal, Operation.UPDATE, (None, principal.creator)
            )
        else:
            await require_task(session, resources.authz, principal, Operation.UPDATE, body.task_id)
    if body.task_id is None:
        async with resources.db.single() as session:
            return await _insert(session, principal, body)
    async with resources.db.begin() as session:
        added = await _insert(session, principal, body)
        for hook in resources.hooks.task_alive:
            await hook(session, body.task_id)
    return added


async def _insert(session: AsyncSession, principal: Principal, body: SpanCreate) -> SpanRead:
    span_id = body.id or str(new_id())
    given = body.model_dump(exclude={"id", "input", "output", "data"})
    documents = {name: _as_text(getattr(body, name)) for name in ("input", "output", "data")}
    made = await rows(
        session,
        _INSERT_SQL,
        account_id=principal.account_id,
        owner=principal.creator,
        id=span_id,
        **given,
        **documents,
    )
    if made:
        return SpanRead.model_validate({**made[0], **_parsed(made[0], documents)})
    if body.task_id is not None and await task_owner(session, principal, body.task_id) is None:
        raise NotFound(f"task {str(body.task_id)!r} not found")
    raise AlreadyExists(f"span {span_id!r} is another task's or caller's; choose another id")


async def change(resources: Resources, principal: Principal, span_id: str, body: SpanUpdate) -> Span:
    """Change what is given; giving it to another task needs leave to update that one too."""
    changes = body.model_dump(exclude_unset=True)
    changes = {key: value for key, value in changes.items() if value is not None or key not in _REQUIRED}
    async with resources.db.read() as session:
        task_id = await _require(session, resources, principal, Operation.UPDATE, span_id)
        if body.task_id is not None and body.task_id != task_id:
            await require_task(session, resources.authz, principal, Operation.UPDATE, body.task_id)
    statement = (
        update(Span)
        .where(
            col(Span.account_id) == principal.account_id,
            col(Span.id) == span_id,
            # Nothing is changed that has become another task's since its permission was asked.
            col(Span.task_id).is_not_distinct_from(task_id),
        )
        .values(**changes, updated_at=func.clock_timestamp())
        .returning(Span)
    )
    async with resources.db.begin() as session:
        if body.task_id is not None:
            await _hold_task(session, principal, body.task_id)
        result = await session.exec(statement, execution_options={"synchronize_session": False})
        span = result.scalar_one_or_none()
    if span is None:
        raise NotFound(f"span {span_id!r} not found")
    return span


async def _hold_task(session: AsyncSession, principal: Principal, task_id: UUID) -> None:
    held = await rows(
        session,
        "SELECT id FROM tasks WHERE id = :task_id AND account_id = :account_id FOR KEY SHARE",
        task_id=task_id,
        account_id=principal.account_id,
    )
    if not held:
        raise NotFound(f"task {str(task_id)!r} not found")


async def get(session: AsyncSession, resources: Resources, principal: Principal, span_id: str) -> Span:
    """One span, for those who may read its task; without a task, for its account."""
    await _require(session, resources, principal, Operation.READ, span_id)
    statement = select(Span).where(col(Span.account_id) == principal.account_id, col(Span.id) == span_id)
    span = (await session.exec(statement)).one_or_none()
    if span is None:
        raise NotFound(f"span {span_id!r} not found")
    return span


async def list_page(
    session: AsyncSession,
    resources: Resources,
    principal: Principal,
    wanted: SpanFilter,
    *,
    direction: Literal["asc", "desc"],
    limit: int,
    page_number: int,
) -> list[Span]:
    """Spans of a task, a trace or the account by their start; pages count from 1."""
    statement = select(Span).where(col(Span.account_id) == principal.account_id)
    statement = statement.where(not_of_deleted_task(col(Span.task_id)))
    if wanted.task_id is None:
        seen = await resources.authz.visible(session, principal, ResourceType.TASK)
        statement = statement.where(seen_through_tasks(seen, "spans.task_id", owner="spans.owner"))
    else:
        await require_task(session, resources.authz, principal, Operation.READ, wanted.task_id)
        statement = statement.where(col(Span.task_id) == wanted.task_id)
    if wanted.trace_id is not None:
        statement = statement.where(col(Span.trace_id) == wanted.trace_id)
    order = [col(Span.start_time), col(Span.id)]
    statement = statement.order_by(*[by.asc() if direction == "asc" else by.desc() for by in order])
    return list((await session.exec(statement.limit(limit).offset((page_number - 1) * limit))).all())


async def _require(
    session: AsyncSession, resources: Resources, principal: Principal, operation: Operation, span_id: str
) -> UUID | None:
    """The span's task, once the caller may do that to it."""
    found = await rows(
        session,
        """
        SELECT s.task_id, coalesce(t.owner, s.owner) AS owner
        FROM spans s LEFT JOIN tasks t ON t.id = s.task_id
        WHERE s.id = :id AND s.account_id = :account_id AND t.status IS DISTINCT FROM 'DELETED'
        """,
        id=span_id,
        account_id=principal.account_id,
    )
    absent = NotFound(f"span {span_id!r} not found")
    if not found:
        raise absent
    owned = (found[0]["task_id"], found[0]["owner"])
    with hidden_as(absent):
        await require_owned(session, resources.authz, principal, operation, owned)
    return found[0]["task_id"]


def _as_text(value: SpanJson) -> str | None:
    return None if value is None else json.dumps(value)


def _parsed(row: Any, names: Any) -> dict[str, SpanJson]:
    return {name: json.loads(row[name]) if row[name] is not None else None for name in names}
