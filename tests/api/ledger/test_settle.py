"""Settle: a schedule that stops owing leaves a row for each instant that it owed and nobody had opened."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest

from agentex.agents import service as agents
from agentex.agents.models import Agent
from agentex.database import rows
from agentex.ids import fire_id, new_id
from agentex.resources import Resources
from agentex.schedules import service
from agentex.schedules.models import Schedule, ScheduleUpdate
from agentex.schedules.open import open_missed_by_attach
from agentex.schedules.service import Target
from tests.api.ledger.stage import (
    CALLER,
    NOON,
    Attached,
    add_schedule,
    fetch,
    freeze,
    ledger,
    open_once,
    seconds,
)

OWED = [NOON - seconds(late) for late in (20, 10, 0)]
NOW = NOON + seconds(3)

Change = Callable[[Resources, Target], Awaitable[object]]


def patch(**keys: object) -> Change:
    async def apply(resources: Resources, target: Target) -> object:
        return await service.update(resources, CALLER, target, ScheduleUpdate.model_validate(keys))

    return apply


async def pause(resources: Resources, target: Target) -> object:
    return await service.pause(resources, CALLER, target, None)


async def delete(resources: Resources, target: Target) -> object:
    return await service.delete(resources, CALLER, target)


async def owing(resources: Resources, agent: Agent, **columns: object) -> Schedule:
    """A schedule of every 10 s that owes the instants OWED."""
    attached = Attached(NOON - timedelta(days=1), OWED[0])
    created = {"created_at": NOON - timedelta(days=2)}
    return await add_schedule(resources, agent, attached, interval_seconds=10, **(created | columns))


def target(schedule: Schedule) -> Target:
    return Target(str(schedule.agent_id), schedule_id=str(schedule.id))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (pause, "paused"),
        (patch(paused=True), "paused"),
        (patch(paused=True, interval_seconds=20), "paused"),
        (patch(interval_seconds=20), "definition_changed"),
        (patch(cron_expression="0 9 * * *"), "definition_changed"),
        (patch(start_at=NOON + timedelta(hours=1)), "definition_changed"),
        (delete, "schedule_deleted"),
    ],
    ids=["pause", "patch-paused", "patch-both", "interval", "cron", "window", "delete"],
)
async def test_each_owed_instant_gets_one_row_with_the_reason(
    resources: Resources, agent: Agent, monkeypatch: pytest.MonkeyPatch, change: Change, reason: str
) -> None:
    freeze(monkeypatch, NOW)
    schedule = await owing(resources, agent)
    await change(resources, target(schedule))
    expected = [(fire_id(instant), "cadence", "skipped", reason) for instant in OWED]
    assert await ledger(resources) == expected
    await open_once(resources)
    assert await ledger(resources) == expected


async def test_a_settled_row_says_since_when(
    resources: Resources, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    freeze(monkeypatch, NOW)
    schedule = await owing(resources, agent)
    await service.pause(resources, CALLER, target(schedule), None)
    found = await fetch(
        resources,
        """SELECT schedule_version, opened_at, finished_at, updated_at, lane, page, next_attempt_at, principal
        FROM runs LIMIT 1""",
    )
    assert dict(found[0]) == {
        "schedule_version": 1,
        "opened_at": NOW,
        "finished_at": NOW,
        "updated_at": NOW,
        "lane": None,
        "page": None,
        "next_attempt_at": None,
        "principal": schedule.creator_principal,
    }


@pytest.mark.parametrize(
    "change",
    [patch(description="x"), patch(task_params={"a": 1}), patch(name="other"), patch()],
    ids=["description", "params", "name", "empty"],
)
async def test_a_change_that_moves_no_instant_settles_nothing(
    resources: Resources, agent: Agent, monkeypatch: pytest.MonkeyPatch, change: Change
) -> None:
    freeze(monkeypatch, NOW)
    schedule = await owing(resources, agent)
    await change(resources, target(schedule))
    assert await ledger(resources) == []
    await open_once(resources)
    assert await ledger(resources) == [(fire_id(instant), "cadence", "due", None) for instant in OWED]


async def test_a_narrower_window_settles_what_falls_out_of_it_and_owes_the_rest(
    resources: Resources, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    freeze(monkeypatch, NOW)
    schedule = await owing(resources, agent)
    await patch(end_at=OWED[1])(resources, target(schedule))
    settled = await ledger(resources)
    await open_once(resources)
    assert (settled, await ledger(resources)) == (
        [(fire_id(OWED[2]), "cadence", "skipped", "definition_changed")],
        [
            (fire_id(OWED[0]), "cadence", "due", None),
            (fire_id(OWED[1]), "cadence", "due", None),
            (fire_id(OWED[2]), "cadence", "skipped", "definition_changed"),
        ],
    )


async def test_what_is_outside_the_window_was_never_owed(
    resources: Resources, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    freeze(monkeypatch, NOW)
    schedule = await owing(resources, agent, start_at=OWED[1], end_at=OWED[1] + seconds(1))
    await pause(resources, target(schedule))
    assert await ledger(resources) == [(fire_id(OWED[1]), "cadence", "skipped", "paused")]


async def test_what_the_user_skipped_stays_the_user_s(
    resources: Resources, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    freeze(monkeypatch, NOW)
    schedule = await owing(resources, agent, skipped_action_times=[fire_id(OWED[1])])
    await pause(resources, target(schedule))
    assert [line[3] for line in await ledger(resources)] == ["paused", "skipped_by_user", "paused"]


async def test_what_is_opened_already_stays_as_it_is(
    resources: Resources, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    freeze(monkeypatch, OWED[1])
    schedule = await owing(resources, agent)
    await open_once(resources)
    freeze(monkeypatch, NOW)
    await pause(resources, target(schedule))
    assert await ledger(resources) == [
        (fire_id(OWED[0]), "cadence", "due", None),
        (fire_id(OWED[1]), "cadence", "due", None),
        (fire_id(OWED[2]), "cadence", "skipped", "paused"),
    ]


async def test_instants_that_passed_while_the_create_was_open_are_settled_too(
    resources: Resources, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    freeze(monkeypatch, NOW)
    unchecked = Attached(OWED[0] + seconds(1), NOON + seconds(10), checked=False)
    schedule = await add_schedule(resources, agent, unchecked, interval_seconds=10)
    await pause(resources, target(schedule))
    assert await ledger(resources) == [
        (fire_id(instant), "cadence", "skipped", "paused") for instant in OWED[1:]
    ]


@pytest.mark.parametrize("tick", ["behind", "old-clock-ahead", "new-clock-ahead"])
async def test_an_instant_of_both_cadences_is_not_lost_between_them(
    resources: Resources, agent: Agent, monkeypatch: pytest.MonkeyPatch, tick: str
) -> None:
    behind = NOON + seconds(5)
    berlin = NOON + seconds(60) if tick == "new-clock-ahead" else NOON
    columns = {"cron_expression": "* * * * *", "created_at": NOON - timedelta(days=2)}
    long_ago = NOON - timedelta(days=1)
    changed = await add_schedule(resources, agent, Attached(long_ago, NOON), **columns)
    await add_schedule(resources, agent, Attached(long_ago, berlin), timezone="Europe/Berlin", **columns)
    if tick == "old-clock-ahead":
        # Between the change's own look at the clock and its commit.
        freeze(monkeypatch, behind)
        await open_once(resources)
    freeze(monkeypatch, NOON - seconds(0.5))
    await patch(timezone="Europe/Berlin")(resources, target(changed))
    freeze(monkeypatch, behind)
    await open_once(resources)
    for _ in range(2):
        async with resources.db.begin() as session:
            await open_missed_by_attach(session, resources.settings, new_id(), by="attach")
    assert await ledger(resources, changed.id) == [(fire_id(NOON), "cadence", "due", None)]


async def test_a_paused_schedule_owes_nothing_for_the_pause(
    resources: Resources, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    freeze(monkeypatch, NOON)
    schedule = await owing(resources, agent)
    await pause(resources, target(schedule))
    freeze(monkeypatch, NOON + seconds(25))
    await service.resume(resources, CALLER, target(schedule), None)
    freeze(monkeypatch, NOON + seconds(30))
    await open_once(resources)
    assert await ledger(resources) == [
        *[(fire_id(instant), "cadence", "skipped", "paused") for instant in OWED],
        (fire_id(NOON + seconds(30)), "cadence", "due", None),
    ]


async def test_deleting_an_agent_settles_and_pauses_its_schedules_with_a_note(
    hooked: Resources, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    freeze(monkeypatch, NOW)
    schedule = await owing(hooked, agent)
    async with hooked.db.begin() as session:
        await agents.delete(session, hooked, CALLER, agent)
    found = await fetch(
        hooked,
        """
        SELECT s.paused, s.state_note, s.version, s.updated_at, v.change, v.note,
            (SELECT count(*) FROM schedule_clocks) AS attached
        FROM agent_run_schedules s JOIN schedule_revisions v ON v.schedule_id = s.id AND v.version = s.version
        """,
    )
    assert [dict(row) for row in found] == [
        {
            "paused": True,
            "state_note": "its agent was deleted",
            "version": 2,
            "updated_at": NOW,
            "change": "pause",
            "note": "its agent was deleted",
            "attached": 0,
        }
    ]
    assert await ledger(hooked, schedule.id) == [
        (fire_id(instant), "cadence", "skipped", "agent_deleted") for instant in OWED
    ]


async def test_a_pause_does_not_wait_for_a_tick_that_holds_the_clock(
    resources: Resources, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    freeze(monkeypatch, NOW)
    schedule = await owing(resources, agent)
    async with resources.db.begin() as session:
        await rows(session, "SELECT 1 FROM clocks FOR NO KEY UPDATE")
        await asyncio.wait_for(pause(resources, target(schedule)), 10)
    assert len(await ledger(resources)) == len(OWED)


async def test_a_pause_beside_a_tick_leaves_one_row_for_each_instant(
    resources: Resources, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    freeze(monkeypatch, NOW)
    made = [await owing(resources, agent) for _ in range(10)]
    await asyncio.gather(
        *[pause(resources, target(schedule)) for schedule in made[:5]],
        open_once(resources),
        *[pause(resources, target(schedule)) for schedule in made[5:]],
    )
    found = await fetch(
        resources,
        "SELECT schedule_id, count(*) AS n, count(DISTINCT fire_id) AS instants FROM runs GROUP BY 1",
    )
    assert sorted((row["n"], row["instants"]) for row in found) == [(3, 3)] * 10
