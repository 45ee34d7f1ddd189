"""GET: an agent's schedules by state, name and last change; the cursor and the total go by the filter."""

from __future__ import annotations

from typing import Any

import pytest

from tests.api.ledger.stage import fetch
from tests.api.schedules.schedules import Schedules
from tests.support.api import Json
from tests.support.plans import explain_sent, statements


async def page(schedules: Schedules, **query: Any) -> Json:
    answer = await schedules.client.get(schedules.url, params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


def names(listed: Json) -> list[str]:
    return [schedule["name"] for schedule in listed["run_schedules"]]


async def crowd(schedules: Schedules) -> list[Json]:
    """Oldest first: two teams, each with a paused one, and others whose names are nearly a team's."""
    made = [
        await schedules.create(name=name, paused=paused)
        for name, paused in [
            *(("team-a-1", False), ("team-a-2", True), ("team-a", False), ("team-b-1", True)),
            *(("team", False), ("team0", False), ("steam-a-1", False)),
        ]
    ]
    # Another agent's and a deleted one, which no filter lets through.
    await (await schedules.of_other_agent()).create(name="team-a-9", paused=True)
    gone = await schedules.create(name="team-a-gone", paused=True)
    await schedules.client.delete(f"{schedules.url}/{gone['id']}")
    return made


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"state": "PAUSED"}, ["team-b-1", "team-a-2"]),
        ({"state": "ACTIVE"}, ["steam-a-1", "team0", "team", "team-a", "team-a-1"]),
        ({"name_prefix": "team-a"}, ["team-a", "team-a-2", "team-a-1"]),
        ({"name_prefix": "team-"}, ["team-b-1", "team-a", "team-a-2", "team-a-1"]),
        ({"name_prefix": "team-a-1"}, ["team-a-1"]),
        ({"name_prefix": "t"}, ["team0", "team", "team-b-1", "team-a", "team-a-2", "team-a-1"]),
        ({"name_prefix": "z"}, []),
        ({"name_prefix": "team-a", "state": "PAUSED"}, ["team-a-2"]),
    ],
    ids=str,
)
async def test_what_a_filter_lets_through(
    schedules: Schedules, query: dict[str, str], expected: list[str]
) -> None:
    await crowd(schedules)
    listed = await page(schedules, **query)
    assert (names(listed), listed["total"], listed["next_cursor"]) == (expected, len(expected), None)


async def test_a_change_brings_a_schedule_into_what_was_updated_since(schedules: Schedules) -> None:
    made = await crowd(schedules)
    assert names(await page(schedules, updated_after=made[5]["updated_at"])) == ["steam-a-1", "team0"]
    changed = (await schedules.patch(made[1], description="changed")).json()
    # Inclusive, so that whoever asks again from the newest that he has seen misses nothing.
    listed = await page(schedules, updated_after=changed["updated_at"])
    assert (listed["run_schedules"], listed["total"]) == (
        [changed | {"next_action_times": [], "live_data_available": None}],
        1,
    )
    both = await page(schedules, updated_after=made[5]["updated_at"], state="PAUSED")
    assert names(both) == ["team-a-2"]


async def test_a_cursor_walks_what_the_filter_lets_through(schedules: Schedules) -> None:
    for number in range(9):
        await schedules.create(name=f"{'ab'[number % 2]}-{number}", paused=number % 3 == 0)
    seen: list[tuple[list[str], int]] = []
    cursor: str | None = None
    while not seen or cursor:
        query = {"name_prefix": "a-", "limit": "2"} | ({"cursor": cursor} if cursor else {})
        listed = await page(schedules, **query)
        seen.append((names(listed), listed["total"]))
        cursor = listed["next_cursor"]
    assert seen == [(["a-8", "a-6"], 5), (["a-4", "a-2"], 5), (["a-0"], 5)]


async def test_a_cursor_goes_on_where_many_were_made_in_one_moment(schedules: Schedules) -> None:
    made = [await schedules.create(name=f"s{number}") for number in range(5)]
    await fetch(schedules.resources, "UPDATE agent_run_schedules SET created_at = '2026-03-10T12:00:00Z'")
    seen: list[str] = []
    cursor: str | None = None
    for _ in range(3):
        listed = await page(schedules, limit=2, **({"cursor": cursor} if cursor else {}))
        seen += [schedule["id"] for schedule in listed["run_schedules"]]
        cursor = listed["next_cursor"]
    assert (seen, cursor) == (sorted((one["id"] for one in made), reverse=True), None)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"state": "paused"}, "state is 'paused': Input should be 'ACTIVE' or 'PAUSED'"),
        ({"state": ""}, "state is '': Input should be 'ACTIVE' or 'PAUSED'"),
        (
            {"updated_after": "2026-03-10T12:00:00"},
            "updated_after is '2026-03-10T12:00:00': Input should have timezone info",
        ),
        (
            {"name_prefix": "Team"},
            "name_prefix is 'Team': String should match pattern '^[a-z0-9][a-z0-9-]*$'",
        ),
        ({"name_prefix": ""}, "name_prefix is '': String should match pattern '^[a-z0-9][a-z0-9-]*$'"),
        ({"name_prefix": "a%"}, "name_prefix is 'a%': String should match pattern '^[a-z0-9][a-z0-9-]*$'"),
        (
            {"name_prefix": "a" * 65},
            f"name_prefix is '{'a' * 65}': String should have at most 64 characters",
        ),
    ],
    ids=lambda value: str(value)[:30],
)
async def test_a_bad_filter_is_named(schedules: Schedules, query: dict[str, str], message: str) -> None:
    answer = await schedules.client.get(schedules.url, params=query)
    assert (answer.status_code, answer.json()["message"]) == (422, message)


PREFIX = "ix_agent_run_schedules_agent_id_"
SERVED = {
    "": {"created_at"},
    "state=PAUSED": {"paused_created_at"},
    "name_prefix=team-77-": {"name"},
    "updated_after=2026-03-05T00:00:00Z": {"updated_at"},
    "name_prefix=team-77-&state=PAUSED": {"name"},
}


async def test_each_filter_has_an_index(schedules: Schedules) -> None:
    await fetch(
        schedules.resources,
        """
        INSERT INTO agent_run_schedules (id, account_id, agent_id, name, interval_seconds, timezone, paused,
            initial_input, creator_principal, skipped_action_times, policies, version, created_at, updated_at)
        SELECT gen_random_uuid(), 'default', :agent_id, 'team-' || n % 500 || '-' || n, 60, 'UTC',
            n % 1000 = 0, '{"content": "go"}', '{"principal_type": "user"}', '[]', '{}', 1,
            timestamptz '2026-01-01Z' + n * interval '1 s',
            timestamptz '2026-01-01Z' + CASE n % 900 WHEN 0 THEN interval '90 d' ELSE n * interval '1 s' END
        FROM generate_series(1, 50000) AS n
        """,
        agent_id=schedules.agent_id,
    )
    await fetch(schedules.resources, "ANALYZE agent_run_schedules")
    used: dict[str, set[str]] = {}
    for query in SERVED:
        with statements(schedules.resources) as sent:
            await page(schedules, **dict(part.split("=") for part in query.split("&") if part))
        keys = next(one for one in sent if "created_at DESC" in one[0])
        plan = await explain_sent(schedules.resources, keys)
        used[query] = plan.indexes_of("agent_run_schedules")
    assert used == {
        query: {("uq_agent_run_schedules_agent_id_" if name == "name" else PREFIX) + name for name in found}
        for query, found in SERVED.items()
    }
