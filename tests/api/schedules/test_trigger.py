"""POST …/trigger, and what makes a repeat of it or of a create harmless."""

from __future__ import annotations

import asyncio
from hashlib import sha256
from typing import Any

import httpx2
import pytest

from agentex.database import rows
from agentex.hooks import fill_hooks
from agentex.resources import Resources
from tests.api.ledger.stage import fetch
from tests.api.schedules.schedules import INPUT, PRINCIPAL, Schedules
from tests.support.api import Json


@pytest.fixture(autouse=True)
def stays_due(client: httpx2.AsyncClient, resources: Resources) -> list[object]:
    """Runs are looked at as they were made: nobody starts them, and who would is written down."""
    started: list[object] = []
    resources.hooks.run_opened = started.append
    return started


async def trigger(schedules: Schedules, path: str, **headers: str) -> Json:
    answer = await schedules.client.post(f"{path}/trigger", headers=headers)
    assert answer.status_code == 200, answer.text
    assert answer.headers["location"] == f"/runs/{answer.json()['run_id']}"
    return answer.json()


async def count(schedules: Schedules, table: str) -> int:
    return (await fetch(schedules.resources, f"SELECT count(*) AS n FROM {table}"))[0]["n"]  # noqa: S608


@pytest.mark.parametrize("paused", [False, True], ids=["active", "paused"])
async def test_a_trigger_makes_a_run_and_leaves_the_schedule_as_it_is(
    schedules: Schedules, form: str, paused: bool, stays_due: list[object]
) -> None:
    created = await schedules.create(paused=paused)
    triggered = await trigger(schedules, schedules.at(form, created))
    run = (await schedules.client.get(f"/runs/{triggered['run_id']}")).json()
    assert triggered == created | {
        "run_id": run["id"],
        "num_actions_taken": 1,
        "last_action_time": run["due_at"],
    }
    assert run == {
        "id": run["id"],
        "agent_id": schedules.agent_id,
        "schedule_id": created["id"],
        "schedule_version": 1,
        "fire_id": f"run:{run['id']}",
        "cause": "manual",
        "due_at": run["due_at"],
        "due_until": None,
        "count": 1,
        "status": "due",
        "reason": None,
        "error": None,
        "attempt": 0,
        "opened_at": run["due_at"],
        "launched_at": None,
        "task_created_at": None,
        "sending_at": None,
        "delivered_at": None,
        "finished_at": None,
        "next_attempt_at": run["due_at"],
        "cancel_requested_at": None,
        "updated_at": run["due_at"],
        "task_id": None,
        "principal": PRINCIPAL,
        "output": None,
    }
    assert [str(run_id) for run_id in stays_due] == [run["id"]]


async def test_an_independent_second_trigger_makes_a_second_run(schedules: Schedules) -> None:
    path = schedules.at("by-id", await schedules.create())
    first, second = await trigger(schedules, path), await trigger(schedules, path)
    assert first["run_id"] != second["run_id"]
    assert second["num_actions_taken"] == 2


async def test_the_same_key_is_the_same_run(schedules: Schedules, stays_due: list[object]) -> None:
    path = schedules.at("by-id", await schedules.create())
    keyed = {"idempotency-key": "k-1"}
    found = [(await trigger(schedules, path, **keyed))["run_id"] for _ in range(3)]
    assert (len(set(found)), len(stays_due)) == (1, 1)
    run = (await schedules.client.get(f"/runs/{found[0]}")).json()
    assert run["fire_id"] == f"key:{sha256(b'k-1').hexdigest()}"


async def test_the_run_of_a_key_is_found_when_the_key_itself_is_forgotten(schedules: Schedules) -> None:
    path = schedules.at("by-id", await schedules.create())
    first = await trigger(schedules, path, **{"idempotency-key": "k-1"})
    await fetch(schedules.resources, "DELETE FROM idempotency_keys")
    again = await trigger(schedules, path, **{"idempotency-key": "k-1"})
    assert (again["run_id"], again["num_actions_taken"]) == (first["run_id"], 1)


async def test_another_key_is_another_run(schedules: Schedules) -> None:
    path = schedules.at("by-id", await schedules.create())
    found = [(await trigger(schedules, path, **{"idempotency-key": key}))["run_id"] for key in ("a", "b")]
    assert len(set(found)) == 2


async def test_the_same_key_with_another_body_is_refused(schedules: Schedules) -> None:
    path = f"{schedules.at('by-id', await schedules.create())}/trigger"
    keyed = {"idempotency-key": "k-1"}
    await schedules.client.post(path, headers=keyed)
    answer = await schedules.client.post(path, headers=keyed, json={"other": 1})
    assert (answer.status_code, answer.json()["message"]) == (
        422,
        "Idempotency-Key: 'k-1' was used with another body; use a new key",
    )


async def test_a_client_s_silent_repeats_are_the_same_run(
    schedules: Schedules, stays_due: list[object]
) -> None:
    path = schedules.at("by-id", await schedules.create())
    found = [
        (await trigger(schedules, path, **{"x-stainless-retry-count": str(n)}))["run_id"] for n in range(3)
    ]
    independent = (await trigger(schedules, path, **{"x-stainless-retry-count": "0"}))["run_id"]
    assert (len(set(found)), independent in found, len(stays_due)) == (1, False, 2)


