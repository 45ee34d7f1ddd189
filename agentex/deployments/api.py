"""Deployments of an agent, /agents/{id}/deployments, and what it has been, /deployment-history."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response

from agentex.agents.models import Deleted
from agentex.deployments import history, service
from agentex.deployments.history import HistoryPage
from agentex.deployments.models import DeploymentCreate, DeploymentHistoryRead, DeploymentRead
from agentex.deployments.service import DeploymentsPage, Target
from agentex.deps import Caller, Limit, PageNumber, ReadSession, RepeatDep, ResourcesDep
from agentex.rpc.api import ANSWERS, answered, client_headers
from agentex.rpc.calls import RpcCall
from agentex.rpc.models import RpcRequest, RpcResponse

router = APIRouter(prefix="/agents/{agent_id}/deployments", tags=["deployments"])
history_router = APIRouter(prefix="/deployment-history", tags=["deployments"])

Direction = Annotated[Literal["asc", "desc"], Query(description="Which way")]
DeploymentOrder = Annotated[
    Literal["created_at", "promoted_at"], Query(description="What the list is sorted by")
]
HistoryOrder = Annotated[
    Literal["deployment_timestamp", "build_timestamp"], Query(description="What the list is sorted by")
]


@router.post("")
async def create_deployment(
    agent_id: str, body: DeploymentCreate, resources: ResourcesDep, caller: Caller, repeat: RepeatDep
) -> DeploymentRead:
    """Make a deployment, Pending until its agent process registers with its id.

    The process says that id as `registration_metadata.deployment_id`; until the deployment is promoted, the
    agent stays as it is.
    """
    return await service.create(resources, caller, agent_id, body, repeat)


@router.get("")
async def list_deployments(
    agent_id: str,
    session: ReadSession,
    resources: ResourcesDep,
    caller: Caller,
    limit: Limit = 50,
    page_number: PageNumber = 1,
    order_by: DeploymentOrder = "created_at",
    order_direction: Direction = "desc",
) -> list[DeploymentRead]:
    """The deployments of an agent, the deleted ones too."""
    page = DeploymentsPage(limit, page_number, order_by, order_direction)
    return await service.list_page(session, resources, caller, agent_id, page)


@router.get("/{deployment_id}")
async def get_deployment(
    agent_id: str, deployment_id: str, session: ReadSession, resources: ResourcesDep, caller: Caller
) -> DeploymentRead:
    """One deployment."""
    return await service.get(session, resources, caller, Target(agent_id, deployment_id))


@router.delete("/{deployment_id}")
async def delete_deployment(
    agent_id: str, deployment_id: str, resources: ResourcesDep, caller: Caller
) -> Deleted:
    """Mark a deployment for cleanup; not the one that is in production."""
    return await service.delete(resources, caller, Target(agent_id, deployment_id))


@router.post("/{deployment_id}/promote")
async def promote_deployment(
    agent_id: str, deployment_id: str, resources: ResourcesDep, caller: Caller
) -> DeploymentRead:
    """Make the agent be this deployment: the next request to the agent goes there."""
    return await service.promote(resources, caller, Target(agent_id, deployment_id))


@router.post("/{deployment_id}/rpc", response_model=RpcResponse, responses=ANSWERS)
async def preview_deployment_rpc(
    agent_id: str,
    deployment_id: str,
    body: RpcRequest,
    resources: ResourcesDep,
    caller: Caller,
    repeat: RepeatDep,
    request: Request,
) -> Response:
    """A JSON-RPC request to this deployment, in production or not. Its errors are 200, too."""
    agent = await service.to_preview(resources, caller, Target(agent_id, deployment_id))
    return await answered(RpcCall(resources, caller, agent, body, repeat, client_headers(request)), request)


@history_router.get("")
async def list_deployment_history(
    session: ReadSession,
    resources: ResourcesDep,
    caller: Caller,
    agent_id: Annotated[str | None, Query(description="The agent's id; or give agent_name")] = None,
    agent_name: Annotated[str | None, Query(description="The agent's name; or give agent_id")] = None,
    limit: Limit = 50,
    page_number: PageNumber = 1,
    order_by: HistoryOrder = "deployment_timestamp",
    order_direction: Direction = "desc",
) -> list[DeploymentHistoryRead]:
    """The commits that have served as an agent: one row each time that another one began to."""
    page = HistoryPage(limit, page_number, order_by, order_direction)
    found = await history.list_page(session, resources, caller, (agent_id, agent_name), page)
    return [DeploymentHistoryRead.model_validate(row) for row in found]


@history_router.get("/{history_id}")
async def get_deployment_history(
    history_id: str, session: ReadSession, resources: ResourcesDep, caller: Caller
) -> DeploymentHistoryRead:
    """One row of the history of an agent."""
    return DeploymentHistoryRead.model_validate(await history.get(session, resources, caller, history_id))
