"""Migrates the database as soon as its server accepts connections.

python -m agentex.dev.migrate SECONDS_TO_WAIT

Started together with Postgres: the imports, the longer half of it, then cost nothing.
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Protocol, cast

import asyncpg

from agentex.database import migrate
from agentex.settings import Settings

_POLL_SECONDS = 0.03
_OLDEST = 15


class _Version(Protocol):
    @property
    def major(self) -> int: ...


class _Connection(Protocol):
    """What is used of asyncpg's, which has no types."""

    def get_server_version(self) -> _Version: ...

    async def close(self) -> None: ...


async def _connect(url: str) -> _Connection:
    return cast("_Connection", await asyncpg.connect(url))  # pyright: ignore[reportUnknownMemberType] (no types)


async def _server_version(settings: Settings, seconds: float) -> int:
    """The major version, once it accepts connections.

    Raises OSError or asyncpg.CannotConnectNowError when it does not in time, asyncpg.PostgresError when it
    refuses.
    """
    url = settings.async_database_url.replace("+asyncpg", "", 1)
    deadline = time.monotonic() + seconds
    while True:
        try:
            connection = await _connect(url)
        except (OSError, asyncpg.CannotConnectNowError):
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(_POLL_SECONDS)
        else:
            await connection.close()
            return connection.get_server_version().major


def main() -> None:
    """One line on stderr and exit code 1 when the server cannot be used. Raises what migrating raises."""
    settings = Settings()
    try:
        major = asyncio.run(_server_version(settings, float(sys.argv[1])))
    except (OSError, ValueError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        sys.exit(f"cannot connect to Postgres: {error}")
    if major < _OLDEST:
        sys.exit(f"Postgres {major} is too old: it has to be {_OLDEST} or newer")
    migrate(settings)


if __name__ == "__main__":
    main()
