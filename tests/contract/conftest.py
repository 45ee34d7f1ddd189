"""What contract tests share: a whole stack of real processes."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator

import pytest

from tests.support.contract_stack import ContractStack
from tests.support.postgres import PostgresServer, open_folder
from tests.support.temporal import start_temporal


@pytest.fixture(scope="session")
async def stack(postgres: PostgresServer) -> AsyncIterator[ContractStack]:
    """API and worker on a Postgres and a Temporal; one for all tests of this process."""
    directory = open_folder()
    temporal = start_temporal(directory)
    url = postgres.create_database("migrated")
    started = ContractStack(directory, url, temporal.address)
    try:
        started.start()
        yield started
    finally:
        await started.close()
        temporal.stop()
        postgres.drop_database(url)
        shutil.rmtree(directory)
