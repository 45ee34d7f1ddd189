"""The app with its audit on, behind the client that tests of other routes use as well."""

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


@cache
def audited_app() -> FastAPI:
    """One app for all of these tests, as shared_app is for the others."""
    return create_app(Settings.model_validate({"ENABLE_AGENT_RUN_SCHEDULES": True, "audit": True}))


@pytest.fixture
async def client(resources: Resources) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of that app, with this test's own resources and database behind it."""
    app = audited_app()
    app.state.resources = resources
    fill_hooks(resources)
    transport = httpx2.ASGITransport(app=app, client=("203.0.113.7", 4711))
    headers = {"user-agent": "tests/1"}
    async with httpx2.AsyncClient(
        transport=transport, base_url="http://agentex.test", headers=headers
    ) as opened:
        yield opened
