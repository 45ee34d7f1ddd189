"""The clocks in Temporal: one Schedule for all whole minutes, one for each other interval.

The only file that speaks to Temporal of Schedules. A tick carries nothing, so a lost one is made again and
an extra one does no harm.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from temporalio.client import (
    Schedule,
    ScheduleActionStartWorkflow,
    ScheduleAlreadyRunningError,
    ScheduleIntervalSpec,
    ScheduleOverlapPolicy,
    SchedulePolicy,
    ScheduleSpec,
)
from temporalio.service import RPCError

from agentex.clocks.service import OwnClock
from agentex.ids import clock_schedule_id
from agentex.settings import Settings, WorkerQueue
from agentex.telemetry.metrics import TEMPORAL_ERRORS
from agentex.temporal import Temporal, is_gone

log = logging.getLogger(__name__)

TICK_WORKFLOW = "TickWorkflow"
# A tick that could not run within this is gone: the next one opens everything that it would have.
TICK_TIMEOUT = timedelta(seconds=60)
CATCH_UP_WINDOW = timedelta(minutes=1)


@dataclass(frozen=True)
class Synced:
    """What a look at Temporal found and changed."""

    present: list[UUID]
    created: int
    deleted: int


async def ensure(temporal: Temporal, settings: Settings, clock: OwnClock | None) -> bool:
    """Make the Schedule of one clock, or (None) of the shared minute; returns whether it was missing.

    A new one rings at once, since the one it replaces may have missed an instant.
    """
    schedule_id = clock_schedule_id(settings.temporal_task_queue, clock.id if clock else None)
    every = timedelta(seconds=clock.interval_seconds if clock else 60)
    try:
        await temporal.client.create_schedule(
            schedule_id,
            Schedule(
                action=ScheduleActionStartWorkflow(
                    TICK_WORKFLOW,
                    {"prefix": settings.temporal_task_queue, "clock": "own" if clock else "minute"},
                    id=f"{schedule_id}:tick",
                    task_queue=settings.task_queue(WorkerQueue.TICKS),
                    run_timeout=TICK_TIMEOUT,
                ),
                spec=ScheduleSpec(intervals=[ScheduleIntervalSpec(every=every)]),
                policy=SchedulePolicy(
                    overlap=ScheduleOverlapPolicy.ALLOW_ALL, catchup_window=CATCH_UP_WINDOW
                ),
            ),
            trigger_immediately=True,
            rpc_timeout=temporal.rpc_timeout,
        )
    except ScheduleAlreadyRunningError:
        return False
    return True


async def ensure_quietly(temporal: Temporal, settings: Settings, clock: OwnClock) -> None:
    """The same after an answer has gone out: what fails here the sweep repairs."""
    try:
        await ensure(temporal, settings, clock)
    except (RPCError, RuntimeError) as error:
        TEMPORAL_ERRORS.labels(call="create_schedule").inc()
        log.warning(
            "a clock waits for the sweep",
            extra={"action": "clock.ensure", "clock_id": str(clock.id), "error": str(error)},
        )


async def list_ids(temporal: Temporal, settings: Settings) -> set[str]:
    """The ids of our Schedules in Temporal. Raises RPCError when it does not answer."""
    prefix = _prefix(settings)
    return {
        entry.id
        async for entry in await temporal.client.list_schedules(
            page_size=1000, rpc_timeout=temporal.rpc_timeout * 10
        )
        if entry.id.startswith(prefix)
    }


async def sync(
    temporal: Temporal, settings: Settings, listed: set[str], clocks: Sequence[OwnClock]
) -> Synced:
    """Create the Schedules that lack and delete those whose clock is retired.

    Read the clocks after the listing: a Schedule that is listed then has its clock among them. A listing
    lags behind creates and deletes: a create that finds its Schedule is fine, and a delete looks at the
    Schedule itself first. Raises RPCError when Temporal does not answer.
    """
    prefix = _prefix(settings)
    wanted = {clock_schedule_id(settings.temporal_task_queue, clock.id): clock for clock in clocks}
    created = 0
    for clock in [None, *clocks]:
        if clock_schedule_id(settings.temporal_task_queue, clock.id if clock else None) not in listed:
            created += await ensure(temporal, settings, clock)
    deleted = 0
    for schedule_id in listed - wanted.keys() - {f"{prefix}minute"}:
        deleted += await _delete(temporal, schedule_id)
    return Synced([clock.id for clock in clocks], created, deleted)


def _prefix(settings: Settings) -> str:
    return clock_schedule_id(settings.temporal_task_queue, None).removesuffix("minute")


async def _delete(temporal: Temporal, schedule_id: str) -> bool:
    handle = temporal.client.get_schedule_handle(schedule_id)
    try:
        await handle.describe(rpc_timeout=temporal.rpc_timeout)
        await handle.delete(rpc_timeout=temporal.rpc_timeout)
    except RPCError as error:
        if is_gone(error):
            return False
        raise
    return True
