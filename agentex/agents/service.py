"""Agents: register, find, list, delete."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import func, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import IntegrityError
from sqlmodel import col, select, update
from sqlmodel.ext.asyncio.session import AsyncSession
from sqlmodel.sql.expression import SelectOfScalar

from agentex.agents.models import Agent, AgentRead, AgentRegister, AgentStatus
from agentex.auth.authorize import AuthProvider, Operation, ResourceRef, ResourceType, require
from agentex.auth.principal import Principal
from agentex.database import JsonObject, violates
from agentex.errors import AlreadyExists, NotFound
from agentex.ids import new_id, parse_id
from agentex.resources import Resources

UNIQUE_NAME = "uq_agents_account_id_name"


@dataclass(frozen=True)
class AgentFilter:
    """Which agents a list has, and in which order; None does not filter."""

    task_id: UUID | None = None
    order_by: Literal["created_at", "updated_at", "name"] = "created_at"
    order_direction: Literal["asc", "desc"] = "desc"


def agent_ref(agent: Agent) -> ResourceRef:
    """The agent as a resource."""
    return ResourceRef(ResourceType.AGENT, str(agent.id), agent.account_id, agent.owner)


def wire_agent(agent: Agent) -> JsonObject:
    """The agent as it is told about itself (wire.md §1b)."""
    read = AgentRead.model_validate(agent).model_dump(mode="json")
    return {**read, "docker_image": None, "acp_url": agent.acp_url}


async def register(
    session: AsyncSession, authz: AuthProvider, principal: Principal, body: AgentRegister
) -> Agent:
    """Make the agent, or bring the one of this id, else of this name, up to date.

    Raises AlreadyExists when the agent of that id wants a name that another one has.
    """
    agent = await _update_registered(session, principal, body) or await _upsert(session, principal, body)
    is_new = agent.created_at == agent.updated_at
    if is_new:
        anything = ResourceRef(ResourceType.AGENT, "*", principal.account_id)
        await require(authz, session, principal, Operation.CREATE, anything)
    else:
        await require(authz, session, principal, Operation.UPDATE, agent_ref(agent))
    return agent


async def get(
    session: AsyncSession, authz: AuthProvider, principal: Principal, agent_id: str, *, hold: bool = False
) -> Agent:
    """One agent that is not deleted; `hold` keeps it from being deleted until the transaction ends."""
    statement = select(Agent).where(col(Agent.id) == parse_id(agent_id, "agent"))
    return await _find(session, authz, principal, statement, agent_id, hold=hold)


async def get_by_name(
    session: AsyncSession, authz: AuthProvider, principal: Principal, name: str, *, hold: bool = False
) -> Agent:
    """The same by name, within the caller's account."""
    statement = select(Agent).where(col(Agent.name) == name)
    return await _find(session, authz, principal, statement, name, hold=hold)


async def list_page(
    session: AsyncSession, principal: Principal, wanted: AgentFilter, *, limit: int, page_number: int
) -> list[Agent]:
    """Agents of the caller's account that are not deleted; pages count from 1."""
    statement = select(Agent).where(
        col(Agent.account_id) == principal.account_id, col(Agent.deleted_at).is_(None)
    )
    if wanted.task_id is not None:
        of_task = text("agents.id IN (SELECT agent_id FROM tasks WHERE id = :task_id)")
        statement = statement.where(of_task.bindparams(task_id=wanted.task_id))
    key = {"created_at": col(Agent.created_at), "updated_at": col(Agent.updated_at), "name": col(Agent.name)}
    order = [key[wanted.order_by], col(Agent.id)]
    statement = statement.order_by(
        *[c.desc() if wanted.order_direction == "desc" else c.asc() for c in order]
    )
    return list((await session.exec(statement.limit(limit).offset((page_number - 1) * limit))).all())


async def delete(session: AsyncSession, resources: Resources, principal: Principal, agent: Agent) -> None:
    """Mark the agent deleted, and let those who depend on it follow in the same transaction."""
    await require(resources.authz, session, principal, Operation.DELETE, agent_ref(agent))
    deleted = await session.exec(
        update(Agent)
        .where(col(Agent.id) == agent.id, col(Agent.deleted_at).is_(None))
        .values(
            status=AgentStatus.DELETED, deleted_at=func.clock_timestamp(), updated_at=func.clock_timestamp()
        )
        .returning(col(Agent.id)),
        execution_options={"synchronize_session": False},
    )
    if deleted.first() is None:
        raise NotFound(f"agent {str(agent.id)!r} not found")
    for hook in resources.hooks.agent_deleted:
        await hook(session, principal, agent.id)


async def _find(
    session: AsyncSession,
    authz: AuthProvider,
    principal: Principal,
    statement: SelectOfScalar[Agent],
    named: str,
    *,
    hold: bool,
) -> Agent:
    statement = statement.where(
        col(Agent.account_id) == principal.account_id, col(Agent.deleted_at).is_(None)
    )
    if hold:
        statement = statement.with_for_update(read=True)
    agent = (await session.exec(statement)).one_or_none()
    if agent is None:
        raise NotFound(f"agent {named!r} not found")
    await require(authz, session, principal, Operation.READ, agent_ref(agent))
    return agent


def _said(body: AgentRegister) -> dict[str, Any]:
    """The columns that each registration sets."""
    return {
        **body.model_dump(exclude={"agent_id", "principal_context"}),
        "status": AgentStatus.READY,
        "status_reason": None,
    }


async def _update_registered(
    session: AsyncSession, principal: Principal, body: AgentRegister
) -> Agent | None:
    """The agent of the id that the registration names, brought up to date; None when there is none."""
    agent_id = _uuid(body.agent_id)
    if agent_id is None:
        return None
    statement = (
        update(Agent)
        .where(
            col(Agent.id) == agent_id,
            col(Agent.account_id) == principal.account_id,
            col(Agent.deleted_at).is_(None),
        )
        .values(**_said(body), registered_at=func.clock_timestamp(), updated_at=func.clock_timestamp())
        .returning(Agent)
    )
    try:
        return (await session.exec(statement)).scalar_one_or_none()
    except IntegrityError as error:
        if violates(error, UNIQUE_NAME):
            raise AlreadyExists(f"agent {body.name!r} already exists, with another id") from None
        raise


async def _upsert(session: AsyncSession, principal: Principal, body: AgentRegister) -> Agent:
    said = _said(body)
    statement = insert(Agent).values(
        **said,
        id=new_id(),
        account_id=principal.account_id,
        owner=principal.creator,
        # One instant for all three, so that created_at = updated_at tells a new agent.
        registered_at=func.now(),
        created_at=func.now(),
        updated_at=func.now(),
    )
    statement = statement.on_conflict_do_update(
        index_elements=["account_id", "name"],
        index_where=col(Agent.deleted_at).is_(None),
        set_={**said, "registered_at": func.clock_timestamp(), "updated_at": func.clock_timestamp()},
    ).returning(Agent)
    return (await session.exec(statement)).scalar_one()


def _uuid(value: str | None) -> UUID | None:
    try:
        return UUID(value) if value else None
    except ValueError:
        return None
