"""Who may read or write what hangs on a task: spans, trackers, checkpoints."""

from __future__ import annotations

from uuid import UUID

from sqlmodel.ext.asyncio.session import AsyncSession

from agentex.auth.authorize import Operation, ResourceRef, ResourceType, require
from agentex.auth.principal import Principal
from agentex.database import rows
from agentex.errors import NotFound
from agentex.resources import Resources


async def task_owner(session: AsyncSession, principal: Principal, task_id: UUID) -> str | None:
    """The owner of a task of the caller's account; None where there is no such task."""
    found = await rows(
        session,
        "SELECT owner FROM tasks WHERE id = :task_id AND account_id = :account_id",
        task_id=task_id,
        account_id=principal.account_id,
    )
    return found[0]["owner"] if found else None


async def require_task(
    session: AsyncSession, resources: Resources, principal: Principal, operation: Operation, task_id: UUID
) -> None:
    """Return when the caller may do that to this task of its account; else NotFound or Forbidden."""
    owner = await task_owner(session, principal, task_id)
    if owner is None:
        raise NotFound(f"task {str(task_id)!r} not found")
    await require_owned(session, resources, principal, operation, (task_id, owner))


async def require_owned(
    session: AsyncSession,
    resources: Resources,
    principal: Principal,
    operation: Operation,
    owned: tuple[UUID | None, str | None],
) -> None:
    """The same for a task and its owner, both known already.

    What has no task (None) belongs to the account: reading it asks for leave to read tasks, writing it for
    leave to make one.
    """
    task_id, owner = owned
    if task_id is not None:
        ref = ResourceRef(ResourceType.TASK, str(task_id), principal.account_id, owner)
    else:
        ref = ResourceRef(ResourceType.TASK, "*", principal.account_id, owner)
        operation = Operation.READ if operation is Operation.READ else Operation.CREATE
    await require(resources.authz, session, principal, operation, ref)
