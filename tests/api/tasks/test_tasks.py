"""GET /tasks, one task by id and by name, and closing a task."""

from __future__ import annotations

import asyncio
from urllib.parse import quote
from uuid import UUID

import httpx2
import pytest
from sqlmodel.ext.asyncio.session import AsyncSession

from agentex.auth.authorize import Operation, ResourceType
from agentex.errors import BadRequest
from agentex.resources import ClosedTask, Resources
from tests.api.ledger.stage import fetch
from tests.api.messages.messages import add
from tests.api.tasks.wire import listed, with_agent
from tests.support.acp_server import AcpServer
from tests.support.api import UNKNOWN_ID, Json, create_task, problem, register
from tests.support.authz import ScriptedAuthz

VERBS = [
    ("complete", "COMPLETED"),
    ("fail", "FAILED"),
    ("cancel", "CANCELED"),
    ("terminate", "TERMINATED"),
    ("timeout", "TIMED_OUT"),
]


@pytest.mark.parametrize("verb", [verb for verb, _ in VERBS] + ["delete"])
async def test_what_is_being_written_ends_with_its_task_but_for_an_answer_that_is_read(
    client: httpx2.AsyncClient, agent: Json, resources: Resources, verb: str
) -> None:
    task, other = [await create_task(client, agent) for _ in range(2)]
    said = {
        name: await add(client, of, streaming_status=status)
        for name, of, status in [
            ("begun", task, "IN_PROGRESS"),
            ("without a status", task, None),
            ("of a message/send", task, "IN_PROGRESS"),
            ("of another task", other, "IN_PROGRESS"),
            ("of a message/send that has ended", task, "IN_PROGRESS"),
        ]
    }
    for name, ended_at in (("of a message/send", "NULL"), ("of a message/send that has ended", "now()")):
        await fetch(
            resources,
            f"""
            INSERT INTO message_sends
                (id, account_id, task_id, claimed_until, awaited, unsent, message_ids, ended_at)
            SELECT gen_random_uuid(), account_id, id, now(), false, false,
                ARRAY[CAST(:id AS uuid)], {ended_at}
            FROM tasks WHERE id = :task_id
            """,  # noqa: S608 - a constant of the test
            id=said[name]["id"],
            task_id=UUID(task["id"]),
        )

    path = f"/tasks/{task['id']}"
    answer = await (client.delete(path) if verb == "delete" else client.post(f"{path}/{verb}"))

    assert answer.status_code == 200, answer.text
    rows = await fetch(resources, "SELECT id::text, streaming_status, updated_at FROM messages")
    now = {row["id"]: row["streaming_status"] for row in rows}
    assert {name: now[message["id"]] for name, message in said.items()} == {
        "begun": "DONE",
        "without a status": None,
        "of a message/send": "IN_PROGRESS",
        "of another task": "IN_PROGRESS",
        "of a message/send that has ended": "DONE",
    }


async def test_a_name_that_ends_like_a_stream_is_read_by_id_and_changed_by_name(
    client: httpx2.AsyncClient, agent: Json
) -> None:
    """GET of its name is the stream of the task of the shorter one."""
    task = await create_task(client, agent, name="a/stream")
    path = "/tasks/name/a%2Fstream"

    answers = [
        await client.get(path),
        await client.get(f"/tasks/{task['id']}"),
        await client.put(path, json={"task_metadata": {"n": 1}}),
        await client.delete(path),
    ]

    assert [answer.status_code for answer in answers] == [404, 200, 200, 200]
    assert answers[0].json()["message"] == "task 'a' not found"


@pytest.mark.parametrize("name", ["t1", "scheduled-run:4:2026-12-01T09:00:00Z", "a/b c?%"])
async def test_a_task_is_found_by_id_and_by_name_with_its_agent(
    client: httpx2.AsyncClient, agent: Json, name: str
) -> None:
    task = await create_task(client, agent, name=name, params={"depth": 3}, task_metadata={"team": "a"})

    by_id = await client.get(f"/tasks/{task['id']}")
    by_name = await client.get(f"/tasks/name/{quote(name, safe='')}")

    assert by_id.json() == with_agent(task, agent)
    assert by_name.json() == with_agent(task, agent)


