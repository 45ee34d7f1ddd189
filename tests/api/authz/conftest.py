"""The API with keys, roles and grants: callers show real keys, and the local authorizer decides."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx2
import pytest

from agentex.auth.rules import Role
from agentex.hooks import fill_hooks
from agentex.resources import Resources, open_resources
from agentex.settings import Auth, Settings
from tests.api.authz.members import calling, join, user
from tests.api.conftest import shared_app


@pytest.fixture
async def resources(settings: Settings) -> AsyncIterator[Resources]:
    """Real resources with AGENTEX_AUTH=api_keys."""
    with_keys = settings.model_copy(update={"auth": Auth.API_KEYS})
    async with open_resources(with_keys) as opened:
        fill_hooks(opened)
        shared_app().state.resources = opened
        yield opened


@pytest.fixture
async def client(resources: Resources) -> AsyncIterator[httpx2.AsyncClient]:
    """The first account's admin, alice."""
    async with calling(await join(resources, user("alice"), Role.ADMIN)) as opened:
        yield opened
