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

    `session` is one of `db.read()` (see authorize.require).
    """
    owner = await task_owner(session, principal, task_id)
    if owner is None:
        raise task_not_found(task_id)
    await require(authz, session, principal, operation, task_ref(principal, task_id, owner))


async def require_owned(
    session: AsyncSession,
    authz: AuthProvider,
    principal: Principal,
    operation: Operation,
    owned: tuple[UUID | None, str | None],
) -> None:
    """The same for a task and its owner, both known already.

    What has no task (None) belongs to the account: reading it asks for leave to read tasks, writing it for
    leave to make one, or, where it is somebody else's, to update any.
    """
    task_id, owner = owned
    if task_id is not None:
        await require(authz, session, principal, operation, task_ref(principal, task_id, owner))
        return
    ref = ResourceRef(ResourceType.TASK, "*", principal.account_id, owner)
    if operation is not Operation.READ:
        operation = Operation.CREATE if owner in {None, principal.creator} else Operation.UPDATE
    if operation is Operation.UPDATE:
        # Of a type `require` would answer 403, and so tell that there is something to be changed.
        await require(authz, session, principal, Operation.READ, ref)
    await require(authz, session, principal, operation, ref)


async def task_owner(session: AsyncSession, principal: Principal, task_id: UUID) -> str | None:
    """The owner of a task of the account, one row by its primary key; None where there is no such task."""
    found = await rows(
        session,
        "SELECT owner FROM tasks WHERE id = :task_id AND account_id = :account_id AND status <> 'DELETED'",
        task_id=task_id,
        account_id=principal.account_id,
    )
    return found[0]["owner"] if found else None


def task_ref(principal: Principal, task_id: UUID, owner: str | None) -> ResourceRef:
    """A task of the principal's account as a resource."""
    return ResourceRef(ResourceType.TASK, str(task_id), principal.account_id, owner)


def task_not_found(task_id: UUID) -> NotFound:
    """There is no such task that the caller can see, or none any more."""
    return NotFound(f"task {str(task_id)!r} not found")
