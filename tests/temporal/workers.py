"""Workers in this process, and waiting for what they do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta

from temporalio.worker import Worker, WorkflowRunner
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner

from agentex.resources import Resources
from agentex.runs.activities import PageActivities
from agentex.runs.workflow import PageWorkflow
from agentex.schedules.activities import TickActivities
from agentex.schedules.workflow import TickWorkflow
from agentex.settings import WorkerQueue
from agentex.temporal import connect

# A test gives up then; what it waits for takes a second or two.
GIVE_UP_SECONDS = 60
# What is waited for is a row that another task writes; no event tells of it.
POLL_SECONDS = 0.05


@asynccontextmanager
async def running_workers(
    resources: Resources, *, workflow_runner: WorkflowRunner | None = None
) -> AsyncGenerator[PageActivities]:
    """A worker on each queue, as `agentex worker` has them; heartbeats are not throttled."""
    # Workers take no lazy client.
    client = await connect(resources.settings)
    pages, ticks = PageActivities(resources), TickActivities(resources)
    async with AsyncExitStack() as stack:
        for queue in WorkerQueue:
            is_ticks = queue is WorkerQueue.TICKS
            worker = Worker(
                client,
                task_queue=resources.settings.task_queue(queue),
                workflows=[TickWorkflow] if is_ticks else [PageWorkflow],
                activities=[ticks.open_due] if is_ticks else [pages.launch_page],
                workflow_runner=workflow_runner or SandboxedWorkflowRunner(),
                graceful_shutdown_timeout=timedelta(seconds=resources.settings.drain_seconds),
                max_heartbeat_throttle_interval=timedelta(milliseconds=100),
            )
            await stack.enter_async_context(worker)
        yield pages


async def eventually(holds: Callable[[], Awaitable[bool]]) -> None:
    """Return when it holds; fails after a minute."""
    async with asyncio.timeout(GIVE_UP_SECONDS):
        while True:
            if await holds():
                return
            await asyncio.sleep(POLL_SECONDS)
