"""A schedule says how its agent stands; what it says keeps nothing from running."""

from __future__ import annotations

import pytest

from agentex.resources import Resources
from tests.api.ledger.stage import fetch
from tests.api.schedules.schedules import Schedules
from tests.support.api import Json, register
from tests.support.plans import statements

WHY = "GET /healthz answered HTTP 500"


def told(schedule: Json) -> tuple[str, str | None]:
    return schedule["agent_status"], schedule["agent_status_reason"]


async def make_unhealthy(resources: Resources) -> None:
    await fetch(resources, "UPDATE agents SET status = 'Unhealthy', status_reason = :why", why=WHY)


async def test_a_new_schedule_says_that_its_agent_is_ready(schedules: Schedules) -> None:
    assert told(await schedules.create()) == ("Ready", None)


async def test_each_read_and_each_change_says_that_the_agent_is_unhealthy_and_why(
    schedules: Schedules, form: str
) -> None:
    made = await schedules.create()
    await make_unhealthy(schedules.resources)
    path = schedules.at(form, made)

    answers = [
        await schedules.client.get(path),
        await schedules.client.patch(path, json={"description": "changed"}),
        await schedules.client.post(f"{path}/pause"),
        await schedules.client.post(f"{path}/resume"),
        await schedules.client.post(f"{path}/trigger"),
    ]

    assert [answer.status_code for answer in answers] == [200] * 5
    assert [told(answer.json()) for answer in answers] == [("Unhealthy", WHY)] * 5
    assert (await schedules.read(made))["state"] == "ACTIVE"


async def test_registering_again_clears_it(schedules: Schedules) -> None:
    made = await schedules.create()
    await make_unhealthy(schedules.resources)

    await register(schedules.client, name="echo")

    assert told(await schedules.read(made)) == ("Ready", None)


async def test_a_list_says_it_in_as_many_statements_for_one_as_for_many(schedules: Schedules) -> None:
    await schedules.create(name="first")
    await make_unhealthy(schedules.resources)
    with statements(schedules.resources) as for_one:
        await schedules.client.get(schedules.url)
    for n in range(20):
        await schedules.create(name=f"more-{n}")

    with statements(schedules.resources) as for_many:
        listed = (await schedules.client.get(schedules.url)).json()["run_schedules"]

    assert [told(schedule) for schedule in listed] == [("Unhealthy", WHY)] * 21
    assert len(for_many) == len(for_one)


async def test_a_schedule_of_an_agent_that_is_not_deployed_says_so(
    schedules: Schedules, resources: Resources
) -> None:
    build = {"name": "built", "description": ""}
    agent = (await schedules.client.post("/agents/register-build", json=build)).json()

    made = await Schedules(schedules.client, resources, agent["id"]).create()

    assert told(made) == ("BuildOnly", "its build is registered; it is not deployed yet")


@pytest.mark.parametrize("key", ["agent_status", "agent_status_reason"])
async def test_what_is_told_of_the_agent_cannot_be_changed_here(schedules: Schedules, key: str) -> None:
    made = await schedules.create()

    answer = await schedules.patch(made, **{key: "Failed"})

    assert told(answer.json()) == ("Ready", None)
