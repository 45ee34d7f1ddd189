"""PATCH: only the keys that are there, the whole validated, nothing lost."""

from __future__ import annotations

import asyncio
from datetime import datetime

import pytest

from tests.api.ledger.stage import fetch
from tests.api.schedules.schedules import FULL_INPUT, Schedules, iso, moved, next_multiples, tomorrow_at
from tests.support.api import Json

NO_ZONE = "is not an IANA time zone; give a name such as 'UTC', 'Europe/Berlin' or 'America/New_York'"
NEVER = "end_at: the cadence 'cron 0 9 * * * UTC default' never fires from"
FULL: Json = {
    "description": "All of it",
    "cron_expression": "0 9 * * *",
    "timezone": "Asia/Tokyo",
    "start_at": "2037-01-01T00:00:00Z",
    "end_at": "2037-02-01T00:00:00Z",
    "task_params": {"a": 1},
    "task_metadata": {"b": 2},
}


async def patched(schedules: Schedules, before: Json, **keys: object) -> Json:
    """The schedule after a PATCH that went well; what moves with every change is checked here."""
    answer = await schedules.patch(before, **keys)
    assert answer.status_code == 200, answer.text
    after = answer.json()
    assert after == await schedules.read(before)
    assert answer.headers["etag"] == f'"{after["version"]}"'
    changed = before["version"] != after["version"]
    assert (after["updated_at"] > before["updated_at"]) is changed
    return after


@pytest.mark.parametrize(
    ("keys", "shown"),
    [
        ({"description": "Other"}, {}),
        ({"description": None}, {}),
        ({"task_params": {"a": 2}}, {}),
        ({"task_params": None}, {}),
        ({"task_metadata": None}, {}),
        ({"name": "renamed"}, {}),
        ({"initial_input": {"content": "stop"}}, {"initial_input": FULL_INPUT | {"content": "stop"}}),
        ({"start_at": "2037-01-15T12:00:00+02:00"}, {"start_at": "2037-01-15T10:00:00Z"}),
        ({"end_at": "2037-03-01T00:00:00Z"}, {}),
        ({"end_at": None}, {}),
        ({"timezone": "Europe/Berlin"}, {}),
        ({"cron_expression": "0 10 * * *"}, {}),
        ({"policies": {"stagger_seconds": 5}}, {"policies": None}),
    ],
    ids="-".join,
)
async def test_only_the_given_key_changes(schedules: Schedules, keys: Json, shown: Json) -> None:
    before = await schedules.create(**FULL)
    after = await patched(schedules, before, **keys)
    computed = {"next_action_times": after["next_action_times"]}
    if "policies" in keys:
        shown = {"policies": before["policies"] | {"stagger_seconds": 5}}
    assert after == moved(before, after, **(keys | shown | computed))


@pytest.mark.parametrize("key", ["name", "timezone", "paused", "initial_input", "policies"])
async def test_null_is_ignored_where_it_clears_nothing(schedules: Schedules, key: str) -> None:
    before = await schedules.create(**FULL)
    assert await patched(schedules, before, **{key: None}) == before


async def test_null_clears_the_window(schedules: Schedules) -> None:
    before = await schedules.create(interval_seconds=3_600, start_at=FULL["start_at"])
    after = await patched(schedules, before, start_at=None)
    times = next_multiples(3_600, 10, datetime.fromisoformat(after["updated_at"]))
    assert after == moved(before, after, start_at=None, next_action_times=times)


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"description": None},
        {"cron_expression": "0 9 * * *"},
        {"interval_seconds": None},
        {"paused": False},
        {"name": "nightly", "timezone": "UTC"},
        {"unknown": 1},
    ],
    ids=lambda value: "-".join(value) or "empty",
)
async def test_a_patch_that_changes_nothing_is_no_version(schedules: Schedules, keys: Json) -> None:
    before = await schedules.create()
    assert await patched(schedules, before, **keys) == before
    revisions = await fetch(schedules.resources, "SELECT version FROM schedule_revisions")
    assert [row["version"] for row in revisions] == [1]


