"""The ledger without a request in between: resources with their hooks filled."""

from __future__ import annotations

import pytest

from agentex.agents.models import Agent
from agentex.hooks import fill_hooks
from agentex.resources import Resources
from tests.api.ledger.stage import add_agent


@pytest.fixture
def hooked(resources: Resources) -> Resources:
    """Resources whose slices are connected, as in the worker."""
    fill_hooks(resources)
    return resources


@pytest.fixture
async def agent(resources: Resources) -> Agent:
    """An async agent that nobody listens for."""
    return await add_agent(resources)