@pytest.mark.parametrize("path", [f"/tasks/{UNKNOWN_ID}", "/tasks/nonsense", "/tasks/name/nothing"])
async def test_an_unknown_task_is_404(client: httpx2.AsyncClient, path: str) -> None:
    response = await client.get(path)

    assert response.status_code == 404
    named = path.rpartition("/")[2]
    assert response.json() == problem(path, 404, "not-found", f"task '{named}' not found")


async def test_another_accounts_task_is_404(client: httpx2.AsyncClient, agent: Json) -> None:
    task = await create_task(client, agent, name="t1")
    other = {"x-test-account": "other"}

    answers = [
        (await client.get(f"/tasks/{task['id']}", headers=other)).status_code,
        (await client.get("/tasks/name/t1", headers=other)).status_code,
        (await client.post(f"/tasks/{task['id']}/cancel", headers=other)).status_code,
        (await client.get("/tasks", headers=other)).json(),
    ]

    assert answers == [404, 404, 404, []]


async def test_the_list_is_newest_first_paged_and_without_params(
    client: httpx2.AsyncClient, agent: Json
) -> None:
    made = [await create_task(client, agent, params={"n": n}) for n in range(3)]

    everything = await client.get("/tasks")
    second_page = await client.get("/tasks", params={"limit": 2, "page_number": 2})

    newest_first = [listed(task) for task in reversed(made)]
    assert (everything.json(), second_page.json()) == (newest_first, newest_first[2:])


async def test_the_list_is_filtered_by_agent_and_by_status(client: httpx2.AsyncClient, agent: Json) -> None:
    other = await register(client, name="other", acp_type="sync")
    running = await create_task(client, agent, name="running")
    failed = await create_task(client, agent, name="failed")
    await client.post(f"/tasks/{failed['id']}/fail")
    of_other = await create_task(client, other, name="of-other")

    names: dict[str, list[str]] = {}
    for query in (
        f"agent_id={agent['id']}",
        "agent_name=other",
        "agent_name=nobody",
        "status=FAILED",
        "status=FAILED,RUNNING",
        "status=FAILED&status=CANCELED",
    ):
        names[query] = [task["name"] for task in (await client.get(f"/tasks?{query}")).json()]

    assert names == {
        f"agent_id={agent['id']}": ["failed", "running"],
        "agent_name=other": [of_other["name"]],
        "agent_name=nobody": [],
        "status=FAILED": ["failed"],
        "status=FAILED,RUNNING": ["of-other", "failed", running["name"]],
        "status=FAILED&status=CANCELED": ["failed"],
    }


async def test_an_unknown_status_is_422(client: httpx2.AsyncClient) -> None:
    response = await client.get("/tasks?status=RUNNING,DONE")

    message = (
        "status: 'DONE' is none of RUNNING, INTERRUPTED, COMPLETED, FAILED, CANCELED, TERMINATED, TIMED_OUT"
    )
    assert response.status_code == 422
    assert response.json() == problem("/tasks", 422, "invalid-input", message)


@pytest.mark.parametrize(("verb", "status"), VERBS)
@pytest.mark.parametrize(
    ("body", "reason"), [(None, None), ({}, None), ({"reason": None}, None), ({"reason": "enough"}, "enough")]
)
async def test_closing_gives_the_status_and_keeps_the_reason(
    client: httpx2.AsyncClient,
    agent: Json,
    verb: str,
    status: str,
    body: dict[str, str] | None,
    reason: str | None,
) -> None:
    task = await create_task(client, agent)

    response = await client.post(f"/tasks/{task['id']}/{verb}", json=body)

    closed = response.json()
    expected = {**task, "status": status, "status_reason": reason, "updated_at": closed["updated_at"]}
    assert (response.status_code, closed) == (200, expected)
    assert (await client.get(f"/tasks/{task['id']}")).json() == with_agent(closed, agent)


