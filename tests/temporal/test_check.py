"""`agentex check` on a real Postgres and a real Temporal: all well, and each thing that is not."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import pytest
from aiohttp import web

from agentex.cadence.interval import IntervalCadence
from agentex.check import Finding, State, check
from agentex.clocks.service import attach, own_clocks
from agentex.clocks.temporal import ensure, list_ids, sync
from agentex.database import clock_now
from agentex.dev.ports import free_port
from agentex.ids import clock_schedule_id
from agentex.resources import Resources
from agentex.settings import Settings, WorkerQueue
from agentex.temporal import Temporal
from tests.support.postgres import PostgresServer
from tests.support.tls import Authority, TlsProxy
from tests.temporal.workers import eventually

# They need not be on this machine, and most tests have none.
PROCESSES = {"api", "worker"}
INSIDE = ["search attributes", "schedules", *(f"queue {queue}" for queue in WorkerQueue)]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority") / "ours")


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Nobody else's API or worker answers for ours."""
    return changed(settings, port=free_port(), worker_port=free_port())


def changed(settings: Settings, **changes: object) -> Settings:
    """Other settings; a copy would keep what is cached of these."""
    return Settings.model_validate(settings.model_dump() | changes)


async def found(settings: Settings, **changes: object) -> dict[str, Finding]:
    """What the check finds with these settings changed, by name; the queues' without the test's prefix."""
    report = await check(changed(settings, **changes))
    bad = {State.MISSING, State.UNREACHABLE}
    assert report.ok is bad.isdisjoint(one.state for one in report.checks)
    return {one.name.replace(f"{settings.temporal_task_queue}-", ""): one for one in report.checks}


def not_well(findings: Mapping[str, Finding]) -> dict[str, str]:
    """How each thing stands that is not well."""
    return {
        name: one.state.value
        for name, one in findings.items()
        if one.state is not State.OK and name not in PROCESSES
    }


async def add_clocks(resources: Resources, *seconds: int) -> list[str]:
    """Clocks with these intervals; returns the ids that their Schedules ought to have."""
    async with resources.db.begin() as session:
        now = await clock_now(session)
        ids = [await attach(session, IntervalCadence.parse(every), now) for every in seconds]
    return sorted(clock_schedule_id(resources.settings.temporal_task_queue, id_) for id_ in ids)


async def sweep_schedules(resources: Resources) -> None:
    """Make the Schedules that lack, as the sweep does."""
    listed = await list_ids(resources.temporal, resources.settings)
    async with resources.db.read() as session:
        clocks = await own_clocks(session)
    await sync(resources.temporal, resources.settings, listed, clocks)


@pytest.fixture
async def polling(settings: Settings, workers: None) -> None:
    """Workers that Temporal has heard of: each started a moment ago, and asks on its own time."""

    async def polled() -> bool:
        findings = await found(settings)
        return all(findings[f"queue {queue}"].state is State.OK for queue in WorkerQueue)

    await eventually(polled)


@pytest.fixture
async def whole(resources: Resources, polling: None) -> Resources:
    """A stack that is well: workers, and the Schedules of the minute and of two clocks."""
    await add_clocks(resources, 7, 90)
    await sweep_schedules(resources)
    return resources


async def test_a_whole_stack_is_well(whole: Resources) -> None:
    findings = await found(whole.settings)
    assert not_well(findings) == {}
    assert list(findings) == [
        "postgres",
        "migrations",
        "temporal",
        "namespace",
        *INSIDE,
        "ENABLE_AGENT_RUN_SCHEDULES",
        "api",
        "worker",
    ]
    assert findings["schedules"].detail == "3 of 3 are there (one a minute, 2 more)"


async def test_it_writes_nothing(whole: Resources, postgres: PostgresServer) -> None:
    name = urlsplit(whole.settings.database_url).path.removeprefix("/")
    postgres.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    try:
        assert not_well(await found(whole.settings)) == {}
    finally:
        postgres.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")


async def test_postgres_that_is_down(whole: Resources) -> None:
    url = f"postgresql://agentex:s3cret@127.0.0.1:{free_port()}/agentex?password=s3cret"
    findings = await found(whole.settings, database_url=url)
    assert not_well(findings) == {"postgres": "unreachable", "migrations": "unknown", "schedules": "unknown"}
    line = findings["postgres"].line
    assert "postgresql://agentex:***@127.0.0.1" in line
    assert "set AGENTEX_DATABASE_URL" in line
    assert "s3cret" not in line


