"""Keys of members over HTTP: made, listed, rotated, revoked. No key does more than what has made it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, func
from sqlmodel import col, select, update
from sqlmodel.ext.asyncio.session import AsyncSession

from agentex.api_keys.members import hold_active, require_admin
from agentex.api_keys.models import KeyCreate, KeyCreated, KeyPage, KeyRead, KeyRotate, KeyRotated
from agentex.auth.authorize import Operation, ResourceRef, ResourceType, require, type_ref
from agentex.auth.lists import seen_by
from agentex.auth.models import ApiKey
from agentex.auth.principal import Principal
from agentex.auth.rules import in_scope
from agentex.auth.service import KeyWanted, checked_scopes, make_key
from agentex.database import JsonObject, clock_now
from agentex.errors import BadRequest, Forbidden, InvalidInput, NotFound
from agentex.ids import parse_id
from agentex.pagination import after_cursor, encode_cursor
from agentex.resources import Resources


def key_ref(key: ApiKey) -> ResourceRef:
    """The key as a resource; it belongs to whom it stands for, whoever has made it."""
    return ResourceRef(ResourceType.API_KEY, str(key.id), key.account_id, key.member)


async def create(resources: Resources, principal: Principal, body: KeyCreate) -> KeyCreated:
    """Make a key of the caller, or, for an admin, of another member.

    Raises Forbidden for one that could do more, or would live longer, than the caller's own credential.
    """
    member = body.member or principal.creator
    async with resources.db.read() as session:
        await require(
            resources.authz,
            session,
            principal,
            Operation.CREATE,
            type_ref(ResourceType.API_KEY, principal),
        )
        await _require_own_or_admin(session, resources, principal, member)
    scopes = checked_scopes(body.scopes)
    _require_within(principal, scopes, body.expires_at)
    async with resources.db.begin() as session:
        await _require_coming(session, body.expires_at)
        holder = await hold_active(session, principal.account_id, member)
        wanted = KeyWanted(holder, body.name, principal.creator, scopes, body.expires_at)
        key, made = await make_key(session, resources.settings, wanted)
    return KeyCreated(**_read(key), api_key=made.text)


async def rotate(resources: Resources, principal: Principal, key: ApiKey, body: KeyRotate) -> KeyRotated:
    """Make a key that takes this one's place, which ends after the overlap; raises as create."""
    async with resources.db.read() as session:
        await require(resources.authz, session, principal, Operation.UPDATE, key_ref(key))
        # Who is given leave to change a key is not yet its member.
        await _require_own_or_admin(session, resources, principal, key.member)
    async with resources.db.begin() as session:
        await _require_coming(session, body.expires_at)
        # The member before its key, as everybody locks them.
        holder = await hold_active(session, principal.account_id, key.member)
        old = await _hold(session, principal, key)
        expires_at = body.expires_at or old.expires_at
        _require_within(principal, old.scopes, expires_at)
        wanted = KeyWanted(holder, old.name, principal.creator, old.scopes, expires_at)
        new, made = await make_key(session, resources.settings, wanted)
        until = await clock_now(session) + timedelta(seconds=body.overlap_seconds)
        old.expires_at = until if old.expires_at is None else min(old.expires_at, until)
        await session.flush()
    return KeyRotated(**_read(new), api_key=made.text, replaced=KeyRead.model_validate(old))


async def revoke(resources: Resources, principal: Principal, key: ApiKey) -> KeyRead:
    """The key opens nothing from now on, in no process. Idempotent."""
    async with resources.db.read() as session:
        await require(resources.authz, session, principal, Operation.DELETE, key_ref(key))
    async with resources.db.begin() as session:
        await session.exec(
            update(ApiKey)
            .where(*_of(principal, key), col(ApiKey.revoked_at).is_(None))
            .values(revoked_at=func.clock_timestamp())
        )
        found = (await session.exec(select(ApiKey).where(*_of(principal, key)))).one()
    return KeyRead.model_validate(found)


