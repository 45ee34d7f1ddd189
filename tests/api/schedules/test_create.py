"""POST …/schedules: every field, every default, every refusal."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Any

import pytest

from agentex.database import rows
from tests.api.ledger.stage import fetch
from tests.api.schedules.schedules import (
    FULL_INPUT,
    INPUT,
    PRINCIPAL,
    Schedules,
    iso,
    next_multiples,
    tomorrow_at,
)
from tests.support.api import Json, register

DEFAULTS: Json = {
    "description": None,
    "cron_expression": None,
    "interval_seconds": None,
    "timezone": "UTC",
    "start_at": None,
    "end_at": None,
    "paused": False,
    "task_params": None,
    "task_metadata": None,
    "initial_input": FULL_INPUT,
    "initial_input_method": "event/send",
    "creator_principal": PRINCIPAL,
    "state": "ACTIVE",
    "live_data_available": False,
    "skipped_action_times": [],
    "last_action_time": None,
    "num_actions_taken": 0,
    "state_note": None,
    "policies": {
        "retries": {"window_seconds": 600, "resend_unknown": False},
        "finishes_on": "delivery",
        "stagger_seconds": 0,
    },
    "version": 1,
    "agent_status": "Ready",
    "agent_status_reason": None,
}


async def test_a_schedule_with_nothing_but_the_necessary(schedules: Schedules) -> None:
    created = await schedules.create(name="nightly", interval_seconds=86_400)
    made = datetime.fromisoformat(created["created_at"])
    assert created == DEFAULTS | {
        "id": created["id"],
        "agent_id": schedules.agent_id,
        "name": "nightly",
        "interval_seconds": 86_400,
        "created_at": iso(made),
        "updated_at": iso(made),
        "next_action_times": next_multiples(86_400, 10, made),
    }
    assert await schedules.read(created) == created


async def test_a_schedule_with_every_field(schedules: Schedules) -> None:
    start, end = tomorrow_at(7), tomorrow_at(7, days=3)
    given: Json = {
        "name": "every-field-0",
        "description": "All of it",
        "cron_expression": "0 9 * * *",
        "timezone": "Asia/Tokyo",
        "start_at": start.isoformat(),
        "end_at": end.isoformat(),
        "paused": False,
        "task_params": {"depth": 3, "nested": {"list": [1, None, "x"]}},
        "task_metadata": {"display_name": "Ours"},
        "initial_input": {"type": "text", "author": "agent", "content": "hällo 🌍"},
        "policies": {
            "retries": {"window_seconds": 60, "resend_unknown": True},
            "finishes_on": "task",
            "stagger_seconds": 30,
        },
    }
    created = await schedules.create(**given)
    # Nine in Tokyo is midnight in UTC.
    expected = [iso(tomorrow_at(0, days=days)) for days in (2, 3)]
    assert created == DEFAULTS | given | {
        "id": created["id"],
        "agent_id": schedules.agent_id,
        "start_at": iso(start),
        "end_at": iso(end),
        "created_at": created["created_at"],
        "updated_at": created["created_at"],
        "next_action_times": expected,
    }
    assert await schedules.read(created) == created


async def test_a_paused_schedule_is_made_paused_and_has_no_next_times(schedules: Schedules) -> None:
    created = await schedules.create(paused=True)
    assert (created["paused"], created["state"], created["next_action_times"]) == (True, "PAUSED", [])
    attached = await fetch(schedules.resources, "SELECT 1 FROM schedule_clocks")
    assert list(attached) == []


@pytest.mark.parametrize(
    ("acp_type", "method"), [("sync", "message/send"), ("async", "event/send"), ("agentic", "event/send")]
)
async def test_the_input_s_method_follows_the_agent_s_type_now(
    schedules: Schedules, acp_type: str, method: str
) -> None:
    created = await schedules.create()
    await register(schedules.client, name="echo", acp_type=acp_type)
    assert (await schedules.read(created))["initial_input_method"] == method


@pytest.mark.parametrize("name", ["a", "7", "a-b", "a--b", "0-0", "x" * 64])
async def test_names_that_are_taken(schedules: Schedules, name: str) -> None:
    assert (await schedules.create(name=name))["name"] == name


PATTERN = "^[a-z0-9][a-z0-9-]*[a-z0-9]$|^[a-z0-9]$"
NO_SECONDS = "five are right: minute hour day-of-month month day-of-week (no seconds, no year)"
NO_ZONE = "is not an IANA time zone; give a name such as 'UTC', 'Europe/Berlin' or 'America/New_York'"
NEVER = "end_at: the cadence 'cron 0 9 * * * UTC default' never fires from"
LATE = {"start_at": "2037-01-02T10:00:00Z"}

REFUSED: list[tuple[Json, str]] = [
    ({"name": None}, "name: Input should be a valid string"),
    ({"name": ""}, f"name is '': String should match pattern '{PATTERN}'"),
    ({"name": "Nightly"}, f"name is 'Nightly': String should match pattern '{PATTERN}'"),
    ({"name": "-a"}, f"name is '-a': String should match pattern '{PATTERN}'"),
    ({"name": "a-"}, f"name is 'a-': String should match pattern '{PATTERN}'"),
    ({"name": "a_b"}, f"name is 'a_b': String should match pattern '{PATTERN}'"),
    ({"name": "a\n"}, f"name is 'a\\n': String should match pattern '{PATTERN}'"),
    ({"name": "x" * 65}, f"name is '{'x' * 65}': String should have at most 64 characters"),
    (
        {"cron_expression": "0 9 * * *", "interval_seconds": 60},
        "cron_expression: give cron_expression or interval_seconds, not both",
    ),
    ({"cron_expression": None}, "cron_expression: give one of cron_expression and interval_seconds"),
    ({"interval_seconds": 0}, "interval_seconds is 0: Input should be greater than or equal to 1"),
    (
        {"interval_seconds": 31_622_401},
        "interval_seconds: 31622401 is not a whole number from 1 to 31622400 (366 days)",
    ),
    ({"cron_expression": "61 * * * *"}, "cron_expression: minute '61' is out of range; right is 0-59"),
    (
        {"cron_expression": "0 0 9 * * *"},
        f"cron_expression: '0 0 9 * * *' has 6 fields; {NO_SECONDS}",
    ),
    (
        {"cron_expression": "0 0 30 2 *"},
        "cron_expression: '0 0 30 2 *' never fires: none of its months has a day 30",
    ),
    (
        {"timezone": "Mars/Base"},
        f"timezone: 'Mars/Base' {NO_ZONE}",
    ),
    (
        {"interval_seconds": 60, "timezone": "../etc/passwd"},
        f"timezone: '../etc/passwd' {NO_ZONE}",
    ),
    (
        {"start_at": "2036-12-01T09:00:00"},
        "start_at is '2036-12-01T09:00:00': Input should have timezone info",
    ),
    ({"end_at": "2036-12-01"}, "end_at is '2036-12-01': Input should have timezone info"),
    (
        LATE | {"end_at": "2037-01-01T10:00:00Z"},
        "end_at: 2037-01-01T10:00:00+00:00 is not after start_at 2037-01-02T10:00:00+00:00",
    ),
    (
        LATE | {"end_at": "2037-01-02T10:00:00Z"},
        "end_at: 2037-01-02T10:00:00+00:00 is not after start_at 2037-01-02T10:00:00+00:00",
    ),
    (
        LATE | {"end_at": "2037-01-02T11:00:00Z"},
        f"{NEVER} 2037-01-02T10:00:00+00:00 to 2037-01-02T11:00:00+00:00; move end_at or the cadence",
    ),
    ({"policies": {"overlap": "skip"}}, "policies.overlap is 'skip': Extra inputs are not permitted"),
    (
        {"policies": {"retries": {"window_seconds": 86_401}}},
        "policies.retries.window_seconds is 86401: Input should be less than or equal to 86400",
    ),
    (
        {"policies": {"stagger_seconds": 3_601}},
        "policies.stagger_seconds is 3601: Input should be less than or equal to 3600",
    ),
    (
        {"policies": {"finishes_on": "never"}},
        "policies.finishes_on is 'never': Input should be 'delivery' or 'task'",
    ),
    ({"initial_input": {}}, "initial_input.content: Field required"),
    (
        {"initial_input": {"content": ""}},
        "initial_input.content: String should have at least 1 character",
    ),
    ({"initial_input": INPUT | {"type": "data"}}, "initial_input.type: Input should be 'text'"),
    (
        {"initial_input": INPUT | {"author": "robot"}},
        "initial_input.author: Input should be 'user' or 'agent'",
    ),
    ({"interval_seconds": True}, "interval_seconds: True is no whole number"),
    (
        {"policies": {"stagger_seconds": True}},
        "policies.stagger_seconds: True is no whole number",
    ),
    (
        {"policies": {"retries": {"window_seconds": False}}},
        "policies.retries.window_seconds: False is no whole number",
    ),
    ({"paused": "maybe"}, "paused is 'maybe': Input should be a valid boolean, unable to interpret input"),
    ({"task_params": [1]}, "task_params: Input should be a valid dictionary"),
]


@pytest.mark.parametrize(("keys", "message"), REFUSED, ids=[message[:60] for _, message in REFUSED])
async def test_what_is_refused_and_in_which_words(schedules: Schedules, keys: Json, message: str) -> None:
    answer = await schedules.post(**keys)
    assert (answer.status_code, answer.json()["message"], answer.headers["x-should-retry"]) == (
        422,
        message,
        "false",
    )
    assert answer.json() == {
        "type": "urn:agentex:problem:invalid-input",
        "title": "Invalid input",
        "status": 422,
        "status_code": 10422,
        "code": 10422,
        "detail": message,
        "message": message,
        "instance": schedules.url,
        "data": None,
    }
    async with schedules.resources.db.read() as session:
        assert list(await rows(session, "SELECT 1 FROM agent_run_schedules")) == []


async def test_a_window_in_the_past_never_fires(schedules: Schedules) -> None:
    answer = await schedules.post(end_at="2020-01-01T00:00:00Z")
    assert answer.status_code == 422
    assert answer.json()["message"].startswith("end_at: the cadence 'cron 0 9 * * * UTC default' never fires")


async def test_a_missing_input_is_named(schedules: Schedules) -> None:
    answer = await schedules.client.post(schedules.url, json={"name": "a", "interval_seconds": 60})
    assert (answer.status_code, answer.json()["message"]) == (422, "initial_input: Field required")


@pytest.mark.parametrize("paused", [False, True])
async def test_a_name_that_is_taken_is_a_permanent_400(schedules: Schedules, paused: bool) -> None:
    await schedules.create(name="x", paused=paused)
    answer = await schedules.post(name="x", interval_seconds=5)
    message = f"Run schedule 'x' already exists for agent '{schedules.agent_id}'"
    assert (answer.status_code, answer.json()["message"], answer.headers["x-should-retry"]) == (
        400,
        message,
        "false",
    )


async def test_creates_of_one_name_at_once_make_one(schedules: Schedules) -> None:
    answers = await asyncio.gather(*[schedules.post(name="x") for _ in range(8)])
    assert sorted(answer.status_code for answer in answers) == [200] + [400] * 7


async def test_another_agent_may_use_the_same_name(schedules: Schedules) -> None:
    await schedules.create(name="x")
    other = await schedules.of_other_agent()
    assert (await other.create(name="x"))["agent_id"] == other.agent_id


@pytest.mark.parametrize("agent_id", ["no-id", "echo", "01930000-0000-7000-8000-000000000000"])
async def test_an_agent_that_is_not_there(schedules: Schedules, agent_id: str) -> None:
    nowhere = Schedules(schedules.client, schedules.resources, agent_id)
    answer = await nowhere.post()
    assert (answer.status_code, answer.json()["message"]) == (404, f"agent {agent_id!r} not found")


async def test_credentials_are_not_kept(schedules: Schedules) -> None:
    secret: dict[str, Any] = {"authorization": "Bearer s3cret", "cookie": "k=s3cret", "x-api-key": "s3cret"}
    body = {"name": "a", "interval_seconds": 60, "initial_input": INPUT}
    answer = await schedules.client.post(schedules.url, json=body, headers=secret)
    assert answer.json()["creator_principal"] == PRINCIPAL
    found = await fetch(
        schedules.resources,
        """SELECT s::text || v::text || i::text AS kept FROM agent_run_schedules s
        JOIN schedule_revisions v ON true LEFT JOIN idempotency_keys i ON true""",
    )
    assert [row for row in found if "s3cret" in row["kept"]] == []


async def test_a_schedule_is_attached_to_its_clock_from_a_second_later(schedules: Schedules) -> None:
    created = await schedules.create(interval_seconds=7)
    found = await fetch(
        schedules.resources,
        """SELECT c.cadence_key, sc.active_from - s.created_at AS later, sc.checked_at
        FROM agent_run_schedules s JOIN schedule_clocks sc ON sc.schedule_id = s.id
        JOIN clocks c ON c.id = sc.clock_id WHERE s.id = :id""",
        id=created["id"],
    )
    assert [(row["cadence_key"], row["later"].total_seconds(), row["checked_at"]) for row in found] == [
        ("interval 7", 1.0, None)
    ]
