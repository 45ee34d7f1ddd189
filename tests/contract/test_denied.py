"""agentex-client, unmodified, where an authorizer denies or does not answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest
import uvicorn

from agentex.app import create_app
from agentex.auth.authorize import Operation, ResourceType
from agentex.dev.ports import free_port
from agentex.resources import Resources
from agentex.settings import Settings
from tests.support.acp_server import AcpServer
from tests.support.api import register
from tests.support.authz import ScriptedAuthz
from tests.support.contract_driver import MODES, drive

pytestmark = [pytest.mark.xdist_group("contract-client"), pytest.mark.timeout(300)]

# Nobody may do this, whatever else is allowed.
DENIED = frozenset({(Operation.DELETE, ResourceType.AGENT), (Operation.UPDATE, ResourceType.TASK)})


@asynccontextmanager
async def listening(settings: Settings, resources: Resources) -> AsyncGenerator[str]:
    """The URL of an API in this process, whose authorizer the test scripts."""
    config = uvicorn.Config(
        create_app(settings, resources=resources), port=free_port(), lifespan="off", log_level="warning"
    )
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - it tells it by nothing else
        await asyncio.sleep(0.01)
    yield f"http://127.0.0.1:{config.port}"
    server.should_exit = True
    await serving


@pytest.mark.parametrize("mode", MODES)
async def test_what_is_denied_is_raised(
    settings: Settings,
    resources: Resources,
    authz: ScriptedAuthz,
    acp_server: AcpServer,
    tmp_path: Path,
    mode: str,
) -> None:
    authz.deny = DENIED
    async with listening(settings, resources) as url:
        report = await drive(mode, url, acp_server.url, tmp_path, "--module", "denied")
    assert report.errors == {}


@pytest.mark.parametrize("mode", MODES)
async def test_an_authorizer_that_does_not_answer_is_asked_again(
    settings: Settings, resources: Resources, authz: ScriptedAuthz, tmp_path: Path, mode: str
) -> None:
    async with listening(settings, resources) as url:
        async with httpx2.AsyncClient(base_url=url) as client:
            await register(client, name="greeter")
        authz.unavailable = True
        report = await drive(mode, url, "http://127.0.0.1:9", tmp_path, "--module", "unavailable")
    assert report.errors == {}
