"""The worker process: ticks, pages and answers for Temporal, the sweep, and its own health and metrics."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta

import uvloop
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from temporalio.client import Client
from temporalio.service import RPCError
from temporalio.worker import Worker

from agentex.collector import keep_modules
from agentex.hooks import fill_hooks
from agentex.readiness import Check, readiness
from agentex.resources import Resources, open_resources
from agentex.runs.activities import PageActivities
from agentex.runs.workflow import PageWorkflow
from agentex.schedules.activities import TickActivities
from agentex.schedules.workflow import TickWorkflow
from agentex.settings import Settings, WorkerQueue
from agentex.sweep.sweep import Sweep
from agentex.telemetry.logs import configure_logs
from agentex.temporal import connect

log = logging.getLogger(__name__)

# A worker cannot be started while Temporal is down; it asks again this often.
CONNECT_RETRY_SECONDS = 1.0
HEARTBEAT_INTERVAL = timedelta(seconds=2)


def run(settings: Settings) -> None:
    """Serve until SIGTERM (drains AGENTEX_DRAIN_SECONDS) or SIGINT (drains 5 s); does not return.

    The interpreter is left by os._exit: temporalio's threads can abort a normal exit (sdk-python#300).
    """
    configure_logs(settings)
    keep_modules()
    code = 0
    try:
        # uvloop: the worker is bound by what its loop costs (2,000 runs are 4,000 requests).
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            code = runner.run(_serve(settings))
    except OSError as error:
        log.error("the worker cannot start", extra={"action": "worker.start", "error": str(error)})  # noqa: TRY400 - the line says it all
        code = 1
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


async def _serve(settings: Settings) -> int:
    """The exit code: 1 when a part ended without being asked."""
    stop = _Stop()
    async with open_resources(settings) as resources:
        fill_hooks(resources)
        pages = PageActivities(resources)
        sweep = Sweep(resources)
        async with _http(settings, resources, sweep):
            sweeping = asyncio.create_task(sweep.run(stop.asked))
            workers = await _start_workers(resources, pages, stop.asked)
            log.info(
                "the worker is up", extra={"action": "worker.up", "queues": sorted(settings.worker_queues)}
            )
            failed = await _until_asked(stop, [sweeping, *workers])
            await _drain(settings, workers, pages, stop)
            await sweeping
    return int(failed)


async def _until_asked(stop: _Stop, parts: list[asyncio.Task[None]]) -> bool:
    """Wait for a signal; True when a part ends before: a worker that serves nothing must not look alive."""
    asked = asyncio.create_task(stop.asked.wait())
    await asyncio.wait([asked, *parts], return_when=asyncio.FIRST_COMPLETED)
    if asked.done():
        return False
    asked.cancel()
    for part in parts:
        if part.done() and not part.cancelled() and (error := part.exception()):
            log.error("a part of the worker failed", extra={"action": "worker.part"}, exc_info=error)
    stop.asked.set()
    return True


class _Stop:
    """How the process was asked to end: SIGTERM lets paid answers end, SIGINT is a person waiting."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.hurry = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self.asked.set)
        loop.add_signal_handler(signal.SIGINT, self._interrupt)

    def _interrupt(self) -> None:
        self.asked.set()
        self.hurry.set()


async def _start_workers(
    resources: Resources, pages: PageActivities, stop: asyncio.Event
) -> list[asyncio.Task[None]]:
    """One worker a queue, so that each has slots of its own; waits while Temporal is down."""
    client = await _connect(resources.settings, stop)
    if client is None:
        return []
    ticks = TickActivities(resources)
    workers = [
        _worker(client, resources.settings, queue, pages, ticks)
        for queue in sorted(resources.settings.worker_queues)
    ]
    return [asyncio.create_task(_run_worker(worker, stop)) for worker in workers]


async def _connect(settings: Settings, stop: asyncio.Event) -> Client | None:
    """A connected client, since workers take no lazy one; None when asked to stop before there is one."""
    while not stop.is_set():
        try:
            return await connect(settings)
        except (RPCError, RuntimeError):
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), CONNECT_RETRY_SECONDS)
    return None


def _worker(
    client: Client, settings: Settings, queue: WorkerQueue, pages: PageActivities, ticks: TickActivities
) -> Worker:
    slots = {
        WorkerQueue.TICKS: settings.worker_tick_slots,
        WorkerQueue.DELIVER: settings.worker_deliver_slots,
        WorkerQueue.ANSWERS: settings.worker_answer_slots,
    }
    is_ticks = queue is WorkerQueue.TICKS
    return Worker(
        client,
        task_queue=settings.task_queue(queue),
        workflows=[TickWorkflow] if is_ticks else [PageWorkflow],
        activities=[ticks.open_due] if is_ticks else [pages.launch_page],
        max_concurrent_activities=slots[queue],
        # By default a heartbeat goes out every 12 s of the 15 s, and that late the page learns that Temporal
        # has forgotten it.
        max_heartbeat_throttle_interval=HEARTBEAT_INTERVAL,
        default_heartbeat_throttle_interval=HEARTBEAT_INTERVAL,
        graceful_shutdown_timeout=timedelta(seconds=settings.drain_seconds),
    )


async def _run_worker(worker: Worker, stop: asyncio.Event) -> None:
    async with worker:
        await stop.wait()


async def _drain(
    settings: Settings, workers: list[asyncio.Task[None]], pages: PageActivities, stop: _Stop
) -> None:
    """Start nothing new, let open answers end, then cut what is left."""
    pages.drain()
    if not workers:
        return
    log.info("the worker drains", extra={"action": "worker.drain"})
    ended = asyncio.gather(*workers, return_exceptions=True)
    hurried = asyncio.create_task(_hurry(settings, stop))
    await asyncio.wait({ended, hurried}, return_when=asyncio.FIRST_COMPLETED)
    if not ended.done():
        pages.cut()
    hurried.cancel()
    await ended


async def _hurry(settings: Settings, stop: _Stop) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(stop.hurry.wait(), settings.drain_seconds)
    await asyncio.sleep(settings.interrupt_drain_seconds)


@asynccontextmanager
async def _http(settings: Settings, resources: Resources, sweep: Sweep) -> AsyncGenerator[None]:
    """/healthz, /readyz and /metrics of this process, on 127.0.0.1."""

    async def healthz(_: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def readyz(_: web.Request) -> web.Response:
        swept = (
            Check(ok=True) if sweep.ended.is_set() else Check(ok=False, detail="the first one is under way")
        )
        ready = await readiness(resources, sweep=swept)
        return web.json_response(ready.model_dump(exclude_none=True), status=ready.http_status)

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.add_routes([web.get("/healthz", healthz), web.get("/readyz", readyz), web.get("/metrics", metrics)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, settings.host, settings.worker_port).start()
    try:
        yield
    finally:
        await runner.cleanup()