@pytest.mark.parametrize(("verb", "_status"), VERBS)
async def test_a_closed_task_cannot_be_closed_again(
    client: httpx2.AsyncClient, agent: Json, verb: str, _status: str
) -> None:
    task = await create_task(client, agent)
    await client.post(f"/tasks/{task['id']}/complete")
    path = f"/tasks/{task['id']}/{verb}"

    response = await client.post(path)

    message = f"task {task['id']} is COMPLETED; only a task that is RUNNING or INTERRUPTED can be closed"
    assert (response.status_code, response.headers["x-should-retry"]) == (400, "false")
    assert response.json() == problem(path, 400, "bad-request", message)


async def test_of_ten_closing_at_once_one_succeeds(client: httpx2.AsyncClient, agent: Json) -> None:
    task = await create_task(client, agent)

    answers = await asyncio.gather(
        *[client.post(f"/tasks/{task['id']}/{verb}") for verb in ("complete", "fail") * 5]
    )

    assert sorted(answer.status_code for answer in answers) == [200] + [400] * 9


@pytest.mark.parametrize("verb", [*[verb for verb, _ in VERBS], "interrupt"])
@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            {"reason": "x" * 10_001},
            "reason is '" + "x" * 78 + "…: String should have at most 10000 characters",
        ),
        ({"reason": 7}, "reason is 7: Input should be a valid string"),
        (
            {"reason": "a\x00b"},
            "body.reason: holds the character NUL (\\u0000), which cannot be stored; leave it out",
        ),
        ([], "body: Input should be a valid dictionary or object to extract fields from"),
    ],
    ids=["long", "number", "NUL", "list"],
)
async def test_a_reason_that_is_none_is_422(
    client: httpx2.AsyncClient, agent: Json, verb: str, body: object, message: str
) -> None:
    task = await create_task(client, agent)
    path = f"/tasks/{task['id']}/{verb}"

    response = await client.post(path, json=body)

    assert response.status_code == 422
    assert response.json() == problem(path, 422, "invalid-input", message)
    assert (await client.get(f"/tasks/{task['id']}")).json()["status"] == "RUNNING"


@pytest.mark.parametrize("verb", [*[verb for verb, _ in VERBS], "interrupt"])
async def test_the_agent_that_says_so_is_not_told_so(
    client: httpx2.AsyncClient, agent: Json, acp_server: AcpServer, verb: str
) -> None:
    """It answers task/interrupt and task/cancel with these very requests: told of them it would loop."""
    task = await create_task(client, agent)
    before = len(acp_server.requests)

    response = await client.post(f"/tasks/{task['id']}/{verb}")

    assert (response.status_code, len(acp_server.requests)) == (200, before)


async def test_closing_tells_the_hooks_in_the_same_transaction(
    client: httpx2.AsyncClient, agent: Json, resources: Resources
) -> None:
    task = await create_task(client, agent)
    told: list[ClosedTask] = []

    async def refuse(session: AsyncSession, closed: ClosedTask) -> None:
        told.append(closed)
        raise BadRequest("its run does not end")

    resources.hooks.task_closed = [refuse]
    response = await client.post(f"/tasks/{task['id']}/fail", json={"reason": "broken"})

    assert (response.status_code, response.json()["message"]) == (400, "its run does not end")
    assert [(str(closed.task_id), closed.status, closed.reason) for closed in told] == [
        (task["id"], "FAILED", "broken")
    ]
    assert (await client.get(f"/tasks/{task['id']}")).json() == with_agent(task, agent)


@pytest.mark.parametrize(
    ("verb", "operation"),
    [
        ("cancel", Operation.CANCEL),
        *[(verb, Operation.UPDATE) for verb in ("complete", "fail", "terminate", "timeout", "interrupt")],
    ],
)
async def test_who_may_read_but_not_close_gets_403(
    client: httpx2.AsyncClient,
    agent: Json,
    authz: ScriptedAuthz,
    verb: str,
    operation: Operation,
) -> None:
    task = await create_task(client, agent)
    authz.deny = {(operation, ResourceType.TASK)}
    path = f"/tasks/{task['id']}/{verb}"

    response = await client.post(path)

    message = f"{operation} on task {task['id']} is not allowed: scripted"
    assert response.status_code == 403
    assert response.json() == problem(path, 403, "forbidden", message)