async def get(session: AsyncSession, resources: Resources, principal: Principal, key_id: str) -> ApiKey:
    """One key of the account that the caller may read."""
    wanted = parse_id(key_id, "api_key")
    statement = select(ApiKey).where(col(ApiKey.account_id) == principal.account_id, col(ApiKey.id) == wanted)
    key = (await session.exec(statement)).one_or_none()
    if key is None:
        raise NotFound(f"api_key {key_id!r} not found")
    await require(resources.authz, session, principal, Operation.READ, key_ref(key))
    return key


async def list_page(
    session: AsyncSession,
    resources: Resources,
    principal: Principal,
    member: str | None,
    *,
    limit: int,
    cursor: str | None,
) -> KeyPage:
    """The keys that the caller may see, newest first, by keyset: its own, for admins all of the account."""
    seen = await resources.authz.visible(session, principal, ResourceType.API_KEY)
    statement = select(ApiKey).where(
        col(ApiKey.account_id) == principal.account_id,
        seen_by(seen, id="api_keys.id", owner="api_keys.member"),
    )
    if member is not None:
        statement = statement.where(col(ApiKey.member) == member)
    if cursor is not None:
        statement = statement.where(after_cursor(cursor, col(ApiKey.created_at), col(ApiKey.id)))
    newest_first = statement.order_by(col(ApiKey.created_at).desc(), col(ApiKey.id).desc())
    found: Sequence[ApiKey] = (await session.exec(newest_first.limit(limit + 1))).all()
    page = found[:limit]
    more = encode_cursor(page[-1].created_at, page[-1].id) if len(found) > limit else None
    return KeyPage(api_keys=[KeyRead.model_validate(key) for key in page], next_cursor=more)


async def _require_own_or_admin(
    session: AsyncSession, resources: Resources, principal: Principal, member: str
) -> None:
    if member != principal.creator:
        await require_admin(resources.authz, session, principal, Operation.UPDATE)


def _require_within(principal: Principal, scopes: list[str] | None, expires_at: datetime | None) -> None:
    """Raises Forbidden for a key that its maker's own credential does not cover."""
    wide = [scope for scope in (["*"] if scopes is None else scopes) if not in_scope(principal.scopes, scope)]
    if wide:
        having = ", ".join(sorted(principal.scopes or ()))
        raise Forbidden(
            f"scopes: a key gets no more than the one that makes it has, which is {having}; "
            f"{', '.join(wide)} is more"
        )
    if principal.expires_at is not None and (expires_at is None or expires_at > principal.expires_at):
        raise Forbidden(
            f"expires_at: a key lives no longer than the one that makes it, which ends at "
            f"{principal.expires_at.isoformat()}"
        )


async def _require_coming(session: AsyncSession, expires_at: datetime | None) -> None:
    if expires_at is not None and expires_at <= await clock_now(session):
        raise InvalidInput("expires_at", f"{expires_at.isoformat()} is over; give an instant to come")


async def _hold(session: AsyncSession, principal: Principal, key: ApiKey) -> ApiKey:
    """The key as it stands, until the transaction ends; raises BadRequest for one that opens nothing."""
    held = (await session.exec(select(ApiKey).where(*_of(principal, key)).with_for_update())).one()
    is_over = held.expires_at is not None and held.expires_at <= await clock_now(session)
    if is_over or held.revoked_at is not None:
        how = "was revoked" if held.revoked_at is not None else "has expired"
        raise BadRequest(f"api_key {str(key.id)!r} {how}, so there is nothing to go on with; make a new one")
    return held


def _of(principal: Principal, key: ApiKey) -> list[ColumnElement[bool]]:
    return [col(ApiKey.account_id) == principal.account_id, col(ApiKey.id) == key.id]


def _read(key: ApiKey) -> JsonObject:
    return KeyRead.model_validate(key).model_dump()
