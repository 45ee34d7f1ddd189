"""GET /runs: filters, the cursor, and what is refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest

from agentex.agents.models import Agent
from agentex.ids import new_id
from agentex.resources import Resources
from agentex.runs.models import Run, RunCause, RunReason, RunStatus
from tests.api.ledger.stage import NOON, add_agent, add_run, add_schedule
from tests.support.api import UNKNOWN_ID, Json

INSTANTS = (
    *("due_at", "opened_at", "launched_at", "task_created_at", "sending_at", "delivered_at"),
    *("finished_at", "next_attempt_at", "cancel_requested_at", "updated_at", "due_until"),
)


@pytest.fixture
async def agent(resources: Resources) -> Agent:
    return await add_agent(resources)


async def page(client: httpx2.AsyncClient, **query: Any) -> Json:
    answer = await client.get("/runs", params={key: str(value) for key, value in query.items()})
    assert answer.status_code == 200, answer.text
    return answer.json()


def ids(listed: Json) -> list[str]:
    return [run["id"] for run in listed["runs"]]


async def test_an_empty_ledger(client: httpx2.AsyncClient) -> None:
    assert await page(client) == {"runs": [], "next_cursor": None}


async def test_a_run_says_everything(client: httpx2.AsyncClient, resources: Resources, agent: Agent) -> None:
    task_id, schedule_id = new_id(), new_id()
    times = {name: NOON + timedelta(seconds=number) for number, name in enumerate(INSTANTS)}
    run = await add_run(
        resources,
        agent,
        RunStatus.FAILED,
        **times,
        schedule_id=schedule_id,
        schedule_version=4,
        fire_id="2026-03-10T12:00:00Z",
        cause=RunCause.CATCH_UP,
        reason=RunReason.OUTCOME_UNKNOWN,
        error="silence",
        attempt=2,
        count=3,
        task_id=task_id,
        output=[{"type": "text", "content": "half"}],
        claimed_by=new_id(),
        lane="answer",
        page=3,
    )
    expected = {name: instant.isoformat().replace("+00:00", "Z") for name, instant in times.items()} | {
        "id": str(run.id),
        "agent_id": str(agent.id),
        "schedule_id": str(schedule_id),
        "schedule_version": 4,
        "fire_id": "2026-03-10T12:00:00Z",
        "cause": "catch_up",
        "count": 3,
        "status": "failed",
        "reason": "outcome_unknown",
        "error": "silence",
        "attempt": 2,
        "task_id": str(task_id),
        "principal": {
            "principal_type": "user",
            "user_id": None,
            "service_account_id": None,
            "account_id": "default",
        },
        "output": [{"type": "text", "content": "half"}],
    }
    answer = await client.get(f"/runs/{run.id}")
    assert (answer.status_code, answer.json()) == (200, expected)
    assert await page(client) == {"runs": [expected], "next_cursor": None}


async def crowd(resources: Resources, agent: Agent) -> dict[str, Run]:
    """Runs that differ in one thing each from `plain`."""
    other = await add_agent(resources, "other")
    schedule_id = new_id()
    plain: Json = {"schedule_id": schedule_id, "cause": RunCause.CADENCE, "due_at": NOON}
    return {
        "plain": await add_run(resources, agent, RunStatus.DELIVERED, **plain),
        "agent": await add_run(resources, other, RunStatus.DELIVERED, **plain),
        "schedule": await add_run(
            resources, agent, RunStatus.DELIVERED, **(plain | {"schedule_id": new_id()})
        ),
        "status": await add_run(resources, agent, RunStatus.SUCCEEDED, **plain),
        "cause": await add_run(resources, agent, RunStatus.DELIVERED, **(plain | {"cause": RunCause.MANUAL})),
        "early": await add_run(
            resources, agent, RunStatus.DELIVERED, **(plain | {"due_at": NOON - timedelta(seconds=1)})
        ),
        "late": await add_run(
            resources, agent, RunStatus.DELIVERED, **(plain | {"due_at": NOON + timedelta(seconds=1)})
        ),
    }


def filters(runs: dict[str, Run]) -> dict[str, object]:
    """Each filter, as `plain` passes it."""
    return {
        "agent_id": runs["plain"].agent_id,
        "schedule_id": runs["plain"].schedule_id,
        "status": "delivered",
        "cause": "cadence",
        "due_after": "2026-03-10T13:00:00+01:00",
        "due_before": "2026-03-10T12:00:01Z",
    }


LEFT_OUT = {
    "agent_id": "agent",
    "schedule_id": "schedule",
    "status": "status",
    "cause": "cause",
    "due_after": "early",
    "due_before": "late",
}


@pytest.mark.parametrize("name", LEFT_OUT)
async def test_each_filter_leaves_out_what_differs(
    client: httpx2.AsyncClient, resources: Resources, agent: Agent, name: str
) -> None:
    runs = await crowd(resources, agent)
    listed = await page(client, **{name: filters(runs)[name]})
    expected = {str(run.id) for key, run in runs.items() if key != LEFT_OUT[name]}
    assert set(ids(listed)) == expected


async def test_filters_are_combined(client: httpx2.AsyncClient, resources: Resources, agent: Agent) -> None:
    runs = await crowd(resources, agent)
    listed = await page(client, **filters(runs))
    assert ids(listed) == [str(runs["plain"].id)]


async def test_a_cursor_walks_all_newest_instant_first_while_others_are_made(
    client: httpx2.AsyncClient, resources: Resources, agent: Agent
) -> None:
    made = [
        await add_run(resources, agent, RunStatus.DUE, due_at=NOON + timedelta(minutes=number // 3))
        for number in range(10)
    ]
    seen: list[str] = []
    cursor: str | None = None
    for _ in range(10):
        listed = await page(client, limit=3, **({"cursor": cursor} if cursor else {}))
        seen += ids(listed)
        cursor = listed["next_cursor"]
        if cursor is None:
            break
        await add_run(resources, agent, RunStatus.DUE, due_at=datetime.now(UTC))
    expected = sorted(made, key=lambda run: (run.due_at, run.id), reverse=True)
    assert seen == [str(run.id) for run in expected]


async def test_a_full_last_page_has_no_cursor(
    client: httpx2.AsyncClient, resources: Resources, agent: Agent
) -> None:
    for _ in range(2):
        await add_run(resources, agent, RunStatus.DUE)
    assert (await page(client, limit=2))["next_cursor"] is None


CAUSES = "'cadence', 'manual', 'backfill', 'catch_up', 'webhook', 'event' or 'api'"
STATUSES = (
    "'due', 'queued', 'launching', 'delivered', 'running', 'waiting_for_input', 'succeeded', 'failed', "
    "'canceled', 'timed_out' or 'skipped'"
)


@pytest.mark.parametrize(
    ("query", "status", "message"),
    [
        ({"cursor": "garbage"}, 422, "cursor: 'garbage' is not a next_cursor of this list"),
        ({"status": "done"}, 422, f"status is 'done': Input should be {STATUSES}"),
        (
            {"cause": "magic"},
            422,
            f"cause is 'magic': Input should be {CAUSES}",
        ),
        (
            {"due_after": "2026-03-10T12:00:00"},
            422,
            "due_after is '2026-03-10T12:00:00': Input should have timezone info",
        ),
        ({"limit": "0"}, 422, "limit is '0': Input should be greater than or equal to 1"),
        ({"limit": "1001"}, 422, "limit is '1001': Input should be less than or equal to 1000"),
        ({"agent_id": "echo"}, 404, "agent 'echo' not found"),
        ({"schedule_id": "nightly"}, 404, "run schedule 'nightly' not found"),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_a_bad_parameter_is_named(
    client: httpx2.AsyncClient, query: dict[str, str], status: int, message: str
) -> None:
    answer = await client.get("/runs", params=query)
    assert (answer.status_code, answer.json()["message"]) == (status, message)


@pytest.mark.parametrize("form", ["by-id", "by-name"])
async def test_a_schedule_s_runs(
    client: httpx2.AsyncClient, resources: Resources, agent: Agent, form: str
) -> None:
    schedule = await add_schedule(resources, agent, None, name="nightly")
    mine = [
        await add_run(
            resources, agent, RunStatus.DELIVERED, schedule_id=schedule.id, due_at=NOON + timedelta(days=day)
        )
        for day in range(3)
    ]
    await add_run(resources, agent, RunStatus.DELIVERED)
    path = f"/agents/{agent.id}/schedules/" + (str(schedule.id) if form == "by-id" else "name/nightly")
    first = (await client.get(f"{path}/runs", params={"limit": "2"})).json()
    rest = (await client.get(f"{path}/runs", params={"limit": "2", "cursor": first["next_cursor"]})).json()
    assert (ids(first), ids(rest), rest["next_cursor"]) == (
        [str(mine[2].id), str(mine[1].id)],
        [str(mine[0].id)],
        None,
    )


@pytest.mark.parametrize("run_id", [UNKNOWN_ID, "no-id"])
async def test_a_run_that_is_not_there(client: httpx2.AsyncClient, run_id: str) -> None:
    for method, path in (("GET", f"/runs/{run_id}"), ("POST", f"/runs/{run_id}/cancel")):
        answer = await client.request(method, path)
        assert (answer.status_code, answer.json()["message"]) == (404, f"run {run_id!r} not found")


async def test_another_account_s_runs_are_not_there(client: httpx2.AsyncClient, resources: Resources) -> None:
    theirs = await add_agent(resources, "theirs", account_id="theirs")
    run = await add_run(resources, theirs, RunStatus.DUE)
    asked = [
        await client.get(f"/runs/{run.id}"),
        await client.post(f"/runs/{run.id}/cancel"),
    ]
    assert [answer.status_code for answer in asked] == [404, 404]
    assert (await page(client), await page(client, agent_id=theirs.id)) == (
        {"runs": [], "next_cursor": None},
        {"runs": [], "next_cursor": None},
    )
    own = await client.get(f"/runs/{run.id}", headers={"x-test-account": "theirs"})
    assert (own.status_code, own.json()["status"]) == (200, "due")
