"""No authentication: every caller is the one account's user. For a machine of one's own."""

from __future__ import annotations

from collections.abc import Mapping

from sqlmodel.ext.asyncio.session import AsyncSession

from agentex.auth.authorize import Decision, Operation, ResourceRef
from agentex.auth.principal import Principal, PrincipalType


class NoneProvider:
    """Allows everything inside the account; another account's rows stay invisible all the same."""

    knows_tasks = False

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
