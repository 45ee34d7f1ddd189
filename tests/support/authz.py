"""An auth provider for tests: callers name themselves in headers, and what is denied is scripted."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Set
from itertools import product

from sqlmodel.ext.asyncio.session import AsyncSession

from agentex.auth.authorize import (
    EVERYTHING as ALL_ROWS,
)
from agentex.auth.authorize import (
    Decision,
    Operation,
    ResourceRef,
    ResourceType,
    Visible,
)
from agentex.auth.principal import DEFAULT_ACCOUNT, Principal, PrincipalType
from agentex.errors import AuthorizerUnavailable

EVERYTHING = frozenset(product(Operation, ResourceType))


class ScriptedAuthz:
    """`x-test-account` and `x-test-user` say who calls; `deny` and `unavailable` what comes of it.

    asked: what it was asked so far, e.g. ("execute", "agent"). while_asked: what is done meanwhile.
    """

    knows_tasks = True

    def __init__(self) -> None:
        self.deny: Set[tuple[Operation, ResourceType]] = frozenset()
        self.unavailable = False
        self.while_asked: Callable[[AsyncSession], Awaitable[None]] | None = None
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
        if self.while_asked is not None:
            await self.while_asked(session)
        if self.unavailable:
            raise AuthorizerUnavailable
        if principal.account_id != resource.account_id:
            return Decision(allowed=False, rule="another account")
        denied = (operation, resource.type) in self.deny
        return Decision(allowed=not denied, rule="scripted")

    async def visible(self, session: AsyncSession, principal: Principal, kind: ResourceType) -> Visible:
        """All of the account unless reading is denied."""
        self.asked.append((Operation.READ, kind))
        if self.while_asked is not None:
            await self.while_asked(session)
        if self.unavailable:
            raise AuthorizerUnavailable
        return Visible(()) if (Operation.READ, kind) in self.deny else ALL_ROWS
