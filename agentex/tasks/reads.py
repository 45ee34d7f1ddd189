"""Lists of tasks: filtered, sorted and paged in SQL, without their params.

Each order and each filter but the metadata's is served by an index in the list's order. What metadata holds
is not: its index knows no order, and Postgres can only guess how many tasks a piece of JSON fits, so it might
walk a million of them for fifty that are old. So first the newest few are looked at, which is enough for what
fits many; what they do not fill is found by the metadata's index, all that fits, and then sorted.

Who does not see all tasks sees some for one reason and some for another (auth/local.py). Each reason has an
index in the list's order, their OR has none: so the first of each are looked up, and then the first of those.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import ColumnElement, false, union_all
from sqlalchemy import select as select_columns
from sqlalchemy.orm import Mapped, aliased, defer
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession
from sqlmodel.sql.expression import SelectOfScalar

from agentex.agents.models import Agent, AgentRead
from agentex.auth.authorize import EVERYTHING, AuthProvider, ResourceType, Visible
from agentex.auth.lists import seen_apart, seen_by
from agentex.auth.principal import Principal
from agentex.database import JsonObject
from agentex.tasks.models import Task, TaskListed, TaskStatus

# Tasks that are looked at one after the other for what their metadata holds: 3 ms.
WALK_ROWS = 2_000

_COLUMNS = {"id": "tasks.id", "owner": "tasks.owner", "agent_id": "tasks.agent_id"}

OrderBy = Literal["created_at", "updated_at", "name"]
OrderDirection = Literal["asc", "desc"]


@dataclass(frozen=True)
class TaskFilter:
    """Which tasks a list has; None does not filter. Deleted ones are in none."""

    agent_id: UUID | None = None
    agent_name: str | None = None
    statuses: frozenset[TaskStatus] | None = None
    # What the metadata holds at least, as JSONB's @> has it.
    task_metadata: JsonObject | None = None


@dataclass(frozen=True)
class TaskPage:
    """Which part of the list, in which order; pages count from 1."""

    limit: int = 50
    page_number: int = 1
    order_by: OrderBy = "created_at"
    order_direction: OrderDirection = "desc"


async def list_page(
    session: AsyncSession, authz: AuthProvider, principal: Principal, wanted: TaskFilter, page: TaskPage
) -> list[Task]:
    """Tasks of the caller's account; what is equal in the order goes by id."""
    seen = await authz.visible(session, principal, ResourceType.TASK)
    mine = [
        col(Task.account_id) == principal.account_id,
        *await _conditions(session, principal, wanted),
    ]
    if wanted.task_metadata is None:
        first = _first_seen(seen, mine, page, page.page_number * page.limit)
        return await _found(session, select(Task).where(*first), page, Task)
    holds = col(Task.task_metadata).contains(wanted.task_metadata)
    first = select(Task).where(*_first_seen(seen, mine, page, WALK_ROWS))
    newest = aliased(Task, first.order_by(*_order(Task, page)).limit(WALK_ROWS).subquery())
    every = select(Task).where(*mine, seen_by(seen, **_COLUMNS))
    near = select(newest).where(col(newest.task_metadata).contains(wanted.task_metadata))
    found = await _found(session, near, page, newest)
    if len(found) == page.limit:
        return found
    # OFFSET 0 is a fence: without it the limit outside would lure Postgres into walking.
    fitting = aliased(Task, every.where(holds).offset(0).subquery())
    return await _found(session, select(fitting), page, fitting)


def _first_seen(
    seen: Visible, mine: list[ColumnElement[bool]], page: TaskPage, count: int
) -> list[ColumnElement[bool]]:
    """Conditions that hold for the first so many of the list that the caller may see, and few others."""
    if seen == EVERYTHING:
        return mine
    firsts = [
        select_columns(col(Task.id)).where(*mine, reason).order_by(*_order(Task, page)).limit(count)
        for reason in seen_apart(seen, **_COLUMNS)
    ]
    # Tables of their own, although the list's has the same name.
    return (
        [col(Task.id).in_(union_all(*[first.correlate(None) for first in firsts]))] if firsts else [false()]
    )


async def with_agents(session: AsyncSession, tasks: Sequence[Task], *, wanted: bool) -> list[TaskListed]:
    """The tasks as lists have them; with their agents, deleted or not, where they are wanted."""
    listed = [TaskListed.model_validate(task) for task in tasks]
    if wanted:
        ids = {task.agent_id for task in tasks}
        found = (await session.exec(select(Agent).where(col(Agent.id).in_(ids)))).all()
        agents = {agent.id: [AgentRead.model_validate(agent)] for agent in found}
        for task, read in zip(tasks, listed, strict=True):
            read.agents = agents[task.agent_id]
    return listed


async def _conditions(
    session: AsyncSession, principal: Principal, wanted: TaskFilter
) -> list[ColumnElement[bool]]:
    """All but the account's and the metadata's."""
    # Equality with one value goes by an index in the list's order; a list of them, or a subquery, does not.
    conditions: list[ColumnElement[bool]] = []
    if wanted.agent_id is not None:
        conditions.append(col(Task.agent_id) == wanted.agent_id)
    if wanted.agent_name is not None:
        named = select(Agent.id).where(
            col(Agent.account_id) == principal.account_id, col(Agent.name) == wanted.agent_name
        )
        conditions.append(_is_one_of(col(Task.agent_id), (await session.exec(named)).all()))
    if wanted.statuses is not None:
        conditions.append(_is_one_of(col(Task.status), sorted(wanted.statuses)))
    else:
        conditions.append(col(Task.status) != TaskStatus.DELETED)
    return conditions


def _is_one_of(column: Mapped[Any], values: Sequence[object]) -> ColumnElement[bool]:
    return column == values[0] if len(values) == 1 else column.in_(values)


def _order(of: type[Task], page: TaskPage) -> list[ColumnElement[Any]]:
    key = {"created_at": col(of.created_at), "updated_at": col(of.updated_at), "name": col(of.name)}
    columns = [key[page.order_by], col(of.id)]
    return [column.desc() if page.order_direction == "desc" else column.asc() for column in columns]


async def _found(
    session: AsyncSession, statement: SelectOfScalar[Task], page: TaskPage, of: type[Task]
) -> list[Task]:
    statement = (
        statement.options(defer(of.params, raiseload=True))  # pyright: ignore[reportArgumentType] - an attribute of the mapped class
        .order_by(*_order(of, page))
        .limit(page.limit)
        .offset((page.page_number - 1) * page.limit)
    )
    return list((await session.exec(statement)).all())
