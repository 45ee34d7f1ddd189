"""Pause, resume, skip, unskip, delete, and the revisions that tell of them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from tests.api.ledger.stage import fetch
from tests.api.schedules.schedules import (
    FULL_INPUT,
    PRINCIPAL,
    Schedules,
    iso,
    moved,
    tomorrow_at,
)
from tests.support.api import Json


async def do(schedules: Schedules, path: str, body: Json | None = None) -> Json:
    answer = await schedules.client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def refused(schedules: Schedules, schedule: Json, verb: str, scheduled_time: str) -> tuple[int, str]:
    answer = await schedules.act(schedule, verb, scheduled_time=scheduled_time)
    return answer.status_code, answer.json()["message"]


async def test_pause_and_resume(schedules: Schedules, form: str) -> None:
    created = await schedules.create()
    path = schedules.at(form, created)
    paused = await do(schedules, f"{path}/pause", {"note": "over Christmas"})
    assert paused == moved(
        created, paused, paused=True, state="PAUSED", state_note="over Christmas", next_action_times=[]
    )
    resumed = await do(schedules, f"{path}/resume", {"note": "back"})
    assert resumed == moved(
        paused,
        resumed,
        paused=False,
        state="ACTIVE",
        state_note="back",
        next_action_times=created["next_action_times"],
    )
    assert await schedules.read(created) == resumed


@pytest.mark.parametrize("verb", ["pause", "resume"])
@pytest.mark.parametrize("body", [None, {}, {"note": None}])
async def test_a_repeat_of_pause_or_resume_changes_nothing(
    schedules: Schedules, form: str, verb: str, body: Json | None
) -> None:
    created = await schedules.create(paused=verb == "resume")
    path = f"{schedules.at(form, created)}/{verb}"
    first = await do(schedules, path, {"note": "why"})
    assert await do(schedules, path, body) == first
    assert await do(schedules, path, {"note": "why"}) == first


async def test_a_new_note_is_kept(schedules: Schedules) -> None:
    created = await schedules.create()
    first = (await schedules.act(created, "pause", note="one")).json()
    second = (await schedules.act(created, "pause", note="two")).json()
    assert second == moved(first, second, state_note="two")


async def test_a_resumed_schedule_owes_from_now_on_only(schedules: Schedules) -> None:
    created = await schedules.create(interval_seconds=60)
    await schedules.act(created, "pause")
    resumed = (await schedules.act(created, "resume")).json()
    found = await fetch(schedules.resources, "SELECT active_from FROM schedule_clocks")
    expected = datetime.fromisoformat(resumed["updated_at"]) + timedelta(seconds=1)
    assert [row["active_from"] for row in found] == [expected]


async def test_a_note_has_a_length(schedules: Schedules) -> None:
    created = await schedules.create()
    answer = await schedules.act(created, "pause", note="x" * 10_001)
    assert (answer.status_code, answer.json()["message"].endswith("at most 10000 characters")) == (422, True)


async def test_skip_and_unskip(schedules: Schedules, form: str) -> None:
    created = await schedules.create()
    path, instant = schedules.at(form, created), created["next_action_times"][3]
    skipped = await do(schedules, f"{path}/skip", {"scheduled_time": instant})
    times = [time for time in created["next_action_times"] if time != instant]
    eleventh = iso(tomorrow_at(9, days=10)) if times[-1] < iso(tomorrow_at(9, days=10)) else None
    assert skipped["next_action_times"][:9] == times
    assert len(skipped["next_action_times"]) == 10
    assert eleventh is None or skipped["next_action_times"][9] == eleventh
    assert skipped == moved(
        created,
        skipped,
        skipped_action_times=[instant],
        next_action_times=skipped["next_action_times"],
    )
    unskipped = await do(schedules, f"{path}/unskip", {"scheduled_time": instant})
    assert unskipped == moved(
        skipped, unskipped, skipped_action_times=[], next_action_times=created["next_action_times"]
    )


async def test_repeating_a_skip_or_an_unskip_changes_nothing(schedules: Schedules, form: str) -> None:
    created = await schedules.create()
    path = schedules.at(form, created)
    body = {"scheduled_time": created["next_action_times"][0]}
    skipped = await do(schedules, f"{path}/skip", body)
    assert await do(schedules, f"{path}/skip", body) == skipped
    unskipped = await do(schedules, f"{path}/unskip", body)
    assert await do(schedules, f"{path}/unskip", body) == unskipped


async def test_the_same_instant_in_another_zone_is_the_same(schedules: Schedules) -> None:
    created = await schedules.create()
    instant = datetime.fromisoformat(created["next_action_times"][0])
    tokyo = (instant.replace(tzinfo=None) + timedelta(hours=9)).isoformat() + "+09:00"
    skipped = (await schedules.act(created, "skip", scheduled_time=tokyo)).json()
    assert skipped["skipped_action_times"] == [iso(instant)]


async def test_several_skips_are_kept_in_order(schedules: Schedules) -> None:
    created = await schedules.create()
    times = created["next_action_times"]
    for place in (4, 1, 2):
        answer = await schedules.act(created, "skip", scheduled_time=times[place])
    assert answer.json()["skipped_action_times"] == [times[1], times[2], times[4]]


async def test_what_cannot_be_skipped(schedules: Schedules) -> None:
    start, end = tomorrow_at(9, days=2), tomorrow_at(9, days=4)
    created = await schedules.create(start_at=iso(start), end_at=iso(end))
    hint = f"; the next one is {iso(start)}"
    off, before, after = start + timedelta(seconds=1), tomorrow_at(9), tomorrow_at(9, days=5)
    odd = start + timedelta(microseconds=1)
    past = "2020-01-01T09:00:00Z"
    found = [
        await refused(schedules, created, "skip", text)
        for text in (past, iso(off), iso(before), iso(after), iso(odd))
    ]
    expected = "is past; only a coming instant can be skipped"
    assert found == [
        (400, f"scheduled_time: 2020-01-01T09:00:00+00:00 {expected}"),
        *[
            (400, f"scheduled_time: {time.isoformat()} is no instant of this schedule{hint}")
            for time in (off, before, after, odd)
        ],
    ]
    assert await schedules.read(created) == created


async def test_the_window_s_ends_can_be_skipped(schedules: Schedules) -> None:
    start, end = tomorrow_at(9, days=2), tomorrow_at(9, days=4)
    created = await schedules.create(start_at=iso(start), end_at=iso(end))
    await schedules.act(created, "skip", scheduled_time=iso(start))
    skipped = await schedules.act(created, "skip", scheduled_time=iso(end))
    assert (skipped.json()["skipped_action_times"], skipped.json()["next_action_times"]) == (
        [iso(start), iso(end)],
        [iso(tomorrow_at(9, days=3))],
    )


async def test_what_was_never_skipped_cannot_be_put_back(schedules: Schedules) -> None:
    created = await schedules.create()
    instant = created["next_action_times"][0]
    assert await refused(schedules, created, "unskip", instant) == (
        400,
        f"scheduled_time: {instant} is not skipped, so it cannot be put back",
    )


async def test_a_past_skip_cannot_be_put_back(schedules: Schedules) -> None:
    created = await schedules.create()
    await fetch(
        schedules.resources,
        "UPDATE agent_run_schedules SET skipped_action_times = '[\"2020-01-01T09:00:00Z\"]'",
    )
    status, message = await refused(schedules, created, "unskip", "2020-01-01T09:00:00Z")
    assert (status, message.startswith("scheduled_time: 2020-01-01T09:00:00+00:00 is past")) == (400, True)


@pytest.mark.parametrize("verb", ["skip", "unskip"])
@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "scheduled_time: Field required"),
        (
            {"scheduled_time": "2037-01-01T09:00:00"},
            "scheduled_time is '2037-01-01T09:00:00': Input should have timezone info",
        ),
    ],
)
async def test_an_instant_is_needed_and_aware(
    schedules: Schedules, verb: str, body: Json, message: str
) -> None:
    created = await schedules.create()
    answer = await schedules.client.post(f"{schedules.at('by-id', created)}/{verb}", json=body)
    assert (answer.status_code, answer.json()["message"]) == (422, message)


async def test_a_skip_while_paused_lasts_over_the_resume(schedules: Schedules) -> None:
    created = await schedules.create()
    instant = created["next_action_times"][0]
    await schedules.act(created, "pause")
    await schedules.act(created, "skip", scheduled_time=instant)
    resumed = (await schedules.act(created, "resume")).json()
    assert (resumed["skipped_action_times"], instant in resumed["next_action_times"]) == ([instant], False)


async def test_past_skips_are_not_shown_and_go_with_the_next_write(schedules: Schedules) -> None:
    created = await schedules.create()
    await fetch(
        schedules.resources,
        "UPDATE agent_run_schedules SET skipped_action_times = '[\"2020-01-01T09:00:00Z\"]'",
    )
    assert (await schedules.read(created))["skipped_action_times"] == []
    await schedules.patch(created, description="x")
    found = await fetch(
        schedules.resources, "SELECT skipped_action_times::text AS kept FROM agent_run_schedules"
    )
    assert [row["kept"] for row in found] == ["[]"]


async def test_delete_answers_with_the_id_and_frees_the_name(schedules: Schedules, form: str) -> None:
    created = await schedules.create()
    answer = await schedules.client.delete(schedules.at(form, created))
    assert (answer.status_code, answer.json()) == (
        200,
        {"id": created["id"], "message": "Run schedule 'nightly' was deleted"},
    )
    again = await schedules.client.delete(schedules.at(form, created))
    assert again.status_code == 404
    successor = await schedules.create()
    by_name = await schedules.client.get(schedules.at("by-name", successor))
    assert by_name.json()["id"] == successor["id"] != created["id"]


async def test_a_deleted_schedule_keeps_its_row_and_its_runs(schedules: Schedules) -> None:
    created = await schedules.create()
    await schedules.act(created, "trigger")
    await schedules.client.delete(schedules.at("by-id", created))
    found = await fetch(
        schedules.resources,
        """SELECT s.deleted_at IS NOT NULL AS deleted, s.version, (SELECT count(*) FROM runs) AS runs,
            (SELECT count(*) FROM schedule_clocks) AS attached
        FROM agent_run_schedules s""",
    )
    assert [dict(row) for row in found] == [{"deleted": True, "version": 2, "runs": 1, "attached": 0}]
    listed = await schedules.client.get("/runs", params={"schedule_id": created["id"]})
    assert len(listed.json()["runs"]) == 1


async def test_each_change_appends_the_revision_of_what_the_schedule_became(schedules: Schedules) -> None:
    created = await schedules.create(task_params={"a": 1}, end_at=iso(tomorrow_at(9, days=30)))
    instant = created["next_action_times"][0]
    await schedules.patch(created, description="d", cron_expression="0 9 * * *")
    await schedules.patch(created)
    await schedules.act(created, "skip", scheduled_time=instant)
    await schedules.act(created, "skip", scheduled_time=instant)
    await schedules.act(created, "unskip", scheduled_time=instant)
    await schedules.act(created, "pause", note="n")
    await schedules.act(created, "resume")
    await schedules.act(created, "trigger")
    await schedules.client.delete(schedules.at("by-id", created))
    found = await fetch(
        schedules.resources,
        "SELECT version, change, note, changed_by, definition FROM schedule_revisions ORDER BY version",
    )
    first: Json = {
        "name": "nightly",
        "description": None,
        "cron_expression": "0 9 * * *",
        "interval_seconds": None,
        "timezone": "UTC",
        "start_at": None,
        "end_at": tomorrow_at(9, days=30).astimezone(UTC).isoformat(),
        "paused": False,
        "task_params": {"a": 1},
        "task_metadata": None,
        "initial_input": FULL_INPUT,
        "skipped_action_times": [],
        "policies": created["policies"],
    }
    described = first | {"description": "d"}
    assert [dict(row) for row in found] == [
        {
            "version": version,
            "change": change,
            "note": note,
            "changed_by": PRINCIPAL,
            "definition": definition,
        }
        for version, change, note, definition in [
            (1, "create", None, first),
            (2, "update", None, described),
            (3, "skip", instant, described | {"skipped_action_times": [instant]}),
            (4, "unskip", instant, described),
            (5, "pause", "n", described | {"paused": True}),
            (6, "resume", None, described),
            (7, "delete", None, described),
        ]
    ]
