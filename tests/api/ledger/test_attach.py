"""Attachments: instants that passed during a commit, clocks that are shared, retired and brought back."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from uuid import UUID

import pytest
from sqlmodel.ext.asyncio.session import AsyncSession

from agentex.agents.models import Agent
from agentex.cadence.base import Cadence
from agentex.cadence.registry import parse
from agentex.clocks.service import OwnClock, attach, own_clocks, retire_unused
from agentex.database import rows
from agentex.ids import fire_id, new_id
from agentex.resources import Resources
from agentex.schedules import open as open_module
from agentex.schedules.open import Opened, open_missed_by_attach
from agentex.schedules.settle import detach_ended
from tests.api.ledger.stage import (
    NOON,
    Attached,
    add_schedule,
    fetch,
    freeze,
    ledger,
    open_once,
    seconds,
)
from tests.support.plans import explain


def every(interval: int) -> Cadence:
    return parse(cron_expression=None, interval_seconds=interval, timezone="UTC")


async def open_missed(resources: Resources) -> Opened:
    async with resources.db.begin() as session:
        return await open_missed_by_attach(session, resources.settings, new_id(), by="attach")


async def attached_clock(resources: Resources, cadence: Cadence, now: datetime = NOON) -> UUID:
    async with resources.db.begin() as session:
        return await attach(session, cadence, now)


async def retire(resources: Resources) -> int:
    async with resources.db.begin() as session:
        return await retire_unused(session, resources.settings)


async def test_instants_that_a_tick_passed_before_the_commit_are_opened_once(
    resources: Resources, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    freeze(monkeypatch, NOON + seconds(3))
    attached = Attached(NOON - seconds(25), NOON + seconds(10), checked=False)
    await add_schedule(resources, agent, attached, interval_seconds=10)
    opened, again = await open_missed(resources), await open_missed(resources)
    assert ((opened.lanes, opened.rows), (again.lanes, again.rows)) == (
        ({"deliver": 1}, {"due": 3}),
        ({}, {}),
    )
    assert await ledger(resources) == [
        (fire_id(NOON - seconds(late)), "cadence", "due", None) for late in (20, 10, 0)
    ]


async def test_instants_that_no_tick_has_passed_are_left_to_the_tick(
    resources: Resources, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    freeze(monkeypatch, NOON + seconds(3))
    attached = Attached(NOON - seconds(25), NOON - seconds(10), checked=False)
    await add_schedule(resources, agent, attached, interval_seconds=10)
    by_attach, by_tick = await open_missed(resources), await open_once(resources)
    assert (by_attach.rows, by_tick.rows) == ({"due": 1}, {"due": 2})
    assert [line[0] for line in await ledger(resources)] == [
        fire_id(NOON - seconds(late)) for late in (20, 10, 0)
    ]


async def test_only_the_new_attachment_of_a_shared_clock_is_looked_at(
    resources: Resources, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    freeze(monkeypatch, NOON + seconds(3))
    old = Attached(NOON - timedelta(days=1), NOON + seconds(10))
    await add_schedule(resources, agent, old, interval_seconds=10)
    new = Attached(NOON - seconds(5), NOON + seconds(10), checked=False)
    schedule = await add_schedule(resources, agent, new, interval_seconds=10)
    await open_missed(resources)
    assert (await ledger(resources), await ledger(resources, schedule.id)) == (
        [(fire_id(NOON), "cadence", "due", None)],
        [(fire_id(NOON), "cadence", "due", None)],
    )


async def test_the_look_reads_the_clock_when_no_tick_can_be_ahead_of_it(
    resources: Resources, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    free: list[int] = []

    async def read(_: AsyncSession) -> datetime:
        free.append(len(await fetch(resources, "SELECT 1 FROM clocks FOR NO KEY UPDATE SKIP LOCKED")))
        return NOON + seconds(3)

    monkeypatch.setattr(open_module, "clock_now", read)
    await add_schedule(
        resources, agent, Attached(NOON - seconds(25), NOON, checked=False), interval_seconds=10
    )
    await open_missed(resources)
    assert free == [0]


async def test_an_attachment_that_is_not_active_yet_is_looked_at_later(
    resources: Resources, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    freeze(monkeypatch, NOON + seconds(3))
    attached = Attached(NOON + seconds(4), NOON + seconds(10), checked=False)
    await add_schedule(resources, agent, attached, interval_seconds=10)
    await open_missed(resources)
    freeze(monkeypatch, NOON + seconds(14))
    await fetch(resources, "UPDATE clocks SET next_due_at = :next", next=NOON + seconds(20))
    await open_missed(resources)
    assert await ledger(resources) == [(fire_id(NOON + seconds(10)), "cadence", "due", None)]


async def test_schedules_of_one_cadence_share_a_clock_however_it_was_written(resources: Resources) -> None:
    daily = [
        parse(cron_expression=text, interval_seconds=None, timezone="Europe/Berlin")
        for text in ("0 9 * * *", "00 9 * * *", "0  9 * * 0-6")
    ]
    ids = {await attached_clock(resources, cadence) for cadence in daily}
    assert len(ids) == 1
    other = parse(cron_expression="0 9 * * *", interval_seconds=None, timezone="UTC")
    assert await attached_clock(resources, other) not in ids


async def test_a_new_clock_stands_at_its_next_instant(resources: Resources) -> None:
    clock_id = await attached_clock(resources, every(90), NOON)
    found = await fetch(
        resources, "SELECT id, cadence_key, whole_minutes, next_due_at, synced_at, retired_at FROM clocks"
    )
    assert [dict(row) for row in found] == [
        {
            "id": clock_id,
            "cadence_key": "interval 90",
            "whole_minutes": False,
            "next_due_at": every(90).next_after(NOON),
            "synced_at": None,
            "retired_at": None,
        }
    ]


async def test_two_creates_at_once_make_one_clock(resources: Resources) -> None:
    ids = await asyncio.gather(*[attached_clock(resources, every(7)) for _ in range(8)])
    assert len(set(ids)) == 1


async def test_attaching_does_not_wait_for_a_tick_that_is_opening_the_clock(resources: Resources) -> None:
    clock_id = await attached_clock(resources, every(7))
    async with resources.db.begin() as session:
        await rows(session, "SELECT 1 FROM clocks FOR NO KEY UPDATE")
        assert await asyncio.wait_for(attached_clock(resources, every(7)), 10) == clock_id


async def test_a_clock_is_retired_only_after_it_has_been_idle_long_enough(
    resources: Resources, agent: Agent
) -> None:
    await add_schedule(resources, agent, Attached(NOON, NOON), interval_seconds=7)
    await attached_clock(resources, every(11))
    first = await retire(resources)
    await fetch(resources, "UPDATE clocks SET idle_since = idle_since - interval '599 s'")
    almost = await retire(resources)
    await fetch(resources, "UPDATE clocks SET idle_since = idle_since - interval '2 s'")
    at_last = await retire(resources)
    found = await fetch(resources, "SELECT cadence_key FROM clocks WHERE retired_at IS NOT NULL")
    assert ([first, almost, at_last], [row["cadence_key"] for row in found]) == ([0, 0, 1], ["interval 11"])


async def test_a_clock_that_gets_a_schedule_again_is_idle_no_more(resources: Resources, agent: Agent) -> None:
    await attached_clock(resources, every(7))
    await retire(resources)
    await add_schedule(resources, agent, Attached(NOON, NOON), interval_seconds=7)
    await fetch(resources, "UPDATE clocks SET idle_since = idle_since - interval '1 h'")
    found = [await retire(resources), await retire(resources)]
    idle = await fetch(resources, "SELECT idle_since, retired_at FROM clocks")
    assert (found, [tuple(row.values()) for row in idle]) == ([0, 0], [(None, None)])


async def test_a_clock_is_not_retired_under_an_attach_that_is_not_committed(resources: Resources) -> None:
    await attached_clock(resources, every(7))
    await retire(resources)
    await fetch(resources, "UPDATE clocks SET idle_since = idle_since - interval '1 h'")
    async with resources.db.begin() as session:
        await attach(session, every(7), NOON)
        during = await retire(resources)
    assert (during, await retire(resources)) == (0, 1)


async def test_attach_brings_a_retired_clock_back_at_its_next_instant(resources: Resources) -> None:
    clock_id = await attached_clock(resources, every(60), NOON)
    await fetch(resources, "UPDATE clocks SET retired_at = now(), synced_at = now()")
    again = await attached_clock(resources, every(60), NOON + timedelta(days=3))
    found = await fetch(resources, "SELECT next_due_at, synced_at, retired_at FROM clocks")
    assert (again, [tuple(row.values()) for row in found]) == (
        clock_id,
        [(NOON + timedelta(days=3, seconds=60), None, None)],
    )


async def test_a_retired_clock_owes_nothing(
    resources: Resources, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    freeze(monkeypatch, NOON)
    await add_schedule(resources, agent, Attached(NOON - seconds(90), NOON))
    await fetch(resources, "UPDATE clocks SET retired_at = now()")
    opened = await open_once(resources)
    assert (opened.rows, await ledger(resources)) == ({}, [])


async def test_only_odd_intervals_need_a_temporal_schedule_of_their_own(resources: Resources) -> None:
    odd = await attached_clock(resources, every(90))
    await attached_clock(resources, every(120))
    await attached_clock(resources, parse(cron_expression="* * * * *", interval_seconds=None, timezone="UTC"))
    retired = await attached_clock(resources, every(7))
    await fetch(resources, "UPDATE clocks SET retired_at = now() WHERE id = :id", id=retired)
    async with resources.db.read() as session:
        assert await own_clocks(session) == [OwnClock(odd, 90)]


async def test_a_schedule_whose_window_is_over_is_detached_when_all_of_it_is_opened(
    resources: Resources, agent: Agent
) -> None:
    attached = Attached(NOON - seconds(90), NOON)
    open_yet = await add_schedule(resources, agent, attached, end_at=NOON, interval_seconds=60)
    ahead = await add_schedule(resources, agent, attached, interval_seconds=60)

    async def left() -> set[object]:
        async with resources.db.begin() as session:
            await detach_ended(session)
        return {
            row["schedule_id"] for row in await fetch(resources, "SELECT schedule_id FROM schedule_clocks")
        }

    before = await left()
    await fetch(resources, "UPDATE clocks SET next_due_at = :next", next=NOON + seconds(60))
    assert (before, await left()) == ({open_yet.id, ahead.id}, {ahead.id})


async def add_clocks(resources: Resources, agent: Agent, count: int, *, broken: bool, checked: bool) -> None:
    """So many cadences with a schedule each, in two statements; their ids stand before all new ones."""
    await fetch(
        resources,
        """
        WITH made AS (
            INSERT INTO agent_run_schedules (id, account_id, agent_id, name, interval_seconds, timezone,
                paused, initial_input, creator_principal, skipped_action_times, policies, version,
                created_at, updated_at)
            SELECT lpad(to_hex(n), 32, '0')::uuid, 'default', :agent_id, 'clocked-' || n, 3600, 'UTC', false,
                '{}', '{}', '[]', '{}', 1, now(), now()
            FROM generate_series(1, :count) AS n RETURNING id
        ), clocked AS (
            INSERT INTO clocks (id, cadence_key, cadence, whole_minutes, created_at, broken_at)
            SELECT id, id::text, '{}', true, now(), CASE WHEN :broken THEN now() END FROM made RETURNING id)
        INSERT INTO schedule_clocks (schedule_id, clock_id, active_from, checked_at)
        SELECT id, id, now() - interval '1 hour', CASE WHEN :checked THEN now() END FROM clocked
        """,
        agent_id=agent.id,
        count=count,
        broken=broken,
        checked=checked,
    )


async def test_a_look_at_unchecked_attachments_reads_no_other_clock(
    resources: Resources, agent: Agent
) -> None:
    await add_clocks(resources, agent, 2_000, broken=False, checked=True)
    await add_schedule(resources, agent, Attached(NOON, NOON, checked=False))
    await fetch(resources, "ANALYZE clocks, schedule_clocks")
    plan = await explain(resources, open_module.LOCK_UNCHECKED_SQL)
    assert (plan.most_of("clocks"), plan.most_of("schedule_clocks")) == (1, 1)


async def test_many_unreadable_clocks_do_not_stand_before_an_unchecked_attachment(
    resources: Resources, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    freeze(monkeypatch, NOON + seconds(3))
    count = open_module.UNCHECKED_AT_ONCE + 1
    await add_clocks(resources, agent, count, broken=True, checked=False)
    attached = Attached(NOON - seconds(25), NOON + seconds(10), checked=False)
    await add_schedule(resources, agent, attached, interval_seconds=10)
    assert (await open_missed(resources)).rows == {"due": 3}
