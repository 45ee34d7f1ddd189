"""open_due decides: which owed instants run, which are skipped and why."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta

import pytest

from agentex.agents.models import Agent
from agentex.ids import fire_id
from agentex.resources import Resources
from tests.api.ledger.stage import (
    NOON,
    Attached,
    Crowd,
    Line,
    add_crowd,
    add_schedule,
    fetch,
    freeze,
    ledger,
    minutes,
    open_all,
    open_once,
    seconds,
)

LONG_AGO = NOON - timedelta(days=30)


def line(instant: datetime, status: str, reason: str | None = None, *, cause: str = "cadence") -> Line:
    return (fire_id(instant), cause, status, reason)


def since(instant: datetime) -> Attached:
    """Attached long ago; the clock's first unopened instant is this one."""
    return Attached(LONG_AGO, instant)


async def test_an_instant_on_time_is_due(
    resources: Resources, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    freeze(monkeypatch, NOON + seconds(0.2))
    await add_schedule(resources, agent, since(NOON))
    opened = await open_once(resources)
    assert (opened.lanes, opened.rows, opened.more) == ({"deliver": 1}, {"due": 1}, False)
    assert await ledger(resources) == [line(NOON, "due")]


async def test_a_row_says_everything_that_is_known_when_it_opens(
    resources: Resources, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    freeze(monkeypatch, NOON + seconds(1))
    schedule = await add_schedule(resources, agent, since(NOON))
    opened = await open_once(resources)
    found = await fetch(resources, "SELECT * FROM runs")
    row = dict(found[0])
    assert row.pop("id").version == 7
    assert row == {
        "account_id": "default",
        "agent_id": agent.id,
        "schedule_id": schedule.id,
        "schedule_version": 1,
        "fire_id": "2026-03-10T12:00:00Z",
        "cause": "cadence",
        "due_at": NOON,
        "due_until": None,
        "count": 1,
        "input": None,
        "params": None,
        "batch_id": opened.batch_id,
        "lane": "deliver",
        "page": 0,
        "status": "due",
        "reason": None,
        "attempt": 0,
        "claimed_by": None,
        "claimed_until": None,
        "next_attempt_at": NOON,
        "task_created_at": None,
        "sending_at": None,
        "resend_unknown": False,
        "finishes_on_task": False,
        "deadline_at": None,
        "cancel_requested_at": None,
        "to_stop_since": None,
        "opened_at": NOON + seconds(1),
        "launched_at": None,
        "delivered_at": None,
        "finished_at": None,
        "updated_at": NOON + seconds(1),
        "task_id": None,
        "principal": schedule.creator_principal,
        "output": None,
        "error": None,
    }


async def test_what_the_user_skipped_is_skipped(
    resources: Resources, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    freeze(monkeypatch, NOON + seconds(5))
    skipped = [fire_id(NOON)]
    await add_schedule(
        resources, agent, since(NOON - seconds(10)), interval_seconds=10, skipped_action_times=skipped
    )
    opened = await open_once(resources)
    assert (opened.lanes, opened.rows) == ({"deliver": 1}, {"due": 1, "skipped_by_user": 1})
    assert await ledger(resources) == [
        line(NOON - seconds(10), "due"),
        line(NOON, "skipped", "skipped_by_user"),
    ]


async def test_of_late_instants_only_the_newest_runs_and_says_so(
    resources: Resources, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    freeze(monkeypatch, NOON + seconds(45))
    await add_schedule(resources, agent, since(NOON - minutes(3)))
    await open_once(resources)
    assert await ledger(resources) == [
        line(NOON - minutes(3), "skipped", "missed"),
        line(NOON - minutes(2), "skipped", "missed"),
        line(NOON - minutes(1), "skipped", "missed"),
        line(NOON, "due", cause="catch_up"),
    ]


async def test_an_on_time_instant_leaves_every_late_one_missed(
    resources: Resources, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    freeze(monkeypatch, NOON + seconds(10))
    await add_schedule(resources, agent, since(NOON - minutes(2)))
    await open_once(resources)
    assert await ledger(resources) == [
        line(NOON - minutes(2), "skipped", "missed"),
        line(NOON - minutes(1), "skipped", "missed"),
        line(NOON, "due"),
    ]


async def test_a_newest_late_instant_that_the_user_skipped_gives_its_place_to_the_one_before(
    resources: Resources, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    freeze(monkeypatch, NOON + seconds(45))
    skipped = [fire_id(NOON)]
    await add_schedule(resources, agent, since(NOON - minutes(2)), skipped_action_times=skipped)
    await open_once(resources)
    assert await ledger(resources) == [
        line(NOON - minutes(2), "skipped", "missed"),
        line(NOON - minutes(1), "due", cause="catch_up"),
        line(NOON, "skipped", "skipped_by_user"),
    ]


async def test_an_on_time_instant_that_the_user_skipped_does_not_make_the_late_one_missed(
    resources: Resources, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    freeze(monkeypatch, NOON + seconds(5))
    skipped = [fire_id(NOON)]
    await add_schedule(resources, agent, since(NOON - minutes(1)), skipped_action_times=skipped)
    await open_once(resources)
    assert await ledger(resources) == [
        line(NOON - minutes(1), "due", cause="catch_up"),
        line(NOON, "skipped", "skipped_by_user"),
    ]


@pytest.mark.parametrize(
    ("late", "expected"),
    [
        (seconds(30), line(NOON, "due")),
        (seconds(30.001), line(NOON, "due", cause="catch_up")),
        (seconds(3_599.999), line(NOON, "due", cause="catch_up")),
        (seconds(3_600), line(NOON, "skipped", "missed")),
        (timedelta(days=3), line(NOON, "skipped", "missed")),
    ],
)
async def test_how_late_is_late(
    resources: Resources, agent: Agent, monkeypatch: pytest.MonkeyPatch, late: timedelta, expected: Line
) -> None:
    freeze(monkeypatch, NOON + late)
    await add_schedule(resources, agent, since(NOON), cron_expression="0 12 10 3 *")
    await open_once(resources)
    assert await ledger(resources) == [expected]


async def test_the_window_holds_both_of_its_ends(
    resources: Resources, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    freeze(monkeypatch, NOON + seconds(25))
    window = {"start_at": NOON, "end_at": NOON + seconds(10)}
    await add_schedule(resources, agent, since(NOON - seconds(10)), interval_seconds=5, **window)
    await open_once(resources)
    assert await ledger(resources) == [
        line(NOON, "due"),
        line(NOON + seconds(5), "due"),
        line(NOON + seconds(10), "due"),
    ]


async def test_an_instant_at_active_from_itself_is_not_owed(
    resources: Resources, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    freeze(monkeypatch, NOON + seconds(12))
    attached = Attached(active_from=NOON, next_due_at=NOON - seconds(5))
    await add_schedule(resources, agent, attached, interval_seconds=5)
    await open_once(resources)
    assert await ledger(resources) == [line(NOON + seconds(5), "due"), line(NOON + seconds(10), "due")]


@pytest.mark.parametrize("columns", [{"paused": True}, {"deleted_at": NOON}], ids=["paused", "deleted"])
async def test_a_schedule_that_stopped_owes_nothing_even_while_it_is_attached(
    resources: Resources, agent: Agent, monkeypatch: pytest.MonkeyPatch, columns: dict[str, object]
) -> None:
    freeze(monkeypatch, NOON)
    await add_schedule(resources, agent, since(NOON), **columns)
    opened = await open_once(resources)
    assert (opened.rows, await ledger(resources)) == ({}, [])


async def test_a_deleted_agent_s_schedules_owe_nothing(
    resources: Resources, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    freeze(monkeypatch, NOON)
    await add_schedule(resources, agent, since(NOON))
    await fetch(resources, "UPDATE agents SET deleted_at = now()")
    await open_once(resources)
    assert await ledger(resources) == []


async def test_nothing_is_owed_before_the_instant(
    resources: Resources, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    freeze(monkeypatch, NOON - seconds(0.000001))
    await add_schedule(resources, agent, since(NOON))
    opened = await open_once(resources)
    assert (opened.lanes, opened.rows, opened.more, await ledger(resources)) == ({}, {}, False, [])


async def test_a_stagger_puts_a_run_later_and_keeps_its_instant(
    resources: Resources, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    freeze(monkeypatch, NOON)
    await add_schedule(resources, agent, since(NOON), policies={"stagger_seconds": 3_600})
    await open_all(resources)
    freeze(monkeypatch, NOON + minutes(1))
    await open_all(resources)
    found = await fetch(
        resources, "SELECT due_at, next_attempt_at - due_at AS stagger FROM runs ORDER BY due_at"
    )
    assert [row["due_at"] for row in found] == [NOON, NOON + minutes(1)]
    assert found[0]["stagger"] == found[1]["stagger"]
    assert timedelta(0) <= found[0]["stagger"] < timedelta(hours=1)


async def test_staggers_of_many_schedules_are_spread(
    resources: Resources, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    freeze(monkeypatch, NOON)
    await add_crowd(resources, Crowd(agent, 400, since(NOON), policies='{"stagger_seconds": 40}'))
    await open_all(resources)
    found = await fetch(
        resources,
        "SELECT extract(epoch FROM next_attempt_at - due_at)::int / 10 AS quarter FROM runs",
    )
    quarters = Counter(row["quarter"] for row in found)
    assert set(quarters) == {0, 1, 2, 3}
    # 100 each on average; a stagger that clumped would put 400 into one.
    assert all(50 < count < 150 for count in quarters.values())


async def test_a_run_is_late_from_where_its_stagger_puts_it(
    resources: Resources, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    freeze(monkeypatch, NOON)
    schedule = await add_schedule(resources, agent, since(NOON), policies={"stagger_seconds": 3_600})
    await open_all(resources)
    found = await fetch(resources, "SELECT next_attempt_at - due_at AS stagger FROM runs")
    stagger: timedelta = found[0]["stagger"]
    await fetch(resources, "DELETE FROM runs")
    await fetch(resources, "UPDATE clocks SET next_due_at = :noon", noon=NOON)
    freeze(monkeypatch, NOON + stagger + seconds(29))
    await open_once(resources)
    lines = await ledger(resources, schedule.id)
    assert lines[0] == line(NOON, "due")


async def test_totals_count_what_was_opened_to_run_and_name_the_newest(
    resources: Resources, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    freeze(monkeypatch, NOON + seconds(12))
    skipped = [fire_id(NOON + seconds(10))]
    schedule = await add_schedule(
        resources, agent, since(NOON - seconds(60)), interval_seconds=5, skipped_action_times=skipped
    )
    await open_all(resources)
    totals = await fetch(resources, "SELECT schedule_id, opened, last_due_at FROM schedule_totals")
    # On time are -15 … +5; the nine before are missed, and +10 the user skipped.
    assert [dict(row) for row in totals] == [
        {"schedule_id": schedule.id, "opened": 5, "last_due_at": NOON + seconds(5)}
    ]


@pytest.mark.parametrize(
    ("policies", "expected"),
    [({}, False), ({"finishes_on": "delivery"}, False), ({"finishes_on": "task"}, True)],
    ids=["default", "delivery", "task"],
)
async def test_a_row_says_whether_its_run_ends_with_its_task(
    resources: Resources,
    agent: Agent,
    monkeypatch: pytest.MonkeyPatch,
    policies: dict[str, str],
    *,
    expected: bool,
) -> None:
    freeze(monkeypatch, NOON)
    await add_schedule(resources, agent, Attached(NOON - minutes(10), NOON), policies=policies)
    await open_once(resources)
    found = await fetch(resources, "SELECT finishes_on_task FROM runs")
    assert [row["finishes_on_task"] for row in found] == [expected]
