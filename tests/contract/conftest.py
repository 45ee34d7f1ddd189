"""What contract tests share: a whole stack of real processes."""

from __future__ import annotations

import base64
import secrets
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
    # Webhooks' secrets are kept only by a server that has a key for them.
    key = base64.b64encode(secrets.token_bytes(32)).decode()
    started = ContractStack(directory, url, temporal.address, secret_key=key)
    try:
        started.start()
        yield started
    finally:
        await started.close()
        temporal.stop()
        postgres.drop_database(url)
        shutil.rmtree(directory)
