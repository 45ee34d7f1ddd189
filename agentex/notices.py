"""Notices between processes: Postgres' NOTIFY, heard on one connection for the whole process.

    async with notices.hearing("message_send:4f…") as heard:
        ...  # look whether it has happened already; what happens from here on is heard
        await heard.wait()

The connection is opened by the first who waits. A notice tells that something may have happened, never what:
whoever hears one looks at the rows, and looks again after a while of its own too, since a connection may have
been lost. Send one in the statement that makes it true: `SELECT pg_notify('agentex_notices', key)`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Protocol, cast

from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.pool import NullPool

from agentex.database import make_engine
from agentex.settings import Settings

CHANNEL = "agentex_notices"


class _Listening(Protocol):
    """asyncpg's connection, of which its package tells no types."""

    def add_listener(self, channel: str, callback: Callable[..., None]) -> Awaitable[None]: ...

    def add_termination_listener(self, callback: Callable[[Any], None]) -> None: ...

    def is_closed(self) -> bool: ...


class Notices:
    """Wakes those who wait for a key, in whichever process it is notified."""

    def __init__(self, settings: Settings) -> None:
        self._engine = make_engine(settings, {}, poolclass=NullPool, isolation_level="AUTOCOMMIT")
        self._waiting: dict[str, set[asyncio.Event]] = {}
        self._calls: dict[str, set[Callable[[], None]]] = {}
        self._connecting = asyncio.Lock()
        self._connection: AsyncConnection | None = None
        self._listening: _Listening | None = None

    @asynccontextmanager
    async def hearing(self, key: str) -> AsyncGenerator[asyncio.Event]:
        """An event that is set by the first notice of this key from now on, or by a lost connection."""
        heard = asyncio.Event()
        self._waiting.setdefault(key, set()).add(heard)
        try:
            await self._listen()
            yield heard
        finally:
            self._waiting[key].discard(heard)
            if not self._waiting[key]:
                del self._waiting[key]

    async def open(self) -> None:
        """Have the connection that notices come on; raises what DATABASE_ERRORS lists."""
        await self._listen()

    def call_at(self, key: str, call: Callable[[], None]) -> Callable[[], None]:
        """Call it at each notice of this key that comes on the connection; returns what ends that.

        Without the wait for a connection that `hearing` has: see `open`. A lost connection calls nothing.
        """
        self._calls.setdefault(key, set()).add(call)

        def end() -> None:
            calls = self._calls.get(key, set())
            calls.discard(call)
            if not calls:
                self._calls.pop(key, None)

        return end

    async def close(self) -> None:
        """Wake everybody and close the connection."""
        await self._drop()
        await self._engine.dispose()
        self._wake_all()

    async def _listen(self) -> None:
        if self._listening is not None and not self._listening.is_closed():
            return
        async with self._connecting:
            if self._listening is not None and not self._listening.is_closed():
                return
            await self._drop()
            self._connection = await self._engine.connect()
            raw = await self._connection.get_raw_connection()
            self._listening = cast("_Listening", raw.driver_connection)
            self._listening.add_termination_listener(self._on_lost)
            await self._listening.add_listener(CHANNEL, self._on_notice)

    async def _drop(self) -> None:
        connection, self._connection, self._listening = self._connection, None, None
        if connection is not None:
            await connection.invalidate()
            await connection.close()

    def _on_notice(self, connection: object, pid: int, channel: str, key: str) -> None:
        for heard in self._waiting.get(key, ()):
            heard.set()
        for call in list(self._calls.get(key, ())):
            call()

    def _on_lost(self, connection: object) -> None:
        self._wake_all()

    def _wake_all(self) -> None:
        for waiting in self._waiting.values():
            for heard in waiting:
                heard.set()
