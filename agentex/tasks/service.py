"""Tasks: get or create, find, change, interrupt, resume, close, delete."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from sqlalchemy import CTE, ColumnClause, Text, Uuid, case, cast, func, literal, literal_column, table
from sqlalchemy import select as select_columns
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import aliased
from sqlalchemy.sql.dml import ReturningUpdate
from sqlmodel import col, select, update
from sqlmodel.ext.asyncio.session import AsyncSession
from sqlmodel.sql.expression import SelectOfScalar

from agentex.agents.models import Agent, AgentRead, Deleted
from agentex.auth.authorize import (
    AuthProvider,
    Operation,
    ResourceRef,
    ResourceType,
    hidden_as,
    require,
)
from agentex.auth.principal import Principal
from agentex.database import JsonColumn, JsonObject, rows
from agentex.errors import BadRequest, NotFound, PayloadTooLarge
from agentex.ids import UUID7_SQL, new_id, parse_id
from agentex.resources import ClosedTask, Hooks, Resources
from agentex.tasks.models import (
    GIVEN_UP_STATUSES,
    OPEN_STATUSES,
    Task,
    TaskRead,
    TaskReadWithAgents,
    TaskStatus,
    TaskUpdate,
)

DELETED_REASON = "deleted"
# What RETURNING gives replaces what the session has read before.
FRESH = {"populate_existing": True, "synchronize_session": False}
# The slice above has the model (trackers/models.py).
_TRACKER_COLUMNS = ("id", "account_id", "agent_id", "task_id", "created_at", "updated_at")
_TRACKERS = table("trackers", *[ColumnClause[Any](name) for name in _TRACKER_COLUMNS])


@dataclass(frozen=True)
class TaskWanted:
    """What a client asks for in task/create; a task without a name is always a new one."""

    name: str | None = None
    params: JsonObject | None = None
    task_metadata: JsonObject | None = None
    # Of the task that is made, if one is.
    id: UUID = field(default_factory=new_id)


def task_ref(task: Task) -> ResourceRef:
    """The task as a resource."""
    return ResourceRef(ResourceType.TASK, str(task.id), task.account_id, task.owner)


def wire_task(task: Task | TaskRead) -> JsonObject:
    """The task as clients and agents get it (wire.md §1)."""
    return TaskRead.model_validate(task).model_dump(mode="json")


async def create_or_get(
    session: AsyncSession, principal: Principal, agent: Agent, wanted: TaskWanted
) -> Task:
    """A new task, or the account's one of this name: params given now replace its params, metadata stays.

    Whether the caller may have that one is its to look at: it has another id than the one wanted.
    Raises BadRequest when the name is that of another agent's task, or of one that was deleted.
    """
    statement = insert(Task).values(
        id=wanted.id,
        account_id=principal.account_id,
        owner=principal.creator,
        agent_id=agent.id,
        name=wanted.name,
        status=TaskStatus.RUNNING,
        params=wanted.params,
        task_metadata=wanted.task_metadata,
        created_at=func.now(),
        updated_at=func.now(),
    )
    # Also where nothing changes: only a row that was written is returned.
    statement = statement.on_conflict_do_update(
        constraint="uq_tasks_account_id_name",
        set_={
            "params": func.coalesce(statement.excluded.params, col(Task.params)),
            "updated_at": case(
                (statement.excluded.params.is_not(None), func.clock_timestamp()), else_=col(Task.updated_at)
            ),
        },
    ).returning(Task)
    task = await _with_tracker(session, statement.cte("made"))
    if task.agent_id != agent.id:
        raise BadRequest(f"task {task.name!r} belongs to another agent; choose another name")
    if task.status is TaskStatus.DELETED:
        raise BadRequest(f"task {task.name!r} was deleted and keeps its name; choose another name")
    return task


async def set_params(session: AsyncSession, task_id: UUID, params: JsonObject) -> None:
    """Put these params in the place of a task's own."""
    await session.exec(
        update(Task).where(col(Task.id) == task_id).values(params=params, updated_at=func.clock_timestamp()),
        execution_options={"synchronize_session": False},
    )


async def _with_tracker(session: AsyncSession, made: CTE) -> Task:
    """Carry a task's upsert out, and in the same statement give the task its agent's tracker."""
    at = made.c.created_at
    new_id_column = literal_column(UUID7_SQL, Uuid())
    first = select_columns(new_id_column, made.c.account_id, made.c.agent_id, made.c.id, at, at)
    tracked = insert(_TRACKERS).from_select(_TRACKER_COLUMNS, first).on_conflict_do_nothing().cte("tracked")
    statement = select(aliased(Task, made)).add_cte(tracked)
    return (await session.exec(statement, execution_options={"populate_existing": True})).one()


