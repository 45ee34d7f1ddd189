"""A page of inputs on its way to an agent, caught in the middle for certain, and what must come of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from tests.support.acp_replies import Reply
from tests.support.fault_agent import FaultAgent
from tests.support.fault_stack import LedgerRow, Stack

# The most runs that anything that goes wrong may leave unknown.
GROUP = 32
UNDER_WAY = 50
# More than the agent's window, so that a page cannot end before these are let go.
HANGING = 40


async def begin_page(stack: Stack, count: int) -> FaultAgent:
    """A page with some 50 inputs at the agent, which takes a moment for each and hangs at the last 40.

    So the page is under way however long whoever starts it takes to look.
    """
    agent = await stack.start_agent("async")
    replies = [Reply(delay_seconds=0.2)] * (count - HANGING) + [Reply(hang="before")] * HANGING
    await agent.script("event/send", *replies)
    await stack.create_page(agent, count)

    async def under_way() -> bool:
        return await agent.count("event/send") >= UNDER_WAY

    await stack.until(under_way, "the page under way")
    return agent


async def until_page_ended(stack: Stack, agent: FaultAgent, count: int, seconds: float = 90) -> None:
    """Let go what hangs at the agent until there are so many runs and each has ended."""

    async def ended() -> bool:
        await agent.release()
        return await stack.finished(count)

    await stack.until(ended, "the page's end", seconds)


def assert_nothing_lost_or_doubled(runs: Sequence[LedgerRow], agent: FaultAgent, count: int) -> None:
    """Each run reached the agent once, or says that nobody knows; those are one group at most."""
    unknown = [row for row in runs if row.outcome == ("failed", "outcome_unknown")]
    assert len(unknown) <= GROUP
    expected = {("delivered", None): count - len(unknown), ("failed", "outcome_unknown"): len(unknown)}
    assert Counter(row.outcome for row in runs) == +Counter(expected)
    sent = agent.sent()
    assert {str(row.task_id) for row in runs if row.status == "delivered"} - set(sent) == set()
    assert {task: times for task, times in sent.items() if times > 1} == {}
