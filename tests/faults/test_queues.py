"""Workers that serve some of the queues: how an installation is scaled."""

from __future__ import annotations

from collections.abc import Callable

import aiohttp
import pytest

from tests.support.fault_stack import Stack


async def served(url: str) -> tuple[int, str]:
    """Status and body."""
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        return answer.status, await answer.text()


@pytest.mark.timeout(90)
async def test_workers_of_some_queues_do_the_work_together(make_stack: Callable[..., Stack]) -> None:
    stack = make_stack()
    stack.start_api()
    first = stack.start_worker(worker_queues="ticks,deliver")
    to_async, to_sync = await stack.start_agent("async"), await stack.start_agent("sync")
    delivered = await stack.create_schedule(to_async, interval_seconds=2)
    answered = await stack.create_schedule(to_sync, interval_seconds=2)

    async def ended(schedule_id: str, status: str) -> bool:
        return any(run.status == status for run in await stack.runs(schedule_id))

    await stack.until(lambda: ended(delivered["id"], "delivered"), "a run of the async agent")
    # Nobody serves the queue of answers yet.
    waiting = await stack.runs(answered["id"])
    assert {run.status for run in waiting} <= {"due"}
    second = stack.start_worker(worker_queues="answers")
    await stack.until(lambda: ended(answered["id"], "succeeded"), "a run of the sync agent")
    for worker in (first, second):
        assert (await served(f"{worker.url}/readyz"))[0] == 200
    assert "agentex_ticks_total" in (await served(f"{first.url}/metrics"))[1]
