"""Migrates the database as soon as its server accepts connections.

python -m agentex.dev.migrate

Started together with Postgres: the imports, the longer half of it, then cost nothing.
"""

from __future__ import annotations

import asyncio
import time
from typing import Protocol, cast

import asyncpg

from agentex.database import migrate
from agentex.settings import Settings

_SECONDS = 60
_POLL_SECONDS = 0.03


class _Connection(Protocol):
    """What is used of asyncpg's, which has no types."""

    async def close(self) -> None: ...


async def _connect(url: str) -> _Connection:
    return cast("_Connection", await asyncpg.connect(url))  # pyright: ignore[reportUnknownMemberType] (no types)


async def _wait_for_server(settings: Settings) -> None:
    """Raises OSError or asyncpg.CannotConnectNowError when it does not accept connections in time."""
    url = settings.async_database_url.replace("+asyncpg", "", 1)
    deadline = time.monotonic() + _SECONDS
    while True:
        try:
            connection = await _connect(url)
        except (OSError, asyncpg.CannotConnectNowError):
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(_POLL_SECONDS)
        else:
            await connection.close()
            return


def main() -> None:
    """Raises what waiting and migrating raise."""
    settings = Settings()
    asyncio.run(_wait_for_server(settings))
    migrate(settings)


if __name__ == "__main__":
    main()
