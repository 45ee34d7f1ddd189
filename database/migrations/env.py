"""Alembic's environment: online only, one transaction, one migrating process at a time."""

from __future__ import annotations

import asyncio

from alembic import context
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import create_async_engine

from agentex import models

# Any constant: two processes that migrate at once wait for each other on it.
MIGRATION_LOCK = 5_003_001


def run(connection: Connection) -> None:
    """Migrate over one connection."""
    context.configure(connection=connection, target_metadata=models.METADATA, compare_server_default=True)
    with context.begin_transaction():
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": MIGRATION_LOCK})
        context.run_migrations()


async def run_online() -> None:
    """Migrate the database that the configuration names."""
    given = context.config.attributes
    engine = create_async_engine(given["url"], connect_args=given["connect_args"])
    async with engine.begin() as connection:
        await connection.run_sync(run)
    await engine.dispose()


asyncio.run(run_online())
