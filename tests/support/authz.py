"""An auth provider for tests: callers name themselves in headers, and what is denied is scripted."""

from __future__ import annotations

from collections.abc import Mapping

from sqlmodel.ext.asyncio.session import AsyncSession

from agentex.auth.authorize import Decision, Operation, ResourceRef, ResourceType
from agentex.auth.principal import DEFAULT_ACCOUNT, Principal, PrincipalType
from agentex.errors import AuthorizerUnavailable


class ScriptedAuthz:
    """`x-test-account` and `x-test-user` say who calls; `deny` and `unavailable` what comes of it.

    asked: what it was asked so far, e.g. ("execute", "agent").
    """

    knows_tasks = True

    def __init__(self) -> None:
        self.deny: set[tuple[Operation, ResourceType]] = set()
        self.unavailable = False
        self.asked: list[tuple[Operation, ResourceType]] = []

    async def authenticate(self, headers: Mapping[str, str]) -> Principal:
        """Whoever the headers name."""
        return Principal(
            principal_type=PrincipalType.USER,
            user_id=headers.get("x-test-user", "tester"),
            account_id=headers.get("x-test-account", DEFAULT_ACCOUNT),
        )

    async def authorize(
        self, session: AsyncSession, principal: Principal, operation: Operation, resource: ResourceRef
    ) -> Decision:
        """Allowed within the account unless it is denied."""
        self.asked.append((operation, resource.type))
        if self.unavailable:
            raise AuthorizerUnavailable
        if principal.account_id != resource.account_id:
            return Decision(allowed=False, rule="another account")
        denied = (operation, resource.type) in self.deny
        return Decision(allowed=not denied, rule="scripted")
