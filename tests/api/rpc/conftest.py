"""An agent that answers, async unless a test asks for another."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest

from tests.support.acp_server import AcpServer
from tests.support.api import register


@pytest.fixture
async def agent(client: httpx2.AsyncClient, acp_server: AcpServer) -> dict[str, Any]:
    return await register(client, acp_url=acp_server.url)
