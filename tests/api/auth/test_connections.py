"""Asking for permission takes no second connection while one is held: requests would wait for each other."""

from __future__ import annotations

import asyncio

import httpx2
import pytest

from agentex.app import create_app
from agentex.auth.principal import Principal, PrincipalType
from agentex.auth.rules import Role
from agentex.auth.service import KeyWanted, make_key, put_member
from agentex.resources import open_resources
from agentex.settings import Settings
from tests.support.api import Json, register
from tests.support.oidc_issuer import AUDIENCE, Issuer

ROOT = Principal(principal_type=PrincipalType.USER, user_id="root")


@pytest.mark.parametrize("auth", ["api_keys", "oidc"])
async def test_more_requests_at_once_than_connections(settings: Settings, issuer: Issuer, auth: str) -> None:
    told: Json = {"auth": auth, "oidc_issuer": issuer.url, "oidc_audience": AUDIENCE}
    few = Settings.model_validate(
        {**settings.model_dump(exclude_unset=True), **told, "database_pool_size": 2}
    )
    async with open_resources(few) as resources:
        async with resources.db.begin() as session:
            await put_member(session, ROOT, Role.ADMIN)
            _, key = await make_key(session, few, KeyWanted(ROOT, "k", "test"))
        transport = httpx2.ASGITransport(app=create_app(few, resources=resources))
        headers = {"x-api-key": key.text}
        async with httpx2.AsyncClient(
            transport=transport, base_url="http://agentex.test", headers=headers
        ) as client:
            agent = await register(client)
            paths = [f"/agents/{agent['id']}", "/agents"] * 10
            answers = await asyncio.gather(*[client.get(path) for path in paths])
            assert {answer.status_code for answer in answers} == {200}
