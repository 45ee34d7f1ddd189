"""`agentex keys`: what has to be made before anybody can call the API."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from agentex.audit.models import Outcome
from agentex.audit.service import Entry, add
from agentex.auth.models import ApiKey
from agentex.auth.principal import Principal, PrincipalType, agent_principal
from agentex.auth.rules import Role
from agentex.auth.service import KeyWanted, make_key, put_member
from agentex.database import Database
from agentex.errors import InvalidInput
from agentex.noted import Audited
from agentex.settings import Settings

CREATED_BY = "agentex keys create"
ADDRESS = "command line"
_NAME = re.compile(r"[\x21-\x7e]{1,200}", re.ASCII)


@dataclass(frozen=True)
class Holder:
    """Whose key it is to be: exactly one of agent, user and service_account."""

    account_id: str
    role: Role | None = None
    agent: str | None = None
    user: str | None = None
    service_account: str | None = None

    def principal(self) -> Principal:
        """As what the holder acts; raises InvalidInput for none, several, or a name that is none."""
        given = [one for one in (self.agent, self.user, self.service_account) if one is not None]
        if len(given) != 1:
            raise InvalidInput(
                "keys create", "give one of --agent, --user and --service-account (or --admin)"
            )
        if not _NAME.fullmatch(given[0]):
            raise InvalidInput("keys create", f"{given[0][:80]!r} is not 1 to 200 visible ASCII characters")
        if self.agent is not None:
            return agent_principal(self.account_id, self.agent)
        if self.user is not None:
            return Principal(principal_type=PrincipalType.USER, user_id=self.user, account_id=self.account_id)
        return Principal(
            principal_type=PrincipalType.SERVICE_ACCOUNT,
            service_account_id=self.service_account,
            account_id=self.account_id,
        )


@dataclass(frozen=True)
class Limits:
    """What a key is limited to; None for no limit."""

    scopes: list[str] | None = None
    expires_days: int | None = None


def create(settings: Settings, holder: Holder, name: str, limits: Limits) -> str:
    """Make the member, in its role, and a key of it; returns the key, which is shown once."""
    return asyncio.run(_create(settings, holder, name, limits))


async def _create(settings: Settings, holder: Holder, name: str, limits: Limits) -> str:
    member = holder.principal()
    expires_at = datetime.now(UTC) + timedelta(days=limits.expires_days) if limits.expires_days else None
    wanted = KeyWanted(member, name, CREATED_BY, scopes=limits.scopes, expires_at=expires_at)
    db = Database(settings)
    try:
        async with db.begin() as session:
            await put_member(session, member, Role.AGENT if holder.agent else holder.role)
            key, made = await make_key(session, settings, wanted)
            await add(session, [_entry(key)])
        return made.text
    finally:
        await db.close()


def _entry(key: ApiKey) -> Entry:
    """For the audit, also where requests leave none: keys are few, and open much."""
    return Entry(
        account_id=key.account_id,
        principal=CREATED_BY,
        operation="keys.create",
        resource_type=Audited.API_KEY,
        resource_id=str(key.id),
        outcome=Outcome.DONE,
        address=ADDRESS,
    )
