"""Grants: who owns something lets others have it, with no more than it may do itself."""

from __future__ import annotations

import json
from dataclasses import dataclass
from uuid import UUID

from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from agentex.agents import service as agents
from agentex.agents.service import agent_ref
from agentex.auth.authorize import Operation, ResourceRef, hidden_as, require_disposal
from agentex.auth.models import Grant
from agentex.auth.principal import Principal
from agentex.database import rows
from agentex.errors import Forbidden, NotFound
from agentex.grants.models import GrantCreate, GrantPage, GrantRead, SharedOperation, SharedType
from agentex.ids import new_id, parse_id
from agentex.pagination import after_cursor, encode_cursor
from agentex.resources import Resources
from agentex.runs.service import find as find_run
from agentex.runs.service import run_ref
from agentex.schedules.models import Schedule
from agentex.schedules.service import schedule_ref
from agentex.tasks import service as tasks
from agentex.tasks.service import task_ref


@dataclass(frozen=True)
class Shared:
    """Which resource a request is about."""

    type: SharedType
    id: UUID


async def create(resources: Resources, principal: Principal, body: GrantCreate) -> GrantRead:
    """Let a member have it; what it was allowed with it before is replaced.

    Raises Forbidden for operations that the caller itself may not, NotFound for what or who is not there.
    """
    operations = sorted({*body.operations, SharedOperation.READ})
    async with resources.db.read() as session:
        ref = await _to_dispose_of(
            session, resources, principal, Shared(body.resource_type, body.resource_id)
        )
        await _require_all(session, resources, principal, operations, ref)
    async with resources.db.single() as session:
        made = await rows(
            session,
            """
            INSERT INTO grants AS g (id, account_id, member, resource_type, resource_id, operations,
                granted_by, created_at)
            SELECT :id, account_id, name, :kind, :resource_id, CAST(:operations AS jsonb), :granted_by,
                clock_timestamp()
            FROM members WHERE account_id = :account_id AND name = :member AND disabled_at IS NULL
            ON CONFLICT ON CONSTRAINT uq_grants_account_id_member_resource_type_resource_id
                DO UPDATE SET operations = excluded.operations, granted_by = excluded.granted_by
            RETURNING id, member, resource_type, resource_id, operations::text AS operations, granted_by,
                created_at
            """,
            id=new_id(),
            kind=body.resource_type.value,
            resource_id=body.resource_id,
            operations=json.dumps(operations),
            granted_by=principal.creator,
            account_id=principal.account_id,
            member=body.member,
        )
    if not made:
        raise NotFound(f"member {body.member!r} not found")
    return GrantRead.model_validate({**made[0], "operations": json.loads(made[0]["operations"])})


async def list_page(
    session: AsyncSession,
    resources: Resources,
    principal: Principal,
    shared: Shared,
    *,
    limit: int,
    cursor: str | None,
) -> GrantPage:
    """Who else has a resource, for those who may share it; by keyset."""
    await _to_dispose_of(session, resources, principal, shared)
    statement = select(Grant).where(
        col(Grant.account_id) == principal.account_id,
        col(Grant.resource_type) == shared.type.value,
        col(Grant.resource_id) == shared.id,
    )
    if cursor is not None:
        statement = statement.where(after_cursor(cursor, col(Grant.created_at), col(Grant.id)))
    order = (col(Grant.created_at).desc(), col(Grant.id).desc())
    found = (await session.exec(statement.order_by(*order).limit(limit + 1))).all()
    page = found[:limit]
    more = encode_cursor(page[-1].created_at, page[-1].id) if len(found) > limit else None
    return GrantPage(grants=[_read(grant) for grant in page], next_cursor=more)


async def delete(resources: Resources, principal: Principal, grant_id: str) -> GrantRead:
    """Take it back, at once; also its member may give it up. NotFound for who may do neither."""
    absent = NotFound(f"grant {grant_id!r} not found")
    async with resources.db.read() as session:
        grant = await _find(session, principal, grant_id)
        if grant is None:
            raise absent
        if grant.member != principal.creator:
            with hidden_as(absent):
                shared = Shared(SharedType(grant.resource_type.value), grant.resource_id)
                await _to_dispose_of(session, resources, principal, shared)
    async with resources.db.single() as session:
        gone = await rows(
            session,
            "DELETE FROM grants WHERE id = :id AND account_id = :account_id RETURNING id",
            id=grant.id,
            account_id=principal.account_id,
        )
    if not gone:
        raise absent
    return _read(grant)


async def _to_dispose_of(
    session: AsyncSession, resources: Resources, principal: Principal, shared: Shared
) -> ResourceRef:
    """The resource, which the caller may share; raises NotFound and Forbidden."""
    ref = await _ref(session, principal, shared)
    with hidden_as(_not_found(shared)):
        await require_disposal(resources.authz, session, principal, ref)
    return ref


def _not_found(shared: Shared) -> NotFound:
    return NotFound(f"{shared.type} {str(shared.id)!r} not found")


async def _require_all(
    session: AsyncSession,
    resources: Resources,
    principal: Principal,
    operations: list[SharedOperation],
    ref: ResourceRef,
) -> None:
    for operation in operations:
        decision = await resources.authz.authorize(session, principal, Operation(operation), ref)
        if not decision.allowed:
            raise Forbidden(f"{operation} on {ref.type} {ref.id} is not yours to share: {decision.rule}")


async def _ref(session: AsyncSession, principal: Principal, shared: Shared) -> ResourceRef:
    if shared.type is SharedType.AGENT:
        return agent_ref(await agents.find(session, principal, shared.id))
    if shared.type is SharedType.TASK:
        return task_ref(await tasks.find(session, principal, shared.id))
    if shared.type is SharedType.RUN:
        return run_ref(await find_run(session, principal, str(shared.id)))
    statement = select(Schedule).where(
        col(Schedule.id) == shared.id,
        col(Schedule.account_id) == principal.account_id,
        col(Schedule.deleted_at).is_(None),
    )
    schedule = (await session.exec(statement)).one_or_none()
    if schedule is None:
        raise _not_found(shared)
    return schedule_ref(schedule)


async def _find(session: AsyncSession, principal: Principal, grant_id: str) -> Grant | None:
    statement = select(Grant).where(
        col(Grant.id) == parse_id(grant_id, "grant"), col(Grant.account_id) == principal.account_id
    )
    return (await session.exec(statement)).one_or_none()


def _read(grant: Grant) -> GrantRead:
    return GrantRead.model_validate(grant.model_dump(exclude={"account_id"}))
