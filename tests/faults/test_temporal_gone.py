"""Temporal killed, started empty, down for long, or robbed of its Schedules: Postgres holds what matters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import timedelta

import pytest
from temporalio.client import Client

from agentex.dev.temporal import EmbeddedTemporal
from tests.support.acp_replies import Reply
from tests.support.fault_ledger import assert_catch_up_rule, assert_one_row_each
from tests.support.fault_stack import Stack
from tests.support.temporal import delete_schedules, schedule_ids

ANSWERS = 20
# The default of AGENTEX_LATE_AFTER_SECONDS.
LATE_AFTER = timedelta(seconds=30)


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
    ids = await expected_ids(stack)
    # One that ticked before, so that the outage has an instant on each side.
    await stack.until_delivered(1, schedule["id"])
    await stack.create_page(slow, ANSWERS)

    async def hanging() -> bool:
        return await slow.hanging() == ANSWERS

    await stack.until(hanging, "the answers open")
    own_temporal.kill()
    wiped = await stack.now()
    own_temporal.start()
    client = await Client.connect(own_temporal.address)

    async def noticed() -> bool:
        # The page was told that Temporal knows it no more, and the clocks have their Schedules again.
        return worker.logged("page.cancel") and ids <= await schedule_ids(client, stack.prefix)

    await stack.until(noticed, "the Schedules back within a minute", 60)
    await slow.release()
    await stack.until_delivered(3, schedule["id"], after=wiped)

    rows = await stack.runs(schedule["id"])
    assert_one_row_each(rows, 5)
    assert_catch_up_rule(rows, LATE_AFTER)
    answers = [row for row in await stack.runs() if str(row.schedule_id) != schedule["id"]]
    assert Counter((row.outcome, row.attempt) for row in answers) == {(("succeeded", None), 1): ANSWERS}
    assert slow.sent() == dict.fromkeys((str(row.task_id) for row in answers), 1)
    assert set(ticking.sent().values()) == {1}


@pytest.mark.timeout(150)
async def test_temporal_down_over_twenty_instants_leaves_rows_and_no_burst(
    stack_on_own_temporal: Callable[..., Stack], own_temporal: EmbeddedTemporal
) -> None:
    late_after = timedelta(seconds=3)
    stack = stack_on_own_temporal(late_after_seconds=late_after.total_seconds(), stuck_after_seconds=1)
    stack.start()
    agent = await stack.start_agent("async")
    schedule = await stack.create_schedule(agent, interval_seconds=1)
    await stack.until_delivered(2, schedule["id"])
    own_temporal.kill()
    down = await stack.now()
    await stack.until_instant(down + timedelta(seconds=21))
    own_temporal.start()
    up = await stack.now()
    await stack.until_delivered(3, schedule["id"], after=up)
    await stack.ok("POST", f"/agents/{agent.id}/schedules/{schedule['id']}/pause")
    await stack.until_finished(25)

    rows = await stack.runs(schedule["id"])
    assert_one_row_each(rows, 1)
    assert_catch_up_rule(rows, late_after)
    outage = [row for row in rows if down < row.due_at < up]
    assert len(outage) >= 20
    # Those still on time when Temporal was back (3 s, so 3 instants), the newest of what was opened before
    # that, the newest of what was opened after it, and none else, however slow the machine is.
    assert sum(row.status == "delivered" for row in outage) <= late_after.total_seconds() + 2
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
    # Of another clock: a change makes its own clock's Schedule again; the first one's only the sweep does.
    other = await stack.create_schedule(agent, interval_seconds=3601)
    await stack.until_delivered(2, schedule["id"])
    client = await Client.connect(stack.temporal_address)
    ids = await expected_ids(stack)

    async def listed() -> bool:
        return ids <= await schedule_ids(client, stack.prefix)

    await stack.until(listed, "the Schedules made")
    await delete_schedules(client, stack.prefix)
    deleted = await stack.now()
    path = f"/agents/{agent.id}/schedules/{other['id']}"
    for method, suffix in (("POST", "/pause"), ("POST", "/resume"), ("DELETE", "")):
        await stack.ok(method, f"{path}{suffix}")
    # Later than the listing may lag behind the deletion.
    await stack.until_delivered(5, schedule["id"], after=deleted)
    await stack.until(listed, "the Schedules made again")
    rows = await stack.runs(schedule["id"])
    assert_one_row_each(rows, 2)
    assert_catch_up_rule(rows, LATE_AFTER)


async def expected_ids(stack: Stack) -> set[str]:
    """The Temporal Schedules of all clocks: one for whole minutes, and each other clock's own."""
    clocks = await stack.sql("SELECT id FROM clocks WHERE NOT whole_minutes")
    return {f"{stack.prefix}:clock:minute", *[f"{stack.prefix}:clock:{clock['id']}" for clock in clocks]}
