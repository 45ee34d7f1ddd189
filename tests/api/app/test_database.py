"""The database as a process that is stopped inside a transaction leaves it."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy.exc import DBAPIError

from agentex.database import Database, is_unavailable, rows
from agentex.resources import Resources
from tests.api.ledger.stage import add_agent

LOCK = "SELECT id FROM agents FOR UPDATE"


async def test_a_process_that_is_stopped_inside_a_transaction_keeps_its_locks_for_a_while_only(
    resources: Resources,
) -> None:
    """Else the clocks that it was opening would ring in vain until it goes on."""
    await add_agent(resources)
    stopped = Database(
        resources.settings.model_copy(update={"database_idle_transaction_timeout_seconds": 0.3})
    )

    async def next_in_line() -> int:
        async with resources.db.begin() as session:
            return len(await rows(session, LOCK))

    async def be_stopped() -> None:
        async with stopped.begin() as session:
            await rows(session, LOCK)
            async with asyncio.timeout(20):
                assert await next_in_line() == 1
            await rows(session, LOCK)

    try:
        with pytest.raises(DBAPIError) as raised:
            await be_stopped()
        assert is_unavailable(raised.value)
    finally:
        await stopped.close()
