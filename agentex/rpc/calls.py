"""One client's request to an agent, as what carries it out gets it."""

from __future__ import annotations

from dataclasses import dataclass, field
from uuid import UUID

from sqlmodel.ext.asyncio.session import AsyncSession

from agentex.acp.messages import AcpCall, AcpMethod
from agentex.agents.models import Agent
from agentex.agents.service import address
from agentex.auth.authorize import Operation, ResourceRef, require
from agentex.auth.principal import Principal
from agentex.database import JsonObject
from agentex.errors import BadRequest
from agentex.idempotency import Repeat
from agentex.resources import Resources
from agentex.rpc.models import RpcRequest
from agentex.tasks.models import OPEN_STATUSES, Task


@dataclass(frozen=True)
class ClientHeaders:
    """What goes on to the agent of a request's headers, see acp/headers.py."""

    passed: dict[str, str] = field(default_factory=dict[str, str])
    trace: dict[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True)
class RpcCall:
    """One request, by whom, to which agent, and how a repeat of it is known."""

    resources: Resources
    principal: Principal
    agent: Agent
    request: RpcRequest
    repeat: Repeat
    headers: ClientHeaders

    async def require(self, session: AsyncSession, operation: Operation, resource: ResourceRef) -> None:
        """Returns when the caller may do that; raises Forbidden or NotFound."""
        await require(self.resources.authz, session, self.principal, operation, resource)

    def to_agent(self, method: AcpMethod, key: str, params: JsonObject, seconds: float) -> AcpCall:
        """The request to the agent, under a key that is the same for each attempt at it."""
        return AcpCall(
            address(self.agent),
            method,
            params,
            request_id=key,
            idempotency_key=key,
            timeout_seconds=seconds,
            trace_headers=self.headers.trace,
            passed_headers=self.headers.passed,
            sealed_key=self.agent.sealed_key,
        )

    def require_own(self, task: Task) -> None:
        """Raises BadRequest for another agent's task."""
        if task.agent_id != self.agent.id:
            raise BadRequest(f"task {task.id} belongs to another agent than {self.agent.name!r}")

    def require_open(self, task: Task, what: str) -> None:
        """Raises BadRequest for another agent's task, and for one that is closed and takes no such thing."""
        self.require_own(task)
        if task.status not in OPEN_STATUSES:
            raise BadRequest(
                f"task {task.id} is {task.status}; only a task that is RUNNING or INTERRUPTED takes {what}"
            )


def message_key(send_id: UUID) -> str:
    """The id and key under which an agent gets a client's message."""
    return f"message:{send_id}"
