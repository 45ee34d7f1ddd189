"""Who meets whom: a tick and a held clock, a look and a commit, a detach and a change not yet committed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from sqlmodel.ext.asyncio.session import AsyncSession
from temporalio.testing import ActivityEnvironment

from agentex.agents.models import Agent
from agentex.database import rows
from agentex.ids import fire_id, new_id
from agentex.resources import Resources
from agentex.schedules import activities, service, settle
from agentex.schedules import open as open_module
from agentex.schedules.activities import TickActivities
from agentex.schedules.models import Schedule, ScheduleUpdate
from agentex.schedules.open import Opened, open_missed_by_attach
from agentex.schedules.reads import cadence_of
from agentex.schedules.service import Target
from agentex.schedules.settle import detach_ended
from agentex.schedules.workflow import OpenRequest, OpenResult
from tests.api.ledger.stage import (
    CALLER,
    NOON,
    Attached,
    add_schedule,
    fetch,
    freeze,
    ledger,
    minutes,
    open_once,
    seconds,
)

NOW = NOON + seconds(3)


CLOCKS = "SELECT 1 FROM clocks FOR NO KEY UPDATE"
SCHEDULES = "SELECT 1 FROM agent_run_schedules FOR NO KEY UPDATE"


@asynccontextmanager
async def held(resources: Resources, lock: str) -> AsyncGenerator[AsyncSession]:
    """Rows that are locked by a transaction which opens nothing."""
    async with resources.db.begin() as session:
        await rows(session, lock)
        yield session


class Looks:
    """Counts how often a tick asks what is owed, and says when it has asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        self.in_vain = asyncio.Event()
        is_owed = activities.is_owed

        async def counted(*given: Any) -> bool:
            self.count += 1
            owed = await is_owed(*given)
            if owed:
                self.in_vain.set()
            return owed

        monkeypatch.setattr(activities, "is_owed", counted)


async def tick(resources: Resources) -> OpenResult:
    """The first round of NOON's tick, as Temporal calls it."""
    environment = ActivityEnvironment()
    environment.info = replace(environment.info, workflow_run_id=str(new_id()))
    request = OpenRequest(NOON.isoformat(), 0, "minute")
    return await environment.run(TickActivities(resources).open_due, request)


async def owing_noon(resources: Resources, agent: Agent) -> Schedule:
    return await add_schedule(resources, agent, Attached(NOON - minutes(5), NOON))


def target(schedule: Schedule) -> Target:
    return Target(str(schedule.agent_id), schedule_id=str(schedule.id))


