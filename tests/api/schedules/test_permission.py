"""Who may do what: 404 for what a caller cannot read, 403 for what it can read and not do; the flag."""

from __future__ import annotations

import httpx2
import pytest

from agentex.app import create_app
from agentex.auth.authorize import Operation, ResourceType
from agentex.resources import Resources
from tests.api.schedules.schedules import INPUT, Json, Schedules
from tests.support.authz import ScriptedAuthz

BODY: Json = {"name": "other", "interval_seconds": 3_600, "initial_input": INPUT}
INSTANT: Json = {"scheduled_time": "2037-01-01T09:00:00Z"}

# Method, what follows the schedule's path, body, and the operation on the schedule that it needs.
ROUTES: list[tuple[str, str, Json | None, Operation]] = [
    ("GET", "", None, Operation.READ),
    ("PATCH", "", {"description": "x"}, Operation.UPDATE),
    ("DELETE", "", None, Operation.DELETE),
    ("POST", "/pause", None, Operation.UPDATE),
    ("POST", "/resume", None, Operation.UPDATE),
    ("POST", "/trigger", None, Operation.EXECUTE),
    ("POST", "/skip", INSTANT, Operation.UPDATE),
    ("POST", "/unskip", INSTANT, Operation.UPDATE),
    ("GET", "/runs", None, Operation.READ),
]
route = pytest.mark.parametrize(
    ("method", "verb", "body", "operation"), ROUTES, ids=[f"{one[0]}{one[1]}" for one in ROUTES]
)


@route
async def test_what_cannot_be_read_is_not_there(
    schedules: Schedules,
    authz: ScriptedAuthz,
    method: str,
    verb: str,
    body: Json | None,
    operation: Operation,
) -> None:
    created = await schedules.create()
    authz.deny = {(operation, ResourceType.SCHEDULE), (Operation.READ, ResourceType.SCHEDULE)}
    for form in ("by-id", "by-name"):
        answer = await schedules.client.request(method, schedules.at(form, created) + verb, json=body)
        assert (answer.status_code, answer.json()["message"].endswith("not found")) == (404, True)
    authz.deny.clear()
    assert await schedules.read(created) == created


@route
async def test_what_can_be_read_and_not_done_is_forbidden(
    schedules: Schedules,
    authz: ScriptedAuthz,
    method: str,
    verb: str,
    body: Json | None,
    operation: Operation,
) -> None:
    if operation is Operation.READ:
        # Reading is what decides between the two.
        verb, method, body, operation = "", "DELETE", None, Operation.DELETE
    created = await schedules.create()
    authz.deny = {(operation, ResourceType.SCHEDULE)}
    for form in ("by-id", "by-name"):
        answer = await schedules.client.request(method, schedules.at(form, created) + verb, json=body)
        reference = f"run-schedule::{schedules.agent_id}::{created['id']}"
        assert (answer.status_code, answer.json()["message"]) == (
            403,
            f"{operation} on schedule {reference} is not allowed: scripted",
        )
    assert await schedules.read(created) == created


@route
async def test_an_authorizer_that_is_away_is_a_503_that_may_be_repeated(
    schedules: Schedules,
    authz: ScriptedAuthz,
    method: str,
    verb: str,
    body: Json | None,
    operation: Operation,
) -> None:
    created = await schedules.create()
    authz.unavailable = True
    answer = await schedules.client.request(method, schedules.at("by-id", created) + verb, json=body)
    assert (answer.status_code, "retry-after" in answer.headers, "x-should-retry" in answer.headers) == (
        503,
        True,
        False,
    )
    authz.unavailable = False
    assert await schedules.read(created) == created


@route
async def test_an_agent_that_cannot_be_read_hides_its_schedules(
    schedules: Schedules,
    authz: ScriptedAuthz,
    method: str,
    verb: str,
    body: Json | None,
    operation: Operation,
) -> None:
    created = await schedules.create()
    authz.deny = {(Operation.READ, ResourceType.AGENT)}
    answer = await schedules.client.request(method, schedules.at("by-id", created) + verb, json=body)
    assert answer.status_code == 404
    assert (operation, ResourceType.SCHEDULE) not in authz.asked[-1:]


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


async def test_a_list_is_not_there_for_who_cannot_read_the_agent(
    schedules: Schedules, authz: ScriptedAuthz
) -> None:
    await schedules.create()
    authz.deny = {(Operation.READ, ResourceType.AGENT)}
    answer = await schedules.client.get(schedules.url)
    assert answer.status_code == 404


async def test_without_the_flag_there_are_no_schedules_and_runs_stay(
    schedules: Schedules, resources: Resources
) -> None:
    created = await schedules.create()
    run_id = (await schedules.act(created, "trigger")).json()["run_id"]
    off = resources.settings.model_copy(update={"enable_agent_run_schedules": False})
    transport = httpx2.ASGITransport(app=create_app(off, resources=resources))
    async with httpx2.AsyncClient(transport=transport, base_url="http://agentex.test") as client:
        asked = [
            (await client.request(method, path, json=body)).status_code
            for method, path, body in [
                ("GET", schedules.url, None),
                ("POST", schedules.url, BODY),
                *[
                    (method, schedules.at(form, created) + verb, body)
                    for method, verb, body, _ in ROUTES
                    for form in ("by-id", "by-name")
                ],
            ]
        ]
        assert set(asked) == {404}
        listed = await client.get("/runs", params={"schedule_id": created["id"]})
        assert [run["id"] for run in listed.json()["runs"]] == [run_id]
        assert (await client.get(f"/runs/{run_id}")).status_code == 200
