"""Changes at the same moment, over HTTP: no change is lost, no row is invalid, nothing comes back to life."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from agentex.database import JsonObject
from tests.support.fault_agent import FaultAgent
from tests.support.fault_stack import Answer, LedgerRow, Stack

TIMES = 50
PAIRS_AT_ONCE = 4
pytestmark = pytest.mark.timeout(120)


@pytest.fixture
async def stack(make_stack: Callable[..., Stack]) -> Stack:
    """An API alone."""
    stack = make_stack()
    stack.start_api()
    return stack


async def pairs(
    stack: Stack, agent: FaultAgent, first: tuple[str, str, object], second: tuple[str, str, object]
) -> list[tuple[str, Answer, Answer, Answer]]:
    """Send both requests at once to a new schedule, 50 times.

    A request is (method, path below the schedule, body). Returns path, both answers and the schedule after.
    """
    gate = asyncio.Semaphore(PAIRS_AT_ONCE)

    async def one(place: int) -> tuple[str, Answer, Answer, Answer]:
        async with gate:
            schedule = await stack.create_schedule(agent, cron_expression="0 9 * * *")
            path = f"/agents/{agent.id}/schedules/{schedule['id']}"
            calls = [stack.call(method, f"{path}{below}", body) for method, below, body in (first, second)]
            if place % 2:
                second_answer, first_answer = await asyncio.gather(*reversed(calls))
            else:
                first_answer, second_answer = await asyncio.gather(*calls)
            return path, first_answer, second_answer, await stack.call("GET", path)

    return await asyncio.gather(*[one(place) for place in range(TIMES)])


def fields(answer: Answer, *names: str) -> dict[str, object]:
    """Some fields of a schedule."""
    assert answer.status == 200, answer.text
    return {name: answer.json[name] for name in names}


async def test_patches_of_different_fields_both_stay(stack: Stack) -> None:
    """Known fault 3 of the incumbent: 14 of 15 pairs lost a change."""
    agent = await stack.start_agent("async")
    patches = ("PATCH", "", {"description": "new"}), ("PATCH", "", {"task_params": {"a": 1}})
    for _, first, second, after in await pairs(stack, agent, *patches):
        assert (first.status, second.status) == (200, 200)
        expected = {"description": "new", "task_params": {"a": 1}, "version": 3}
        assert fields(after, *expected) == expected


async def test_patches_of_timezone_and_cron_both_stay_and_move_the_clock(stack: Stack) -> None:
    agent = await stack.start_agent("async")
    patches = (
        ("PATCH", "", {"timezone": "Europe/Berlin"}),
        ("PATCH", "", {"cron_expression": "30 7 * * 1"}),
    )
    for path, first, second, after in await pairs(stack, agent, *patches):
        assert (first.status, second.status) == (200, 200)
        expected = {"timezone": "Europe/Berlin", "cron_expression": "30 7 * * 1", "version": 3}
        assert fields(after, *expected) == expected
        clocks = await stack.sql(
            "SELECT c.cadence_key FROM schedule_clocks sc JOIN clocks c ON c.id = sc.clock_id "
            "WHERE sc.schedule_id::text = :id",
            id=path.rpartition("/")[2],
        )
        assert [("30 7 * * 1" in row["cadence_key"], "Berlin" in row["cadence_key"]) for row in clocks] == [
            (True, True)
        ]


async def test_clearing_both_cadences_leaves_one(stack: Stack) -> None:
    """One sets an interval, which clears the cron; the other clears the interval: one cadence is left."""
    agent = await stack.start_agent("async")
    patches = (
        ("PATCH", "", {"cron_expression": None, "interval_seconds": 3600}),
        ("PATCH", "", {"interval_seconds": None, "description": "new"}),
    )
    for _, first, second, after in await pairs(stack, agent, *patches):
        assert first.status == 200
        found = fields(after, "cron_expression", "interval_seconds", "description", "version")
        if second.status == 400:
            # It came second, when the interval was the only cadence.
            assert found == {
                "cron_expression": None, "interval_seconds": 3600, "description": None, "version": 2
            }  # fmt: skip
        else:
            assert second.status == 200
            assert found == {
                "cron_expression": None, "interval_seconds": 3600, "description": "new", "version": 3
            }  # fmt: skip


async def test_cron_null_and_interval_null_at_once_leave_the_cadence(stack: Stack) -> None:
    agent = await stack.start_agent("async")
    patches = ("PATCH", "", {"cron_expression": None}), ("PATCH", "", {"interval_seconds": None})
    for _, first, second, after in await pairs(stack, agent, *patches):
        assert (first.status, second.status) == (400, 200)
        assert fields(after, "cron_expression", "interval_seconds") == {
            "cron_expression": "0 9 * * *",
            "interval_seconds": None,
        }


async def test_patch_and_pause_both_stay(stack: Stack) -> None:
    """Known fault 3 of the incumbent: PATCH against pause lost one of them likewise."""
    agent = await stack.start_agent("async")
    both = ("PATCH", "", {"description": "new"}), ("POST", "/pause", {"note": "holiday"})
    for path, first, second, after in await pairs(stack, agent, *both):
        assert (first.status, second.status) == (200, 200)
        expected = {
            "description": "new", "paused": True, "state": "PAUSED", "state_note": "holiday", "version": 3
        }  # fmt: skip
        assert fields(after, *expected) == expected
        attached = await stack.sql(
            "SELECT 1 FROM schedule_clocks WHERE schedule_id::text = :id", id=path.rpartition("/")[2]
        )
        assert attached == []


async def test_deleted_schedule_stays_deleted_under_patches(stack: Stack) -> None:
    """Known fault 4 of the incumbent: DELETE against PATCH brought deleted schedules back."""
    agent = await stack.start_agent("async")
    both = ("PATCH", "", {"cron_expression": "0 8 * * *"}), ("DELETE", "", None)
    for _, patched, deleted, after in await pairs(stack, agent, *both):
        assert patched.status in (200, 404)
        assert (deleted.status, after.status) == (200, 404)
    listed = await stack.ok("GET", f"/agents/{agent.id}/schedules")
    assert (listed["run_schedules"], listed["total"]) == ([], 0)
    assert await stack.sql("SELECT 1 FROM schedule_clocks") == []
    revisions = await stack.sql(
        "SELECT max(version) AS v, count(*) AS n FROM schedule_revisions GROUP BY schedule_id"
    )
    assert [row["v"] for row in revisions] == [row["n"] for row in revisions]


@pytest.mark.timeout(180)
async def test_created_and_paused_at_due_instants_every_instant_has_its_row(stack: Stack) -> None:
    """200 schedules of every second are paused around an instant, each a few ms before or after it."""
    stack.start_worker()
    agent = await stack.start_agent("async")
    gate = asyncio.Semaphore(40)

    async def one(place: int) -> tuple[JsonObject, JsonObject, datetime]:
        async with gate:
            await at_boundary(stack, offset_ms=(place % 11 - 5) * 5)
            created = await stack.create_schedule(agent, interval_seconds=1)
            active_from = moment(created["created_at"]) + timedelta(seconds=1)
            await at_boundary(stack, offset_ms=(place % 7 - 3) * 5, after=active_from)
            paused = await stack.ok("POST", f"/agents/{agent.id}/schedules/{created['id']}/pause")
            return created, paused, await stack.now()

    made = await asyncio.gather(*[one(place) for place in range(200)])
    await stack.until_finished(200)
    rows = await stack.runs()
    sent = agent.sent()
    for created, paused, answered in made:
        own = [row for row in rows if str(row.schedule_id) == created["id"]]
        assert_rule(own, moment(created["created_at"]), moment(paused["updated_at"]), answered)
    assert sent == {str(row.task_id): 1 for row in rows if row.status == "delivered"}


def assert_rule(rows: list[LedgerRow], created: datetime, paused: datetime, answered: datetime) -> None:
    """One row for each instant from a second after the create to the pause; none after its answer."""
    assert {row.outcome for row in rows} <= {("delivered", None), ("skipped", "paused")}
    first = created + timedelta(seconds=1)
    seconds = range(int(first.timestamp()) + 1, int(answered.timestamp()) + 1)
    owed = [datetime.fromtimestamp(second, tz=UTC) for second in seconds]
    due = [row.due_at for row in rows]
    assert due[: len([instant for instant in owed if instant <= paused])] == [i for i in owed if i <= paused]
    # Between the pause's moment and its commit a tick may still see the schedule.
    assert due == owed[: len(due)]
    assert len(due) >= 1


async def at_boundary(stack: Stack, *, offset_ms: int, after: datetime | None = None) -> None:
    """Return so many ms after (before) a whole second of the database's clock."""
    now = after or await stack.now()
    whole = now.replace(microsecond=0) + timedelta(seconds=2)
    await stack.until_instant(whole + timedelta(milliseconds=offset_ms))


def moment(text: Any) -> datetime:
    """A time of the wire."""
    return datetime.fromisoformat(str(text))
