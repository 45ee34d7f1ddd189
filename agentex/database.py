"""The engine, its sessions, migrations, and which database errors mean what."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from enum import StrEnum
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

import asyncpg
from alembic import command
from alembic.config import Config
from sqlalchemy import Enum, RowMapping, TextClause, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool
from sqlmodel import SQLModel
from sqlmodel.ext.asyncio.session import AsyncSession

from agentex.grouping import Grouping, GroupWriter
from agentex.settings import Settings

T = TypeVar("T")
Item = TypeVar("Item")
Result = TypeVar("Result")

# JSON from the wire or a JSONB column: the one place where Any is meant.
JsonObject = dict[str, Any]

# Constraint names are part of the interface: services name them where they turn one into an error.
SQLModel.metadata.naming_convention = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}

# A missing JSON value is SQL NULL, never the JSON literal null.
JsonColumn = JSONB(none_as_null=True)

# What a database that is away may raise (builtin and asyncio's TimeoutError are OSErrors): ask
# is_unavailable whether it is that, and raise again what is not.
DATABASE_ERRORS = (SQLAlchemyError, OSError)
DEADLOCK = "40P01"
# SQLSTATE classes of a server that is away, starting, stopping or full (postgresql.org, appendix A).
_UNAVAILABLE_CLASSES = ("08", "53", "57")
_INTEGRITY_CLASS = "23"
# A parameter of a textual statement; `::` is a cast.
_PARAMETER = re.compile(r"(?<![:\w]):([a-z_]+)")
# Postgres has ended a transaction that its client left idle: this process was stopped inside it.
_IDLE_IN_TRANSACTION = "25P03"
# What requests write together. One whose row another transaction has locked holds up the others no longer
# than this: neither those behind it nor (GROUP_LOCK_SQL) those of its group.
PATIENCE_SECONDS = 0.2
_GROUPING = Grouping(size=64, patience_seconds=PATIENCE_SECONDS)
# Where a session keeps what is to be called once it has committed.
_AFTER_COMMIT = "after_commit"


def _values(members: type[StrEnum]) -> list[str]:
    return [member.value for member in members]


def text_enum(kind: type[StrEnum], name: str) -> Enum:
    """A StrEnum stored as text, with a CHECK of the given name."""
    return Enum(
        kind,
        native_enum=False,
        create_constraint=True,
        length=32,
        name=name,
        values_callable=_values,
    )


def storable(value: Any) -> Any:
    """JSON from outside as Postgres can keep it: NUL and lone surrogates become U+FFFD.

    What an agent has answered is kept rather than refused; input from callers is refused instead.
    """
    if isinstance(value, str):
        return (
            value.replace("\x00", "\ufffd").encode("utf-8", "replace").decode() if _is_odd(value) else value
        )
    if isinstance(value, list):
        return [storable(item) for item in cast("list[Any]", value)]
    if isinstance(value, dict):
        return {storable(key): storable(item) for key, item in cast("JsonObject", value).items()}
    return value


def _is_odd(text_: str) -> bool:
    return "\x00" in text_ or any("\ud800" <= char <= "\udfff" for char in text_)


def sqlstate(error: DBAPIError) -> str:
    """The five characters of a driver error, or the empty string."""
    return getattr(error.orig, "sqlstate", None) or ""


def violates(error: DBAPIError, constraint: str) -> bool:
    """Whether the error is a violation of the named constraint or unique index."""
    cause = getattr(error.orig, "__cause__", None)
    return getattr(cause, "constraint_name", None) == constraint


def is_unavailable(error: BaseException) -> bool:
    """Whether the database did not answer, so that the same request may succeed later."""
    if isinstance(error, PoolTimeout):
        return True
    if isinstance(error, DBAPIError):
        state = sqlstate(error)
        return (
            error.connection_invalidated
            or state.startswith(_UNAVAILABLE_CLASSES)
            or state == _IDLE_IN_TRANSACTION
        )
    return isinstance(error, OSError | TimeoutError)


class Database:
    """The connection pool: `begin()` for writes, `read()` for reads."""

    def __init__(self, settings: Settings) -> None:
        self.engine: AsyncEngine = make_engine(
            settings,
            {},
            pool_size=settings.database_pool_size,
            max_overflow=settings.database_max_overflow,
            # No ping before each use: asyncpg's is three round trips. After a restart of Postgres the first
            # use fails, which empties the pool, and is answered or tried again like any outage.
            pool_timeout=settings.database_connect_timeout_seconds,
        )
        self._autocommit = self.engine.execution_options(isolation_level="AUTOCOMMIT")
        self._writers: dict[Callable[..., object], GroupWriter[Any, Any]] = {}

    @asynccontextmanager
    async def begin(self) -> AsyncGenerator[AsyncSession]:
        """A session in one transaction, committed at the end of the block, rolled back on an error."""
        committed: list[Callable[[], object]] = []
        info = {_AFTER_COMMIT: committed}
        async with (
            AsyncSession(self.engine, expire_on_commit=False, info=info) as session,
            session.begin(),
        ):
            yield session
        for call in committed:
            call()

    @asynccontextmanager
    async def single(self) -> AsyncGenerator[AsyncSession]:
        """A session whose every statement is a transaction of its own: one round trip instead of three."""
        session = AsyncSession(self._autocommit, expire_on_commit=False)
        try:
            yield session
        finally:
            # One that nobody has used holds nothing; to close it takes a task of its own.
            if session.in_transaction():
                await asyncio.shield(asyncio.create_task(session.close()))

    # A session for reads.
    read = single

    async def fetch(self, sql: str, parameters: Mapping[str, object]) -> Sequence[RowMapping]:
        """One statement on the driver itself: what `single()` does in a third of the time; see rows."""
        positional, names = _positional(sql)
        # A coroutine of SQLAlchemy's, whose types it does not tell.
        pooled = await self.engine.raw_connection()
        driver = cast("_Driver", pooled.driver_connection)
        try:
            found = await driver.fetch(positional, *[parameters[name] for name in names])
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
            is_lost = driver.is_closed()
            if is_lost:
                # As SQLAlchemy does: the others of the pool were lost with it.
                pooled.invalidate()
                await self.engine.dispose()
            raise _as_sqlalchemy(sql, error, is_lost) from error
        except BaseException:
            # Canceled in the middle of an answer, which the connection would give to its next user.
            pooled.invalidate()
            raise
        finally:
            pooled.close()
        return cast("Sequence[RowMapping]", found)

    async def together(
        self, write: Callable[[Database, Sequence[Item]], Awaitable[Sequence[Result]]], item: Item
    ) -> Result:
        """Write the item with those that others give the same function meanwhile; alone, at once.

        `write` is one statement on this database, and returns a result for each item, in their order.
        """
        writer: GroupWriter[Item, Result] | None = self._writers.get(write)
        if writer is None:
            writer = GroupWriter(partial(write, self), is_unavailable, _GROUPING)
            self._writers[write] = writer
        return await writer.submit(item)

    async def retry_deadlock(self, write: Callable[[], Awaitable[T]]) -> T:
        """Run a whole write transaction; once more when it lost a deadlock (40P01)."""
        try:
            return await write()
        except DBAPIError as error:
            if sqlstate(error) != DEADLOCK:
                raise
        return await write()

    async def close(self) -> None:
        """Close all connections."""
        await self.engine.dispose()


class SessionLock:
    """A Postgres session's advisory lock, on a connection of its own, that one process at a time has.

    Postgres ends the session, and with it the lock, when it is not used for idle_seconds: a process that
    is stopped keeps nothing from the others.
    """

    def __init__(self, settings: Settings, number: int, *, idle_seconds: float) -> None:
        self._number = number
        self._engine = make_engine(
            settings, {"idle_session_timeout": str(int(idle_seconds * 1000))}, poolclass=NullPool
        )
        self._connection: AsyncConnection | None = None

    async def take(self) -> bool:
        """Whether this process has the lock now; call it again and again to keep it."""
        if self._connection is None:
            connection = await self._engine.connect()
            # Without it the session would stay idle in a transaction, which no idle_session_timeout ends.
            self._connection = await connection.execution_options(isolation_level="AUTOCOMMIT")
        # Given back first, for the lock nests; one that Postgres has taken away fails here.
        await self._connection.execute(text("SELECT pg_advisory_unlock_all()"))
        taken = await self._connection.scalar(
            text("SELECT pg_try_advisory_lock(:number)"), {"number": self._number}
        )
        return bool(taken)

    async def drop(self) -> None:
        """Give the lock up, whatever state its connection is in."""
        if self._connection is not None:
            await self._connection.invalidate()
            await self._connection.close()
            self._connection = None
        await self._engine.dispose()


class Listener:
    """A connection of its own that is told what others NOTIFY; drop it when it is lost, and open another."""

    def __init__(self, settings: Settings) -> None:
        self._engine = make_engine(settings, {}, poolclass=NullPool)
        self._connection: AsyncConnection | None = None

    async def open(self, channel: str, tell: Callable[[str], None], lost: Callable[[], None]) -> int:
        """Listen; returns the number of the Postgres process behind it. Raises what DATABASE_ERRORS lists."""
        connection = await self._engine.connect()
        # Without it the session would stay idle in a transaction, and be told nothing.
        self._connection = await connection.execution_options(isolation_level="AUTOCOMMIT")
        # asyncpg tells no types.
        driver: Any = (await connection.get_raw_connection()).driver_connection

        def on_lost(connection: object) -> None:
            lost()

        def on_told(connection: object, process: int, channel: str, payload: str) -> None:
            tell(payload)

        driver.add_termination_listener(on_lost)
        try:
            await driver.add_listener(channel, on_told)
        except (asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            raise ConnectionError(f"cannot listen: {error}") from error
        return driver.get_server_pid()

    async def probe(self) -> None:
        """Raises what DATABASE_ERRORS lists when the connection does not answer any more."""
        if self._connection is not None:
            await self._connection.execute(text("SELECT 1"))

    async def drop(self) -> None:
        """Close it, whatever state it is in."""
        if self._connection is not None:
            await self._connection.invalidate()
            await self._connection.close()
            self._connection = None
        await self._engine.dispose()


def make_engine(settings: Settings, server_settings: dict[str, str], **options: Any) -> AsyncEngine:
    """An engine on the settings' database, with these settings of a session beside those of all."""
    return create_async_engine(
        settings.async_database_url,
        # Parameters are prompts and inputs; an error's text ends in the log.
        hide_parameters=True,
        connect_args={
            "timeout": settings.database_connect_timeout_seconds,
            "command_timeout": settings.database_statement_timeout_seconds,
            "server_settings": {
                "application_name": "agentex",
                "jit": "off",
                "timezone": "UTC",
                "idle_in_transaction_session_timeout": str(
                    int(settings.database_idle_transaction_timeout_seconds * 1000)
                ),
                **server_settings,
            },
        },
        **options,
    )


