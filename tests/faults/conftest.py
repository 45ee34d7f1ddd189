"""What fault tests share: a Postgres and a Temporal that are not hurt, and stacks on them."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from agentex.database import migrate
from agentex.dev.temporal import EmbeddedTemporal
from agentex.settings import Settings
from tests.support.fault_stack import Stack
from tests.support.postgres import PostgresServer, open_folder
from tests.support.temporal import start_temporal

TEMPLATE = "fault_template"


def new_postgres() -> PostgresServer:
    """A started server with a migrated template."""
    server = PostgresServer()
    server.start()
    server.make_template(TEMPLATE, lambda url: migrate(Settings(database_url=url)))
    return server


@pytest.fixture(scope="session")
def shared_postgres() -> Iterator[PostgresServer]:
    server = new_postgres()
    yield server
    server.close()


@pytest.fixture(scope="session")
def shared_temporal() -> Iterator[EmbeddedTemporal]:
    directory = open_folder()
    temporal = start_temporal(directory)
    yield temporal
    temporal.stop()
    shutil.rmtree(directory)


@pytest.fixture
async def make_stack(
    shared_postgres: PostgresServer, shared_temporal: EmbeddedTemporal, tmp_path: Path
) -> AsyncIterator[Callable[..., Stack]]:
    """Makes stacks with settings, each on a database and a prefix of its own."""
    made: list[Stack] = []

    def make(**settings: object) -> Stack:
        url = shared_postgres.create_database(TEMPLATE)
        stack = Stack(tmp_path, url, shared_temporal.address, **settings)
        made.append(stack)
        return stack

    yield make
    for stack in made:
        await stack.close()
        shared_postgres.drop_database(stack.database_url)


@pytest.fixture
def own_postgres() -> Iterator[PostgresServer]:
    """A Postgres that the test may hurt."""
    server = new_postgres()
    yield server
    server.close()


@pytest.fixture
def own_temporal(tmp_path: Path) -> Iterator[EmbeddedTemporal]:
    """A Temporal that the test may hurt."""
    temporal = start_temporal(tmp_path)
    yield temporal
    temporal.stop()


@pytest.fixture
async def stack_on_own_temporal(
    shared_postgres: PostgresServer, own_temporal: EmbeddedTemporal, tmp_path: Path
) -> AsyncIterator[Callable[..., Stack]]:
    """Makes the one stack of a test that hurts Temporal."""
    made: list[Stack] = []

    def make(**settings: object) -> Stack:
        url = shared_postgres.create_database(TEMPLATE)
        made.append(Stack(tmp_path, url, own_temporal.address, **settings))
        return made[-1]

    yield make
    for stack in made:
        await stack.close(tidy_temporal=False)
        shared_postgres.drop_database(stack.database_url)


@pytest.fixture
async def stack_on_own_postgres(
    own_postgres: PostgresServer, shared_temporal: EmbeddedTemporal, tmp_path: Path
) -> AsyncIterator[Callable[..., Stack]]:
    """Makes the one stack of a test that hurts Postgres."""
    made: list[Stack] = []

    def make(**settings: object) -> Stack:
        url = own_postgres.create_database(TEMPLATE)
        made.append(Stack(tmp_path, url, shared_temporal.address, **settings))
        return made[-1]

    yield make
    for stack in made:
        await stack.close()
