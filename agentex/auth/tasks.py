"""May this principal do that to a task? For what hangs on one: its messages, events, states."""

from __future__ import annotations

from uuid import UUID

from sqlmodel.ext.asyncio.session import AsyncSession

from agentex.auth.authorize import AuthProvider, Operation, ResourceRef, ResourceType, require
from agentex.auth.principal import Principal
from agentex.database import rows
from agentex.errors import NotFound


async def require_task(
    session: AsyncSession, authz: AuthProvider, principal: Principal, operation: Operation, task_id: UUID
) -> None:
    """Return when it is a task of the account and that is allowed; else NotFound or Forbidden.

    One row by its primary key; `session` is one of `db.read()` (see authorize.require).
    """
    found = await rows(
        session,
        "SELECT owner FROM tasks WHERE id = :task_id AND account_id = :account_id",
        task_id=task_id,
        account_id=principal.account_id,
    )
    if not found:
        raise task_not_found(task_id)
    await require(authz, session, principal, operation, task_ref(principal, task_id, found[0]["owner"]))


def task_ref(principal: Principal, task_id: UUID, owner: str) -> ResourceRef:
    """A task of the principal's account as a resource."""
    return ResourceRef(ResourceType.TASK, str(task_id), principal.account_id, owner)


def task_not_found(task_id: UUID) -> NotFound:
    """There is no such task that the caller can see, or none any more."""
    return NotFound(f"task {str(task_id)!r} not found")
