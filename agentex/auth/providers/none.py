"""No authentication: every caller is the one account's user. For a machine of one's own."""

from __future__ import annotations

from collections.abc import Mapping

from sqlmodel.ext.asyncio.session import AsyncSession

from agentex.auth.authorize import EVERYTHING, Decision, Operation, ResourceRef, ResourceType, Visible
from agentex.auth.principal import Principal, PrincipalType
from agentex.database import Database
from agentex.settings import Settings


class NoneProvider:
    """Allows everything inside the account; another account's rows stay invisible all the same."""

    knows_tasks = False

    def __init__(self, settings: Settings, db: Database) -> None:
        """As all providers are made; it needs neither."""

    async def authenticate(self, headers: Mapping[str, str]) -> Principal:
        """The same principal for each request."""
        return Principal(principal_type=PrincipalType.USER)

    async def authorize(
        self, session: AsyncSession, principal: Principal, operation: Operation, resource: ResourceRef
    ) -> Decision:
        """Allowed within the principal's account."""
        if principal.account_id != resource.account_id:
            return Decision(allowed=False, rule="another account")
        return Decision(allowed=True, rule="auth provider none")

    async def visible(self, session: AsyncSession, principal: Principal, kind: ResourceType) -> Visible:
        """All of the account."""
        return EVERYTHING
