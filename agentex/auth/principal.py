"""Who acts: an argument, never read from a request or a global below the API layer."""

from __future__ import annotations

from enum import StrEnum

from pydantic import BaseModel, ConfigDict

DEFAULT_ACCOUNT = "default"


class PrincipalType(StrEnum):
    """What kind of caller acts."""

    USER = "user"
    SERVICE_ACCOUNT = "service_account"
    AGENT = "agent"


class Principal(BaseModel):
    """A caller without its credential: never cookies, tokens, keys or headers (wire.md §3)."""

    model_config = ConfigDict(frozen=True)

    principal_type: PrincipalType | None = None
    user_id: str | None = None
    service_account_id: str | None = None
    account_id: str = DEFAULT_ACCOUNT

    @property
    def creator(self) -> str:
        """One text that names the principal within its account, for logs and owner columns."""
        return self.user_id or self.service_account_id or self.principal_type or "anonymous"
