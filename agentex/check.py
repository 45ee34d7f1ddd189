"""`agentex check`: what is reachable, what is missing, and what to do about it. It writes nothing.

Each question ends in one Finding, whatever fails in it, so that all the others are answered too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from itertools import zip_longest
from ssl import SSLCertVerificationError

import aiohttp
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from pydantic import BaseModel, ValidationError
from sqlalchemy import Connection, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError
from temporalio.api.operatorservice.v1 import ListSearchAttributesRequest
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest
from temporalio.service import RPCError, RPCStatusCode

from agentex import database_tls
from agentex.clocks.service import OwnClock, own_clocks
from agentex.clocks.temporal import list_ids
from agentex.database import Database, alembic_config, rows, tls_protocol
from agentex.database_tls import SslMode
from agentex.ids import clock_schedule_id
from agentex.readiness import Readiness
from agentex.settings import Settings, WorkerQueue
from agentex.temporal import Temporal, explain, is_gone

# A person waits for the answer.
QUESTION_SECONDS = 10.0
OLDEST_POSTGRES = 15
# A poll lasts a minute, and Temporal tells for five who has polled: what is older has ended.
POLLED_WITHIN = timedelta(minutes=2)
NAMED_AT_MOST = 5
LOOKED_UP_AT_MOST = 100
SEARCH_ATTRIBUTE = "TemporalScheduledStartTime"
# How Temporal answers a caller whom it does not let into the namespace.
_REFUSALS = (RPCStatusCode.PERMISSION_DENIED, RPCStatusCode.UNAUTHENTICATED)


class State(StrEnum):
    """How one thing stands."""

    OK = "ok"
    # What was asked answers, and something that is needed is not there.
    MISSING = "missing"
    UNREACHABLE = "unreachable"
    # Not to be told: what it depends on does not answer, or it may run elsewhere.
    UNKNOWN = "unknown"


class Finding(BaseModel):
    """How one thing stands and, where it is not well, what to do."""

    name: str
    state: State
    detail: str
    todo: str | None = None

    @property
    def line(self) -> str:
        """For a terminal."""
        todo = f": {self.todo}" if self.todo else ""
        return f"{self.state:<11}  {self.name:<26}  {self.detail}{todo}"


class Report(BaseModel):
    """All that was found; well when nothing is missing or unreachable."""

    ok: bool
    checks: list[Finding]


async def check(settings: Settings) -> Report:
    """Ask Postgres, Temporal and the processes of this machine; fails for none of them."""
    found, clocks = await _postgres(settings)
    found += await _temporal(settings, clocks)
    found.append(_flag(settings))
    found += await asyncio.gather(
        asked("api", _process("api", settings.host, settings.port)),
        asked("worker", _process("worker", settings.host, settings.worker_port)),
    )
    return Report(ok=not any(one.state in (State.MISSING, State.UNREACHABLE) for one in found), checks=found)


async def asked(
    name: str, question: Awaitable[Finding], *, place: str | None = None, todo: str | None = None
) -> Finding:
    """What a question found, or how it failed, where, and what to do then."""
    try:
        async with asyncio.timeout(QUESTION_SECONDS):
            return await question
    except Exception as error:  # noqa: BLE001 - the program's edge: whatever failed is one line of the answer
        detail = f"{place}: {_why(error)}" if place else _why(error)
        return Finding(name=name, state=State.UNREACHABLE, detail=detail, todo=todo)


def _why(error: Exception) -> str:
    """The reason without what may be secret: of an error that nobody foresaw, the class only."""
    match error:
        case RPCError() | RuntimeError() | TimeoutError():
            return explain(error)
        case DBAPIError():
            return str(error.orig).partition("\n")[0]
        case SSLCertVerificationError():
            return f"its certificate is not to be trusted: {error.verify_message}"
        case OSError():
            return error.strerror or str(error)
        case _:
            return type(error).__name__


def _unknown(names: Sequence[str], why: str) -> list[Finding]:
    return [Finding(name=name, state=State.UNKNOWN, detail=why) for name in names]


# Postgres


async def _postgres(settings: Settings) -> tuple[list[Finding], list[OwnClock] | None]:
    """The server and its schema; and the clocks, where the schema is there to have them."""
    todo = "start Postgres, or set AGENTEX_DATABASE_URL"
    try:
        db = Database(settings)
    except (ArgumentError, ValueError):
        # The reason would repeat parts of the URL, perhaps of the password.
        unread = Finding(name="postgres", state=State.UNREACHABLE, detail="AGENTEX_DATABASE_URL is not a URL")
        return [unread, *_unknown(["migrations"], "Postgres is not known")], None
    try:
        place = _shown(settings)
        server = await asked("postgres", _server(db, place, settings), place=place, todo=todo)
        if server.state is State.UNREACHABLE:
            return [server, *_unknown(["migrations"], "Postgres does not answer")], None
        schema = await asked("migrations", _migrations(db, settings))
        return [server, schema], await _clocks(db) if schema.state is State.OK else None
    finally:
        await db.close()


def _shown(settings: Settings) -> str:
    """The database's URL without its password, and without parameters, which may hold one too."""
    url = make_url(settings.async_database_url)
    return url.set(drivername="postgresql", query={}).render_as_string(hide_password=True)


