"""Known faults of the incumbent (docs: wire contract) that no other test here proves absent: 5, 9, 15."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.support.fault_stack import Stack

pytestmark = pytest.mark.timeout(120)


async def test_patch_keeps_skips_and_a_skipped_instant_does_not_run(make_stack: Callable[..., Stack]) -> None:
    """Known fault 5 of the incumbent: any PATCH erased the skips."""
    stack = make_stack()
    stack.start()
    agent = await stack.start_agent("async")
    schedule = await stack.create_schedule(agent, interval_seconds=2)
    path = f"/agents/{agent.id}/schedules/{schedule['id']}"
    # Far enough to be skipped in time on a busy machine, near enough to be waited for.
    instant = schedule["next_action_times"][4]
    skipped = await stack.ok("POST", f"{path}/skip", {"scheduled_time": instant})
    patched = await stack.ok("PATCH", path, {"description": "new", "task_params": {"a": 1}})
    assert (skipped["skipped_action_times"], patched["skipped_action_times"]) == ([instant], [instant])

    async def passed() -> bool:
        return any(row.status == "delivered" and row.fire_id > instant for row in await stack.runs())

    await stack.until(passed, "a run after the skipped instant")
    rows = {row.fire_id: row.outcome for row in await stack.runs() if row.status not in ("due", "launching")}
    assert rows.pop(instant) == ("skipped", "skipped_by_user")
    assert set(rows.values()) == {("delivered", None)}
    assert len(agent.sent()) >= len(rows)


async def test_deleted_agents_schedules_stop_and_say_why(make_stack: Callable[..., Stack]) -> None:
    """Known fault 9 of the incumbent: a deleted agent's schedules stayed listed and ticked on."""
    stack = make_stack()
    stack.start()
    agent, other = await stack.start_agent("async"), await stack.start_agent("async")
    schedule = await stack.create_schedule(agent, interval_seconds=1)
    beside = await stack.create_schedule(other, interval_seconds=1)
    await stack.until_delivered(1, schedule["id"])
    await stack.until_delivered(1, beside["id"])
    await stack.ok("DELETE", f"/agents/{agent.id}")
    deleted = await stack.now()
    await stack.until_delivered(3, beside["id"], after=deleted)
    rows = await stack.runs(schedule["id"])
    assert [row for row in rows if row.due_at > deleted] == []
    kept = await stack.sql(
        "SELECT paused, state_note FROM agent_run_schedules WHERE id::text = :id", id=schedule["id"]
    )
    assert [(row["paused"], row["state_note"]) for row in kept] == [(True, "its agent was deleted")]
    assert (await stack.call("GET", f"/agents/{agent.id}/schedules")).status == 404
    assert agent.sent().total() == sum(row.status == "delivered" for row in rows)


async def test_lists_page_by_cursor_and_total_is_the_total(make_stack: Callable[..., Stack]) -> None:
    """Known fault 15 of the incumbent: lists read every row, and `total` was the length of the page."""
    stack = make_stack()
    stack.start_api()
    agent = await stack.start_agent("async")
    made = await stack.create_schedules(agent, 5, cron_expression="0 9 * * *")
    found: list[str] = []
    cursor, totals, last = "", set[int](), None
    for _ in range(3):
        page = await stack.ok("GET", f"/agents/{agent.id}/schedules?limit=2{cursor}")
        found += [one["id"] for one in page["run_schedules"]]
        totals.add(page["total"])
        last = page["next_cursor"]
        cursor = f"&cursor={last}"
    assert (totals, last) == ({5}, None)
    order = sorted(made, key=lambda one: (str(one["created_at"]), str(one["id"])), reverse=True)
    assert found == [one["id"] for one in order]
