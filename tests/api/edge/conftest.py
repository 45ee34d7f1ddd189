"""Apps of their own: what the edge does hangs on settings."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import httpx2
import pytest

from agentex.app import create_app
from agentex.resources import Resources
from tests.support.sse import serving

Opened = Callable[..., AbstractAsyncContextManager[httpx2.AsyncClient]]
Served = Callable[..., AbstractAsyncContextManager[str]]


@pytest.fixture
def opened(resources: Resources) -> Opened:
    """A client of an app with these settings, in process; `peer` is the address that it comes from."""

    @asynccontextmanager
    async def client_of(peer: str = "192.0.2.1", **changes: object) -> AsyncGenerator[httpx2.AsyncClient]:
        app = create_app(resources.settings.model_copy(update=changes), resources=resources)
        transport = httpx2.ASGITransport(app=app, client=(peer, 4711))
        async with httpx2.AsyncClient(transport=transport, base_url="http://agentex.test") as client:
            yield client

    return client_of


@pytest.fixture
def served(resources: Resources) -> Served:
    """The URL of an app with these settings behind the server it has."""

    @asynccontextmanager
    async def url_of(**changes: object) -> AsyncGenerator[str]:
        app = create_app(resources.settings.model_copy(update=changes), resources=resources)
        async with serving(app) as url:
            yield url

    return url_of