async def _server(db: Database, place: str, settings: Settings) -> Finding:
    try:
        async with db.read() as session:
            found = await rows(session, "SELECT current_setting('server_version_num')::int AS version")
            protocol = await tls_protocol(session)
    except TypeError as error:
        # The URL's parameters become arguments of asyncpg.connect, which has not all of libpq's.
        detail = f"{place}: AGENTEX_DATABASE_URL has a parameter that asyncpg does not take ({error})"
        todo = "leave it out"
        return Finding(name="postgres", state=State.UNREACHABLE, detail=detail, todo=todo)
    way = tls_shown(protocol, database_tls.mode(settings.database_url))
    return server_finding(f"{place} ({way})", found[0]["version"])


def tls_shown(protocol: str | None, mode: SslMode) -> str:
    """Whether a connection is encrypted, e.g. by TLSv1.3, and to whom it is known to be."""
    if protocol is None:
        return "no TLS"
    checked = {
        SslMode.VERIFY_FULL: "certificate and name checked",
        SslMode.VERIFY_CA: "certificate checked, not its name",
    }
    return f"{protocol}, {checked.get(mode, 'certificate not checked')}"


def server_finding(place: str, version: int) -> Finding:
    """Whether a Postgres of this version, e.g. 160002 for 16.2, will do."""
    major, minor = divmod(version, 10_000)
    detail = f"{place} answers, version {major}.{minor}"
    if major >= OLDEST_POSTGRES:
        return Finding(name="postgres", state=State.OK, detail=detail)
    todo = f"agentex needs {OLDEST_POSTGRES} or newer"
    return Finding(name="postgres", state=State.MISSING, detail=detail, todo=todo)


async def _migrations(db: Database, settings: Settings) -> Finding:
    async with db.engine.connect() as connection:
        current = set(await connection.run_sync(_revisions))
    script = ScriptDirectory.from_config(alembic_config(settings))
    known = {step.revision for step in script.walk_revisions()}
    return migrations_finding(current, set(script.get_heads()), known)


def _revisions(connection: Connection) -> tuple[str, ...]:
    return MigrationContext.configure(connection).get_current_heads()


def migrations_finding(current: set[str], newest: set[str], known: set[str]) -> Finding:
    """How the schema's revision stands to those that this program has."""
    at, head = (", ".join(sorted(names)) for names in (current, newest))
    if current == newest:
        return Finding(name="migrations", state=State.OK, detail=f"at {at}, the newest")
    if not current <= known:
        detail, todo = f"at {at}, which this agentex does not know", "install the agentex that migrated it"
    else:
        detail, todo = f"at {at or 'none'}, the newest is {head}", "run `agentex migrate`"
    return Finding(name="migrations", state=State.MISSING, detail=detail, todo=todo)


