"""Giving an agent to another member."""

from __future__ import annotations

from uuid import UUID

from pydantic import BaseModel
from sqlmodel.ext.asyncio.session import AsyncSession

from agentex.agents import service
from agentex.agents.models import Agent
from agentex.agents.service import agent_ref
from agentex.auth.authorize import Operation, require_disposal
from agentex.auth.owners import new_owner
from agentex.auth.principal import Principal
from agentex.database import rows
from agentex.errors import NotFound
from agentex.resources import Resources


class AgentTransferred(BaseModel):
    """Whose an agent is, and whose it was."""

    id: UUID
    owner: str
    previous_owner: str


async def transfer(resources: Resources, principal: Principal, agent_id: str, owner: str) -> AgentTransferred:
    """Give an agent to a member that may execute it; its schedules and keys stay as they are. Idempotent."""
    async with resources.db.read() as session:
        agent = await service.get(session, resources.authz, principal, agent_id)
        await require_disposal(resources.authz, session, principal, agent_ref(agent))
        needs = [(Operation.EXECUTE, agent_ref(agent))]
        taker = await new_owner(session, resources.authz, principal, owner, needs)
    async with resources.db.single() as session:
        await _give(session, agent, taker.creator)
    return AgentTransferred(id=agent.id, owner=taker.creator, previous_owner=agent.owner)


async def _give(session: AsyncSession, agent: Agent, owner: str) -> None:
    """Raises NotFound when it was deleted, or given to somebody else, since it was read."""
    given = await rows(
        session,
        """
        UPDATE agents SET owner = :owner, updated_at = clock_timestamp()
        WHERE id = :id AND account_id = :account_id AND owner IN (:before, :owner) AND deleted_at IS NULL
        RETURNING id
        """,
        id=agent.id,
        account_id=agent.account_id,
        before=agent.owner,
        owner=owner,
    )
    if not given:
        raise NotFound(f"agent {str(agent.id)!r} not found, or not {agent.owner}'s any more")
