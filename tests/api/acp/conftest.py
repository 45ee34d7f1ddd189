"""A scripted agent, and a client that takes 100,000 bytes of answer."""

from collections.abc import AsyncIterator

import pytest

from agentex.acp.client import AcpClient
from agentex.settings import Settings
from tests.support.acp_server import AcpServer


@pytest.fixture
async def server() -> AsyncIterator[AcpServer]:
    async with AcpServer() as running:
        yield running


@pytest.fixture
async def client() -> AsyncIterator[AcpClient]:
    settings = Settings(agent_max_answer_bytes=100_000)
    async with AcpClient(settings) as opened:
        yield opened