async def _clocks(db: Database) -> list[OwnClock] | None:
    try:
        async with db.read() as session:
            return await own_clocks(session)
    except (DBAPIError, OSError):
        return None


# Temporal


async def _temporal(settings: Settings, clocks: list[OwnClock] | None) -> list[Finding]:
    """The server, the namespace, and what ought to be in it."""
    queues = [settings.task_queue(queue) for queue in WorkerQueue]
    inside = ["search attributes", "schedules", *(f"queue {queue}" for queue in queues)]
    try:
        temporal = await Temporal.open(settings)
    except OSError as error:
        # A file was there when the settings were read.
        detail = f"{error.filename} cannot be read: {_why(error)}"
        gone = Finding(name="temporal", state=State.UNREACHABLE, detail=detail)
        return [gone, *_unknown(["namespace", *inside], "Temporal was not asked")]
    todo = "start Temporal, or set AGENTEX_TEMPORAL_ADDRESS"
    place = _place(settings)
    namespace = await asked("temporal", _namespace(temporal), place=place, todo=todo)
    if namespace.state is State.UNREACHABLE:
        return [namespace, *_unknown(["namespace", *inside], "Temporal does not answer")]
    server = Finding(name="temporal", state=State.OK, detail=f"{place} answers")
    if namespace.state is State.MISSING:
        return [server, namespace, *_unknown(inside, "the namespace does not answer")]
    return [
        server,
        namespace,
        await asked("search attributes", _search_attributes(temporal)),
        await _schedules(temporal, settings, clocks),
        *[await asked(f"queue {queue}", _pollers(temporal, queue)) for queue in queues],
    ]


def _place(settings: Settings) -> str:
    """The address, and how it is spoken to; no key is shown."""
    ways = [
        "TLS" if settings.temporal_uses_tls else "no TLS",
        *(["a client certificate"] if settings.temporal_tls_cert_file else []),
        *(["an API key"] if settings.temporal_api_key else []),
        *(["payloads sealed"] if settings.temporal_encryption else []),
    ]
    return f"{settings.temporal_address} ({', '.join(ways)})"


async def _namespace(temporal: Temporal) -> Finding:
    name = temporal.client.namespace
    try:
        await temporal.describe_namespace()
    except RPCError as error:
        if is_gone(error):
            todo = (
                f"make it (temporal operator namespace create -n {name}), or set AGENTEX_TEMPORAL_NAMESPACE"
            )
            detail = f"{name} does not exist"
        elif error.status in _REFUSALS:
            todo = "see AGENTEX_TEMPORAL_API_KEY, AGENTEX_TEMPORAL_TLS_CERT_FILE, AGENTEX_TEMPORAL_NAMESPACE"
            detail = f"{name} lets us not in ({error})"
        else:
            raise
        return Finding(name="namespace", state=State.MISSING, detail=detail, todo=todo)
    return Finding(name="namespace", state=State.OK, detail=f"{name} is there")


async def _search_attributes(temporal: Temporal) -> Finding:
    """The one that ticks read, which Temporal sets itself; we have none of our own."""
    name = "search attributes"
    listed = await temporal.client.operator_service.list_search_attributes(
        ListSearchAttributesRequest(namespace=temporal.client.namespace), timeout=temporal.rpc_timeout
    )
    if SEARCH_ATTRIBUTE in listed.system_attributes:
        detail = f"{SEARCH_ATTRIBUTE} is built in; none has to be added"
        return Finding(name=name, state=State.OK, detail=detail)
    detail = f"this Temporal has no {SEARCH_ATTRIBUTE}"
    return Finding(name=name, state=State.MISSING, detail=detail, todo="use a newer one")


