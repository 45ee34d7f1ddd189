"""The API in process: requests go through ASGI, rows into a real Postgres."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import cache

import httpx2
import pytest
from fastapi import FastAPI

from agentex.app import create_app
from agentex.hooks import fill_hooks
from agentex.resources import Resources
from agentex.settings import Settings
from tests.support.acp_server import AcpServer
from tests.support.api import Json, register


@cache
def shared_app() -> FastAPI:
    """One app for all of these tests: a new one builds each route at its first request, 50 to 120 ms."""
    return create_app(Settings.model_validate({"ENABLE_AGENT_RUN_SCHEDULES": True}))


@pytest.fixture
async def client(resources: Resources) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of that app, with this test's own resources and database behind it."""
    app = shared_app()
    app.state.resources = resources
    fill_hooks(resources)
    transport = httpx2.ASGITransport(app=app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://agentex.test") as opened:
        yield opened


@pytest.fixture
async def agent(client: httpx2.AsyncClient, acp_server: AcpServer) -> Json:
    """A registered agent that answers, async unless a test asks for another."""
    return await register(client, acp_url=acp_server.url)
