"""Deployments of an agent: make, list, promote, try, delete; and what a registering process means to them.

Who writes locks the agent's row first and the deployment's then, so that a promotion, a deletion and a
registration wait for one another and none of them deadlocks.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Literal
from uuid import UUID

from sqlalchemy import func
from sqlmodel import col, select, update
from sqlmodel.ext.asyncio.session import AsyncSession

from agentex.agents import service as agents
from agentex.agents.models import Agent, AgentStatus, Deleted
from agentex.agents.service import agent_ref
from agentex.auth.authorize import Operation, require
from agentex.auth.principal import Principal
from agentex.database import clock_now, rows
from agentex.deployments.history import note_commit
from agentex.deployments.models import Deployment, DeploymentCreate, DeploymentRead, DeploymentStatus
from agentex.errors import BadRequest, NotFound
from agentex.idempotency import Repeat, find_answer, remember
from agentex.ids import parse_id
from agentex.resources import RegisteredProcess, Resources


@dataclass(frozen=True)
class Target:
    """Which deployment a request names."""

    agent_id: str
    deployment_id: str


@dataclass(frozen=True)
class DeploymentsPage:
    """Which part of a list, in which order; pages count from 1."""

    limit: int
    page_number: int
    order_by: Literal["created_at", "promoted_at"]
    order_direction: Literal["asc", "desc"]


def read(deployment: Deployment, agent: Agent) -> DeploymentRead:
    """A deployment as the agent's row has it."""
    is_production = agent.production_deployment_id == str(deployment.id)
    return DeploymentRead.model_validate({**deployment.model_dump(), "is_production": is_production})


async def create(
    resources: Resources, principal: Principal, agent_id: str, body: DeploymentCreate, repeat: Repeat
) -> DeploymentRead:
    """Make a deployment that waits for its agent process to register."""
    await _require_update(resources, principal, agent_id)

    async with resources.db.begin() as session:
        agent = await agents.find(session, principal, agent_id, hold=True)
        answer = await find_answer(session, repeat)
        if answer is not None:
            return DeploymentRead.model_validate(answer)
        deployment = Deployment(
            **body.model_dump(),
            account_id=principal.account_id,
            agent_id=agent.id,
            owner=principal.creator,
            status=DeploymentStatus.PENDING,
            created_at=await clock_now(session),
        )
        session.add(deployment)
        await session.flush()
        made = read(deployment, agent)
        await remember(session, repeat, made.model_dump(mode="json"))
        return made


async def list_page(
    session: AsyncSession, resources: Resources, principal: Principal, agent_id: str, page: DeploymentsPage
) -> list[DeploymentRead]:
    """An agent's deployments, the deleted ones too: whoever cleans up looks for them here."""
    agent = await agents.get(session, resources.authz, principal, agent_id)
    is_down = page.order_direction == "desc"
    keys = {
        # In the index as DESC NULLS LAST, which is this backwards.
        "promoted_at": col(Deployment.promoted_at).desc().nulls_last()
        if is_down
        else col(Deployment.promoted_at).asc().nulls_first(),
        "created_at": col(Deployment.created_at).desc() if is_down else col(Deployment.created_at).asc(),
    }
    statement = (
        select(Deployment)
        .where(col(Deployment.agent_id) == agent.id)
        .order_by(keys[page.order_by], col(Deployment.id).desc() if is_down else col(Deployment.id).asc())
        .limit(page.limit)
        .offset((page.page_number - 1) * page.limit)
    )
    return [read(deployment, agent) for deployment in (await session.exec(statement)).all()]


async def get(
    session: AsyncSession, resources: Resources, principal: Principal, target: Target
) -> DeploymentRead:
    """One deployment, for those who may read its agent."""
    agent = await agents.get(session, resources.authz, principal, target.agent_id)
    return read(await _find(session, agent, target.deployment_id), agent)


async def promote(resources: Resources, principal: Principal, target: Target) -> DeploymentRead:
    """Make the agent be this deployment from its next request on; raises BadRequest unless it is Ready."""
    await _require_update(resources, principal, target.agent_id)
    async with resources.db.begin() as session:
        agent = await _lock_agent(session, principal, target.agent_id)
        deployment = await _find(session, agent, target.deployment_id)
        _require_usable(deployment, "promoted")
        promoted = await rows(
            session,
            """
            UPDATE deployments SET promoted_at = clock_timestamp() WHERE id = :id RETURNING promoted_at
            """,
            id=deployment.id,
        )
        await rows(
            session,
            """
            UPDATE agents a
            SET production_deployment_id = CAST(d.id AS text), acp_url = d.acp_url,
                acp_type = coalesce(d.acp_type, a.acp_type),
                registration_metadata =
                    coalesce(a.registration_metadata, '{}') || coalesce(d.registration_metadata, '{}'),
                status = :ready, status_reason = NULL, health_failures = 0,
                updated_at = clock_timestamp()
            FROM deployments d WHERE d.id = :id AND a.id = d.agent_id
            """,
            id=deployment.id,
            ready=AgentStatus.READY,
        )
        await note_commit(session, agent.id, deployment.registration_metadata)
        after = {**deployment.model_dump(), **promoted[0], "is_production": True}
        return DeploymentRead.model_validate(after)


async def delete(resources: Resources, principal: Principal, target: Target) -> Deleted:
    """Mark a deployment for cleanup, once; raises BadRequest for the one in production."""
    await _require_update(resources, principal, target.agent_id)
    async with resources.db.begin() as session:
        agent = await _lock_agent(session, principal, target.agent_id)
        deployment = await _find(session, agent, target.deployment_id)
        if agent.production_deployment_id == str(deployment.id):
            raise BadRequest(
                f"deployment {deployment.id} is in production; promote another one before you delete it"
            )
        await session.exec(
            update(Deployment)
            .where(col(Deployment.id) == deployment.id, col(Deployment.expires_at).is_(None))
            .values(expires_at=func.clock_timestamp()),
            execution_options={"synchronize_session": False},
        )
    return Deleted(id=deployment.id, message=f"Deployment '{deployment.id}' was deleted")