async def test_a_repeat_that_overtakes_the_original_gets_its_run(schedules: Schedules) -> None:
    path = schedules.at("by-id", await schedules.create())
    found = await asyncio.gather(*[trigger(schedules, path, **{"idempotency-key": "k-1"}) for _ in range(6)])
    assert (len({answer["run_id"] for answer in found}), await count(schedules, "runs")) == (1, 1)


async def test_a_silent_repeat_waits_for_an_original_that_is_still_at_work(schedules: Schedules) -> None:
    created = await schedules.create()
    path = schedules.at("by-id", created)
    async with schedules.resources.db.begin() as session:
        # The original stops where it counts its run, after it has taken the request's lock.
        await rows(
            session,
            "INSERT INTO schedule_totals (schedule_id, opened) VALUES (CAST(:id AS uuid), 0)",
            id=created["id"],
        )
        original = asyncio.create_task(trigger(schedules, path))
        await waiting(schedules, "transactionid", original)
        repeat = asyncio.create_task(trigger(schedules, path, **{"x-stainless-retry-count": "1"}))
        await waiting(schedules, "advisory", repeat)
    assert (await repeat)["run_id"] == (await original)["run_id"]


async def waiting(schedules: Schedules, for_what: str, task: asyncio.Task[Json]) -> None:
    """Return when a session of this database waits for that kind of lock."""
    sql = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event = :what"
    while not await fetch(schedules.resources, sql, what=for_what):
        assert not task.done()


BODY: Json = {"name": "nightly", "interval_seconds": 3_600, "initial_input": INPUT}


async def test_a_client_s_silent_repeat_of_a_create_is_no_already_exists(schedules: Schedules) -> None:
    answers: list[Any] = []
    for number in range(3):
        answer = await schedules.client.post(
            schedules.url, json=BODY, headers={"x-stainless-retry-count": str(number)}
        )
        assert answer.status_code == 200, answer.text
        answers.append(answer.json())
    assert answers == [answers[0]] * 3
    anew = await schedules.client.post(schedules.url, json=BODY)
    assert (anew.status_code, await count(schedules, "agent_run_schedules")) == (400, 1)


async def test_a_create_that_overtakes_itself_makes_one_schedule(schedules: Schedules) -> None:
    answers = await asyncio.gather(
        *[
            schedules.client.post(schedules.url, json=BODY, headers={"idempotency-key": "k-1"})
            for _ in range(6)
        ]
    )
    assert [answer.status_code for answer in answers] == [200] * 6
    assert len({answer.json()["id"] for answer in answers}) == 1


async def test_a_create_that_was_refused_is_not_remembered(schedules: Schedules) -> None:
    keyed = {"idempotency-key": "k-1"}
    refused = await schedules.client.post(schedules.url, json=BODY | {"timezone": "Mars/Base"}, headers=keyed)
    made = await schedules.client.post(schedules.url, json=BODY, headers=keyed)
    assert (refused.status_code, made.status_code) == (422, 200)


@pytest.mark.parametrize("count_header", ["x", "-1", "1.5", "", "99999999999999999999"])
async def test_a_count_that_is_none_makes_no_repeat(schedules: Schedules, count_header: str) -> None:
    path = schedules.at("by-id", await schedules.create())
    first = await trigger(schedules, path)
    second = await trigger(schedules, path, **{"x-stainless-retry-count": count_header})
    assert first["run_id"] != second["run_id"]


async def test_a_triggered_run_is_handed_over_after_its_commit(
    schedules: Schedules, resources: Resources
) -> None:
    seen: list[int] = []

    def look(run_id: object) -> None:
        async def found() -> None:
            seen.append(len(await fetch(resources, "SELECT 1 FROM runs WHERE id = :id", id=run_id)))

        resources.in_background(found())

    resources.hooks.run_opened = look
    await trigger(schedules, schedules.at("by-id", await schedules.create()))
    await resources.settle_background()
    assert seen == [1]


async def test_a_trigger_answers_though_temporal_is_away(schedules: Schedules, resources: Resources) -> None:
    resources.hooks.run_opened = None
    fill_hooks(resources)
    triggered = await trigger(schedules, schedules.at("by-id", await schedules.create()))
    await resources.settle_background()
    run = (await schedules.client.get(f"/runs/{triggered['run_id']}")).json()
    assert run["status"] == "due"


async def test_schedules_of_an_agent_that_is_deleted_are_gone_with_it(schedules: Schedules) -> None:
    created = await schedules.create()
    await schedules.client.delete(f"/agents/{schedules.agent_id}")
    again = await Schedules.of_agent(schedules.client, schedules.resources, "echo")
    gone = await schedules.client.get(schedules.at("by-id", created))
    listed = await schedules.client.get(again.url)
    assert (gone.status_code, listed.json()["run_schedules"]) == (404, [])
