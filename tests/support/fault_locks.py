"""A table that a test keeps locked: who needs it waits inside its transaction, and is seen to wait.

async with locked(stack, "schedule_totals"):
    await stack.until(waits, …)  # asks waiting_for(stack, "schedule_totals")
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from sqlalchemy import text

from tests.support.fault_stack import Stack


@asynccontextmanager
async def locked(stack: Stack, table: str) -> AsyncGenerator[None]:
    """Let the table be read, and nothing be written to it, until the block is left or Postgres restarted."""
    async with stack.db.engine.connect() as connection:
        await connection.execute(text(f"LOCK TABLE {table} IN EXCLUSIVE MODE"))
        try:
            yield
        finally:
            # Its end ends the transaction, also where a restart has done so already.
            await connection.invalidate()


async def waiting_for(stack: Stack, table: str) -> list[set[str]]:
    """The transactions that wait for a lock on the table, each as the tables that it has locks on."""
    found = await stack.sql(
        """
        SELECT array_agg(DISTINCT held.relation::regclass::text) FILTER (WHERE held.granted) AS tables
        FROM pg_locks waiting JOIN pg_locks held ON held.pid = waiting.pid
        WHERE NOT waiting.granted AND waiting.relation = to_regclass(:table)
            AND held.locktype = 'relation'
            AND waiting.database = (SELECT oid FROM pg_database WHERE datname = current_database())
        GROUP BY waiting.pid
        """,
        table=table,
    )
    return [set(row["tables"] or ()) for row in found]