async def to_preview(resources: Resources, principal: Principal, target: Target) -> Agent:
    """The agent as it would be if this deployment were in production, to be called and not to be written."""
    async with resources.db.read() as session:
        agent = await agents.get(session, resources.authz, principal, target.agent_id)
        deployment = await _find(session, agent, target.deployment_id)
    _require_usable(deployment, "called")
    seen = Agent(**agent.model_dump())
    seen.acp_url = deployment.acp_url or agent.acp_url
    seen.acp_type = deployment.acp_type or agent.acp_type
    seen.status, seen.status_reason = AgentStatus.READY, None
    return seen


async def take_in(session: AsyncSession, process: RegisteredProcess) -> bool:
    """A process registers for an agent: its deployment is Ready and has its address.

    True when that deployment is not in production: then the process is not what the agent is, and the
    agent's row stays as it is. A deleted deployment's process changes nothing at all. A deployment that the
    agent does not have is none: the process may have been deployed by way of another server. It raises
    BadRequest where one of ours is in production, whose place it would take.
    """
    said = (process.metadata or {}).get("deployment_id")
    if said is None:
        await _leave_production(session, process)
        return False
    found = await rows(
        session,
        """
        SELECT production_deployment_id FROM agents WHERE id = :agent_id AND deleted_at IS NULL
        FOR NO KEY UPDATE
        """,
        agent_id=process.agent_id,
    )
    in_production = found[0]["production_deployment_id"] if found else None
    deployment_id = _uuid(said)
    known = await _mark_ready(session, process, deployment_id) if deployment_id else False
    if in_production is None:
        return known
    if not known:
        raise BadRequest(
            f"registration_metadata.deployment_id: {str(said)[:80]!r} is no deployment of this agent, and "
            f"deployment {in_production} is in production; register with the id of one, or with none"
        )
    return in_production != str(deployment_id)


async def _leave_production(session: AsyncSession, process: RegisteredProcess) -> None:
    """A process without a deployment is the agent itself, unless it is where the one in production is."""
    await rows(
        session,
        """
        UPDATE agents a SET production_deployment_id = NULL
        WHERE a.id = :agent_id AND a.production_deployment_id IS NOT NULL AND NOT EXISTS (
            SELECT FROM deployments d
            WHERE CAST(d.id AS text) = a.production_deployment_id AND d.acp_url = :acp_url)
        """,
        agent_id=process.agent_id,
        acp_url=process.acp_url,
    )


async def _mark_ready(session: AsyncSession, process: RegisteredProcess, deployment_id: UUID) -> bool:
    """Whether the agent has this deployment, deleted ones too; one that is not deleted is Ready now."""
    known = await rows(
        session,
        """
        UPDATE deployments
        SET status = CASE WHEN expires_at IS NULL THEN :ready ELSE status END,
            acp_url = CASE WHEN expires_at IS NULL THEN :acp_url ELSE acp_url END,
            acp_type = CASE WHEN expires_at IS NULL THEN :acp_type ELSE acp_type END,
            registration_metadata = CASE WHEN expires_at IS NULL
                THEN coalesce(registration_metadata, '{}') || CAST(:metadata AS jsonb)
                ELSE registration_metadata END
        WHERE id = :id AND agent_id = :agent_id RETURNING id
        """,
        id=deployment_id,
        agent_id=process.agent_id,
        ready=DeploymentStatus.READY,
        acp_url=process.acp_url,
        acp_type=process.acp_type,
        metadata=json.dumps(process.metadata),
    )
    return bool(known)


async def _require_update(resources: Resources, principal: Principal, agent_id: str) -> None:
    async with resources.db.read() as session:
        agent = await agents.get(session, resources.authz, principal, agent_id)
        await require(resources.authz, session, principal, Operation.UPDATE, agent_ref(agent))


async def _lock_agent(session: AsyncSession, principal: Principal, agent_id: str) -> Agent:
    """The agent as it is now, and as it stays until the transaction ends."""
    statement = (
        select(Agent)
        .where(
            col(Agent.id) == parse_id(agent_id, "agent"),
            col(Agent.account_id) == principal.account_id,
            col(Agent.deleted_at).is_(None),
        )
        .with_for_update(key_share=True)
    )
    agent = (await session.exec(statement)).one_or_none()
    if agent is None:
        raise NotFound(f"agent {agent_id!r} not found")
    return agent


async def _find(session: AsyncSession, agent: Agent, deployment_id: str) -> Deployment:
    statement = select(Deployment).where(
        col(Deployment.id) == parse_id(deployment_id, "deployment"), col(Deployment.agent_id) == agent.id
    )
    deployment = (await session.exec(statement)).one_or_none()
    if deployment is None:
        raise NotFound(f"agent {agent.name!r} has no deployment {deployment_id!r}")
    return deployment


def _require_usable(deployment: Deployment, what: str) -> None:
    if deployment.expires_at is not None:
        raise BadRequest(f"deployment {deployment.id} is deleted, so it cannot be {what}")
    if deployment.status is not DeploymentStatus.READY or deployment.acp_url is None:
        raise BadRequest(
            f"deployment {deployment.id} is {deployment.status}, so it cannot be {what}; it is Ready once "
            "its agent process has registered with its id as registration_metadata.deployment_id"
        )


def _uuid(value: object) -> UUID | None:
    try:
        return UUID(value) if isinstance(value, str) else None
    except ValueError:
        return None
