"""Callers show a key of this service; what they may do is decided here, by roles, ownership and grants."""

from __future__ import annotations

from collections.abc import Mapping

from sqlmodel.ext.asyncio.session import AsyncSession

from agentex.auth.authorize import Decision, Operation, ResourceRef, ResourceType, Visible, let_go
from agentex.auth.keys import presented, principal_of_key
from agentex.auth.local import LocalAuthorizer
from agentex.auth.principal import Principal
from agentex.database import Database
from agentex.errors import Unauthorized
from agentex.settings import Settings


class ApiKeysProvider:
    """Keys are made by `agentex keys create` and POST /api_keys."""

    knows_tasks = True

    def __init__(self, settings: Settings, db: Database) -> None:
        self._db = db
        self._authorizer = LocalAuthorizer(db)

    async def authenticate(self, headers: Mapping[str, str]) -> Principal:
        """Whom the key of the request stands for."""
        key = presented(headers)
        if key is None:
            raise Unauthorized("an API key is missing: send `Authorization: Bearer agx_…`, or x-api-key")
        return await principal_of_key(self._db, key)

    async def authorize(
        self, session: AsyncSession, principal: Principal, operation: Operation, resource: ResourceRef
    ) -> Decision:
        """Decided by members, roles, ownership and grants."""
        await let_go(session)
        return await self._authorizer.authorize(principal, operation, resource)

    async def visible(self, session: AsyncSession, principal: Principal, kind: ResourceType) -> Visible:
        """All of the type, or what is its own and what was granted to it."""
        await let_go(session)
        return await self._authorizer.visible(principal, kind)
