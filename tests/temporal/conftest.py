"""A real Temporal for the session; workers in process, each test under a prefix of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from agentex.agents.models import AcpType, Agent
from agentex.dev.temporal import EmbeddedTemporal
from agentex.hooks import fill_hooks
from agentex.resources import Resources, open_resources
from agentex.settings import Settings
from tests.api.ledger.stage import add_agent
from tests.support.acp_server import AcpServer
from tests.support.authz import ScriptedAuthz
from tests.support.temporal import delete_schedules, fresh_prefix, start_temporal
from tests.temporal.workers import running_workers


@pytest.fixture(scope="session")
def temporal_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedTemporal]:
    """One dev server, in memory."""
    server = start_temporal(tmp_path_factory.mktemp("temporal"))
    yield server
    server.stop()


@pytest.fixture
def settings(database_url: str, temporal_server: EmbeddedTemporal) -> Settings:
    """Settings on this test's database, with a prefix that no other test has."""
    return Settings.model_validate(
        {
            "database_url": database_url,
            "temporal_address": temporal_server.address,
            "temporal_task_queue": fresh_prefix(),
            # Cancels and lost workflows are noticed with a heartbeat.
            "claim_renew_seconds": 0.1,
            # A loaded machine is no fault here.
            "temporal_rpc_timeout_seconds": 10,
            "drain_seconds": 5,
        }
    )


@pytest.fixture
async def resources(settings: Settings, authz: ScriptedAuthz) -> AsyncIterator[Resources]:
    """Real resources with their hooks; what they leave in Temporal is removed."""
    async with open_resources(settings, authz=authz) as opened:
        fill_hooks(opened)
        await opened.temporal.probe()
        yield opened
        await opened.settle_background()
        await delete_schedules(opened.temporal.client, settings.temporal_task_queue)


@pytest.fixture
async def workers(resources: Resources) -> AsyncIterator[None]:
    """A worker on each of the three queues."""
    async with running_workers(resources):
        yield


@pytest.fixture
async def echo(resources: Resources, acp_server: AcpServer) -> Agent:
    """An async agent that answers."""
    return await add_agent(resources, acp_url=acp_server.url)


@pytest.fixture
async def answering(resources: Resources, acp_server: AcpServer) -> Agent:
    """A sync agent that says Hello."""
    return await add_agent(resources, "answering", acp_type=AcpType.SYNC, acp_url=acp_server.url)
