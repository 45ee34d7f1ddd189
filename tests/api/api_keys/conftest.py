"""A server that asks for keys: AGENTEX_AUTH=api_keys."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from agentex.auth.rules import Role
from agentex.resources import Resources, open_resources
from agentex.settings import Auth, Settings
from tests.support.keys import key_of


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"auth": Auth.API_KEYS})


@pytest.fixture
async def resources(settings: Settings) -> AsyncIterator[Resources]:
    """Real resources with the provider that the settings name."""
    async with open_resources(settings) as opened:
        yield opened


@pytest.fixture
async def admin(resources: Resources) -> str:
    """The key of an admin."""
    return await key_of(resources, "user:ann", Role.ADMIN)


@pytest.fixture
async def editor(resources: Resources) -> str:
    """The key of an editor."""
    return await key_of(resources, "user:eve", Role.EDITOR)
