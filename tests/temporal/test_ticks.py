"""Ticks and pages on a real Temporal: from a clock that rings to an agent that has its input."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from temporalio.client import WorkflowHandle
from temporalio.converter import default

from agentex.agents.models import Agent
from agentex.idempotency import Repeat
from agentex.resources import Resources
from agentex.schedules import service
from agentex.schedules.models import ScheduleCreate
from agentex.schedules.workflow import LanePages, OpenRequest, OpenResult, Tick, TickWorkflow
from agentex.settings import WorkerQueue
from tests.api.ledger.stage import CALLER, Attached, add_schedule, fetch
from tests.support.acp_server import AcpServer
from tests.temporal.workers import eventually

# style.md: inputs and results of workflows and activities; lists live in tables.
MAX_PAYLOAD_BYTES = 2_000

pytestmark = pytest.mark.usefixtures("workers")


def minute() -> datetime:
    """The newest whole minute."""
    return datetime.now(UTC).replace(second=0, microsecond=0)


async def ring(resources: Resources) -> tuple[WorkflowHandle[TickWorkflow, int], int]:
    """One tick, as a Temporal Schedule starts it; returns when it has ended."""
    prefix = resources.settings.temporal_task_queue
    handle = await resources.temporal.client.start_workflow(
        TickWorkflow.run,
        Tick(prefix, "minute"),
        id=f"{prefix}:tick:{uuid4()}",
        task_queue=resources.settings.task_queue(WorkerQueue.TICKS),
    )
    return handle, await handle.result()


async def statuses(resources: Resources) -> dict[str, int]:
    found = await fetch(resources, "SELECT status, count(*) AS n FROM runs GROUP BY 1")
    return {row["status"]: row["n"] for row in found}


async def add_due(resources: Resources, agent: Agent, count: int) -> None:
    """Schedules that have been due once, since the newest minute; the next one may come during the test."""
    due_at = minute()
    attached = Attached(due_at - timedelta(days=1), due_at)
    for _ in range(count):
        await add_schedule(resources, agent, attached, end_at=due_at + timedelta(seconds=1))


async def create(resources: Resources, agent: Agent, seconds: int) -> str:
    body = {"name": f"every-{seconds}-{agent.name}", "interval_seconds": seconds}
    given = ScheduleCreate.model_validate(body | {"initial_input": {"content": "go"}})
    repeat = Repeat(uuid4().hex * 2, "", 0, None)
    return str((await service.create(resources, CALLER, str(agent.id), given, repeat)).id)


async def test_a_tick_opens_what_is_owed_and_its_pages_reach_the_agents(
    resources: Resources, echo: Agent, answering: Agent, acp_server: AcpServer
) -> None:
    await add_due(resources, echo, 3)
    await add_due(resources, answering, 2)
    _, rounds = await ring(resources)

    async def all_ended() -> bool:
        return await statuses(resources) == {"delivered": 3, "succeeded": 2}

    await eventually(all_ended)
    assert (rounds, acp_server.counts) == (1, {"task/create": 3, "event/send": 3, "message/send": 2})


async def test_a_tick_with_nothing_owed_ends_at_once(resources: Resources) -> None:
    _, rounds = await ring(resources)
    assert (rounds, await statuses(resources)) == (1, {})


async def test_a_tick_that_rings_twice_delivers_once(
    resources: Resources, echo: Agent, acp_server: AcpServer
) -> None:
    await add_due(resources, echo, 1)
    await ring(resources)
    await ring(resources)

    async def delivered() -> bool:
        return await statuses(resources) == {"delivered": 1}

    await eventually(delivered)
    assert acp_server.counts == {"task/create": 1, "event/send": 1}


async def test_histories_carry_no_lists(resources: Resources, echo: Agent) -> None:
    await add_due(resources, echo, 25)
    handle, _ = await ring(resources)
    page = await _first_page(resources)
    sizes = [
        event.ByteSize()
        for one in (handle, page)
        async for event in one.fetch_history_events(wait_new_event=False)
    ]
    assert max(sizes) < MAX_PAYLOAD_BYTES


async def _first_page(resources: Resources) -> WorkflowHandle[object, object]:
    found = await fetch(resources, "SELECT DISTINCT batch_id, lane, page FROM runs")
    assert len(found) == 1
    prefix = resources.settings.temporal_task_queue
    place = f"{found[0]['batch_id']}:{found[0]['lane']}:{found[0]['page']}"
    handle = resources.temporal.client.get_workflow_handle(f"{prefix}:page:{place}")
    await handle.result()
    return handle


async def test_what_travels_through_temporal_stays_small_with_a_hundred_pages_and_a_backlog() -> None:
    queue = "agentex-of-somebody-with-a-long-name-deliver"
    values: Sequence[object] = [
        OpenResult(
            str(uuid4()),
            [LanePages("deliver", 100, queue), LanePages("answer", 100, queue)],
            more=True,
        ),
        OpenRequest(datetime.now(UTC).isoformat(), 1_000, "minute"),
        Tick("agentex-of-somebody-with-a-long-name", "minute"),
        {"batch_id": str(uuid4()), "lane": "deliver", "page": 99},
    ]
    payloads = await default().encode(values)
    assert max(payload.ByteSize() for payload in payloads) < MAX_PAYLOAD_BYTES
    assert len(json.dumps(asdict(OpenResult(str(uuid4()))))) < MAX_PAYLOAD_BYTES


async def test_a_schedule_of_a_second_fires_by_itself(
    resources: Resources, echo: Agent, answering: Agent, acp_server: AcpServer
) -> None:
    delivering, answered = await create(resources, echo, 1), await create(resources, answering, 2)
    sql = """
        SELECT count(*) AS n FROM runs WHERE schedule_id = CAST(:id AS uuid) AND status = :status
            AND cause = 'cadence' AND delivered_at >= due_at AND attempt = 1
    """

    async def both_fired_twice() -> bool:
        wanted = [(delivering, "delivered"), (answered, "succeeded")]
        found = [(await fetch(resources, sql, id=id_, status=status))[0]["n"] for id_, status in wanted]
        return all(count >= 2 for count in found)

    await eventually(both_fired_twice)
    outputs = await fetch(
        resources,
        "SELECT DISTINCT output->0->>'content' AS text FROM runs WHERE status = 'succeeded'",
    )
    assert [row["text"] for row in outputs] == ["Hello"]
    doubled = await fetch(
        resources, "SELECT fire_id FROM runs GROUP BY schedule_id, fire_id HAVING count(*) > 1"
    )
    assert list(doubled) == []
    assert acp_server.counts["event/send"] >= 2


async def test_a_trigger_reaches_the_agent_without_a_tick(
    resources: Resources, echo: Agent, acp_server: AcpServer
) -> None:
    schedule = await add_schedule(resources, echo, None, paused=True)
    target = service.Target(str(echo.id), schedule_id=str(schedule.id))
    for number in range(3):
        repeat = Repeat(str(number) * 64, "", 0, None)
        await service.trigger(resources, CALLER, target, repeat)

    async def delivered() -> bool:
        return await statuses(resources) == {"delivered": 3}

    await eventually(delivered)
    assert acp_server.counts == {"task/create": 3, "event/send": 3}