async def test_a_database_url_that_is_none_is_not_repeated(whole: Resources) -> None:
    findings = await found(whole.settings, database_url="postgresql://agentex:s3cret@host:port/agentex")
    assert not_well(findings) == {"postgres": "unreachable", "migrations": "unknown", "schedules": "unknown"}
    assert findings["postgres"].detail == "AGENTEX_DATABASE_URL is not a URL"


async def test_a_database_that_is_not_there(whole: Resources) -> None:
    base = whole.settings.database_url.rpartition("/")[0]
    findings = await found(whole.settings, database_url=f"{base}/nowhere")
    assert 'database "nowhere" does not exist' in findings["postgres"].detail


async def test_a_parameter_of_the_url_that_only_libpq_knows(whole: Resources) -> None:
    findings = await found(whole.settings, database_url=f"{whole.settings.database_url}?connect_timeout=3")
    assert findings["postgres"].state is State.UNREACHABLE
    assert "connect_timeout" in findings["postgres"].detail


async def test_a_postgres_without_tls_that_has_to_have_it(whole: Resources) -> None:
    findings = await found(whole.settings, database_url=f"{whole.settings.database_url}?sslmode=require")
    assert findings["postgres"].state is State.UNREACHABLE
    assert "rejected SSL upgrade" in findings["postgres"].detail


async def test_sealing_is_told(whole: Resources) -> None:
    key = "c2l4dGVlbiBieXRlcyBhbmQgc2l4dGVlbiBtb3JlLi4="
    findings = await found(whole.settings, temporal_encryption=True, secret_key=key)
    assert "(no TLS, payloads sealed) answers" in findings["temporal"].detail
    assert not_well(findings) == {}


async def test_a_database_that_is_not_migrated(whole: Resources, postgres: PostgresServer) -> None:
    url = postgres.create_database()
    try:
        findings = await found(whole.settings, database_url=url)
    finally:
        postgres.drop_database(url)
    assert not_well(findings) == {"migrations": "missing", "schedules": "unknown"}
    assert findings["migrations"].todo == "run `agentex migrate`"


async def test_temporal_that_is_down(whole: Resources) -> None:
    findings = await found(whole.settings, temporal_address=f"127.0.0.1:{free_port()}")
    assert not_well(findings) == {
        "temporal": "unreachable",
        "namespace": "unknown",
        **dict.fromkeys(INSIDE, "unknown"),
    }
    assert "(no TLS): connection refused: start Temporal" in findings["temporal"].line


