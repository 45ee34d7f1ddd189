"""TickWorkflow: a doorbell. It carries nothing; the database says what is owed."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from temporalio import workflow
from temporalio.common import RetryPolicy, SearchAttributeKey

OPEN_DUE = "open_due"
OPEN_TIMEOUT = timedelta(seconds=40)
RETRY = RetryPolicy(initial_interval=timedelta(milliseconds=200), maximum_interval=timedelta(seconds=5))
SCHEDULED_START = SearchAttributeKey.for_datetime("TemporalScheduledStartTime")


@dataclass(frozen=True)
class Tick:
    """Which stack rings (the prefix of its ids), and for which kind of clock."""

    prefix: str
    clock: str


@dataclass(frozen=True)
class OpenRequest:
    """The instant that rang (UTC, ISO 8601), and how many rounds this tick has opened before."""

    nominal: str
    round: int
    clock: str


@dataclass(frozen=True)
class LanePages:
    """How many pages a lane has, numbered from 0, and the task queue that serves them."""

    lane: str
    count: int
    task_queue: str


@dataclass(frozen=True)
class OpenResult:
    """The pages of what was opened, as counts, and whether more is owed."""

    batch_id: str
    lanes: list[LanePages] = field(default_factory=list)
    more: bool = False


@workflow.defn
class TickWorkflow:
    """Opens what is owed, round by round, and starts each page as a workflow that outlives it."""

    @workflow.run
    async def run(self, tick: Tick) -> int:
        """Return the number of rounds."""
        nominal = workflow.info().typed_search_attributes.get(SCHEDULED_START) or workflow.info().start_time
        rounds, more = 0, True
        while more:
            opened = await self._open(nominal, rounds, tick.clock)
            await asyncio.gather(
                *[
                    self._start(tick.prefix, opened.batch_id, lane, page)
                    for lane in opened.lanes
                    for page in range(lane.count)
                ]
            )
            rounds, more = rounds + 1, opened.more
        return rounds

    async def _open(self, nominal: datetime, round_: int, clock: str) -> OpenResult:
        return await workflow.execute_activity(
            OPEN_DUE,
            OpenRequest(nominal.isoformat(), round_, clock),
            result_type=OpenResult,
            start_to_close_timeout=OPEN_TIMEOUT,
            retry_policy=RETRY,
        )

    async def _start(self, prefix: str, batch_id: str, lane: LanePages, page: int) -> None:
        await workflow.start_child_workflow(
            "PageWorkflow",
            {"batch_id": batch_id, "lane": lane.lane, "page": page},
            id=f"{prefix}:page:{batch_id}:{lane.lane}:{page}",
            task_queue=lane.task_queue,
            parent_close_policy=workflow.ParentClosePolicy.ABANDON,
        )
