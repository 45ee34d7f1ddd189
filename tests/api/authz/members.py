"""Members of accounts with keys of their own, and what each of them may call."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import httpx2

from agentex.auth.principal import Principal, PrincipalType, agent_principal
from agentex.auth.rules import Role
from agentex.auth.service import KeyWanted, make_key, put_member
from agentex.resources import Resources
from tests.api.conftest import shared_app

FIRST, SECOND = "first", "second"


def user(name: str, account: str = FIRST) -> Principal:
    """A person."""
    return Principal(principal_type=PrincipalType.USER, user_id=name, account_id=account)


async def join(
    resources: Resources, member: Principal, role: Role | None, scopes: list[str] | None = None
) -> str:
    """The member in this role, or without one a guest, with a key; returns the key."""
    async with resources.db.begin() as session:
        await put_member(session, member, role)
        wanted = KeyWanted(member, "a test's", "test", scopes=scopes)
        _, made = await make_key(session, resources.settings, wanted)
    return made.text


async def join_agent(resources: Resources, name: str, account: str = FIRST) -> str:
    """An agent's key, made beforehand."""
    return await join(resources, agent_principal(account, name), Role.AGENT)


@asynccontextmanager
async def calling(key: str) -> AsyncGenerator[httpx2.AsyncClient]:
    """A client with this key."""
    transport = httpx2.ASGITransport(app=shared_app())
    headers = {"authorization": f"Bearer {key}"}
    async with httpx2.AsyncClient(
        transport=transport, base_url="http://agentex.test", headers=headers
    ) as client:
        yield client