async def test_a_clock_that_somebody_held_for_a_moment_is_opened_by_the_same_tick(
    resources: Resources, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    freeze(monkeypatch, NOW)
    monkeypatch.setattr(activities, "LOCKED_RETRY_SECONDS", 0.01)
    looks = Looks(monkeypatch)
    schedule = await owing_noon(resources, agent)
    async with held(resources, CLOCKS):
        ticking = asyncio.create_task(tick(resources))
        await asyncio.wait(
            [ticking, asyncio.create_task(looks.in_vain.wait())], return_when="FIRST_COMPLETED"
        )
        before = await ledger(resources)
    result = await ticking
    assert ([(pages.lane, pages.count) for pages in result.lanes], result.more) == ([("deliver", 1)], False)
    assert (before, await ledger(resources, schedule.id)) == ([], [(fire_id(NOON), "cadence", "due", None)])


async def test_a_clock_that_stays_held_ends_the_tick_and_is_left_to_the_next(
    resources: Resources, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    freeze(monkeypatch, NOW)
    monkeypatch.setattr(activities, "LOCKED_SECONDS", 0.3)
    monkeypatch.setattr(activities, "LOCKED_RETRY_SECONDS", 0.01)
    looks = Looks(monkeypatch)
    await owing_noon(resources, agent)
    async with held(resources, CLOCKS):
        result = await tick(resources)
    assert (result.lanes, result.more, looks.count > 1, await ledger(resources)) == ([], False, True, [])
    assert (await open_once(resources)).rows == {"due": 1}


async def look(resources: Resources) -> Opened:
    async with resources.db.begin() as session:
        return await open_missed_by_attach(session, resources.settings, new_id(), by="attach")


async def unchecked(resources: Resources) -> set[object]:
    found = await fetch(resources, "SELECT schedule_id FROM schedule_clocks WHERE checked_at IS NULL")
    return {row["schedule_id"] for row in found}


def commit_during_look(
    monkeypatch: pytest.MonkeyPatch, resources: Resources, schedule: Schedule, *, before_opening: bool
) -> None:
    """Attach the schedule from NOON - 25 s on, in another session, when a look has read its attachments."""
    opening = vars(open_module)["_open"]

    async def attach() -> None:
        async with resources.db.begin() as other:
            await settle.attach(other, schedule.id, cadence_of(schedule), NOON - seconds(26))

    async def met(*given: Any, **named: Any) -> Opened:
        monkeypatch.setattr(open_module, "_open", opening)
        if before_opening:
            await attach()
        opened = await opening(*given, **named)
        if not before_opening:
            await attach()
        return opened

    monkeypatch.setattr(open_module, "_open", met)


@pytest.mark.parametrize("before_opening", [True, False], ids=["before-opening", "after-opening"])
async def test_an_attachment_committed_during_a_look_is_left_whole_to_the_next(
    resources: Resources, agent: Agent, monkeypatch: pytest.MonkeyPatch, *, before_opening: bool
) -> None:
    freeze(monkeypatch, NOW)
    attached = Attached(NOON - seconds(5), NOON + seconds(10), checked=False)
    first = await add_schedule(resources, agent, attached, interval_seconds=10)
    second = await add_schedule(resources, agent, None, interval_seconds=10)
    commit_during_look(monkeypatch, resources, second, before_opening=before_opening)
    opened = [(await look(resources)).rows]
    left = await unchecked(resources)
    opened += [(await look(resources)).rows, (await look(resources)).rows]
    assert (opened, left, await unchecked(resources)) == ([{"due": 1}, {"due": 3}, {}], {second.id}, set())
    assert [line[0] for line in await ledger(resources, first.id)] == [fire_id(NOON)]
    assert [line[0] for line in await ledger(resources, second.id)] == [
        fire_id(NOON - seconds(late)) for late in (20, 10, 0)
    ]


async def test_a_window_that_is_being_extended_keeps_its_schedule_attached(
    resources: Resources, agent: Agent
) -> None:
    attached = Attached(NOON - minutes(2), NOON + minutes(1))
    schedule = await add_schedule(resources, agent, attached, end_at=NOON)

    async def detach() -> list[object]:
        async with resources.db.begin() as session:
            await detach_ended(session)
        return [
            row["schedule_id"] for row in await fetch(resources, "SELECT schedule_id FROM schedule_clocks")
        ]

    async with held(resources, SCHEDULES) as patch:
        await rows(patch, "UPDATE agent_run_schedules SET end_at = clock_timestamp() + interval '1 day'")
        during = await detach()
    assert (during, await detach()) == ([schedule.id], [schedule.id])


async def test_a_skip_that_is_past_but_not_opened_outlives_a_change(
    resources: Resources, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    freeze(monkeypatch, NOON - seconds(30))
    schedule = await owing_noon(resources, agent)
    await service.skip(resources, CALLER, target(schedule), NOON)
    freeze(monkeypatch, NOW)
    body = ScheduleUpdate.model_validate({"description": "changed"})
    await service.update(resources, CALLER, target(schedule), body)
    await open_once(resources)
    assert await ledger(resources) == [(fire_id(NOON), "cadence", "skipped", "skipped_by_user")]


async def test_a_backlog_longer_than_a_statement_may_insert_is_settled_whole(
    resources: Resources, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    freeze(monkeypatch, NOW)
    monkeypatch.setattr(settle, "ROWS_AT_ONCE", 3)
    owed = [NOON - seconds(10 * back) for back in range(9, -1, -1)]
    attached = Attached(NOON - minutes(5), owed[0])
    schedule = await add_schedule(resources, agent, attached, interval_seconds=10)
    await service.pause(resources, CALLER, target(schedule), None)
    assert await ledger(resources) == [(fire_id(at), "cadence", "skipped", "paused") for at in owed]