async def test_setting_one_cadence_clears_the_other(schedules: Schedules) -> None:
    daily = await schedules.create()
    hourly = await patched(schedules, daily, interval_seconds=3_600)
    assert hourly == moved(
        daily,
        hourly,
        cron_expression=None,
        interval_seconds=3_600,
        next_action_times=next_multiples(3_600, 10, datetime.fromisoformat(hourly["updated_at"])),
    )
    again = await patched(schedules, hourly, cron_expression="0 9 * * *", interval_seconds=None)
    assert (again["cron_expression"], again["interval_seconds"]) == ("0 9 * * *", None)
    attached = await fetch(
        schedules.resources,
        "SELECT cadence_key FROM schedule_clocks sc JOIN clocks c ON c.id = sc.clock_id",
    )
    assert [row["cadence_key"] for row in attached] == ["cron 0 9 * * * UTC default"]


@pytest.mark.parametrize(
    ("created", "keys", "status", "message"),
    [
        ({}, {"interval_seconds": True}, 422, "interval_seconds: True is no whole number"),
        (
            {},
            {"cron_expression": "* * * * *", "interval_seconds": 5},
            422,
            "body: cron_expression, interval_seconds: give one of the two, not both",
        ),
        (
            {},
            {"cron_expression": None},
            400,
            "a schedule needs a cadence: null for its only one needs the other one in its place",
        ),
        (
            {"interval_seconds": 5},
            {"interval_seconds": None},
            400,
            "a schedule needs a cadence: null for its only one needs the other one in its place",
        ),
        (
            {},
            {"cron_expression": None, "interval_seconds": None},
            400,
            "a schedule needs a cadence: null for its only one needs the other one in its place",
        ),
        (
            {},
            {"interval_seconds": 0},
            422,
            "interval_seconds is 0: Input should be greater than or equal to 1",
        ),
        (
            {},
            {"cron_expression": "61 * * * *"},
            422,
            "cron_expression: minute '61' is out of range; right is 0-59",
        ),
        (
            {"interval_seconds": 60},
            {"timezone": "Mars/Base"},
            422,
            f"timezone: 'Mars/Base' {NO_ZONE}",
        ),
        (
            {"start_at": FULL["start_at"]},
            {"end_at": FULL["start_at"]},
            422,
            "end_at: 2037-01-01T00:00:00+00:00 is not after start_at 2037-01-01T00:00:00+00:00",
        ),
        (
            {"end_at": "2037-01-01T00:00:00Z"},
            {"start_at": "2037-01-02T00:00:00Z"},
            422,
            "end_at: 2037-01-01T00:00:00+00:00 is not after start_at 2037-01-02T00:00:00+00:00",
        ),
        (
            {"start_at": "2037-01-01T00:00:00Z"},
            {"end_at": "2037-01-01T08:00:00Z"},
            422,
            f"{NEVER} 2037-01-01T00:00:00+00:00 to 2037-01-01T08:00:00+00:00; move end_at or the cadence",
        ),
        (
            {},
            {"start_at": "2037-01-01T00:00:00"},
            422,
            "start_at is '2037-01-01T00:00:00': Input should have timezone info",
        ),
        ({}, {"policies": {"budget": 1}}, 422, "policies.budget is 1: Extra inputs are not permitted"),
        (
            {},
            {"name": "No"},
            422,
            "name is 'No': String should match pattern '^[a-z0-9][a-z0-9-]*[a-z0-9]$|^[a-z0-9]$'",
        ),
    ],
    ids=lambda value: "" if isinstance(value, dict) else str(value)[:50],
)
async def test_a_patch_is_validated_as_a_whole(
    schedules: Schedules, created: Json, keys: Json, status: int, message: str
) -> None:
    before = await schedules.create(**created)
    answer = await schedules.patch(before, **keys)
    assert (answer.status_code, answer.json()["message"]) == (status, message)
    assert await schedules.read(before) == before


