"""A sync agent, and what its task looks like from outside."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import httpx2
import pytest

from tests.support.acp_server import AcpServer
from tests.support.api import TEXT, Json, register, rpc

# message/send to the sync agent, with these params beside the content.
Send = Callable[..., Coroutine[Any, Any, Json]]


@pytest.fixture
async def sync_agent(client: httpx2.AsyncClient, acp_server: AcpServer) -> Json:
    """A registered agent that answers "Hello" unless a test has a script for it."""
    return await register(client, name="answerer", acp_type="sync", acp_url=acp_server.url)


@pytest.fixture
def send(client: httpx2.AsyncClient, sync_agent: Json) -> Send:
    """One message/send, answered whole."""

    async def sent(*, headers: dict[str, str] | None = None, **params: object) -> Json:
        return await rpc(client, sync_agent, "message/send", {"content": TEXT, **params}, headers=headers)

    return sent
