"""An agent that closes idle connections: a request on a closing one would be outcome_unknown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from tests.support.fault_proxy import ClosingProxy
from tests.support.fault_stack import Stack

FIRES = 3


@pytest.mark.timeout(120)
@pytest.mark.parametrize("cadence", [5, 6])
async def test_agent_closing_idle_connections_after_5_s_gets_every_input_once(
    make_stack: Callable[..., Stack], cadence: int
) -> None:
    """Each fire would find the connection of the one before it closing just then."""
    stack = make_stack()
    stack.start()
    agent = await stack.start_agent("async", keepalive_seconds=5)
    # A little less than 5 s: at a cadence of 5 s a request comes as the close is under way.
    async with ClosingProxy("127.0.0.1", int(agent.url.rpartition(":")[2]), idle_seconds=4.5) as proxy:
        body = {"name": agent.name, "description": "", "acp_url": proxy.url, "acp_type": "async"}
        await stack.ok("POST", "/agents/register", body)
        schedule = await stack.create_schedule(agent, interval_seconds=cadence)
        await stack.until_delivered(FIRES, schedule["id"])
        await stack.ok("POST", f"/agents/{agent.id}/schedules/{schedule['id']}/pause")
        await stack.until_finished(FIRES)
        rows = [row for row in await stack.runs() if row.outcome != ("skipped", "paused")]
    assert {(row.outcome, row.attempt) for row in rows} == {(("delivered", None), 1)}
    assert agent.sent() == Counter(str(row.task_id) for row in rows)
    assert proxy.closed == 0
