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

from agentex.agents.models import Agent, AgentRead, AgentRegister, AgentStatus, Deleted
from agentex.auth.authorize import AuthProvider, Operation, ResourceRef, ResourceType, require, type_ref
from agentex.auth.principal import Principal
from agentex.database import JsonObject, violates
from agentex.errors import AlreadyExists, NotFound
from agentex.ids import new_id, parse_id
from agentex.resources import RegisteredProcess, Resources

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


async def register(resources: Resources, principal: Principal, body: AgentRegister) -> Agent:
    """Make the agent, or bring the one of this id, else of this name, up to date.

    Raises AlreadyExists when the agent of that id wants a name that another one has.
    """
    while True:
        async with resources.db.read() as session:
            known = await _registered(session, principal, body)
            operation = Operation.UPDATE if known else Operation.CREATE
            subject = agent_ref(known) if known else type_ref(ResourceType.AGENT, principal)
            await require(resources.authz, session, principal, operation, subject)
        async with resources.db.begin() as session:
            if known and await _stands_aside(session, resources, known, body):
                return known
            agent = await (_update(session, known, body) if known else _insert(session, principal, body))
            if agent is not None:
                for hook in resources.hooks.agent_registered:
                    await hook(session, _process(agent, body))
        # None: another registration or a deletion came in between, so that something else is to be allowed.
        if agent is not None:
            return agent


async def find(
    session: AsyncSession, principal: Principal, agent_id: str | UUID, *, hold: bool = False
) -> Agent:
    """One agent of the account that is not deleted, for a write whose permission was asked before it.

    `hold` keeps it from being deleted until the transaction ends.
    """
    agent = await _of_id(session, principal, parse_id(str(agent_id), "agent"), hold=hold)
    if agent is None:
        raise NotFound(f"agent {str(agent_id)!r} not found")
    return agent


async def get(session: AsyncSession, authz: AuthProvider, principal: Principal, agent_id: str) -> Agent:
    """One agent that is not deleted and that the caller may read."""
    agent = await find(session, principal, agent_id)
    await require(authz, session, principal, Operation.READ, agent_ref(agent))
    return agent


async def get_by_name(session: AsyncSession, authz: AuthProvider, principal: Principal, name: str) -> Agent:
    """The same by name, within the caller's account."""
    agent = await _of_name(session, principal, name)
    if agent is None:
        raise NotFound(f"agent {name!r} not found")
    await require(authz, session, principal, Operation.READ, agent_ref(agent))
    return agent


async def list_page(
    session: AsyncSession,
    authz: AuthProvider,
    principal: Principal,
    wanted: AgentFilter,
    *,
    limit: int,
    page_number: int,
) -> list[Agent]:
    """Agents of the caller's account that are not deleted; pages count from 1."""
    await require(authz, session, principal, Operation.READ, type_ref(ResourceType.AGENT, principal))
    statement = _present(principal)
    if wanted.task_id is not None:
        of_task = text("agents.id IN (SELECT agent_id FROM tasks WHERE id = :task_id)")
        statement = statement.where(of_task.bindparams(task_id=wanted.task_id))
    key = {"created_at": col(Agent.created_at), "updated_at": col(Agent.updated_at), "name": col(Agent.name)}
    order = [key[wanted.order_by], col(Agent.id)]
    statement = statement.order_by(
        *[c.desc() if wanted.order_direction == "desc" else c.asc() for c in order]
    )
    return list((await session.exec(statement.limit(limit).offset((page_number - 1) * limit))).all())


async def delete_by(resources: Resources, principal: Principal, agent: Agent) -> Deleted:
    """Delete an agent on behalf of a caller."""
    async with resources.db.read() as session:
        await require(resources.authz, session, principal, Operation.DELETE, agent_ref(agent))

    async def write() -> None:
        async with resources.db.begin() as session:
            await delete(session, resources, principal, agent)

    await resources.db.retry_deadlock(write)
    return Deleted(id=agent.id, message=f"Agent '{agent.name}' was deleted")


async def delete(session: AsyncSession, resources: Resources, principal: Principal, agent: Agent) -> None:
    """Mark the agent deleted, and let those who depend on it follow in the same transaction."""
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


def _present(principal: Principal) -> SelectOfScalar[Agent]:
    return select(Agent).where(col(Agent.account_id) == principal.account_id, col(Agent.deleted_at).is_(None))


async def _of_id(
    session: AsyncSession, principal: Principal, agent_id: UUID, *, hold: bool = False
) -> Agent | None:
    statement = _present(principal).where(col(Agent.id) == agent_id)
    if hold:
        statement = statement.with_for_update(read=True)
    return (await session.exec(statement)).one_or_none()


async def _of_name(session: AsyncSession, principal: Principal, name: str) -> Agent | None:
    return (await session.exec(_present(principal).where(col(Agent.name) == name))).one_or_none()


async def _registered(session: AsyncSession, principal: Principal, body: AgentRegister) -> Agent | None:
    """The agent that a registration means: of the id that it names, else of its name."""
    agent_id = _uuid(body.agent_id)
    of_id = await _of_id(session, principal, agent_id) if agent_id else None
    return of_id or await _of_name(session, principal, body.name)


def _process(agent: Agent, body: AgentRegister) -> RegisteredProcess:
    return RegisteredProcess(agent.id, body.acp_url, body.acp_type, body.registration_metadata)


async def _stands_aside(
    session: AsyncSession, resources: Resources, known: Agent, body: AgentRegister
) -> bool:
    """Whether the process is of a deployment that is not in production, so that the agent stays as it is."""
    hook = resources.hooks.process_registers
    return hook is not None and await hook(session, _process(known, body))


def _said(body: AgentRegister) -> dict[str, Any]:
    """The columns that each registration sets."""
    return {
        **body.model_dump(exclude={"agent_id", "principal_context"}),
        "status": AgentStatus.READY,
        "status_reason": None,
    }


async def _update(session: AsyncSession, known: Agent, body: AgentRegister) -> Agent | None:
    """The agent brought up to date; None when it has been deleted or renamed since it was read."""
    statement = (
        update(Agent)
        .where(col(Agent.id) == known.id, col(Agent.name) == known.name, col(Agent.deleted_at).is_(None))
        .values(**_said(body), registered_at=func.clock_timestamp(), updated_at=func.clock_timestamp())
        .returning(Agent)
    )
    try:
        return (await session.exec(statement)).scalar_one_or_none()
    except IntegrityError as error:
        if violates(error, UNIQUE_NAME):
            raise AlreadyExists(f"agent {body.name!r} already exists, with another id") from None
        raise


async def _insert(session: AsyncSession, principal: Principal, body: AgentRegister) -> Agent | None:
    """A new agent; None when there is one of this name by now."""
    statement = insert(Agent).values(
        **_said(body),
        id=new_id(),
        account_id=principal.account_id,
        owner=principal.creator,
        registered_at=func.now(),
        created_at=func.now(),
        updated_at=func.now(),
    )
    statement = statement.on_conflict_do_nothing(
        index_elements=["account_id", "name"], index_where=col(Agent.deleted_at).is_(None)
    ).returning(Agent)
    return (await session.exec(statement)).scalar_one_or_none()


def _uuid(value: str | None) -> UUID | None:
    try:
        return UUID(value) if value else None
    except ValueError:
        return None
