"""PageWorkflow: carries one page of runs to its end. Standard library and temporalio only."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from temporalio import workflow
from temporalio.common import RetryPolicy

LAUNCH_PAGE = "launch_page"
# Longer than a page of answers at their longest, with retries; a dead worker shows in the heartbeat.
LAUNCH_TIMEOUT = timedelta(hours=24)
HEARTBEAT_TIMEOUT = timedelta(seconds=15)
RETRY = RetryPolicy(initial_interval=timedelta(seconds=1), maximum_interval=timedelta(seconds=30))
# ~10 events a round: well below the 50,000 that a history may have.
ROUNDS_PER_HISTORY = 200


@dataclass(frozen=True)
class PageRequest:
    """Which page; the runs themselves never travel through Temporal."""

    batch_id: str
    lane: str
    page: int


@dataclass(frozen=True)
class PageResult:
    """When the page has work again, or None when each of its runs is on its way or ended."""

    next_attempt_in_seconds: float | None = None


@workflow.defn
class PageWorkflow:
    """Launches a page, and again while runs of it wait for a retry or their stagger."""

    @workflow.run
    async def run(self, page: PageRequest) -> None:
        """Return when nothing of the page is left to be launched."""
        for _ in range(ROUNDS_PER_HISTORY):
            result = await workflow.execute_activity(
                LAUNCH_PAGE,
                page,
                result_type=PageResult,
                start_to_close_timeout=LAUNCH_TIMEOUT,
                heartbeat_timeout=HEARTBEAT_TIMEOUT,
                retry_policy=RETRY,
            )
            if result.next_attempt_in_seconds is None:
                return
            await workflow.sleep(timedelta(seconds=result.next_attempt_in_seconds))
        workflow.continue_as_new(page)
