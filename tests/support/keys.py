"""Members and keys for tests whose server has AGENTEX_AUTH=api_keys.

admin = await key_of(resources, "user:ann", Role.ADMIN)
response = await client.get("/agents", headers=bearer(admin))
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime

import httpx2

from agentex.api_keys.members import principal_of_name
from agentex.app import create_app
from agentex.auth.principal import DEFAULT_ACCOUNT
from agentex.auth.rules import Role
from agentex.auth.service import KeyWanted, make_key, put_member
from agentex.resources import Resources, open_resources
from agentex.settings import Settings


async def key_of(
    resources: Resources,
    name: str,
    role: Role | None,
    *,
    scopes: Sequence[str] | None = None,
    expires_at: datetime | None = None,
    account: str = DEFAULT_ACCOUNT,
) -> str:
    """A key of the member, who is one from now on."""
    member = principal_of_name(account, name)
    async with resources.db.begin() as session:
        await put_member(session, member, role)
        wanted = KeyWanted(member, "of a test", "a test", scopes, expires_at)
        _, made = await make_key(session, resources.settings, wanted)
    return made.text


def bearer(key: str) -> dict[str, str]:
    """The header of a client."""
    return {"authorization": f"Bearer {key}"}


def of_agent(key: str) -> dict[str, str]:
    """The header of an agent's SDK."""
    return {"x-agent-api-key": key}


@asynccontextmanager
async def another_process(settings: Settings) -> AsyncGenerator[httpx2.AsyncClient]:
    """A client of a second app, which shares nothing but the database with the first."""
    async with open_resources(settings) as opened:
        app = create_app(settings, resources=opened)
        transport = httpx2.ASGITransport(app=app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://second.test") as client:
            yield client
