"""The API in process: requests go through ASGI, rows into a real Postgres."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx2
import pytest

from agentex.app import create_app
from agentex.resources import Resources
from agentex.settings import Settings


@pytest.fixture
async def client(settings: Settings, resources: Resources) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of the app, with this test's own database behind it."""
    transport = httpx2.ASGITransport(app=create_app(settings, resources=resources))
    async with httpx2.AsyncClient(transport=transport, base_url="http://agentex.test") as opened:
        yield opened