async def _schedules(temporal: Temporal, settings: Settings, clocks: list[OwnClock] | None) -> Finding:
    if clocks is None:
        return _unknown(["schedules"], "the database does not tell which clocks there are")[0]
    prefix = settings.temporal_task_queue
    wanted = {clock_schedule_id(prefix, clock.id if clock else None) for clock in (None, *clocks)}
    return await asked("schedules", _ringing(temporal, settings, wanted))


async def _ringing(temporal: Temporal, settings: Settings, wanted: set[str]) -> Finding:
    """Whether each clock has its Schedule: the minute's, and one for each other interval."""
    unlisted = sorted(wanted - await list_ids(temporal, settings))
    # The listing is a second behind: those that have just been made are looked up.
    found = await asyncio.gather(*[_exists(temporal, name) for name in unlisted[:LOOKED_UP_AT_MOST]])
    lacking = [name for name, exists in zip_longest(unlisted, found) if not exists]
    there = f"{len(wanted) - len(lacking)} of {len(wanted)} are there (one a minute, {len(wanted) - 1} more)"
    if not lacking:
        return Finding(name="schedules", state=State.OK, detail=there)
    rest = len(lacking) - NAMED_AT_MOST
    named = ", ".join(lacking[:NAMED_AT_MOST]) + (f" and {rest} more" if rest > 0 else "")
    todo = "start a worker, whose sweep makes them"
    return Finding(name="schedules", state=State.MISSING, detail=f"{there}; {named} lack", todo=todo)


async def _exists(temporal: Temporal, schedule_id: str) -> bool:
    try:
        await temporal.client.get_schedule_handle(schedule_id).describe(rpc_timeout=temporal.rpc_timeout)
    except RPCError as error:
        if is_gone(error):
            return False
        raise
    return True


async def _pollers(temporal: Temporal, queue: str) -> Finding:
    """Whether a worker asks for workflow tasks; for activities one whose slots are full does not ask."""
    described = await temporal.client.workflow_service.describe_task_queue(
        DescribeTaskQueueRequest(namespace=temporal.client.namespace, task_queue=TaskQueue(name=queue)),
        timeout=temporal.rpc_timeout,
    )
    since = datetime.now(UTC) - POLLED_WITHIN
    workers = {
        poller.identity
        for poller in described.pollers
        if poller.last_access_time.ToDatetime(tzinfo=UTC) >= since
    }
    if workers:
        return Finding(name=f"queue {queue}", state=State.OK, detail=f"{len(workers)} polling")
    detail, todo = "no worker polls it", "start `agentex worker` (AGENTEX_WORKER_QUEUES)"
    return Finding(name=f"queue {queue}", state=State.MISSING, detail=detail, todo=todo)


# This machine's processes


def _flag(settings: Settings) -> Finding:
    on = settings.enable_agent_run_schedules
    detail = "on" if on else "off: /agents/{id}/schedules is not served; true serves it"
    return Finding(name="ENABLE_AGENT_RUN_SCHEDULES", state=State.OK, detail=detail)


async def _process(name: str, host: str, port: int) -> Finding:
    """What /readyz of a process says, if one answers here: it may as well run on another machine."""
    local = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - not bound
    url = f"http://{f'[{local}]' if ':' in local else local}:{port}/readyz"
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=QUESTION_SECONDS)) as session,
            session.get(url, allow_redirects=False) as answer,
        ):
            ready = Readiness.model_validate_json(await answer.read())
    except (aiohttp.ClientConnectionError, TimeoutError):
        return _unknown([name], f"nothing answers at {url}; it may run elsewhere")[0]
    except (aiohttp.ClientError, ValidationError):
        todo = "see who listens on this port"
        return Finding(
            name=name, state=State.MISSING, detail=f"{url} does not answer as agentex does", todo=todo
        )
    failed = [f"{part} {one.detail or 'fails'}" for part, one in ready.checks.items() if not one.ok]
    if not failed:
        return Finding(name=name, state=State.OK, detail=f"{url} is ready")
    return Finding(name=name, state=State.MISSING, detail=f"{url} is not ready: {'; '.join(failed)}")
