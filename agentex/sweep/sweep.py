"""The sweep: what Temporal did not do, what processes left behind, what is no longer needed.

An asyncio loop in every worker, never a Temporal workflow: it must work when Temporal is empty or down.
One process sweeps at a time, by a session advisory lock on a connection of its own; Postgres ends that
session when its process is stopped for long, so that another one can take over.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from time import monotonic
from time import time as wall_seconds
from uuid import UUID

from sqlalchemy.exc import DBAPIError
from sqlmodel.ext.asyncio.session import AsyncSession
from temporalio.service import RPCError

from agentex.audit.service import forget_old_entries
from agentex.clocks import service as clocks
from agentex.clocks import temporal as clocks_temporal
from agentex.database import DATABASE_ERRORS, SessionLock, clock_now, is_unavailable, rows
from agentex.idempotency import forget_old
from agentex.ids import new_id
from agentex.resources import Resources
from agentex.rpc.sends import forget_old_sends, settle_lapsed
from agentex.runs.claims import settle_expired
from agentex.runs.pages import PageRef, put_into_pages, start_page
from agentex.runs.retention import forget_old_runs
from agentex.runs.stop import stop_at_agent
from agentex.schedules.open import Opened, open_due, open_missed_by_attach
from agentex.schedules.settle import detach_ended
from agentex.sweep.answering import Answering
from agentex.sweep.health import HealthRounds
from agentex.sweep.telling import Telling
from agentex.telemetry.metrics import (
    SWEEP_FAILURES,
    SWEEP_LAST_ENDED_TIMESTAMP_SECONDS,
    SWEEP_OPENED,
    SWEEP_REPAIRED,
    TEMPORAL_ERRORS,
    UNEXPECTED_ERRORS,
)

log = logging.getLogger(__name__)

# Any constant that no other advisory lock of ours uses.
SWEEP_LOCK = 5_003_002
# The lock's session is used every few seconds; one that is silent this long belongs to a stopped process.
LOCK_IDLE_SECONDS = 30.0
# A minute's tick this late says that its Temporal Schedule may be gone.
TICK_OVERDUE_SECONDS = 5.0
RELAUNCH_AT_ONCE = 2_000
# Agents that are told of a cancel side by side; one that hangs keeps its place until it times out.
STOP_AT_ONCE = 20
# After an outage or a stop, live launches renew their claims before anybody calls those expired.
RENEWALS_AWAITED = 2
# What nobody waits for; looking at 100,000 schedules for an ended window takes 50 ms.
TIDY_INTERVAL_SECONDS = 60.0

# By next_attempt_at and by to_stop_since: partial indexes that hold nothing of what runs for days.
STUCK_SQL = """
    SELECT id FROM runs
    WHERE finished_at IS NULL AND status = 'due'
        AND next_attempt_at < statement_timestamp() - make_interval(secs => :stuck)
        AND updated_at < statement_timestamp() - make_interval(secs => :stuck)
    ORDER BY next_attempt_at LIMIT :limit
"""
# Whatever has become of the run: the agent may be at work for one that is delivered or canceled. What waits
# or is claimed is left to its launch. Noted as looked at, so that those that cannot be stopped do not stand
# before the others for ever.
UNSTOPPED_SQL = """
    UPDATE runs SET updated_at = clock_timestamp() WHERE id = ANY(ARRAY(
        SELECT id FROM runs
        WHERE to_stop_since <= statement_timestamp() AND claimed_by IS NULL
            AND status NOT IN ('due', 'queued', 'launching')
            AND updated_at < statement_timestamp() - make_interval(secs => :stuck)
        ORDER BY updated_at, id LIMIT :limit FOR NO KEY UPDATE SKIP LOCKED))
    RETURNING id
