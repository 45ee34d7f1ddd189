"""Members of an account and their keys: made here, for the command line and for the API."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlmodel.ext.asyncio.session import AsyncSession

from agentex.auth.authorize import Operation, ResourceType
from agentex.auth.keys import NewKey, new_key
from agentex.auth.models import ApiKey
from agentex.auth.principal import Principal, agent_principal
from agentex.auth.rules import Role
from agentex.database import clock_now, rows
from agentex.errors import InvalidInput
from agentex.ids import new_id
from agentex.sealing import seal
from agentex.settings import Settings

# What a scope may be made of: `task.read`, `task.*`, `*.read`, `*`.
SCOPE_TYPES = frozenset({*ResourceType, "*"})
SCOPE_OPERATIONS = frozenset({*Operation, "*"})


@dataclass(frozen=True)
class KeyWanted:
    """A key of a member of an account. expires_at None: until it is revoked."""

    member: Principal
    name: str
    created_by: str
    scopes: Sequence[str] | None = None
    expires_at: datetime | None = None


async def put_member(session: AsyncSession, member: Principal, role: Role | None) -> None:
    """The principal is a member of its account from now on, in this role; one that had left is back."""
    await rows(
        session,
        """
        INSERT INTO members (account_id, name, principal, role, created_at, updated_at)
        VALUES (:account_id, :name, CAST(:principal AS jsonb), :role, clock_timestamp(), clock_timestamp())
        ON CONFLICT (account_id, name) DO UPDATE SET principal = excluded.principal, role = excluded.role,
            disabled_at = NULL, updated_at = clock_timestamp()
        """,
        account_id=member.account_id,
        name=member.creator,
        principal=member.model_dump_json(),
        role=role.value if role else None,
    )


async def take_agent_name(session: AsyncSession, member: Principal) -> bool:
    """The agent is a member from now on; false where one of its name is, whose keys somebody may hold."""
    taken = await rows(
        session,
        """
        INSERT INTO members (account_id, name, principal, role, created_at, updated_at)
        VALUES (:account_id, :name, CAST(:principal AS jsonb), 'agent', clock_timestamp(), clock_timestamp())
        ON CONFLICT (account_id, name) DO UPDATE SET principal = excluded.principal, role = excluded.role,
            disabled_at = NULL, updated_at = clock_timestamp() WHERE members.disabled_at IS NOT NULL
        RETURNING name
        """,
        account_id=member.account_id,
        name=member.creator,
        principal=member.model_dump_json(),
    )
    return bool(taken)


async def is_agent_name_kept(session: AsyncSession, account_id: str, name: str) -> bool:
    """Whether there is a member of this agent's name: somebody may hold a key of it."""
    found = await rows(
        session,
        "SELECT 1 FROM members WHERE account_id = :account_id AND name = :name AND disabled_at IS NULL",
        account_id=account_id,
        name=agent_principal(account_id, name).creator,
    )
    return bool(found)


async def make_key(session: AsyncSession, settings: Settings, wanted: KeyWanted) -> tuple[ApiKey, NewKey]:
    """A new key of somebody who is a member; the key itself is known here and never again.

    Of an agent's key a sealed copy is kept, for its agent takes requests with it alone.
    """
    made = new_key()
    key = ApiKey(
        id=new_id(),
        account_id=wanted.member.account_id,
        member=wanted.member.creator,
        name=wanted.name,
        key_prefix=made.prefix,
        key_hash=made.hash,
        scopes=checked_scopes(wanted.scopes),
        sealed_key=seal(settings, made.text) if wanted.member.agent_name else None,
        created_by=wanted.created_by,
        created_at=await clock_now(session),
        expires_at=wanted.expires_at,
    )
    session.add(key)
    await session.flush()
    return key, made


def checked_scopes(scopes: Sequence[str] | None) -> list[str] | None:
    """The scopes, sorted and once each; raises InvalidInput for one that means nothing."""
    if scopes is None:
        return None
    for scope in scopes:
        kind, dot, operation = scope.partition(".")
        is_known = kind in SCOPE_TYPES and operation in SCOPE_OPERATIONS if dot else scope == "*"
        if not is_known:
            raise InvalidInput(
                "scopes",
                f"{scope[:80]!r} is no scope; it is TYPE.OPERATION such as task.read, with * for either, and "
                f"TYPE one of {', '.join(ResourceType)}, OPERATION one of {', '.join(Operation)}",
            )
    return sorted({"*" if scope == "*.*" else scope for scope in scopes})
