"""SIGTERM: a deploy must not cost answers that are paid for."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Callable
from datetime import timedelta

import pytest

from tests.support.acp_replies import Reply
from tests.support.fault_agent import FaultAgent
from tests.support.fault_pages import begin_page, until_page_ended
from tests.support.fault_stack import Stack

ANSWERS = 100
PAGE = 100


async def open_answers(stack: Stack, count: int) -> FaultAgent:
    """A sync agent at which so many answers are open."""
    stack.start()
    agent = await stack.start_agent("sync")
    await agent.script("message/send", Reply(hang="before"), repeat=True)
    await stack.create_page(agent, count)

    async def hanging() -> bool:
        return await agent.hanging() == count

    await stack.until(hanging, "the answers open")
    return agent


@pytest.mark.timeout(120)
async def test_sigterm_awaits_a_hundred_open_answers_and_exits(make_stack: Callable[..., Stack]) -> None:
    """Beside the worker that a deploy starts, which would settle claims that the old one let expire."""
    stack = make_stack(claim_seconds=9, claim_renew_seconds=1)
    agent = await open_answers(stack, ANSWERS)
    worker = stack.workers[0]
    worker.process.send(signal.SIGTERM)

    async def drains() -> bool:
        return worker.logged("worker.drain")

    await stack.until(drains, "the drain")
    began = await stack.now()
    stack.start_worker()
    # Past the claims' expiry: a drain goes on to hold them.
    await stack.until_instant(began + timedelta(seconds=12))
    assert await agent.hanging() == ANSWERS
    await agent.release()
    assert worker.process.wait(30) == 0
    rows = await stack.runs()
    assert Counter((row.outcome, row.attempt) for row in rows) == {(("succeeded", None), 1): ANSWERS}
    assert agent.sent() == Counter(str(row.task_id) for row in rows)


@pytest.mark.timeout(90)
async def test_drain_that_ends_leaves_open_answers_unknown_and_sends_none_twice(
    make_stack: Callable[..., Stack],
) -> None:
    stack = make_stack(drain_seconds=1, claim_seconds=6)
    agent = await open_answers(stack, 5)
    assert stack.workers[0].process.terminate() == 0
    stack.start_worker()
    await stack.until_finished(5)
    rows = await stack.runs()
    assert Counter((row.outcome, row.attempt) for row in rows) == {(("failed", "outcome_unknown"), 1): 5}
    assert agent.sent() == Counter(str(row.task_id) for row in rows)


@pytest.mark.timeout(90)
async def test_answer_slower_than_claim_and_heartbeats_is_asked_for_once(
    make_stack: Callable[..., Stack],
) -> None:
    """Known fault 2 of the incumbent: a slow sync agent got its input again, up to five times."""
    stack = make_stack(claim_seconds=9, claim_renew_seconds=1, stuck_after_seconds=1)
    agent = await open_answers(stack, 3)
    began = await stack.now()
    # Longer than the claim, the time to be stuck, and the activity's heartbeat timeout of 15 s.
    await stack.until_instant(began + timedelta(seconds=18))
    await agent.release()
    await stack.until_finished(3)
    rows = await stack.runs()
    assert Counter((row.outcome, row.attempt) for row in rows) == {(("succeeded", None), 1): 3}
    assert agent.sent() == Counter(str(row.task_id) for row in rows)


@pytest.mark.timeout(90)
async def test_sigterm_in_the_middle_of_a_page_hands_the_rest_to_the_next_worker(
    make_stack: Callable[..., Stack],
) -> None:
    """Nothing becomes unknown: what was sent is recorded, what was not goes on elsewhere at once."""
    stack = make_stack()
    worker = stack.start()
    agent = await begin_page(stack, PAGE)
    worker.process.send(signal.SIGTERM)

    async def drains() -> bool:
        return worker.logged("worker.drain")

    async def ended() -> bool:
        await agent.release()
        return worker.process.returncode is not None

    await stack.until(drains, "the drain")
    await stack.until(ended, "the worker's end")
    assert worker.process.returncode == 0
    assert await agent.count("event/send") < PAGE
    stack.start_worker()
    await until_page_ended(stack, agent, PAGE)
    rows = await stack.runs()
    assert Counter((row.outcome, row.attempt) for row in rows) == {(("delivered", None), 1): PAGE}
    assert agent.sent() == Counter(str(row.task_id) for row in rows)
