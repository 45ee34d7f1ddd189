"""A worker that is killed, or stopped past its claim, in the middle of a page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import aiohttp
import pytest

from tests.support.acp_replies import Reply
from tests.support.fault_agent import FaultAgent
from tests.support.fault_stack import LedgerRow, Stack, WorkerProcess

PAGE = 200
GROUP = 32
KILL_AFTER = 60


async def begin_page(stack: Stack) -> tuple[FaultAgent, WorkerProcess]:
    """A page of 200 on its way: some 60 inputs have reached the agent, which takes a moment for each."""
    worker = stack.start()
    agent = await stack.start_agent("async")
    await agent.script("event/send", Reply(delay_seconds=0.2), repeat=True)
    await stack.create_page(agent, PAGE)

    async def under_way() -> bool:
        return await agent.count("event/send") >= KILL_AFTER

    await stack.until(under_way, "the page under way")
    return agent, worker


def assert_nothing_lost_or_doubled(runs: list[LedgerRow], agent: FaultAgent) -> None:
    """Each run reached the agent once, or says that nobody knows; those are one group at most."""
    unknown = [row for row in runs if row.outcome == ("failed", "outcome_unknown")]
    assert len(unknown) <= GROUP
    expected = Counter(
        {("delivered", None): PAGE - len(unknown), ("failed", "outcome_unknown"): len(unknown)}
    )
    assert Counter(row.outcome for row in runs) == +expected
    delivered = {str(row.task_id) for row in runs if row.status == "delivered"}
    sent = agent.sent()
    assert delivered - set(sent) == set()
    assert {task: count for task, count in sent.items() if count > 1} == {}


@pytest.mark.timeout(120)
async def test_killed_worker_leaves_at_most_a_group_unknown_and_nothing_doubled(
    make_stack: Callable[..., Stack],
) -> None:
    stack = make_stack(claim_seconds=6)
    agent, worker = await begin_page(stack)
    worker.process.kill()
    stack.start_worker()
    await stack.until_finished(PAGE)
    assert_nothing_lost_or_doubled(await stack.runs(), agent)


@pytest.mark.timeout(120)
async def test_worker_stopped_past_its_claim_starts_no_further_group(
    make_stack: Callable[..., Stack],
) -> None:
    stack = make_stack(claim_seconds=6)
    agent, frozen = await begin_page(stack)
    frozen.process.freeze()
    stack.start_worker()
    # Temporal gives the page to the other one when the heartbeat is 15 s late.
    await stack.until_finished(PAGE)
    before = agent.sent()
    frozen.process.thaw()

    async def idle() -> bool:
        return 'agentex_agent_requests_in_flight{lane="deliver"} 0.0' in await metrics(frozen)

    await stack.until(idle, "the thawed worker letting go of its page")
    assert agent.sent() == before
    assert_nothing_lost_or_doubled(await stack.runs(), agent)


async def metrics(worker: WorkerProcess) -> str:
    """What a worker measures."""
    async with aiohttp.ClientSession() as session, session.get(f"{worker.url}/metrics") as answer:
        return await answer.text()