async def test_a_temporal_that_takes_connections_and_says_nothing(
    whole: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentex.check.QUESTION_SECONDS", 0.5)
    held: set[asyncio.StreamWriter] = set()
    silent = await asyncio.start_server(lambda _, writer: held.add(writer), "127.0.0.1", 0)
    address = f"127.0.0.1:{silent.sockets[0].getsockname()[1]}"
    findings = await found(whole.settings, temporal_address=address)
    silent.close()
    for writer in held:
        writer.close()
    assert findings["temporal"].detail == f"{address} (no TLS): no answer in time"


async def test_a_namespace_that_is_not_there(whole: Resources) -> None:
    findings = await found(whole.settings, temporal_namespace="nowhere")
    assert not_well(findings) == {"namespace": "missing", **dict.fromkeys(INSIDE, "unknown")}
    assert "nowhere does not exist: make it" in findings["namespace"].line


async def test_schedules_that_lack_are_counted_and_five_are_named(whole: Resources) -> None:
    lacking = await add_clocks(whole, *range(61, 68))
    findings = await found(whole.settings)
    assert not_well(findings) == {"schedules": "missing"}
    assert findings["schedules"].detail == (
        f"3 of 10 are there (one a minute, 9 more); {', '.join(lacking[:5])} and 2 more lack"
    )


async def test_one_schedule_that_lacks_is_named(whole: Resources) -> None:
    [lacking] = await add_clocks(whole, 11)
    detail = (await found(whole.settings))["schedules"].detail
    assert detail == f"3 of 4 are there (one a minute, 3 more); {lacking} lack"


@pytest.mark.usefixtures("polling")
async def test_the_minute_s_schedule_belongs_to_every_stack(resources: Resources) -> None:
    assert not_well(await found(resources.settings)) == {"schedules": "missing"}
    await ensure(resources.temporal, resources.settings, None)
    assert not_well(await found(resources.settings)) == {}


async def test_schedules_that_are_not_listed_yet_do_not_lack(
    whole: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def lagging(temporal: Temporal, settings: Settings) -> set[str]:
        return set()

    monkeypatch.setattr("agentex.check.list_ids", lagging)
    assert not_well(await found(whole.settings)) == {}


async def test_queues_without_a_worker(resources: Resources) -> None:
    await sweep_schedules(resources)
    findings = await found(resources.settings)
    assert not_well(findings) == {f"queue {queue}": "missing" for queue in WorkerQueue}
    assert "start `agentex worker`" in findings["queue ticks"].line


async def test_the_flag_is_told_and_no_fault(whole: Resources) -> None:
    off = await found(whole.settings)
    on = await found(whole.settings, enable_agent_run_schedules=True)
    name = "ENABLE_AGENT_RUN_SCHEDULES"
    assert (off[name].state, off[name].detail[:4], on[name].detail) == (State.OK, "off:", "on")


async def test_tls_is_told(whole: Resources, authority: Authority) -> None:
    port = int(whole.settings.temporal_address.rpartition(":")[2])
    tls = {"temporal_tls_ca_file": authority.certificate, "temporal_tls_server_name": "temporal.test"}
    async with TlsProxy(port, authority.issue("temporal.test")) as proxy:
        well = await found(whole.settings, temporal_address=proxy.address, **tls)
        ill = await found(whole.settings, temporal_address=proxy.address)
        assert well["temporal"].detail == f"{proxy.address} (TLS) answers"
    assert not_well(well) == {}
    assert "does it want TLS" in ill["temporal"].detail


@asynccontextmanager
async def answering(body: object, status: int = 200) -> AsyncGenerator[int]:
    """A process whose /readyz says this; yields its port."""

    async def readyz(_: web.Request) -> web.Response:
        return web.json_response(body, status=status)

    app = web.Application()
    app.add_routes([web.get("/readyz", readyz)])
    runner = web.AppRunner(app)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    yield port
    await runner.cleanup()


async def test_processes_that_are_ready(whole: Resources) -> None:
    async with answering({"status": "ok", "checks": {"postgres": {"ok": True}}}) as port:
        findings = await found(whole.settings, port=port, worker_port=port, host="0.0.0.0")  # noqa: S104
    assert (findings["api"].state, findings["worker"].state) == (State.OK, State.OK)


async def test_a_process_that_is_not_ready_says_what_fails(whole: Resources) -> None:
    body = {"status": "unavailable", "checks": {"temporal": {"ok": False, "detail": "not asked yet"}}}
    async with answering(body, 503) as port:
        findings = await found(whole.settings, worker_port=port)
    assert findings["worker"].state is State.MISSING
    assert findings["worker"].detail.endswith("is not ready: temporal not asked yet")


async def test_another_program_on_the_port(whole: Resources) -> None:
    async with answering({"hello": "world"}) as port:
        findings = await found(whole.settings, port=port)
    assert "does not answer as agentex does: see who listens" in findings["api"].line


async def agentex_check(settings: Settings, *options: str, **environment: str) -> tuple[int | None, str, str]:
    """The program's exit code, its output and its errors."""
    process = await asyncio.create_subprocess_exec(
        *[sys.executable, "-m", "agentex.cli.main", "check", *options],
        env=os.environ
        | {
            "AGENTEX_DATABASE_URL": settings.database_url,
            "AGENTEX_TEMPORAL_ADDRESS": settings.temporal_address,
            "AGENTEX_TEMPORAL_TASK_QUEUE": settings.temporal_task_queue,
            "AGENTEX_TEMPORAL_RPC_TIMEOUT_SECONDS": "10",
            "AGENTEX_PORT": str(settings.port),
            "AGENTEX_WORKER_PORT": str(settings.worker_port),
        }
        | environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await process.communicate()
    return process.returncode, output.decode(), errors.decode()


async def test_the_program_prints_a_line_each_and_exits_with_0(whole: Resources) -> None:
    code, output, errors = await agentex_check(whole.settings)
    assert (code, errors, len(output.splitlines())) == (0, "", 12)
    assert output.startswith("ok           postgres")


async def test_the_program_exits_with_1_and_shows_no_secret(resources: Resources) -> None:
    given = {
        "AGENTEX_DATABASE_URL": f"postgresql://agentex:s3cret@127.0.0.1:{free_port()}/agentex",
        "AGENTEX_TEMPORAL_API_KEY": "s3cret",
    }
    code, output, errors = await agentex_check(resources.settings, "--json", **given)
    report = json.loads(output)
    states = {one["name"]: one["state"] for one in report["checks"]}
    assert (code, errors, report["ok"]) == (1, "", False)
    assert (states["postgres"], states["temporal"]) == ("unreachable", "unreachable")
    assert "s3cret" not in output
