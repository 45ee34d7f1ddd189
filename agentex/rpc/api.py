"""/agents/{id}/rpc: JSON-RPC to an agent."""

from __future__ import annotations

from fastapi import APIRouter

from agentex.agents import service as agents
from agentex.deps import Caller, RepeatDep, ResourcesDep
from agentex.rpc.models import RpcRequest, RpcResponse
from agentex.rpc.service import RpcCall, answer

router = APIRouter(prefix="/agents", tags=["rpc"])


@router.post("/name/{name}/rpc")
async def call_agent_by_name(
    name: str, body: RpcRequest, resources: ResourcesDep, caller: Caller, repeat: RepeatDep
) -> RpcResponse:
    """A JSON-RPC request to an agent by name: task/create or event/send. Its errors are 200, too."""
    async with resources.db.read() as session:
        agent = await agents.get_by_name(session, resources.authz, caller, name)
    return await answer(RpcCall(resources, caller, agent, body, repeat))


@router.post("/{agent_id}/rpc")
async def call_agent(
    agent_id: str, body: RpcRequest, resources: ResourcesDep, caller: Caller, repeat: RepeatDep
) -> RpcResponse:
    """A JSON-RPC request to an agent: task/create or event/send. Its errors are 200, too."""
    async with resources.db.read() as session:
        agent = await agents.get(session, resources.authz, caller, agent_id)
    return await answer(RpcCall(resources, caller, agent, body, repeat))
