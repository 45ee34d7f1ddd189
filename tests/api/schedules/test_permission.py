"""Who may do what: 404 for what a caller cannot read, 403 for what it can read and not do; the flag."""

from __future__ import annotations

from dataclasses import dataclass, replace

import httpx2
import pytest

from agentex.app import create_app
from agentex.auth.authorize import Operation, ResourceType
from agentex.resources import Resources
from tests.api.schedules.schedules import INPUT, Schedules
from tests.support.api import Json
from tests.support.authz import ScriptedAuthz

BODY: Json = {"name": "other", "interval_seconds": 3_600, "initial_input": INPUT}
INSTANT: Json = {"scheduled_time": "2037-01-01T09:00:00Z"}


@dataclass(frozen=True)
class Route:
    """A request about one schedule, and the operation on it that the request needs."""

    method: str
    verb: str
    operation: Operation
    body: Json | None = None

    async def ask(self, schedules: Schedules, form: str, schedule: Json) -> httpx2.Response:
        path = schedules.at(form, schedule) + self.verb
        return await schedules.client.request(self.method, path, json=self.body)


ROUTES = [
    Route("GET", "", Operation.READ),
    Route("PATCH", "", Operation.UPDATE, {"description": "x"}),
    Route("DELETE", "", Operation.DELETE),
    Route("POST", "/pause", Operation.UPDATE),
    Route("POST", "/resume", Operation.UPDATE),
    Route("POST", "/trigger", Operation.EXECUTE),
    Route("POST", "/skip", Operation.UPDATE, INSTANT),
    Route("POST", "/unskip", Operation.UPDATE, INSTANT),
    Route("GET", "/runs", Operation.READ),
]


def each(routes: list[Route]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("route", routes, ids=[f"{one.method}{one.verb}" for one in routes])


@each(ROUTES)
async def test_what_cannot_be_read_is_not_there(
    schedules: Schedules, authz: ScriptedAuthz, route: Route, form: str
) -> None:
    created = await schedules.create()
    authz.deny = {(route.operation, ResourceType.SCHEDULE), (Operation.READ, ResourceType.SCHEDULE)}
    answer = await route.ask(schedules, form, created)
    assert (answer.status_code, answer.json()["message"].endswith("not found")) == (404, True)
    authz.deny = set()
    assert await schedules.read(created) == created


# Reading is what decides between 403 and 404.
@each([route for route in ROUTES if route.operation is not Operation.READ])
async def test_what_can_be_read_and_not_done_is_forbidden(
    schedules: Schedules, authz: ScriptedAuthz, route: Route, form: str
) -> None:
    created = await schedules.create()
    authz.deny = {(route.operation, ResourceType.SCHEDULE)}
    answer = await route.ask(schedules, form, created)
    reference = f"run-schedule::{schedules.agent_id}::{created['id']}"
    assert (answer.status_code, answer.json()["message"]) == (
        403,
        f"{route.operation} on schedule {reference} is not allowed: scripted",
    )
    assert await schedules.read(created) == created


@each(ROUTES)
async def test_an_authorizer_that_is_away_is_a_503_that_may_be_repeated(
    schedules: Schedules, authz: ScriptedAuthz, route: Route
) -> None:
    created = await schedules.create()
    authz.unavailable = True
    answer = await route.ask(schedules, "by-id", created)
    assert (answer.status_code, "retry-after" in answer.headers, "x-should-retry" in answer.headers) == (
        503,
        True,
        False,
    )
    authz.unavailable = False
    assert await schedules.read(created) == created


@each(ROUTES)
async def test_an_agent_that_cannot_be_read_hides_its_schedules(
    schedules: Schedules, authz: ScriptedAuthz, route: Route
) -> None:
    created = await schedules.create()
    authz.deny = {(Operation.READ, ResourceType.AGENT)}
    answer = await route.ask(schedules, "by-id", created)
    assert answer.status_code == 404
    assert (route.operation, ResourceType.SCHEDULE) not in authz.asked[-1:]


@pytest.mark.parametrize(
    ("deny", "status"),
    [
        ({(Operation.UPDATE, ResourceType.AGENT)}, 403),
        ({(Operation.UPDATE, ResourceType.AGENT), (Operation.READ, ResourceType.AGENT)}, 404),
        ({(Operation.UPDATE, ResourceType.SCHEDULE)}, 200),
    ],
    ids=["not-update", "not-read", "update-of-schedules"],
)
async def test_making_a_schedule_needs_leave_to_update_the_agent(
    schedules: Schedules, authz: ScriptedAuthz, deny: set[tuple[Operation, ResourceType]], status: int
) -> None:
    authz.deny = deny
    answer = await schedules.client.post(schedules.url, json=BODY)
    assert answer.status_code == status


async def test_a_list_is_not_there_for_who_may_not_read_whose_it_is(
    schedules: Schedules, authz: ScriptedAuthz
) -> None:
    await schedules.create()
    authz.deny = {(Operation.READ, ResourceType.AGENT)}
    answer = await schedules.client.get(schedules.url)
    assert answer.status_code == 404


@pytest.mark.parametrize(
    ("path", "kind", "nothing"),
    [
        ("", ResourceType.SCHEDULE, {"run_schedules": [], "total": 0, "next_cursor": None}),
        ("/name/nightly/runs", ResourceType.RUN, {"runs": [], "next_cursor": None}),
    ],
)
async def test_a_list_leaves_out_what_its_caller_may_not_read(
    schedules: Schedules, authz: ScriptedAuthz, path: str, kind: ResourceType, nothing: Json
) -> None:
    created = await schedules.create()
    await schedules.act(created, "trigger")
    authz.deny = {(Operation.READ, kind)}
    answer = await schedules.client.get(schedules.url + path)
    assert (answer.status_code, answer.json()) == (200, nothing)


async def test_without_the_flag_there_are_no_schedules_and_runs_stay(
    schedules: Schedules, resources: Resources
) -> None:
    created = await schedules.create()
    run_id = (await schedules.act(created, "trigger")).json()["run_id"]
    off = resources.settings.model_copy(update={"enable_agent_run_schedules": False})
    transport = httpx2.ASGITransport(app=create_app(off, resources=resources))
    async with httpx2.AsyncClient(transport=transport, base_url="http://agentex.test") as client:
        without = replace(schedules, client=client)
        asked = [await client.get(schedules.url), await client.post(schedules.url, json=BODY)]
        asked += [
            await route.ask(without, form, created) for route in ROUTES for form in ("by-id", "by-name")
        ]
        assert {answer.status_code for answer in asked} == {404}
        listed = await client.get("/runs", params={"schedule_id": created["id"]})
        assert [run["id"] for run in listed.json()["runs"]] == [run_id]
        assert (await client.get(f"/runs/{run_id}")).status_code == 200
