"""/tasks: what is known of tasks, and changing, closing and deleting them. An agent's rpc makes them."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Path, Query

from agentex.agents.models import Deleted
from agentex.auth.principal import Principal
from agentex.deps import Caller, Limit, PageNumber, ReadSession, ResourcesDep
from agentex.resources import Resources
from agentex.tasks import query, reads, service
from agentex.tasks.models import (
    TaskListed,
    TaskQueryResult,
    TaskRead,
    TaskReadWithAgents,
    TaskReason,
    TaskStatus,
    TaskUpdate,
)
from agentex.tasks.parameters import metadata_of, statuses_of, wants_agents
from agentex.tasks.reads import OrderBy, OrderDirection, TaskFilter, TaskPage

router = APIRouter(prefix="/tasks", tags=["tasks"])

Relationships = Annotated[
    list[str] | None, Query(description="What comes with each task, comma-joined: agents is all there is")
]


@router.get("")
async def list_tasks(
    session: ReadSession,
    resources: ResourcesDep,
    caller: Caller,
    agent_id: Annotated[UUID | None, Query(description="Only tasks of this agent")] = None,
    agent_name: Annotated[
        str | None, Query(max_length=255, description="Only tasks of the agents of this name")
    ] = None,
    status: Annotated[list[str] | None, Query(description="One or more statuses, comma-joined")] = None,
    task_metadata: Annotated[
        str | None,
        Query(
            description="A JSON object, as text: only tasks whose metadata holds it",
            examples=['{"created_by_user_id": "abc-123"}'],
        ),
    ] = None,
    limit: Limit = 50,
    page_number: PageNumber = 1,
    order_by: OrderBy = "created_at",
    order_direction: OrderDirection = "desc",
    relationships: Relationships = None,
) -> list[TaskListed]:
    """Tasks that are not deleted, newest first unless told otherwise, without their params."""
    wanted = TaskFilter(agent_id, agent_name, statuses_of(status), metadata_of(task_metadata))
    page = TaskPage(limit, page_number, order_by, order_direction)
    with_agents = wants_agents(relationships)
    found = await reads.list_page(session, resources.authz, caller, wanted, page)
    return await reads.with_agents(session, found, wanted=with_agents)


@router.get("/name/{name:path}")
async def get_task_by_name(
    name: str,
    session: ReadSession,
    resources: ResourcesDep,
    caller: Caller,
    relationships: Relationships = None,
) -> TaskReadWithAgents:
    """One task by name, with its agent, whether relationships asks for it or not.

    A name that ends in /stream is taken for the stream of the task of the shorter name: read that by id.
    """
    wants_agents(relationships)
    task = await service.get_by_name(session, resources.authz, caller, name)
    return await service.with_agents(session, task)


@router.put("/name/{name:path}")
async def update_task_by_name(
    name: str, body: TaskUpdate, resources: ResourcesDep, caller: Caller
) -> TaskRead:
    """Change a task's metadata or params, by name."""
    async with resources.db.read() as session:
        task = await service.get_by_name(session, resources.authz, caller, name)
    return TaskRead.model_validate(await service.update_by(resources, caller, task, body))


@router.delete("/name/{name:path}")
async def delete_task_by_name(name: str, resources: ResourcesDep, caller: Caller) -> Deleted:
    """Delete a task by name; its run, if it has one that goes on, is canceled. Its name stays taken."""
    async with resources.db.read() as session:
        task = await service.get_by_name(session, resources.authz, caller, name)
    return await service.delete_by(resources, caller, task)


@router.get("/{task_id}")
async def get_task(
    task_id: str,
    session: ReadSession,
    resources: ResourcesDep,
    caller: Caller,
    relationships: Relationships = None,
) -> TaskReadWithAgents:
    """One task by id, with its agent, whether relationships asks for it or not."""
    wants_agents(relationships)
    task = await service.get(session, resources.authz, caller, task_id)
    return await service.with_agents(session, task)