async def test_a_patch_by_name_changes_the_same_schedule(schedules: Schedules) -> None:
    before = await schedules.create()
    answer = await schedules.client.patch(schedules.at("by-name", before), json={"name": "renamed"})
    assert answer.json() == moved(before, answer.json(), name="renamed")


async def test_a_rename_to_a_taken_name_is_a_400(schedules: Schedules) -> None:
    await schedules.create(name="taken")
    before = await schedules.create(name="free")
    answer = await schedules.patch(before, name="taken", description="lost with it")
    assert (answer.status_code, answer.json()["message"]) == (
        400,
        f"Run schedule 'taken' already exists for agent '{schedules.agent_id}'",
    )
    assert await schedules.read(before) == before


async def test_a_patch_keeps_skips(schedules: Schedules) -> None:
    created = await schedules.create()
    skipped = created["next_action_times"][2]
    before = (await schedules.act(created, "skip", scheduled_time=skipped)).json()
    after = await patched(schedules, before, description="still skipped")
    assert after == moved(before, after, description="still skipped")
    assert (after["skipped_action_times"], skipped in after["next_action_times"]) == ([skipped], False)


async def test_paused_by_patch_is_paused_and_back(schedules: Schedules) -> None:
    created = await schedules.create(interval_seconds=3_600)
    paused = await patched(schedules, created, paused=True)
    assert paused == moved(created, paused, paused=True, state="PAUSED", next_action_times=[])
    resumed = await patched(schedules, paused, paused=False)
    assert (resumed["state"], len(resumed["next_action_times"])) == ("ACTIVE", 10)


async def test_a_paused_schedule_changes_without_being_attached(schedules: Schedules) -> None:
    created = await schedules.create(paused=True)
    await patched(schedules, created, interval_seconds=60, end_at=iso(tomorrow_at(1)))
    attached = await fetch(schedules.resources, "SELECT 1 FROM schedule_clocks")
    assert list(attached) == []


@pytest.mark.parametrize(
    ("if_match", "status"),
    [('"1"', 200), ("1", 200), ("*", 200), ('"2"', 412), ('"0"', 412), ("banana", 422), ('W/"1"', 422)],
)
async def test_if_match_is_the_version(schedules: Schedules, form: str, if_match: str, status: int) -> None:
    before = await schedules.create()
    answer = await schedules.client.patch(
        schedules.at(form, before), json={"description": "mine"}, headers={"if-match": if_match}
    )
    assert answer.status_code == status, answer.text
    assert (await schedules.read(before))["description"] == ("mine" if status == 200 else None)
    messages = {
        412: f"the schedule is at version 1, not {if_match.strip(chr(34))}; read it again",
        422: f'If-Match: {if_match!r} is not the ETag of a schedule, such as "3"',
    }
    assert answer.json().get("message") == messages.get(status)


async def test_of_two_patches_with_one_etag_one_is_refused(schedules: Schedules) -> None:
    before = await schedules.create()
    answers = await asyncio.gather(
        *[
            schedules.client.patch(
                schedules.at("by-id", before),
                json={"description": f"change {number}"},
                headers={"if-match": '"1"'},
            )
            for number in range(5)
        ]
    )
    assert sorted(answer.status_code for answer in answers) == [200, 412, 412, 412, 412]


async def test_patches_of_different_keys_at_once_all_last(schedules: Schedules) -> None:
    before = await schedules.create()
    keys: list[Json] = [
        {"description": "d"},
        {"task_params": {"p": 1}},
        {"task_metadata": {"m": 1}},
        {"timezone": "Asia/Tokyo"},
        {"cron_expression": "5 9 * * *"},
        {"paused": True},
    ]
    answers = await asyncio.gather(*[schedules.patch(before, **one) for one in keys])
    assert [answer.status_code for answer in answers] == [200] * len(keys)
    after = await schedules.read(before)
    expected: Json = {key: value for one in keys for key, value in one.items()}
    assert {key: after[key] for key in expected} == expected
    assert after["version"] == 1 + len(keys)
