"""From the claims of a token to a member of an account: who it is, what it may do, and its row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from sqlalchemy import RowMapping

from agentex.auth.principal import DEFAULT_ACCOUNT, Principal, PrincipalType
from agentex.auth.rules import Role
from agentex.auth_settings import ROLE_NAMES
from agentex.database import Database, rows
from agentex.errors import Unauthorized
from agentex.settings import Settings

MAX_NAME_LENGTH = 255
# A newer token that says the same is noted once a minute, so that reading stays reading.
NOTED_EVERY = timedelta(minutes=1)

_MEMBER_SQL = """
    SELECT role, principal::text AS principal, claims_at, disabled_at IS NOT NULL AS disabled
    FROM members WHERE account_id = :account_id AND name = :name
"""
# The newest token's word counts, for older ones are good for a while yet. Nobody who was put out comes back
# by a token: disabled_at is an admin's, and not touched.
FOLLOW_SQL = """
    INSERT INTO members AS m (account_id, name, principal, role, claims_at, created_at, updated_at)
    VALUES (:account_id, :name, CAST(:principal AS jsonb), :role, CAST(:claims_at AS timestamptz),
        clock_timestamp(), clock_timestamp())
    ON CONFLICT (account_id, name) DO UPDATE SET principal = excluded.principal, role = excluded.role,
        claims_at = excluded.claims_at, updated_at = clock_timestamp()
    WHERE m.disabled_at IS NULL AND (m.claims_at IS NULL OR m.claims_at <= excluded.claims_at)
"""

Claims = Mapping[str, Any]


@dataclass(frozen=True)
class Claimed:
    """Who a token says that its bearer is; issued_at: when it said so."""

    principal: Principal
    role: Role | None
    issued_at: datetime


def claimed(settings: Settings, claims: Claims) -> Claimed:
    """What the claims of a token that was checked come to; raises Unauthorized where one is missing."""
    return Claimed(
        principal=_principal(settings, claims),
        role=_role(settings, claims),
        issued_at=_issued_at(claims),
    )


async def follow(db: Database, who: Claimed) -> None:
    """Keep the member as its claims have it: a write when they changed, else one look at its row.

    Raises Unauthorized for a member that an admin has put out.
    """
    named = {"account_id": who.principal.account_id, "name": who.principal.creator}
    found = await rows(db, _MEMBER_SQL, **named)
    if found and found[0]["disabled"]:
        raise Unauthorized(f"{who.principal.creator} is disabled in this account; an admin has to let it in")
    if found and _is_followed(found[0], who):
        return
    await rows(
        db,
        FOLLOW_SQL,
        principal=who.principal.model_dump_json(),
        role=who.role.value if who.role else None,
        claims_at=who.issued_at,
        **named,
    )


def claim_at(claims: Claims, path: str) -> object:
    """The claim of this name, else the one at the end of this way (realm_access.roles); None without one."""
    if path in claims:
        return claims[path]
    found: object = claims
    for name in path.split("."):
        if not isinstance(found, dict):
            return None
        found = cast("Claims", found).get(name)
    return found


def _is_followed(row: RowMapping, who: Claimed) -> bool:
    """Whether the row says what the token says, to the minute, or what a newer one has said."""
    if row["claims_at"] is None:
        return False
    if row["claims_at"] > who.issued_at:
        return True
    same = row["role"] == who.role and Principal.model_validate_json(row["principal"]) == who.principal
    return same and who.issued_at - row["claims_at"] < NOTED_EVERY


def _principal(settings: Settings, claims: Claims) -> Principal:
    account = DEFAULT_ACCOUNT
    if settings.oidc_account_claim is not None:
        account = _name(claims, settings.oidc_account_claim)
    service = _service_account(settings, claims)
    if service is not None:
        return Principal(
            principal_type=PrincipalType.SERVICE_ACCOUNT, service_account_id=service, account_id=account
        )
    user = _name(claims, settings.oidc_user_claim)
    return Principal(principal_type=PrincipalType.USER, user_id=user, account_id=account)


def _service_account(settings: Settings, claims: Claims) -> str | None:
    """What the service is called whose token it is; None for a person's."""
    claim, equals, value = (settings.oidc_service_account_claim or "").partition("=")
    found = claim_at(claims, claim) if claim else None
    if found is None or (equals and found != value):
        return None
    return _name(claims, settings.oidc_user_claim if equals else claim)


def _name(claims: Claims, path: str) -> str:
    found = claim_at(claims, path)
    # Printable: no NUL, which Postgres cannot keep, and nothing that would begin a line of a log.
    if not isinstance(found, str) or not 0 < len(found) <= MAX_NAME_LENGTH or not found.isprintable():
        raise Unauthorized(f"the token's claim {path!r} is not a text of 1 to {MAX_NAME_LENGTH} characters")
    return found


def _role(settings: Settings, claims: Claims) -> Role | None:
    """The highest of the roles that the claim's values stand for, else the default one."""
    found = claim_at(claims, settings.oidc_roles_claim) if settings.oidc_roles_claim else None
    values = cast("list[object]", found) if isinstance(found, list) else [found]
    held = {
        settings.oidc_roles[value]
        for value in values
        if isinstance(value, str) and value in settings.oidc_roles
    }
    highest = next((name for name in ROLE_NAMES if name in held), settings.oidc_default_role)
    return Role(highest) if highest else None


def _issued_at(claims: Claims) -> datetime:
    """When the token was issued; now for one that does not say."""
    try:
        return datetime.fromtimestamp(claims["iat"], UTC)
    except KeyError:
        return datetime.now(UTC)
    except (TypeError, ValueError, OverflowError, OSError):
        raise Unauthorized("the token's claim 'iat' is no time") from None
