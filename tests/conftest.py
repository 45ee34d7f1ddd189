"""What tests of several kinds share: a migrated database of one's own, resources on it, a scripted agent."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from agentex.auth.authorize import AuthProvider
from agentex.database import migrate
from agentex.dev.ports import free_port
from agentex.resources import Resources, open_resources
from agentex.settings import LOCAL_NETWORKS, Settings
from tests.support.acp_server import AcpServer
from tests.support.authz import ScriptedAuthz
from tests.support.postgres import PostgresServer
from tests.support.temporal import fresh_prefix

# TRUNCATE would make new files for each table: 100 ms instead of 10. A replica asks no foreign keys.
_EMPTY = """
    DO $$ DECLARE name text; BEGIN
        PERFORM set_config('session_replication_role', 'replica', true);
        FOR name IN SELECT tablename FROM pg_tables
            WHERE schemaname = 'public' AND tablename <> 'alembic_version' LOOP
            EXECUTE format('DELETE FROM %I', name);
        END LOOP;
    END $$
"""


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """One server for the session, with the template database `migrated`."""
    server = PostgresServer()
    server.start()
    server.make_template("migrated", lambda url: migrate(Settings(database_url=url)))
    yield server
    server.close()


@pytest.fixture(scope="session")
def shared_database_url(postgres: PostgresServer) -> str:
    """The database that one test after the other has to itself."""
    return postgres.create_database(template="migrated")


@pytest.fixture
def database_url(postgres: PostgresServer, shared_database_url: str) -> Iterator[str]:
    """A migrated database, empty at the test's start: a copy of its own would take 90 to 500 ms."""
    yield shared_database_url
    postgres.execute(_EMPTY, url=shared_database_url)


@pytest.fixture
def settings(database_url: str) -> Settings:
    """Settings on that database; nothing listens where Temporal should be."""
    return Settings.model_validate(
        {
            "database_url": database_url,
            "temporal_address": f"127.0.0.1:{free_port()}",
            "temporal_task_queue": fresh_prefix(),
            "ENABLE_AGENT_RUN_SCHEDULES": True,
            "task_create_timeout_seconds": 5,
            "event_send_timeout_seconds": 5,
            "secret_key": "c2l4dGVlbiBieXRlcyBhbmQgc2l4dGVlbiBtb3JlLi4=",
            # As without auth, for those who ask for some: the agents of tests are here, and no request waits.
            "agent_networks": LOCAL_NETWORKS,
            "rate_limit_per_address": "",
            "rate_limit_per_principal": "",
        }
    )


@pytest.fixture
def authz() -> ScriptedAuthz:
    """Allows everything within an account; tests deny and change accounts through it."""
    return ScriptedAuthz()


@pytest.fixture
async def resources(settings: Settings, authz: AuthProvider) -> AsyncIterator[Resources]:
    """Real resources, closed at the end."""
    async with open_resources(settings, authz=authz) as opened:
        yield opened


@pytest.fixture
async def acp_server() -> AsyncIterator[AcpServer]:
    """A scripted agent that answers as a real one until it is told otherwise."""
    async with AcpServer() as server:
        yield server