"""


class Sweep:
    """Sweeps until `stop` is set; `ended` tells that this process has been through one sweep."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._lock = SessionLock(resources.settings, SWEEP_LOCK, idle_seconds=LOCK_IDLE_SECONDS)
        self._synced_at = float("-inf")
        self._tidied_at = float("-inf")
        self._forgot_at = float("-inf")
        self._grace_seconds = RENEWALS_AWAITED * resources.settings.claim_renew_seconds
        self._answering = Answering(resources.settings.sweep_interval_seconds + self._grace_seconds)
        self._stopping: set[UUID] = set()
        self._health = HealthRounds(resources)
        self._telling = Telling(resources)
        self.ended = asyncio.Event()

    async def run(self, stop: asyncio.Event) -> None:
        """Sweep now and every AGENTEX_SWEEP_INTERVAL_SECONDS; a fault ends one sweep, never the loop."""
        while not stop.is_set():
            await self.sweep_once()
            await _wait(stop, self._resources.settings.sweep_interval_seconds)
        await self.close()

    async def close(self) -> None:
        """Let another process sweep."""
        await self._health.close()
        await self._lock.drop()

    async def sweep_once(self) -> None:
        """Sweep if no other process does; what goes wrong is logged and counted."""
        self._answering.begin(wall_seconds())
        try:
            if await self._lock.take():
                await self._sweep()
                SWEEP_LAST_ENDED_TIMESTAMP_SECONDS.set_to_current_time()
            self.ended.set()
        except DATABASE_ERRORS as error:
            if is_unavailable(error):
                self._answering.fail()
            SWEEP_FAILURES.labels(error=type(error).__name__).inc()
            if not is_unavailable(error) and isinstance(error, DBAPIError):
                log.exception("a sweep failed", extra={"action": "sweep"})
            else:
                log.warning("a sweep waits for Postgres", extra={"action": "sweep", "error": str(error)})
            await self._lock.drop()
        except Exception:
            UNEXPECTED_ERRORS.labels(where="sweep").inc()
            log.exception("a sweep failed", extra={"action": "sweep"})
        self._answering.end(wall_seconds())

    async def _sweep(self) -> None:
        # First, while it is certain that this process has not been stopped since the last round.
        await self._settle_expired()
        self._health.begin_if_due()
        healthy = await self._resources.temporal.probe()
        await self._open_overdue(healthy)
        await self._open_after_attach(healthy)
        await self._stop_canceled()
        self._telling.begin_if_due()
        if healthy:
            await self._relaunch_stuck()
        await self._tidy()
        if healthy:
            await self._sync_temporal()
        # Last: what is owed has been opened, and a fault of it holds up nothing else.
        await self._forget_old()

    async def _open_overdue(self, healthy: bool) -> None:
        settings = self._resources.settings
        overdue = settings.late_after_seconds

        async def overdue_round(session: AsyncSession, batch_id: UUID) -> Opened:
            return await open_due(session, settings, batch_id, by="sweep", overdue_seconds=overdue)

        SWEEP_OPENED.inc(await self._open(overdue_round, healthy))

    async def _open_after_attach(self, healthy: bool) -> None:
        async def attach_round(session: AsyncSession, batch_id: UUID) -> Opened:
            return await open_missed_by_attach(session, self._resources.settings, batch_id, by="attach")

        await self._open(attach_round, healthy)

    async def _open(
        self, open_round: Callable[[AsyncSession, UUID], Awaitable[Opened]], healthy: bool
    ) -> int:
        """Open round by round and start the pages; returns how many rows were made."""
        count, more = 0, True
        while more:
            async with self._resources.db.begin() as session:
                opened = await open_round(session, new_id())
            count += sum(opened.rows.values())
            if healthy:
                await self._start(
                    [
                        PageRef(opened.batch_id, lane, page)
                        for lane, n in opened.lanes.items()
                        for page in range(n)
                    ]
                )
            more = opened.more
        return count

    async def _settle_expired(self) -> None:
        """Settle expired claims, when whoever is alive has certainly had the time to renew them."""
        answering = self._answering.seconds(wall_seconds())
        if answering is None or answering < self._grace_seconds:
            return
        async with self._resources.db.begin() as session:
            await settle_expired(session, expired_seconds=self._grace_seconds)
        settled = await settle_lapsed(self._resources.db)
        SWEEP_REPAIRED.labels(kind="message_send_settled").inc(settled)

    async def _stop_canceled(self) -> None:
        """Carry out cancels whose process died before it closed the task and told the agent.

        In the background: an agent that hangs must not hold up the sweep.
        """
        async with self._resources.db.begin() as session:
            found = await rows(
                session,
                UNSTOPPED_SQL,
                stuck=self._resources.settings.stuck_after_seconds,
                limit=STOP_AT_ONCE - len(self._stopping),
            )
        for row in found:
            self._stopping.add(row["id"])
            self._resources.in_background(self._stop(row["id"]))

    async def _stop(self, run_id: UUID) -> None:
        try:
            await stop_at_agent(self._resources, run_id)
            SWEEP_REPAIRED.labels(kind="run_stopped").inc()
        except Exception:
            # Nobody awaits this; a later sweep finds the run again.
            UNEXPECTED_ERRORS.labels(where="sweep.stop").inc()
            log.exception("a run could not be stopped", extra={"action": "sweep.stop", "run_id": str(run_id)})
        finally:
            self._stopping.discard(run_id)

    async def _relaunch_stuck(self) -> None:
        """Give runs that nobody works at new pages."""
        async with self._resources.db.begin() as session:
            stuck = await rows(
                session,
                STUCK_SQL,
                stuck=self._resources.settings.stuck_after_seconds,
                limit=RELAUNCH_AT_ONCE,
            )
            pages = await put_into_pages(session, [row["id"] for row in stuck]) if stuck else []
        SWEEP_REPAIRED.labels(kind="run_relaunched").inc(len(stuck))
        await self._start(pages)

    async def _start(self, pages: Sequence[PageRef]) -> None:
        try:
            for page in pages:
                await start_page(self._resources, page)
        except (RPCError, RuntimeError) as error:
            # The runs stay due; a later sweep finds them.
            TEMPORAL_ERRORS.labels(call="start_page").inc()
            log.warning("pages wait for Temporal", extra={"action": "sweep.start", "error": str(error)})

    async def _tidy(self) -> None:
        if monotonic() - self._tidied_at < TIDY_INTERVAL_SECONDS:
            return
        async with self._resources.db.begin() as session:
            await detach_ended(session)
            retired = await clocks.retire_unused(session, self._resources.settings)
            mended = await clocks.look_again(session)
        SWEEP_REPAIRED.labels(kind="clock_retired").inc(retired)
        SWEEP_REPAIRED.labels(kind="clock_mended").inc(mended)
        async with self._resources.db.begin() as session:
            await forget_old(session)
            await forget_old_sends(session, await clock_now(session))
        self._tidied_at = monotonic()

    async def _forget_old(self) -> None:
        """A batch now and then; with more to forget, one in every sweep."""
        if monotonic() - self._forgot_at >= TIDY_INTERVAL_SECONDS:
            more = await forget_old_runs(self._resources)
            more = await forget_old_entries(self._resources) or more
            self._forgot_at = float("-inf") if more else monotonic()

    async def _sync_temporal(self) -> None:
        """Compare Temporal's Schedules with the clocks: every 20 s, and at once when a tick is overdue."""
        interval = self._resources.settings.sweep_temporal_interval_seconds
        if monotonic() - self._synced_at < interval and not await self._tick_is_overdue():
            return
        temporal, settings = self._resources.temporal, self._resources.settings
        try:
            listed = await clocks_temporal.list_ids(temporal, settings)
            async with self._resources.db.read() as session:
                own = await clocks.own_clocks(session)
            synced = await clocks_temporal.sync(temporal, settings, listed, own)
        except (RPCError, RuntimeError) as error:
            TEMPORAL_ERRORS.labels(call="sync_schedules").inc()
            log.warning("schedules wait for Temporal", extra={"action": "sweep.sync", "error": str(error)})
            return
        self._synced_at = monotonic()
        SWEEP_REPAIRED.labels(kind="temporal_schedule_created").inc(synced.created)
        SWEEP_REPAIRED.labels(kind="temporal_schedule_deleted").inc(synced.deleted)
        async with self._resources.db.begin() as session:
            await clocks.mark_synced(session, synced.present)

    async def _tick_is_overdue(self) -> bool:
        async with self._resources.db.read() as session:
            found = await rows(
                session,
                """
                SELECT 1 FROM clocks WHERE retired_at IS NULL AND broken_at IS NULL
                    AND next_due_at < statement_timestamp() - make_interval(secs => :overdue) LIMIT 1
                """,
                overdue=TICK_OVERDUE_SECONDS,
            )
        return bool(found)


async def _wait(stop: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), seconds)
