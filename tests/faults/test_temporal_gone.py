"""Temporal killed, started empty, down for long, or robbed of its Schedules: Postgres holds what matters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta

import pytest
from temporalio.client import Client

from agentex.dev.temporal import EmbeddedTemporal
from tests.support.acp_replies import Reply
from tests.support.fault_stack import LedgerRow, Stack, every, instants
from tests.support.temporal import delete_schedules, schedule_ids

ANSWERS = 20


@pytest.mark.timeout(150)
async def test_temporal_started_empty_rings_again_and_open_answers_end_well(
    stack_on_own_temporal: Callable[..., Stack], own_temporal: EmbeddedTemporal
) -> None:
    """Also while a page of sync answers is in flight: it does not take the wipe for a cancel."""
    stack = stack_on_own_temporal()
    worker = stack.start()
    ticking, slow = await stack.start_agent("async"), await stack.start_agent("sync")
    await slow.script("message/send", Reply(hang="before"), repeat=True)
    schedule = await stack.create_schedule(ticking, interval_seconds=5)
    await stack.create_page(slow, ANSWERS)

    async def hanging() -> bool:
        return await slow.hanging() == ANSWERS

    await stack.until(hanging, "the answers open")
    own_temporal.kill()
    wiped = await stack.now()
    own_temporal.start()

    async def gave_up() -> bool:
        return worker.logged("page.cancel")

    await stack.until(gave_up, "the page told that Temporal knows it no more")
    await slow.release()
    await stack.until(lambda: delivered_after(stack, schedule["id"], wiped, 3), "ticks after the wipe")

    rows = await stack.runs(schedule["id"])
    assert instants(rows) == every(5, rows[0].due_at, rows[-1].due_at)
    assert {row.outcome for row in rows if row.status not in ("due", "launching")} == {("delivered", None)}
    answers = [row for row in await stack.runs() if str(row.schedule_id) != schedule["id"]]
    assert Counter((row.outcome, row.attempt) for row in answers) == {(("succeeded", None), 1): ANSWERS}
    assert slow.sent() == dict.fromkeys((str(row.task_id) for row in answers), 1)
    assert set(ticking.sent().values()) == {1}
    client = await Client.connect(own_temporal.address)
    clocks = await stack.sql(
        "SELECT clock_id FROM schedule_clocks WHERE schedule_id::text = :id", id=schedule["id"]
    )
    ids = {f"{stack.prefix}:clock:minute", f"{stack.prefix}:clock:{clocks[0]['clock_id']}"}
    assert ids <= await schedule_ids(client, stack.prefix)


@pytest.mark.timeout(150)
async def test_temporal_down_over_twenty_instants_leaves_rows_and_no_burst(
    stack_on_own_temporal: Callable[..., Stack], own_temporal: EmbeddedTemporal
) -> None:
    late_after = 3
    stack = stack_on_own_temporal(late_after_seconds=late_after, stuck_after_seconds=1)
    stack.start()
    agent = await stack.start_agent("async")
    schedule = await stack.create_schedule(agent, interval_seconds=1)
    await stack.until(lambda: delivered_after(stack, schedule["id"], None, 2), "the first ticks")
    own_temporal.kill()
    down = await stack.now()
    await stack.until_instant(down + timedelta(seconds=21))
    own_temporal.start()
    up = await stack.now()
    await stack.until(lambda: delivered_after(stack, schedule["id"], up, 3), "ticks after the outage")
    await stack.ok("POST", f"/agents/{agent.id}/schedules/{schedule['id']}/pause")
    await stack.until_finished(25)

    rows = await stack.runs(schedule["id"])
    assert instants(rows) == every(1, rows[0].due_at, rows[-1].due_at)
    assert_catch_up_rule(rows, late_after)
    outage = [row for row in rows if down < row.due_at < up]
    assert len(outage) >= 20
    # The newest that was missed, those still on time when Temporal was back, and none else.
    assert sum(row.status == "delivered" for row in outage) <= 1 + late_after + 1
    tasks = Counter(str(row.task_id) for row in rows if row.status == "delivered")
    assert agent.sent() == tasks
    read = await stack.ok("GET", f"/agents/{agent.id}/schedules/{schedule['id']}")
    assert read["num_actions_taken"] == sum(row.status != "skipped" for row in rows)


@pytest.mark.timeout(120)
async def test_schedule_deleted_out_of_band_is_made_again_and_no_instant_is_lost(
    make_stack: Callable[..., Stack],
) -> None:
    """Known fault 6 of the incumbent: pause, resume and delete answered 500 for good, nothing came back."""
    stack = make_stack()
    stack.start()
    agent = await stack.start_agent("async")
    schedule = await stack.create_schedule(agent, interval_seconds=2)
    await stack.until(lambda: delivered_after(stack, schedule["id"], None, 2), "the first ticks")
    client = await Client.connect(stack.temporal_address)
    before = await schedule_ids(client, stack.prefix)
    await delete_schedules(client, stack.prefix)
    deleted = await stack.now()
    other = await stack.create_schedule(agent, interval_seconds=2, name="other")
    path = f"/agents/{agent.id}/schedules/{other['id']}"
    for method, suffix in (("POST", "/pause"), ("POST", "/resume"), ("DELETE", "")):
        await stack.ok(method, f"{path}{suffix}")
    await stack.until(lambda: delivered_after(stack, schedule["id"], deleted, 5), "ticks after the deletion")

    async def listed() -> bool:
        return before <= await schedule_ids(client, stack.prefix)

    await stack.until(listed, "the Schedules made again")
    rows = await stack.runs(schedule["id"])
    assert instants(rows) == every(2, rows[0].due_at, rows[-1].due_at)
    assert {row.outcome for row in rows if row.status not in ("due", "launching")} == {("delivered", None)}


async def delivered_after(stack: Stack, schedule_id: object, moment: datetime | None, count: int) -> bool:
    """Whether so many runs of instants after the moment were delivered."""
    found = [row for row in await stack.runs(schedule_id) if moment is None or row.due_at > moment]
    return sum(row.status == "delivered" for row in found) >= count


def assert_catch_up_rule(rows: list[LedgerRow], late_after: float) -> None:
    """On time runs; late is missed, but for one caught up of those opened or launched together."""
    assert {row.outcome for row in rows} <= {
        ("delivered", None),
        ("skipped", "missed"),
        ("skipped", "paused"),
    }
    limit = timedelta(seconds=late_after)
    for row in rows:
        judged = row.launched_at or row.opened_at
        if row.outcome == ("skipped", "missed"):
            assert judged - row.due_at > limit
        elif row.status == "delivered" and row.cause == "cadence":
            assert judged - row.due_at <= limit
        elif row.status == "delivered":
            assert row.cause == "catch_up"
            assert judged - row.due_at > limit
