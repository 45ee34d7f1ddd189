"""Tasks: get or create, find, list, close."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import CTE, ColumnClause, Uuid, case, func, literal_column, table
from sqlalchemy import select as select_columns
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import aliased
from sqlmodel import col, select, update
from sqlmodel.ext.asyncio.session import AsyncSession
from sqlmodel.sql.expression import SelectOfScalar

from agentex.agents.models import Agent, AgentRead
from agentex.auth.authorize import AuthProvider, Operation, ResourceRef, ResourceType, require, type_ref
from agentex.auth.principal import Principal
from agentex.database import JsonObject
from agentex.errors import BadRequest, NotFound
from agentex.ids import UUID7_SQL, new_id, parse_id
from agentex.resources import ClosedTask, Hooks, Resources
from agentex.tasks.models import OPEN_STATUSES, Task, TaskRead, TaskReadWithAgents, TaskStatus

# The slice above has the model (trackers/models.py).
_TRACKER_COLUMNS = ("id", "account_id", "agent_id", "task_id", "created_at", "updated_at")
_TRACKERS = table("trackers", *[ColumnClause[Any](name) for name in _TRACKER_COLUMNS])


@dataclass(frozen=True)
class TaskFilter:
    """Which tasks a list has; None does not filter."""

    agent_id: UUID | None = None
    agent_name: str | None = None
    statuses: frozenset[TaskStatus] | None = None


@dataclass(frozen=True)
class TaskWanted:
    """What a client asks for in task/create; a task without a name is always a new one."""

    name: str | None = None
    params: JsonObject | None = None
    task_metadata: JsonObject | None = None


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

    Raises BadRequest when the name is that of another agent's task.
    """
    statement = insert(Task).values(
        id=new_id(),
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
    return task


async def _with_tracker(session: AsyncSession, made: CTE) -> Task:
    """Carry a task's upsert out, and in the same statement give the task its agent's tracker."""
    at = made.c.created_at
    new_id_column = literal_column(UUID7_SQL, Uuid())
    first = select_columns(new_id_column, made.c.account_id, made.c.agent_id, made.c.id, at, at)
    tracked = insert(_TRACKERS).from_select(_TRACKER_COLUMNS, first).on_conflict_do_nothing().cte("tracked")
    statement = select(aliased(Task, made)).add_cte(tracked)
    return (await session.exec(statement, execution_options={"populate_existing": True})).one()


async def find(session: AsyncSession, principal: Principal, task_id: str | UUID) -> Task:
    """One task of the account, for a write whose permission was asked before it."""
    statement = select(Task).where(col(Task.id) == parse_id(str(task_id), "task"))
    return await _one(session, principal, statement, str(task_id))


async def get(session: AsyncSession, authz: AuthProvider, principal: Principal, task_id: str) -> Task:
    """One task that the caller may read."""
    task = await find(session, principal, task_id)
    await require(authz, session, principal, Operation.READ, task_ref(task))
    return task


async def get_by_name(session: AsyncSession, authz: AuthProvider, principal: Principal, name: str) -> Task:
    """The same by name, within the caller's account."""
    task = await _one(session, principal, select(Task).where(col(Task.name) == name), name)
    await require(authz, session, principal, Operation.READ, task_ref(task))
    return task


async def with_agents(session: AsyncSession, task: Task) -> TaskReadWithAgents:
    """The task with its agent, deleted or not."""
    agent = (await session.exec(select(Agent).where(col(Agent.id) == task.agent_id))).one()
    read = TaskRead.model_validate(task)
    return TaskReadWithAgents(**read.model_dump(), agents=[AgentRead.model_validate(agent)])


async def list_page(
    session: AsyncSession,
    authz: AuthProvider,
    principal: Principal,
    wanted: TaskFilter,
    *,
    limit: int,
    page_number: int,
) -> list[Task]:
    """Tasks of the caller's account, newest first; pages count from 1."""
    await require(authz, session, principal, Operation.READ, type_ref(ResourceType.TASK, principal))
    statement = select(Task).where(col(Task.account_id) == principal.account_id)
    if wanted.agent_id is not None:
        statement = statement.where(col(Task.agent_id) == wanted.agent_id)
    if wanted.agent_name is not None:
        named = select(Agent.id).where(
            col(Agent.account_id) == principal.account_id, col(Agent.name) == wanted.agent_name
        )
        statement = statement.where(col(Task.agent_id).in_(named))
    if wanted.statuses is not None:
        statement = statement.where(col(Task.status).in_(wanted.statuses))
    statement = statement.order_by(col(Task.created_at).desc(), col(Task.id).desc())
    return list((await session.exec(statement.limit(limit).offset((page_number - 1) * limit))).all())


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
    statement = (
        update(Task)
        .where(col(Task.id) == task_id, col(Task.status).in_(OPEN_STATUSES))
        .values(status=status, status_reason=reason, updated_at=func.clock_timestamp())
        .returning(Task)
    )
    fresh = {"populate_existing": True, "synchronize_session": False}
    task = (await session.exec(statement, execution_options=fresh)).scalar_one_or_none()
    if task is None:
        raise await _not_open(session, task_id)
    closed = ClosedTask(task.id, status, reason)
    for hook in hooks.task_closed:
        await hook(session, closed)
    return task


async def _not_open(session: AsyncSession, task_id: UUID) -> NotFound | BadRequest:
    status = (await session.exec(select(Task.status).where(col(Task.id) == task_id))).one_or_none()
    if status is None:
        return NotFound(f"task {str(task_id)!r} not found")
    return BadRequest(f"task {task_id} is {status}; only a task that is RUNNING or INTERRUPTED can be closed")


async def _one(
    session: AsyncSession, principal: Principal, statement: SelectOfScalar[Task], named: str
) -> Task:
    statement = statement.where(col(Task.account_id) == principal.account_id)
    task = (await session.exec(statement)).one_or_none()
    if task is None:
        raise NotFound(f"task {named!r} not found")
    return task