def after_commit(session: AsyncSession, call: Callable[[], object]) -> None:
    """Call it when what the session has written is committed, and never when that is rolled back.

    In a session of `single()` what was executed before is committed already, so it is called at once.
    """
    waiting: list[Callable[[], object]] | None = session.info.get(_AFTER_COMMIT)
    if waiting is None:
        call()
    else:
        waiting.append(call)


@lru_cache(maxsize=256)
def _statement(sql: str) -> TextClause:
    # Finding the parameters in a statement's text costs more than sending it.
    return text(sql)


async def rows(session: AsyncSession | Database, sql: str, **parameters: object) -> Sequence[RowMapping]:
    """The rows of one textual statement, by column name; none for a statement that returns none.

    JSONB goes in as `json.dumps(…)` text and comes out as text: no column type is known here. On the database
    itself, in place of a session, the statement is a transaction of its own, for hot paths.
    """
    if isinstance(session, Database):
        return await session.fetch(sql, parameters)
    result = await (await session.connection()).execute(_statement(sql), parameters)
    return result.mappings().all() if result.returns_rows else []


@lru_cache(maxsize=256)
def _positional(sql: str) -> tuple[str, list[str]]:
    """The statement with $1… for its :names, and the names in that order."""
    names = list(dict.fromkeys(_PARAMETER.findall(sql)))
    places = {name: f"${place}" for place, name in enumerate(names, start=1)}
    return _PARAMETER.sub(lambda found: places[found[1]], sql), names


