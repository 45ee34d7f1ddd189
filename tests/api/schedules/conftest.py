"""One agent, and requests about its schedules."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from functools import cache

import httpx2
import pytest
from fastapi import FastAPI

from agentex.app import create_app
from agentex.hooks import fill_hooks
from agentex.resources import Resources
from agentex.settings import Settings
from tests.api.schedules.schedules import Schedules, register


@cache
def shared_app() -> FastAPI:
    """One app for all of these tests: a new one builds each route at its first request, 50 to 120 ms."""
    return create_app(Settings.model_validate({"ENABLE_AGENT_RUN_SCHEDULES": True}))


@pytest.fixture
async def client(resources: Resources) -> AsyncGenerator[httpx2.AsyncClient]:
    """A client of that app, with this test's resources behind it."""
    app = shared_app()
    app.state.resources = resources
    fill_hooks(resources)
    transport = httpx2.ASGITransport(app=app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://agentex.test") as opened:
        yield opened


@pytest.fixture
async def schedules(client: httpx2.AsyncClient, resources: Resources) -> Schedules:
    """The schedules of a new async agent; Temporal is away, and that is known."""
    await resources.temporal.probe()
    return Schedules(client, resources, await register(client, "echo"))


@pytest.fixture(params=["by-id", "by-name"])
def form(request: pytest.FixtureRequest) -> str:
    """Each path form of wire.md §3."""
    return str(request.param)
