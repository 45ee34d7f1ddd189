"""A long recent backlog is opened in pieces, each decided by what the pieces after it hold."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlmodel.ext.asyncio.session import AsyncSession

from agentex.agents.models import Agent
from agentex.database import rows
from agentex.ids import fire_id
from agentex.resources import Resources
from agentex.schedules import open as open_module
from agentex.schedules.models import Schedule
from tests.api.ledger.stage import (
    NOON,
    Attached,
    Crowd,
    add_crowd,
    add_schedule,
    fetch,
    freeze,
    minutes,
    open_all,
    open_once,
    seconds,
)

# A schedule's place in its stagger follows from its id: this one's is more than a minute back.
FAR_BACK = UUID("01930000-0000-7000-8000-000000000001")


@pytest.mark.parametrize("rows_per_round", [1, 3, 7, 1_000], ids=lambda n: f"{n}-a-round")
async def test_a_recent_backlog_in_pieces_is_decided_as_a_whole(
    resources: Resources, agent: Agent, monkeypatch: pytest.MonkeyPatch, rows_per_round: int
) -> None:
    monkeypatch.setattr(open_module, "ROWS_PER_ROUND", rows_per_round)
    freeze(monkeypatch, NOON + seconds(45))
    attached = Attached(NOON - timedelta(days=1), NOON - seconds(40))
    late = {"end_at": NOON, "interval_seconds": 10}
    made = {
        "on time": await add_schedule(resources, agent, attached, interval_seconds=10),
        "late": await add_schedule(resources, agent, attached, **late),
        "newest skipped": await add_schedule(
            resources, agent, attached, skipped_action_times=[fire_id(NOON)], **late
        ),
        "newest opened": await add_schedule(resources, agent, attached, **late),
        "staggered": await add_schedule(
            resources,
            agent,
            attached,
            id=FAR_BACK,
            policies={"stagger_seconds": 3_000},
            interval_seconds=10,
        ),
    }
    await open_newest(resources, made["newest opened"])
    await open_all(resources)
    instants = [NOON + seconds(10 * n) for n in range(-4, 5)]
    assert {name: await decisions(resources, schedule) for name, schedule in made.items()} == {
        # On time are those from NOON + 15 s on.
        "on time": dict.fromkeys(instants[:6], "missed") | dict.fromkeys(instants[6:], "cadence"),
        "late": dict.fromkeys(instants[:4], "missed") | {NOON: "catch_up"},
        "newest skipped": dict.fromkeys(instants[:3], "missed")
        | {instants[3]: "catch_up", NOON: "skipped_by_user"},
        "newest opened": dict.fromkeys(instants[:3], "missed") | {instants[3]: "catch_up", NOON: "paused"},
        "staggered": dict.fromkeys(instants, "cadence"),
    }


async def open_newest(resources: Resources, schedule: Schedule) -> None:
    """A row for NOON that somebody else has made."""
    await fetch(
        resources,
        """
        INSERT INTO runs (id, account_id, agent_id, schedule_id, fire_id, cause, due_at, status, reason,
            opened_at, finished_at, updated_at, principal)
        SELECT gen_random_uuid(), account_id, agent_id, id, :fire_id, 'cadence', :due_at, 'skipped', 'paused',
            now(), now(), now(), '{}' FROM agent_run_schedules WHERE id = :id
        """,
        id=schedule.id,
        fire_id=fire_id(NOON),
        due_at=NOON,
    )


async def decisions(resources: Resources, schedule: Schedule) -> dict[object, str]:
    found = await fetch(
        resources,
        "SELECT due_at, coalesce(reason, cause) AS decision FROM runs WHERE schedule_id = :id",
        id=schedule.id,
    )
    return {row["due_at"]: row["decision"] for row in found}


async def test_a_round_of_a_long_recent_backlog_looks_at_each_schedule_once(
    resources: Resources, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_module, "ROWS_PER_ROUND", 100)
    freeze(monkeypatch, NOON)
    await add_crowd(
        resources,
        Crowd(agent, 20, Attached(NOON - timedelta(days=1), NOON - minutes(50)), 1, "every-second-"),
    )
    asked: list[tuple[int, int]] = []

    async def counted(session: AsyncSession, sql: str, **given: Any) -> Any:
        if "due_ats" in given:
            asked.append((len(given["due_ats"]), len(given["ahead_due_ats"])))
        return await rows(session, sql, **given)

    monkeypatch.setattr(open_module, "rows", counted)
    assert (await open_once(resources)).rows == {"missed": 100}
    # 5 instants for 20 schedules are paired; the 3,000 less 5 to come, and NOON, are only looked at.
    assert asked == [(5, 2_996)]


@pytest.mark.parametrize("rows_per_round", [1, 1_000], ids=lambda n: f"{n}-a-round")
async def test_the_hour_of_the_catch_up_counts_from_where_the_stagger_puts_a_run(
    resources: Resources, agent: Agent, monkeypatch: pytest.MonkeyPatch, rows_per_round: int
) -> None:
    freeze(monkeypatch, NOON)
    attached = Attached(NOON - timedelta(days=1), NOON)
    await add_crowd(resources, Crowd(agent, 12, attached, 10, policies='{"stagger_seconds": 3600}'))
    await open_once(resources)
    found = await fetch(resources, "SELECT schedule_id, next_attempt_at - due_at AS stagger FROM runs")
    staggers = {row["schedule_id"]: row["stagger"] for row in found}
    await fetch(resources, "DELETE FROM runs")
    await fetch(resources, "UPDATE clocks SET next_due_at = :first", first=NOON - seconds(20))
    await fetch(resources, "UPDATE agent_run_schedules SET end_at = :noon", noon=NOON)
    monkeypatch.setattr(open_module, "ROWS_PER_ROUND", rows_per_round)
    freeze(monkeypatch, NOON + minutes(90))
    await open_all(resources)
    caught_up = await fetch(resources, "SELECT schedule_id, due_at FROM runs WHERE reason IS NULL")
    recent = {schedule_id for schedule_id, stagger in staggers.items() if stagger > minutes(30)}
    assert {(row["schedule_id"], row["due_at"]) for row in caught_up} == {
        (schedule_id, NOON) for schedule_id in recent
    }