class _Driver(Protocol):
    """asyncpg's connection, of which its package tells no types."""

    def fetch(self, query: str, *arguments: object) -> Awaitable[Sequence[object]]: ...

    def is_closed(self) -> bool: ...


class _DriverError(Exception):
    """An error of the driver as SQLAlchemy's errors carry it: with its sqlstate, and as the cause."""

    def __init__(self, error: BaseException) -> None:
        # Without what an asyncpg error adds to it: its detail quotes values.
        super().__init__(f"{type(error).__name__}: {error.args[0] if error.args else ''}")
        self.sqlstate: str | None = getattr(error, "sqlstate", None)
        self.__cause__ = error


def _as_sqlalchemy(sql: str, error: BaseException, is_lost: bool) -> DBAPIError:
    orig = _DriverError(error)
    kind = IntegrityError if (orig.sqlstate or "").startswith(_INTEGRITY_CLASS) else DBAPIError
    return kind(sql, None, orig, hide_parameters=True, connection_invalidated=is_lost)


# A CTE of a statement that a group shares, to be read first: the statement gives up with 55P03 when it waits
# for a lock, and each is written alone then. :lock_timeout is from group_lock_timeout.
GROUP_LOCK_SQL = """
    SELECT set_config('lock_timeout', coalesce(:lock_timeout, current_setting('lock_timeout')), true)
"""


def group_lock_timeout(items: Sequence[object]) -> str | None:
    """How long a group waits for a lock; None for what is written alone, which waits as it always would."""
    return f"{int(PATIENCE_SECONDS * 1000)}ms" if len(items) > 1 else None


async def clock_now(session: AsyncSession) -> datetime:
    """The database's clock, at this moment rather than at the transaction's start."""
    found = await rows(session, "SELECT clock_timestamp() AS now")
    return found[0]["now"]


def alembic_config(settings: Settings) -> Config:
    """Alembic's configuration: from the checkout, or from inside the installed wheel."""
    package = Path(__file__).parent
    folders = (package / "_database", package.parent / "database")
    folder = next(path for path in folders if path.is_dir())
    config = Config(folder / "alembic.ini")
    config.set_main_option("script_location", str(folder / "migrations").replace("%", "%%"))
    config.attributes["url"] = settings.async_database_url
    return config


def migrate(settings: Settings) -> None:
    """Bring the schema to the newest revision. Safe to run by several processes at once."""
    command.upgrade(alembic_config(settings), "head")
