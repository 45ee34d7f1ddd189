"""A worker that is killed, or stopped past its claim, in the middle of a page."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.support.fault_pages import GROUP, assert_nothing_lost_or_doubled, begin_page, until_page_ended
from tests.support.fault_stack import Stack

PAGE = 200


@pytest.mark.timeout(120)
async def test_killed_worker_leaves_at_most_a_group_unknown_and_nothing_doubled(
    make_stack: Callable[..., Stack],
) -> None:
    # Shorter than Temporal's patience with a silent page (15 s), so that nothing waits for it.
    stack = make_stack(claim_seconds=12)
    worker = stack.start()
    agent = await begin_page(stack, PAGE)
    worker.process.kill()
    stack.start_worker()
    await until_page_ended(stack, agent, PAGE)
    assert_nothing_lost_or_doubled(await stack.runs(), agent, PAGE)


@pytest.mark.timeout(180)
async def test_worker_stopped_past_its_claim_starts_no_further_group(
    make_stack: Callable[..., Stack],
) -> None:
    """What was marked before the stop may still leave after it: one group, whose runs nobody knows about."""
    stack = make_stack(claim_seconds=12)
    stopped = stack.start()
    agent = await begin_page(stack, PAGE)
    stopped.process.freeze()
    stack.start_worker()
    # Temporal gives the page to the other one when the heartbeat is 15 s late, or later: what the stopped one
    # still polls for is offered to it first.
    await until_page_ended(stack, agent, PAGE)
    before, ledger, thawed = agent.sent(), await stack.runs(), await stack.now()
    stopped.process.thaw()

    async def idle() -> bool:
        await agent.release()
        return await stopped.in_flight("deliver") == 0

    await stack.until(idle, "the worker letting go of its page")
    # It ends when the last of its requests has: nothing of it arrives later.
    assert stopped.process.terminate() == 0

    after = await stack.runs()
    assert after == ledger
    assert [row for row in after if row.sending_at is not None and row.sending_at > thawed] == []
    unknown = {str(row.task_id) for row in after if row.outcome == ("failed", "outcome_unknown")}
    came = agent.sent() - before
    assert set(came) <= unknown
    assert came.total() <= GROUP
    assert_nothing_lost_or_doubled(after, agent, PAGE)


@pytest.mark.timeout(180)
async def test_worker_alone_stopped_past_its_claims_goes_on_and_cancels_nothing(
    make_stack: Callable[..., Stack],
) -> None:
    """A machine that slept: nobody has settled the claims meanwhile."""
    stack = make_stack(claim_seconds=6, event_send_timeout_seconds=120)
    worker = stack.start()
    agent = await begin_page(stack, PAGE)
    worker.process.freeze()

    async def expired() -> bool:
        found = await stack.sql(
            "SELECT 1 FROM runs WHERE status = 'launching' AND claimed_until > clock_timestamp()"
        )
        return not found

    await stack.until(expired, "the claims expired")
    worker.process.thaw()
    await until_page_ended(stack, agent, PAGE)
    assert_nothing_lost_or_doubled(await stack.runs(), agent, PAGE)
