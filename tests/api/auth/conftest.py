"""The API with an issuer, or an authorizer, that says who calls."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import httpx2
import pytest

from agentex.app import create_app
from agentex.auth.providers.oidc import OidcProvider
from agentex.auth.providers.remote import RemoteProvider
from agentex.resources import Resources, open_resources
from agentex.settings import Settings
from tests.api.auth.oidc import ROLES, changed
from tests.support.auth_stub import AuthStub
from tests.support.oidc_issuer import Issuer


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    """An issuer that answers."""
    async with Issuer() as opened:
        yield opened


@pytest.fixture
async def oidc(settings: Settings, issuer: Issuer, resources: Resources) -> AsyncIterator[OidcProvider]:
    """The provider of that issuer's tokens, on this test's database."""
    provider = OidcProvider(changed(settings, issuer, **ROLES), resources.db)
    yield provider
    await provider.aclose()


@pytest.fixture
async def stub() -> AsyncIterator[AuthStub]:
    """An authorizer that answers."""
    async with AuthStub() as opened:
        yield opened


@dataclass
class Remote:
    """The API whose authorizer is the stub; its clients are alice's and bob's."""

    settings: Settings
    resources: Resources
    provider: RemoteProvider
    alice: httpx2.AsyncClient
    bob: httpx2.AsyncClient
    nobody: httpx2.AsyncClient


@pytest.fixture
def remote_settings(settings: Settings, stub: AuthStub) -> Settings:
    """Those of a stack whose authorizer is the stub."""
    told = {"auth": "remote", "remote_auth_url": stub.url, "remote_auth_timeout_seconds": 1}
    kept = settings.model_dump(exclude_unset=True)
    return Settings.model_validate({**kept, "ENABLE_AGENT_RUN_SCHEDULES": True, **told})


@pytest.fixture
async def remote(remote_settings: Settings) -> AsyncIterator[Remote]:
    """The API, with a client of each user's."""
    async with open_resources(remote_settings) as resources:
        provider = resources.authz
        assert isinstance(provider, RemoteProvider)
        await resources.temporal.probe()
        transport = httpx2.ASGITransport(app=create_app(remote_settings, resources=resources))

        def client(**headers: str) -> httpx2.AsyncClient:
            return httpx2.AsyncClient(transport=transport, base_url="http://agentex.test", headers=headers)

        async with (
            client(authorization="Bearer alice") as alice,
            client(authorization="Bearer bob") as bob,
            client() as nobody,
        ):
            yield Remote(remote_settings, resources, provider, alice, bob, nobody)
