"""A clock whose cadence cannot be read stands still, alone, and goes on from there once it can be read."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from prometheus_client import REGISTRY
from temporalio.testing import ActivityEnvironment

from agentex.agents.models import Agent
from agentex.clocks.service import OwnClock, look_again, own_clocks
from agentex.ids import fire_id, new_id
from agentex.resources import Resources
from agentex.schedules import activities, service
from agentex.schedules.activities import TickActivities
from agentex.schedules.models import Schedule, ScheduleUpdate
from agentex.schedules.open import is_owed, open_missed_by_attach
from agentex.schedules.service import Target
from agentex.schedules.workflow import OpenRequest
from agentex.sweep.sweep import Sweep
from tests.api.ledger.stage import (
    CALLER,
    NOON,
    Attached,
    add_schedule,
    fetch,
    freeze,
    ledger,
    minutes,
    nobody_sweeps,
    open_all,
    open_once,
    seconds,
)

NOW = NOON + seconds(3)
DUE_AT_NOON = Attached(NOON - timedelta(days=30), NOON)
GONE = {"kind": "cron", "expression": "* * * * *", "timezone": "Mars/Olympus", "dst": "default"}


async def clock_of(resources: Resources, schedule: Schedule) -> UUID:
    found = await fetch(
        resources, "SELECT clock_id FROM schedule_clocks WHERE schedule_id = :id", id=schedule.id
    )
    return found[0]["clock_id"]


async def change_clock(resources: Resources, schedule: Schedule, cadence: object) -> UUID:
    """Let the schedule's clock have this for its cadence; returns the clock's id."""
    clock_id = await clock_of(resources, schedule)
    await fetch(
        resources,
        "UPDATE clocks SET cadence = CAST(:cadence AS jsonb) WHERE id = :id",
        cadence=json.dumps(cadence),
        id=clock_id,
    )
    return clock_id


async def stands(resources: Resources, clock_id: UUID) -> tuple[object, bool]:
    """Where a clock stands, and whether it is taken for broken."""
    found = await fetch(resources, "SELECT next_due_at, broken_at FROM clocks WHERE id = :id", id=clock_id)
    return found[0]["next_due_at"], found[0]["broken_at"] is not None


def unreadable(by: str) -> float:
    return REGISTRY.get_sample_value("agentex_clocks_unreadable_total", {"by": by}) or 0.0


def target(schedule: Schedule) -> Target:
    return Target(str(schedule.agent_id), schedule_id=str(schedule.id))


@pytest.mark.parametrize(
    "cadence",
    [
        GONE,
        GONE | {"timezone": "UTC", "expression": "every morning"},
        GONE | {"timezone": "UTC", "dst": "never"},
        {"kind": "interval", "seconds": 0},
        {"kind": "lunar"},
        {},
        [],
        7,
        None,
    ],
    ids=["zone", "expression", "dst", "interval", "kind", "empty", "list", "number", "null"],
)
async def test_a_broken_clock_stands_still_and_the_others_are_opened(
    resources: Resources,
    agent: Agent,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    cadence: object,
) -> None:
    freeze(monkeypatch, NOW)
    broken = await add_schedule(resources, agent, DUE_AT_NOON, interval_seconds=30)
    healthy = await add_schedule(resources, agent, DUE_AT_NOON, interval_seconds=60)
    clock_id = await change_clock(resources, broken, cadence)
    before = unreadable("test")
    opened = await open_once(resources)
    assert (opened.rows, opened.more) == ({"due": 1}, False)
    assert await ledger(resources) == await ledger(resources, healthy.id) != []
    assert await stands(resources, clock_id) == (NOON, True)
    async with resources.db.read() as session:
        assert not await is_owed(session, NOON)
    await open_once(resources)
    said = [vars(record)["clock_id"] for record in caplog.records if "cadence" in record.message]
    assert (said, unreadable("test") - before) == ([str(clock_id)], 1)


async def test_broken_clocks_at_the_head_keep_none_from_its_turn(
    resources: Resources, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    freeze(monkeypatch, NOW)
    for interval in range(60):
        first = Attached(NOON - timedelta(days=30), NOON - minutes(60 - interval))
        broken = await add_schedule(resources, agent, first, interval_seconds=1_000 + interval)
        await change_clock(resources, broken, {})
    healthy = await add_schedule(resources, agent, DUE_AT_NOON)
    rounds = await open_all(resources)
    assert [opened.rows for opened in rounds] == [{}, {"due": 1}]
    assert await ledger(resources, healthy.id) == [(fire_id(NOON), "cadence", "due", None)]


async def test_a_tick_does_not_wait_for_a_broken_clock(
    resources: Resources, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    freeze(monkeypatch, NOW)
    looks: list[bool] = []

    async def noted(*given: Any) -> bool:
        looks.append(await is_owed(*given))
        return looks[-1]

    monkeypatch.setattr(activities, "is_owed", noted)
    await change_clock(resources, await add_schedule(resources, agent, DUE_AT_NOON), GONE)
    environment = ActivityEnvironment()
    environment.info = replace(environment.info, workflow_run_id=str(new_id()))
    request = OpenRequest(NOON.isoformat(), 0, "minute")
    result = await environment.run(TickActivities(resources).open_due, request)
    assert (result.lanes, result.more, looks) == ([], False, [False])


async def test_a_clock_that_can_be_read_again_goes_on_from_where_it_stood(
    resources: Resources, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    freeze(monkeypatch, NOW)
    schedule = await add_schedule(resources, agent, DUE_AT_NOON)
    clock_id = await change_clock(resources, schedule, GONE)
    await open_once(resources)
    await nobody_sweeps(resources)
    sweep = Sweep(resources)
    await sweep.sweep_once()
    assert await stands(resources, clock_id) == (NOON, True)
    await change_clock(resources, schedule, {"kind": "interval", "seconds": 60})
    # A process that starts looks at once.
    started = Sweep(resources)
    await sweep.close()
    await nobody_sweeps(resources)
    await started.sweep_once()
    await started.close()
    assert await stands(resources, clock_id) == (NOON, False)
    freeze(monkeypatch, NOON + minutes(2))
    await open_all(resources)
    assert await ledger(resources) == [
        (fire_id(NOON), "cadence", "skipped", "missed"),
        (fire_id(NOON + minutes(1)), "cadence", "skipped", "missed"),
        (fire_id(NOON + minutes(2)), "cadence", "due", None),
    ]


async def test_clocks_that_stay_broken_are_looked_at_in_turn(
    resources: Resources, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentex.clocks.service.LOOK_AGAIN_AT_ONCE", 1)
    freeze(monkeypatch, NOW)
    made = [await add_schedule(resources, agent, DUE_AT_NOON, interval_seconds=30 * n) for n in (1, 2)]
    for schedule in made:
        await change_clock(resources, schedule, {})
    await open_once(resources)
    readable = await change_clock(resources, made[1], {"kind": "interval", "seconds": 60})
    # The other one has not been looked at for longer.
    await fetch(resources, "UPDATE clocks SET broken_at = clock_timestamp() WHERE id = :id", id=readable)
    mended: list[int] = []
    for _ in range(3):
        async with resources.db.begin() as session:
            mended.append(await look_again(session))
    assert mended == [0, 1, 0]


async def test_an_attachment_to_a_broken_clock_waits_and_the_others_are_looked_at(
    resources: Resources, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    freeze(monkeypatch, NOW)
    fresh = Attached(NOON - seconds(5), NOON + seconds(30), checked=False)
    broken = await add_schedule(resources, agent, fresh, interval_seconds=15)
    healthy = await add_schedule(resources, agent, fresh, interval_seconds=30)
    await change_clock(resources, broken, {})
    async with resources.db.begin() as session:
        opened = await open_missed_by_attach(session, resources.settings, new_id(), by="attach")
    assert (opened.rows, opened.more) == ({"due": 1}, False)
    assert await ledger(resources, healthy.id) == [(fire_id(NOON), "cadence", "due", None)]
    found = await fetch(resources, "SELECT schedule_id FROM schedule_clocks WHERE checked_at IS NULL")
    assert [row["schedule_id"] for row in found] == [broken.id]


async def test_own_clocks_leave_out_an_interval_that_cannot_be_read(
    resources: Resources, agent: Agent
) -> None:
    made = [await add_schedule(resources, agent, DUE_AT_NOON, interval_seconds=n) for n in (7, 11, 13)]
    for schedule, interval in zip(made, ("seven", -11), strict=False):
        await change_clock(resources, schedule, {"kind": "interval", "seconds": interval})
    async with resources.db.read() as session:
        assert await own_clocks(session) == [OwnClock(await clock_of(resources, made[2]), 13)]


async def zone_gone(resources: Resources, agent: Agent) -> Schedule:
    """A schedule in a zone that the next release of tzdata has dropped."""
    every_minute = {"cron_expression": "* * * * *", "timezone": "Europe/Berlin"}
    schedule = await add_schedule(resources, agent, DUE_AT_NOON, **every_minute)
    await change_clock(resources, schedule, GONE)
    await fetch(resources, "UPDATE agent_run_schedules SET timezone = 'Mars/Olympus'")
    return schedule


async def test_a_schedule_in_a_zone_that_is_gone_can_be_read_paused_and_deleted(
    resources: Resources, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    freeze(monkeypatch, NOW)
    schedule = await zone_gone(resources, agent)
    async with resources.db.read() as session:
        read = await service.retrieve(session, resources, CALLER, target(schedule))
    assert (read.timezone, read.next_action_times) == ("Mars/Olympus", [])
    before = unreadable("settle")
    paused = await service.pause(resources, CALLER, target(schedule), None)
    assert (paused.paused, unreadable("settle") - before) == (True, 1)
    await service.delete(resources, CALLER, target(schedule))
    assert await ledger(resources) == []


async def test_a_schedule_in_a_zone_that_is_gone_is_mended_by_another_zone(
    resources: Resources, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    freeze(monkeypatch, NOW)
    schedule = await zone_gone(resources, agent)
    renamed = ScheduleUpdate.model_validate({"name": "other"})
    assert (await service.update(resources, CALLER, target(schedule), renamed)).name == "other"
    await service.update(
        resources, CALLER, target(schedule), ScheduleUpdate.model_validate({"timezone": "UTC"})
    )
    freeze(monkeypatch, NOON + minutes(1))
    await open_all(resources)
    assert await ledger(resources) == [(fire_id(NOON + minutes(1)), "cadence", "due", None)]
