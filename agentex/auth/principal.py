"""Who acts: an argument, never read from a request or a global below the API layer."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field

DEFAULT_ACCOUNT = "default"


class PrincipalType(StrEnum):
    """What kind of caller acts."""

    USER = "user"
    SERVICE_ACCOUNT = "service_account"
    AGENT = "agent"


class Principal(BaseModel):
    """A caller without its credential: never cookies, tokens, keys or headers (wire.md §3).

    An agent acts under its name, as service_account_id.
    """

    model_config = ConfigDict(frozen=True)

    principal_type: PrincipalType | None = None
    user_id: str | None = None
    service_account_id: str | None = None
    account_id: str = DEFAULT_ACCOUNT
    # What the credential of this request is limited to, None for nothing: it goes with the request, and is
    # never stored. What fires later has all that its creator may do then.
    scopes: frozenset[str] | None = Field(default=None, exclude=True, repr=False)
    # When the credential of this request ends by itself, None for never or unknown: what it makes ends then.
    expires_at: datetime | None = Field(default=None, exclude=True, repr=False)

    @property
    def creator(self) -> str:
        """One text that names the principal within its account: `user:alice`, `agent:greeter`.

        With its kind, so that nobody becomes another by the choice of an id.
        """
        name = self.user_id or self.service_account_id
        kind = self.principal_type or (PrincipalType.USER if self.user_id else PrincipalType.SERVICE_ACCOUNT)
        return f"{kind}:{name}" if name else (self.principal_type or "anonymous")

    @property
    def agent_name(self) -> str | None:
        """The name of the agent that acts, None when no agent does."""
        return self.service_account_id if self.principal_type is PrincipalType.AGENT else None


def named(account_id: str, creator: str) -> Principal | None:
    """Who has this name within the account, as `creator` writes it; None for what is no such name."""
    kind, _, name = creator.partition(":")
    if kind not in set(PrincipalType) or not name:
        return None
    by = "user_id" if kind == PrincipalType.USER else "service_account_id"
    return Principal.model_validate({"principal_type": kind, by: name, "account_id": account_id})


def system_principal(account_id: str) -> Principal:
    """This service itself, where a revision says who has changed something."""
    return Principal(
        principal_type=PrincipalType.SERVICE_ACCOUNT, service_account_id="agentex", account_id=account_id
    )


def agent_principal(account_id: str, name: str) -> Principal:
    """An agent as a caller."""
    return Principal(principal_type=PrincipalType.AGENT, service_account_id=name, account_id=account_id)