async def find(session: AsyncSession, principal: Principal, task_id: str | UUID) -> Task:
    """One task of the account that is not deleted, for a write whose permission was asked before it."""
    statement = select(Task).where(col(Task.id) == parse_id(str(task_id), "task"))
    return await _one(session, principal, statement, str(task_id))


async def find_by_name(session: AsyncSession, principal: Principal, name: str) -> Task | None:
    """The account's task of this name, if there is one; whether the caller may see it is yet to be asked."""
    statement = select(Task).where(col(Task.account_id) == principal.account_id, col(Task.name) == name)
    return (await session.exec(statement)).one_or_none()


async def get(session: AsyncSession, authz: AuthProvider, principal: Principal, task_id: str) -> Task:
    """One task that the caller may read."""
    task = await find(session, principal, task_id)
    await require(authz, session, principal, Operation.READ, task_ref(task))
    return task


async def get_by_name(session: AsyncSession, authz: AuthProvider, principal: Principal, name: str) -> Task:
    """The same by name, within the caller's account."""
    task = await _one(session, principal, select(Task).where(col(Task.name) == name), name)
    with hidden_as(_not_found(name)):
        await require(authz, session, principal, Operation.READ, task_ref(task))
    return task


async def agent_of(session: AsyncSession, task: Task) -> Agent:
    """The task's agent, deleted or not."""
    return (await session.exec(select(Agent).where(col(Agent.id) == task.agent_id))).one()


async def with_agents(session: AsyncSession, task: Task) -> TaskReadWithAgents:
    """The task with its agent, deleted or not."""
    agent = AgentRead.model_validate(await agent_of(session, task))
    return TaskReadWithAgents(**TaskRead.model_validate(task).model_dump(), agents=[agent])


async def update_by(resources: Resources, principal: Principal, task: Task, body: TaskUpdate) -> Task:
    """Change a task on behalf of a caller: one statement, so that changes at once lose nothing of each other.

    Raises PayloadTooLarge when the merged params would be larger than max_task_params_bytes.
    """
    async with resources.db.read() as session:
        await require(resources.authz, session, principal, Operation.UPDATE, task_ref(task))
    if body.task_metadata is None and not body.merge_params:
        return task
    max_bytes = resources.settings.max_task_params_bytes
    async with resources.db.single() as session:
        updated = (
            await session.exec(_update(task.id, body, max_bytes), execution_options=FRESH)
        ).scalar_one_or_none()
        if updated is None:
            # Deleted since it was read, or else too large.
            await find(session, principal, task.id)
            raise PayloadTooLarge(f"with merge_params the params of task {task.id} exceed {max_bytes} bytes")
    return updated


def _update(task_id: UUID, body: TaskUpdate, max_params_bytes: int) -> ReturningUpdate[Task]:
    statement = (
        update(Task)
        .where(col(Task.id) == task_id, col(Task.status) != TaskStatus.DELETED)
        .values(updated_at=func.clock_timestamp())
    )
    if body.task_metadata is not None:
        statement = statement.values(task_metadata=body.task_metadata)
    if body.merge_params:
        merged = func.coalesce(col(Task.params), literal({}, JsonColumn)).op("||", return_type=JsonColumn)(
            literal(body.merge_params, JsonColumn)
        )
        statement = statement.values(params=merged).where(
            func.octet_length(cast(merged, Text)) <= max_params_bytes
        )
    return statement.returning(Task)


async def delete_by(resources: Resources, principal: Principal, task: Task) -> Deleted:
    """Delete a task on behalf of a caller. It is not found any more; its name stays taken."""
    async with resources.db.read() as session:
        await require(resources.authz, session, principal, Operation.DELETE, task_ref(task))

    async def write() -> None:
        async with resources.db.begin() as session:
            await delete(session, resources.hooks, task.id)

    await resources.db.retry_deadlock(write)
    return Deleted(id=task.id, message=f"Task {task.name or str(task.id)!r} was deleted")


async def delete(session: AsyncSession, hooks: Hooks, task_id: UUID) -> None:
    """Mark the task deleted; the run of one that was open ends in the same transaction, as canceled.

    Raises NotFound for one that is deleted already.
    """
    found = await rows(
        session,
        """
        WITH held AS (
            SELECT id, status FROM tasks WHERE id = :task_id AND status <> 'DELETED' FOR NO KEY UPDATE)
        UPDATE tasks SET status = 'DELETED', status_reason = :reason, updated_at = clock_timestamp()
        FROM held WHERE tasks.id = held.id RETURNING held.status AS before
        """,
        task_id=task_id,
        reason=DELETED_REASON,
    )
    if not found:
        raise NotFound(f"task {str(task_id)!r} not found")
    if found[0]["before"] in OPEN_STATUSES:
        await _tell_closed(session, hooks, ClosedTask(task_id, TaskStatus.DELETED, DELETED_REASON))


