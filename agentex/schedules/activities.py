"""The activity of TickWorkflow: wait until the database's clock is there, then open one round."""

from __future__ import annotations

import asyncio
from datetime import datetime
from uuid import UUID

from temporalio import activity

from agentex.database import clock_now
from agentex.ids import tick_batch_id
from agentex.resources import Resources
from agentex.runs.activities import failures_say_little
from agentex.runs.pages import page_queue
from agentex.schedules.open import Opened, is_owed, open_due
from agentex.schedules.workflow import OPEN_DUE, LanePages, OpenRequest, OpenResult
from agentex.telemetry.metrics import TICK_WAIT_SECONDS, TICKS

# A database clock 50 ms behind Temporal's would find nothing owed; more than this is a broken clock.
MAX_TICK_WAIT_SECONDS = 5.0
# How long, and how often, a tick asks again for clocks that somebody else holds.
LOCKED_SECONDS = 10.0
LOCKED_RETRY_SECONDS = 0.2


class TickActivities:
    """Opens what is owed."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources

    @activity.defn(name=OPEN_DUE)
    async def open_due(self, request: OpenRequest) -> OpenResult:
        """Open one round; only counts travel back."""
        with failures_say_little():
            return await self._open(request)

    async def _open(self, request: OpenRequest) -> OpenResult:
        if request.round == 0:
            TICKS.labels(clock=request.clock).inc()
            await self._wait_for_database_clock(datetime.fromisoformat(request.nominal))
        settings = self._resources.settings
        run_id = activity.info().workflow_run_id
        if run_id is None:
            raise ValueError("open_due runs inside a workflow only: its run id names the batch")
        batch_id = tick_batch_id(run_id, request.round)
        nominal = datetime.fromisoformat(request.nominal)
        opened, owed = await self._open_round(batch_id, nominal)
        lanes = [LanePages(lane, count, page_queue(settings, lane)) for lane, count in opened.lanes.items()]
        return OpenResult(str(batch_id), lanes, opened.more or owed)

    async def _open_round(self, batch_id: UUID, nominal: datetime) -> tuple[Opened, bool]:
        """One round, and whether more is owed for this tick.

        A clock that somebody holds is passed over; where that leaves nothing to open, wait until it is free
        or opened: the holder may be no opener, or may be killed.
        """
        give_up = asyncio.get_running_loop().time() + LOCKED_SECONDS
        while True:
            async with self._resources.db.begin() as session:
                opened = await open_due(session, self._resources.settings, batch_id, by="tick")
            async with self._resources.db.read() as session:
                owed = await is_owed(session, nominal)
            if opened.rows or opened.lanes or opened.more or not owed:
                return opened, owed
            if asyncio.get_running_loop().time() > give_up:
                return opened, False
            await asyncio.sleep(LOCKED_RETRY_SECONDS)

    async def _wait_for_database_clock(self, nominal: datetime) -> None:
        async with self._resources.db.read() as session:
            now = await clock_now(session)
        behind = min(max((nominal - now).total_seconds(), 0.0), MAX_TICK_WAIT_SECONDS)
        TICK_WAIT_SECONDS.observe(behind)
        if behind:
            await asyncio.sleep(behind)
