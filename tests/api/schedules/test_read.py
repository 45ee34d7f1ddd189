"""GET: one schedule, a page of them, and what is not there."""

from __future__ import annotations

from datetime import datetime

import pytest

from tests.api.ledger.stage import fetch
from tests.api.schedules.schedules import Schedules
from tests.support.api import UNKNOWN_ID, Json


async def test_one_schedule_in_both_forms(schedules: Schedules, form: str) -> None:
    created = await schedules.create()
    answer = await schedules.client.get(schedules.at(form, created))
    assert (answer.status_code, answer.json()) == (200, created)


async def test_each_answer_that_is_a_schedule_has_its_version_as_etag(
    schedules: Schedules, form: str
) -> None:
    made = await schedules.post()
    created = made.json()
    path, instant = schedules.at(form, created), {"scheduled_time": created["next_action_times"][0]}
    answers = [
        made,
        *[
            await schedules.client.request(method, path + verb, json=body)
            for method, verb, body in [
                ("GET", "", None),
                ("PATCH", "", {"description": "changed"}),
                ("POST", "/pause", None),
                ("POST", "/resume", None),
                ("POST", "/skip", instant),
                ("POST", "/unskip", instant),
                ("POST", "/trigger", None),
            ]
        ],
    ]
    versions = ['"1"', '"1"', '"2"', '"3"', '"4"', '"5"', '"6"', '"6"']
    assert [answer.headers["etag"] for answer in answers] == versions
    assert [f'"{answer.json()["version"]}"' for answer in answers] == versions
    others = [
        await schedules.client.get(schedules.url),
        await schedules.client.get(f"{path}/runs"),
        await schedules.client.delete(path),
    ]
    assert [(answer.status_code, "etag" in answer.headers) for answer in others] == [(200, False)] * 3


ROUTES = [
    ("GET", ""),
    ("PATCH", ""),
    ("DELETE", ""),
    ("POST", "/pause"),
    ("POST", "/resume"),
    ("POST", "/trigger"),
    ("POST", "/skip"),
    ("POST", "/unskip"),
    ("GET", "/runs"),
]
BODIES: dict[str, Json] = {
    "/skip": {"scheduled_time": "2037-01-01T09:00:00Z"},
    "/unskip": {"scheduled_time": "2037-01-01T09:00:00Z"},
    "": {},
}


async def ask(schedules: Schedules, method: str, path: str) -> tuple[int, str]:
    suffix = next((verb for _, verb in ROUTES if verb and path.endswith(verb)), "")
    body = BODIES.get(suffix) if method in {"POST", "PATCH"} else None
    answer = await schedules.client.request(method, path, json=body)
    return answer.status_code, answer.json()["message"]


@pytest.mark.parametrize(("method", "verb"), ROUTES, ids=str)
async def test_every_route_answers_404_to_what_is_not_there(
    schedules: Schedules, method: str, verb: str
) -> None:
    gone = await schedules.create(name="gone")
    await schedules.client.delete(schedules.at("by-id", gone))
    other = await schedules.of_other_agent()
    theirs = await other.create(name="theirs")
    names = [UNKNOWN_ID, "no-id", gone["id"], theirs["id"], "name/nobody", "name/gone", "name/theirs"]
    found = [await ask(schedules, method, f"{schedules.url}/{name}{verb}") for name in names]
    assert found == [
        (404, f"run schedule {'no-id'!r} not found")
        if name == "no-id"
        else (404, f"run schedule {name.removeprefix('name/')!r} of agent {schedules.agent_id} not found")
        for name in names
    ]


@pytest.mark.parametrize(("method", "verb"), ROUTES, ids=str)
async def test_every_route_answers_404_for_an_agent_that_is_not_there(
    schedules: Schedules, method: str, verb: str
) -> None:
    created = await schedules.create()
    elsewhere = "01930000-0000-7000-8000-00000000000f"
    found = [
        await ask(schedules, method, f"/agents/{agent}/schedules/{created['id']}{verb}")
        for agent in (elsewhere, "echo")
    ]
    assert found == [(404, f"agent {agent!r} not found") for agent in (elsewhere, "echo")]


async def test_another_account_s_agent_is_not_there(schedules: Schedules) -> None:
    created = await schedules.create()
    answer = await schedules.client.get(
        schedules.at("by-id", created), headers={"x-test-account": "somebody-else"}
    )
    assert answer.status_code == 404


async def test_a_schedule_that_is_called_name_is_found_by_its_name(schedules: Schedules) -> None:
    created = await schedules.create(name="name")
    answer = await schedules.client.get(f"{schedules.url}/name/name")
    assert answer.json()["id"] == created["id"]