@router.put("/{task_id}")
async def update_task(task_id: str, body: TaskUpdate, resources: ResourcesDep, caller: Caller) -> TaskRead:
    """Change a task's metadata or params."""
    async with resources.db.read() as session:
        task = await service.get(session, resources.authz, caller, task_id)
    return TaskRead.model_validate(await service.update_by(resources, caller, task, body))


@router.delete("/{task_id}")
async def delete_task(task_id: str, resources: ResourcesDep, caller: Caller) -> Deleted:
    """Delete a task; its run, if it has one that goes on, is canceled. Its name stays taken."""
    async with resources.db.read() as session:
        task = await service.get(session, resources.authz, caller, task_id)
    return await service.delete_by(resources, caller, task)


@router.post("/{task_id}/complete")
async def complete_task(
    task_id: str, resources: ResourcesDep, caller: Caller, body: TaskReason | None = None
) -> TaskRead:
    """The task is done; its run, if it has one, succeeds."""
    return await _close(resources, caller, task_id, TaskStatus.COMPLETED, body)


@router.post("/{task_id}/fail")
async def fail_task(
    task_id: str, resources: ResourcesDep, caller: Caller, body: TaskReason | None = None
) -> TaskRead:
    """The task has failed; its run, if it has one, fails."""
    return await _close(resources, caller, task_id, TaskStatus.FAILED, body)


@router.post("/{task_id}/cancel")
async def cancel_task(
    task_id: str, resources: ResourcesDep, caller: Caller, body: TaskReason | None = None
) -> TaskRead:
    """The task is not wanted any more; its run, if it has one, is canceled.

    Its agent is not told: agents record their own cancels here. task/cancel of its rpc tells it.
    """
    return await _close(resources, caller, task_id, TaskStatus.CANCELED, body)


@router.post("/{task_id}/terminate")
async def terminate_task(
    task_id: str, resources: ResourcesDep, caller: Caller, body: TaskReason | None = None
) -> TaskRead:
    """The task was ended by force; its run, if it has one, is canceled."""
    return await _close(resources, caller, task_id, TaskStatus.TERMINATED, body)


@router.post("/{task_id}/timeout")
async def timeout_task(
    task_id: str, resources: ResourcesDep, caller: Caller, body: TaskReason | None = None
) -> TaskRead:
    """The task has taken too long; its run, if it has one, is timed out."""
    return await _close(resources, caller, task_id, TaskStatus.TIMED_OUT, body)


@router.post("/{task_id}/interrupt")
async def interrupt_task(
    task_id: str, resources: ResourcesDep, caller: Caller, body: TaskReason | None = None
) -> TaskRead:
    """What the task was at has stopped; it stays open, and takes further input. Its run goes on.

    Its agent is not told: agents record here that they have stopped. task/interrupt of its rpc tells it.
    """
    reason = body.reason if body else None
    return TaskRead.model_validate(await service.interrupt_by(resources, caller, task_id, reason))


@router.get("/{task_id}/query/{query_name:path}")
async def query_task_workflow(
    task_id: str,
    query_name: Annotated[str, Path(max_length=255, description="As the workflow's code names it")],
    resources: ResourcesDep,
    caller: Caller,
) -> TaskQueryResult:
    """Ask the Temporal workflow of a task, which an agent of Temporal type has under the task's id."""
    async with resources.db.read() as session:
        task = await service.get(session, resources.authz, caller, task_id)
        agent = await service.agent_of(session, task)
    return await query.query_workflow(resources, task, agent, query_name)


async def _close(
    resources: Resources, caller: Principal, task_id: str, status: TaskStatus, body: TaskReason | None
) -> TaskRead:
    reason = body.reason if body else None
    task = await service.close_by(resources, caller, task_id, status=status, reason=reason)
    return TaskRead.model_validate(task)