async def interrupt_by(resources: Resources, principal: Principal, task_id: str, reason: str | None) -> Task:
    """Interrupt a task on behalf of a caller. The agent is not told: it is the one that says so here."""
    async with resources.db.read() as session:
        task = await get(session, resources.authz, principal, task_id)
        await require(resources.authz, session, principal, Operation.UPDATE, task_ref(task))
    async with resources.db.begin() as session:
        return await interrupt(session, resources.hooks, task.id, reason)


async def interrupt(session: AsyncSession, hooks: Hooks, task_id: UUID, reason: str | None) -> Task:
    """Stop what a task is at, for this reason, and leave it open; once more is another reason.

    Raises NotFound, or BadRequest (naming the status) for a task that is closed already.
    """
    return await _move(session, task_id, TaskStatus.INTERRUPTED, reason)


async def close_by(
    resources: Resources, principal: Principal, task_id: str, *, status: TaskStatus, reason: str | None
) -> Task:
    """Close a task on behalf of a caller; CANCELED needs leave to cancel, all else to update."""
    operation = Operation.CANCEL if status is TaskStatus.CANCELED else Operation.UPDATE
    async with resources.db.read() as session:
        task = await get(session, resources.authz, principal, task_id)
        await require(resources.authz, session, principal, operation, task_ref(task))
    async with resources.db.begin() as session:
        return await close(session, resources.hooks, task.id, status, reason)


async def close(
    session: AsyncSession, hooks: Hooks, task_id: UUID, status: TaskStatus, reason: str | None
) -> Task:
    """Give an open task a terminal status, and let its run end in the same transaction.

    Raises NotFound, or BadRequest (naming the status) for a task that is closed already.
    """
    task = await _move(session, task_id, status, reason)
    await _tell_closed(session, hooks, ClosedTask(task.id, status, reason))
    return task


async def _move(session: AsyncSession, task_id: UUID, status: TaskStatus, reason: str | None) -> Task:
    """Give a task that is open another status; raises what close and interrupt say."""
    statement = (
        update(Task)
        .where(col(Task.id) == task_id, col(Task.status).in_(OPEN_STATUSES))
        .values(status=status, status_reason=reason, updated_at=func.clock_timestamp())
        .returning(Task)
    )
    task = (await session.exec(statement, execution_options=FRESH)).scalar_one_or_none()
    if task is None:
        raise await _not_open(session, task_id, "interrupted" if status in OPEN_STATUSES else "closed")
    return task


async def resume(session: AsyncSession, hooks: Hooks, task_id: UUID) -> Task | None:
    """Let an interrupted task run again, for it has got its next input; None where it is not interrupted."""
    statement = (
        update(Task)
        .where(col(Task.id) == task_id, col(Task.status) == TaskStatus.INTERRUPTED)
        .values(status=TaskStatus.RUNNING, status_reason=None, updated_at=func.clock_timestamp())
        .returning(Task)
    )
    return (await session.exec(statement, execution_options=FRESH)).scalar_one_or_none()


async def _tell_closed(session: AsyncSession, hooks: Hooks, closed: ClosedTask) -> None:
    for hook in hooks.task_closed:
        await hook(session, closed)
    if closed.status in GIVEN_UP_STATUSES:
        for give_up in hooks.task_given_up:
            await give_up(session, closed.task_id)


async def _not_open(session: AsyncSession, task_id: UUID, wanted: str) -> NotFound | BadRequest:
    status = (await session.exec(select(Task.status).where(col(Task.id) == task_id))).one_or_none()
    if status is None:
        return NotFound(f"task {str(task_id)!r} not found")
    return BadRequest(
        f"task {task_id} is {status}; only a task that is RUNNING or INTERRUPTED can be {wanted}"
    )


async def _one(
    session: AsyncSession, principal: Principal, statement: SelectOfScalar[Task], named: str
) -> Task:
    statement = statement.where(
        col(Task.account_id) == principal.account_id, col(Task.status) != TaskStatus.DELETED
    )
    task = (await session.exec(statement)).one_or_none()
    if task is None:
        raise _not_found(named)
    return task


def _not_found(named: str) -> NotFound:
    return NotFound(f"task {named!r} not found")
