"""/tasks: what is known of tasks, and closing them. Tasks are made through an agent's rpc."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query

from agentex.auth.principal import Principal
from agentex.deps import Caller, Limit, PageNumber, ReadSession, ResourcesDep
from agentex.errors import InvalidInput
from agentex.resources import Resources
from agentex.tasks import service
from agentex.tasks.models import TaskClose, TaskListed, TaskRead, TaskReadWithAgents, TaskStatus

router = APIRouter(prefix="/tasks", tags=["tasks"])

_ALL_STATUSES = frozenset(TaskStatus)


@router.get("")
async def list_tasks(
    session: ReadSession,
    resources: ResourcesDep,
    caller: Caller,
    agent_id: UUID | None = None,
    agent_name: str | None = None,
    status: Annotated[list[str] | None, Query(description="One or more statuses, comma-joined")] = None,
    limit: Limit = 50,
    page_number: PageNumber = 1,
) -> list[TaskListed]:
    """Tasks, newest first, without their params."""
    wanted = service.TaskFilter(agent_id, agent_name, _statuses(status))
    found = await service.list_page(
        session, resources.authz, caller, wanted, limit=limit, page_number=page_number
    )
    return [TaskListed.model_validate(task) for task in found]


@router.get("/name/{name:path}")
async def get_task_by_name(
    name: str, session: ReadSession, resources: ResourcesDep, caller: Caller
) -> TaskReadWithAgents:
    """One task by name, with its agent."""
    task = await service.get_by_name(session, resources.authz, caller, name)
    return await service.with_agents(session, task)


@router.get("/{task_id}")
async def get_task(
    task_id: str, session: ReadSession, resources: ResourcesDep, caller: Caller
) -> TaskReadWithAgents:
    """One task by id, with its agent."""
    task = await service.get(session, resources.authz, caller, task_id)
    return await service.with_agents(session, task)


@router.post("/{task_id}/complete")
async def complete_task(
    task_id: str, resources: ResourcesDep, caller: Caller, body: TaskClose | None = None
) -> TaskRead:
    """The task is done; its run, if it has one, succeeds."""
    return await _close(resources, caller, task_id, TaskStatus.COMPLETED, body)


@router.post("/{task_id}/fail")
async def fail_task(
    task_id: str, resources: ResourcesDep, caller: Caller, body: TaskClose | None = None
) -> TaskRead:
    """The task has failed; its run, if it has one, fails."""
    return await _close(resources, caller, task_id, TaskStatus.FAILED, body)


@router.post("/{task_id}/cancel")
async def cancel_task(
    task_id: str, resources: ResourcesDep, caller: Caller, body: TaskClose | None = None
) -> TaskRead:
    """The task is not wanted any more; its run, if it has one, is canceled."""
    return await _close(resources, caller, task_id, TaskStatus.CANCELED, body)


async def _close(
    resources: Resources, caller: Principal, task_id: str, status: TaskStatus, body: TaskClose | None
) -> TaskRead:
    reason = body.reason if body else None
    task = await service.close_by(resources, caller, task_id, status=status, reason=reason)
    return TaskRead.model_validate(task)


def _statuses(given: list[str] | None) -> frozenset[TaskStatus] | None:
    if given is None:
        return None
    names = [name.strip() for joined in given for name in joined.split(",")]
    wrong = [name for name in names if name not in _ALL_STATUSES]
    if wrong:
        raise InvalidInput("status", f"{wrong[0][:80]!r} is none of {', '.join(TaskStatus)}")
    return frozenset(TaskStatus(name) for name in names)
