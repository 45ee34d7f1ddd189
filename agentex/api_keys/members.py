"""Members of an account: who is in it, as what, and who has left. Administered by its admins."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import ColumnElement, func
from sqlmodel import col, select, update
from sqlmodel.ext.asyncio.session import AsyncSession

from agentex.api_keys.models import MemberPage, MemberRead, WhoAmI
from agentex.auth.authorize import AuthProvider, Operation, ResourceType, type_ref
from agentex.auth.models import ApiKey, Member
from agentex.auth.principal import Principal, PrincipalType, agent_principal
from agentex.auth.rules import Role
from agentex.auth.service import put_member
from agentex.database import rows
from agentex.errors import BadRequest, Forbidden, InvalidInput, NotFound
from agentex.resources import Resources


async def require_admin(
    authz: AuthProvider, session: AsyncSession, principal: Principal, operation: Operation
) -> None:
    """Return for those who administer members; else Forbidden. `session` as in authorize.require."""
    subject = type_ref(ResourceType.MEMBER, principal)
    decision = await authz.authorize(session, principal, operation, subject)
    if not decision.allowed:
        raise Forbidden(
            f"members are administered by admins, with leave to member.{operation}: {decision.rule}"
        )


async def put(resources: Resources, principal: Principal, name: str, role: Role | None) -> MemberRead:
    """Have the member in this role from now on; one that had left is back, and gets new keys.

    Raises BadRequest when nobody would be admin any more.
    """
    member = principal_of_name(principal.account_id, name)
    if (role is Role.AGENT) != (member.agent_name is not None) and role is not None:
        raise InvalidInput("role", f"{role} does not fit {name!r}: agents are agent, and nobody else is")
    async with resources.db.read() as session:
        await require_admin(resources.authz, session, principal, Operation.UPDATE)

    async def write() -> Member:
        async with resources.db.begin() as session:
            if role is not Role.ADMIN:
                await _keep_an_admin(session, principal.account_id, name)
            await put_member(session, member, role)
            return await _find(session, principal.account_id, name)

    return MemberRead.model_validate(await resources.db.retry_deadlock(write))


async def remove(resources: Resources, principal: Principal, name: str) -> MemberRead:
    """The member has left: all of its keys are revoked. Idempotent.

    Raises BadRequest for the last admin.
    """
    async with resources.db.read() as session:
        await require_admin(resources.authz, session, principal, Operation.DELETE)

    async def write() -> Member:
        async with resources.db.begin() as session:
            await _keep_an_admin(session, principal.account_id, name)
            await session.exec(
                update(Member)
                .where(*_named(principal.account_id, name), col(Member.disabled_at).is_(None))
                .values(disabled_at=func.clock_timestamp(), updated_at=func.clock_timestamp())
            )
            await session.exec(
                update(ApiKey)
                .where(
                    col(ApiKey.account_id) == principal.account_id,
                    col(ApiKey.member) == name,
                    col(ApiKey.revoked_at).is_(None),
                )
                .values(revoked_at=func.clock_timestamp())
            )
            return await _find(session, principal.account_id, name)

    return MemberRead.model_validate(await resources.db.retry_deadlock(write))


async def list_page(
    session: AsyncSession, resources: Resources, principal: Principal, *, limit: int, cursor: str | None
) -> MemberPage:
    """The members of the account by name, those that have left among them."""
    await require_admin(resources.authz, session, principal, Operation.READ)
    statement = select(Member).where(col(Member.account_id) == principal.account_id)
    if cursor is not None:
        statement = statement.where(col(Member.name) > _decoded(cursor))
    found: Sequence[Member] = (
        await session.exec(statement.order_by(col(Member.name)).limit(limit + 1))
    ).all()
    page = found[:limit]
    more = _encoded(page[-1].name) if len(found) > limit else None
    return MemberPage(members=[MemberRead.model_validate(one) for one in page], next_cursor=more)


async def get(session: AsyncSession, resources: Resources, principal: Principal, name: str) -> MemberRead:
    """One member of the account."""
    await require_admin(resources.authz, session, principal, Operation.READ)
    return MemberRead.model_validate(await _find(session, principal.account_id, name))


async def who_am_i(resources: Resources, principal: Principal) -> WhoAmI:
    """The caller, with its role if it is a member."""
    found = await rows(
        resources.db,
        "SELECT role FROM members WHERE account_id = :account_id AND name = :name AND disabled_at IS NULL",
        account_id=principal.account_id,
        name=principal.creator,
    )
    return WhoAmI(
        **principal.model_dump(),
        member=principal.creator,
        role=found[0]["role"] if found else None,
        scopes=sorted(principal.scopes) if principal.scopes is not None else None,
        expires_at=principal.expires_at,
        auth=resources.settings.auth,
    )


async def disable_agent(session: AsyncSession, principal: Principal, agent_id: UUID) -> None:
    """An agent is being deleted: its keys are revoked, and its name is free for others."""
    await rows(
        session,
        """
        WITH gone AS (SELECT account_id, 'agent:' || name AS member FROM agents WHERE id = :agent_id),
        parted AS (
            UPDATE members m SET disabled_at = clock_timestamp(), updated_at = clock_timestamp() FROM gone
            WHERE m.account_id = gone.account_id AND m.name = gone.member AND m.disabled_at IS NULL
        )
        UPDATE api_keys k SET revoked_at = clock_timestamp() FROM gone
        WHERE k.account_id = gone.account_id AND k.member = gone.member AND k.revoked_at IS NULL
        """,
        agent_id=agent_id,
    )


async def hold_active(session: AsyncSession, account_id: str, name: str) -> Principal:
    """The principal of a member that does not leave until the transaction ends; else NotFound."""
    statement = select(Member).where(*_named(account_id, name), col(Member.disabled_at).is_(None))
    member = (await session.exec(statement.with_for_update(read=True))).one_or_none()
    if member is None:
        raise NotFound(f"member {name!r} not found, or it has left; an admin can PUT /members/{name}")
    return Principal.model_validate(member.principal)


def principal_of_name(account_id: str, name: str) -> Principal:
    """As what a member of this name acts: the other way round than Principal.creator."""
    kind, _, id_ = name.partition(":")
    if kind == PrincipalType.AGENT:
        return agent_principal(account_id, id_)
    if kind == PrincipalType.USER:
        return Principal(principal_type=PrincipalType.USER, user_id=id_, account_id=account_id)
    return Principal(
        principal_type=PrincipalType.SERVICE_ACCOUNT, service_account_id=id_, account_id=account_id
    )


async def _keep_an_admin(session: AsyncSession, account_id: str, leaving: str) -> None:
    """Raises BadRequest when this one is the only admin. All of them are held, for two may leave at once."""
    found = await rows(
        session,
        """
        SELECT name FROM members WHERE account_id = :account_id AND role = 'admin' AND disabled_at IS NULL
        ORDER BY name FOR UPDATE
        """,
        account_id=account_id,
    )
    if [row["name"] for row in found] == [leaving]:
        raise BadRequest(f"{leaving!r} is the last admin of the account; make another one first")


async def _find(session: AsyncSession, account_id: str, name: str) -> Member:
    member = (await session.exec(select(Member).where(*_named(account_id, name)))).one_or_none()
    if member is None:
        raise NotFound(f"member {name!r} not found")
    return member


def _named(account_id: str, name: str) -> list[ColumnElement[bool]]:
    return [col(Member.account_id) == account_id, col(Member.name) == name]


def _encoded(name: str) -> str:
    return base64.urlsafe_b64encode(name.encode()).decode().rstrip("=")


def _decoded(cursor: str) -> str:
    try:
        name = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        name = "\x00"
    if "\x00" in name:
        raise InvalidInput("cursor", f"{cursor[:80]!r} is not a next_cursor of this list")
    return name
