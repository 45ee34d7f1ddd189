"""One agent, and requests about its schedules."""

from __future__ import annotations

import httpx2
import pytest

from agentex.resources import Resources
from tests.api.schedules.schedules import Schedules


@pytest.fixture
async def schedules(client: httpx2.AsyncClient, resources: Resources) -> Schedules:
    """The schedules of a new async agent; Temporal is away, and that is known."""
    await resources.temporal.probe()
    return await Schedules.of_agent(client, resources, "echo")


@pytest.fixture(params=["by-id", "by-name"])
def form(request: pytest.FixtureRequest) -> str:
    """Each path form of wire.md §3."""
    return str(request.param)
