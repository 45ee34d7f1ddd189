"""/agents: registration, and what is known of agents."""

from __future__ import annotations

from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Header, Query

from agentex.agents import service
from agentex.agents.models import AgentRead, AgentRegister, AgentRegisterBuild, AgentRegistered, Deleted
from agentex.agents.transfer import AgentTransferred, transfer
from agentex.auth.keys import AGENT_KEY_HEADER
from agentex.auth.owners import Transfer
from agentex.deps import Caller, Limit, PageNumber, ReadSession, ResourcesDep, json_object

router = APIRouter(prefix="/agents", tags=["agents"])

# A credential like the others, which the document names as such and not as a parameter.
AgentKey = Annotated[str | None, Header(alias=AGENT_KEY_HEADER, include_in_schema=False)]


@router.post("/register")
async def register_agent(
    body: AgentRegister, resources: ResourcesDep, caller: Caller, agent_key: AgentKey = None
) -> AgentRegistered:
    """Register an agent, or bring it up to date; idempotent by name, or by agent_id when it is known.

    With AGENTEX_AUTH, a new name takes leave to make agents, a known one the agent's own key or leave to
    change the agent. A key in x-agent-api-key is what the agent is called with from then on. To who else
    registers a new name, the answer has the agent's first key, this once.
    """
    registered = await service.register(resources, caller, body, agent_key=agent_key)
    read = AgentRead.model_validate(registered.agent)
    return AgentRegistered(**read.model_dump(), agent_api_key=registered.agent_api_key)


@router.post("/register-build")
async def register_agent_build(
    body: AgentRegisterBuild, resources: ResourcesDep, caller: Caller
) -> AgentRead:
    """Register an agent before it is deployed, so that it has an id; idempotent by name.

    It is BuildOnly and cannot be called until it registers itself. One that has stays as it is.
    """
    return AgentRead.model_validate(await service.register_build(resources, caller, body))


@router.get("")
async def list_agents(
    session: ReadSession,
    resources: ResourcesDep,
    caller: Caller,
    task_id: Annotated[UUID | None, Query(description="Only the agent of this task")] = None,
    agent_card_metadata: Annotated[
        str | None,
        Query(
            description="A JSON object: only agents whose registration_metadata.agent_card.metadata holds it",
            examples=['{"region": "eu"}'],
        ),
    ] = None,
    limit: Limit = 50,
    page_number: PageNumber = 1,
    order_by: Annotated[
        Literal["created_at", "updated_at", "name"], Query(description="What the list is sorted by")
    ] = "created_at",
    order_direction: Annotated[Literal["asc", "desc"], Query(description="Which way")] = "desc",
) -> list[AgentRead]:
    """Agents that are not deleted."""
    metadata = json_object(agent_card_metadata, "agent_card_metadata")
    wanted = service.AgentFilter(task_id, metadata, order_by, order_direction)
    found = await service.list_page(
        session, resources.authz, caller, wanted, limit=limit, page_number=page_number
    )
    return [AgentRead.model_validate(agent) for agent in found]


@router.get("/name/{name}")
async def get_agent_by_name(
    name: str, session: ReadSession, resources: ResourcesDep, caller: Caller
) -> AgentRead:
    """One agent by name."""
    return AgentRead.model_validate(await service.get_by_name(session, resources.authz, caller, name))


@router.delete("/name/{name}")
async def delete_agent_by_name(name: str, resources: ResourcesDep, caller: Caller) -> Deleted:
    """Delete an agent by name; its schedules are paused, and its name is free again."""
    async with resources.db.read() as session:
        agent = await service.get_by_name(session, resources.authz, caller, name)
    return await service.delete_by(resources, caller, agent)


@router.get("/{agent_id}")
async def get_agent(
    agent_id: str, session: ReadSession, resources: ResourcesDep, caller: Caller
) -> AgentRead:
    """One agent by id."""
    return AgentRead.model_validate(await service.get(session, resources.authz, caller, agent_id))


@router.delete("/{agent_id}")
async def delete_agent(agent_id: str, resources: ResourcesDep, caller: Caller) -> Deleted:
    """Delete an agent; its schedules are paused, and its name is free again."""
    async with resources.db.read() as session:
        agent = await service.get(session, resources.authz, caller, agent_id)
    return await service.delete_by(resources, caller, agent)


@router.post("/{agent_id}/transfer")
async def transfer_agent(
    agent_id: str, body: Transfer, resources: ResourcesDep, caller: Caller
) -> AgentTransferred:
    """Give an agent to another member; for its owner or an admin. Its schedules stay whose they are."""
    return await transfer(resources, caller, agent_id, body.owner)