async def page(schedules: Schedules, **query: object) -> Json:
    answer = await schedules.client.get(schedules.url, params={k: str(v) for k, v in query.items()})
    assert answer.status_code == 200, answer.text
    return answer.json()


def names(listed: Json) -> list[str]:
    return [schedule["name"] for schedule in listed["run_schedules"]]


async def test_an_empty_list(schedules: Schedules) -> None:
    assert await page(schedules) == {"run_schedules": [], "total": 0, "next_cursor": None}


async def test_a_list_is_newest_first_without_next_times(schedules: Schedules) -> None:
    made = [await schedules.create(name=f"s{number}") for number in range(3)]
    other = await schedules.of_other_agent()
    await other.create(name="s9")
    not_live: Json = {"next_action_times": [], "live_data_available": None}
    assert await page(schedules) == {
        "run_schedules": [schedule | not_live for schedule in reversed(made)],
        "total": 3,
        "next_cursor": None,
    }


async def test_include_live_adds_the_next_times_of_what_is_active(schedules: Schedules) -> None:
    made = [await schedules.create(name="s0"), await schedules.create(name="s1", paused=True)]
    listed = await page(schedules, include_live="true")
    assert listed["run_schedules"] == list(reversed(made))
    assert [len(schedule["next_action_times"]) for schedule in made] == [10, 0]


async def test_total_counts_all_and_a_deleted_schedule_is_in_no_list(schedules: Schedules) -> None:
    made = [await schedules.create(name=f"s{number}") for number in range(4)]
    await schedules.client.delete(schedules.at("by-id", made[1]))
    listed = await page(schedules, limit=2)
    assert (names(listed), listed["total"], listed["next_cursor"] is None) == (["s3", "s2"], 3, False)


async def test_a_cursor_walks_everything_once_while_others_are_made(schedules: Schedules) -> None:
    for number in range(7):
        await schedules.create(name=f"s{number}")
    # Some made in the same instant: the id decides between them.
    await fetch(
        schedules.resources,
        """UPDATE agent_run_schedules SET created_at = (SELECT min(created_at) FROM agent_run_schedules)
        WHERE name < 's4'""",
    )
    seen: list[str] = []
    cursor: str | None = None
    for number in range(10):
        listed = await page(schedules, limit=2, **({"cursor": cursor} if cursor else {}))
        seen += names(listed)
        cursor = listed["next_cursor"]
        if cursor is None:
            break
        await schedules.create(name=f"late{number}")
    assert (sorted(seen), seen[:3]) == ([f"s{n}" for n in range(7)], ["s6", "s5", "s4"])


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"limit": "0"}, "limit is '0': Input should be greater than or equal to 1"),
        ({"limit": "1001"}, "limit is '1001': Input should be less than or equal to 1000"),
        (
            {"limit": "x"},
            "limit is 'x': Input should be a valid integer, unable to parse string as an integer",
        ),
        ({"cursor": "garbage"}, "cursor: 'garbage' is not a next_cursor of this list"),
        (
            {"include_live": "perhaps"},
            "include_live is 'perhaps': Input should be a valid boolean, unable to interpret input",
        ),
    ],
)
async def test_a_list_s_bad_parameters_are_named(
    schedules: Schedules, query: dict[str, str], message: str
) -> None:
    answer = await schedules.client.get(schedules.url, params=query)
    assert (answer.status_code, answer.json()["message"]) == (422, message)


@pytest.mark.parametrize("limit", [1, 1000])
async def test_a_list_s_limit_has_these_bounds(schedules: Schedules, limit: int) -> None:
    await schedules.create()
    assert names(await page(schedules, limit=limit)) == ["nightly"]


async def test_next_times_are_ahead_and_inside_the_window(schedules: Schedules) -> None:
    created = await schedules.create(
        interval_seconds=3_600, start_at="2037-01-01T09:30:00Z", end_at="2037-01-01T12:00:00Z"
    )
    assert created["next_action_times"] == [
        "2037-01-01T10:00:00Z",
        "2037-01-01T11:00:00Z",
        "2037-01-01T12:00:00Z",
    ]


async def test_totals_of_the_ledger_are_shown(schedules: Schedules) -> None:
    created = await schedules.create()
    last = datetime.fromisoformat("2026-03-10T12:00:00+00:00")
    await fetch(
        schedules.resources,
        "INSERT INTO schedule_totals (schedule_id, opened, last_due_at) VALUES (:id, 41, :last)",
        id=created["id"],
        last=last,
    )
    expected = created | {"num_actions_taken": 41, "last_action_time": "2026-03-10T12:00:00Z"}
    assert await schedules.read(created) == expected
