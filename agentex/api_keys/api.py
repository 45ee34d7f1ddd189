"""/api_keys, /members and /whoami: who may call this server, and with what."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query

from agentex.api_keys import members, service
from agentex.api_keys.models import (
    MEMBER_PATTERN,
    KeyCreate,
    KeyCreated,
    KeyPage,
    KeyRead,
    KeyRotate,
    KeyRotated,
    MemberPage,
    MemberPut,
    MemberRead,
    WhoAmI,
)
from agentex.deps import Caller, Limit, ReadSession, ResourcesDep

router = APIRouter(prefix="/api_keys", tags=["api_keys"])
members_router = APIRouter(prefix="/members", tags=["members"])
whoami_router = APIRouter(tags=["members"])

Cursor = Annotated[str | None, Query(max_length=400, description="next_cursor of the page before")]
MemberInPath = Annotated[
    str, Path(pattern=MEMBER_PATTERN, description="Its kind and id, e.g. user:alice, service_account:ci")
]


@router.post("")
async def create_api_key(body: KeyCreate, resources: ResourcesDep, caller: Caller) -> KeyCreated:
    """Make a key of yours, or, as an admin, of another member. The key is shown in this answer only."""
    return await service.create(resources, caller, body)


@router.get("")
async def list_api_keys(
    session: ReadSession,
    resources: ResourcesDep,
    caller: Caller,
    member: Annotated[str | None, Query(max_length=300, description="Only this member's")] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> KeyPage:
    """Your keys, newest first, those that open nothing any more among them; to admins all of the account."""
    return await service.list_page(session, resources, caller, member, limit=limit, cursor=cursor)


@router.get("/{api_key_id}")
async def get_api_key(
    api_key_id: str, session: ReadSession, resources: ResourcesDep, caller: Caller
) -> KeyRead:
    """One key."""
    return KeyRead.model_validate(await service.get(session, resources, caller, api_key_id))


@router.delete("/{api_key_id}")
async def revoke_api_key(api_key_id: str, resources: ResourcesDep, caller: Caller) -> KeyRead:
    """Revoke a key: it opens nothing from now on, and ends the streams that it has opened. Idempotent."""
    async with resources.db.read() as session:
        key = await service.get(session, resources, caller, api_key_id)
    return await service.revoke(resources, caller, key)


@router.post("/{api_key_id}/rotate")
async def rotate_api_key(
    api_key_id: str, body: KeyRotate, resources: ResourcesDep, caller: Caller
) -> KeyRotated:
    """Make a key that takes this one's place; the old one ends after the overlap.

    It has the same scopes. The key is shown in this answer only.
    """
    async with resources.db.read() as session:
        key = await service.get(session, resources, caller, api_key_id)
    return await service.rotate(resources, caller, key, body)


@members_router.get("")
async def list_members(
    session: ReadSession, resources: ResourcesDep, caller: Caller, limit: Limit = 50, cursor: Cursor = None
) -> MemberPage:
    """The members of the account by name, those that have left among them. For admins."""
    return await members.list_page(session, resources, caller, limit=limit, cursor=cursor)


@members_router.get("/{member:path}")
async def get_member(
    member: MemberInPath, session: ReadSession, resources: ResourcesDep, caller: Caller
) -> MemberRead:
    """One member. For admins."""
    return await members.get(session, resources, caller, member)


@members_router.put("/{member:path}")
async def put_member(
    member: MemberInPath, body: MemberPut, resources: ResourcesDep, caller: Caller
) -> MemberRead:
    """Make somebody a member, or give a member another role; one that had left is back. For admins."""
    return await members.put(resources, caller, member, body.role)


@members_router.delete("/{member:path}")
async def disable_member(member: MemberInPath, resources: ResourcesDep, caller: Caller) -> MemberRead:
    """Have a member leave: its keys are revoked, and what it has scheduled runs no more. For admins.

    The last admin cannot leave. Idempotent.
    """
    return await members.remove(resources, caller, member)


@whoami_router.get("/whoami")
async def whoami(resources: ResourcesDep, caller: Caller) -> WhoAmI:
    """Who you are to this server: principal, role, and what your credential is limited to."""
    return await members.who_am_i(resources, caller)
