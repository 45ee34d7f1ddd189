"""/states: made once, found, replaced, deleted; what it costs and what it proves."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import httpx2
import pytest

from agentex.auth.authorize import Operation, ResourceType
from agentex.database import rows
from agentex.executors.base import Lane
from agentex.resources import Resources
from agentex.runs.models import RunReason, RunStatus
from tests.api.conftest import shared_app
from tests.api.ledger.stage import add_agent, add_run, fetch, read_run, waiting_for_locks
from tests.support.api import UNKNOWN_ID, Json, create_task, problem, register
from tests.support.authz import ScriptedAuthz
from tests.support.plans import explain_sent, statements

STATE: Json = {"turns": 1, "input_list": [{"role": "user", "content": "Grüße \U0001f600"}], "none": None}
EMPTY: Json = {}
OTHER = {"x-test-account": "other"}


@pytest.fixture
async def task(client: httpx2.AsyncClient, agent: Json) -> Json:
    return await create_task(client, agent)


@pytest.fixture
async def state(client: httpx2.AsyncClient, agent: Json, task: Json) -> Json:
    return await made(client, task, agent)


async def post(
    client: httpx2.AsyncClient, task: Json, agent: Json, state: object = STATE, **more: Any
) -> httpx2.Response:
    body = {"task_id": task["id"], "agent_id": agent["id"], "state": state}
    return await client.post("/states", json=body, **more)


async def made(client: httpx2.AsyncClient, task: Json, agent: Json, state: object = STATE) -> Json:
    response = await post(client, task, agent, state)
    assert response.status_code == 200, response.text
    return response.json()


async def listed(client: httpx2.AsyncClient, **query: Any) -> list[Json]:
    response = await client.get("/states", params=query)
    assert response.status_code == 200, response.text
    return response.json()


def of(state: Json) -> Json:
    """What the agents' SDK looks a state up by."""
    return {"task_id": state["task_id"], "agent_id": state["agent_id"]}


@pytest.mark.parametrize("content", [STATE, EMPTY, {"deep": {"er": [[1]]}}])
async def test_a_state_comes_back_as_it_was_sent(
    client: httpx2.AsyncClient, agent: Json, task: Json, content: Json
) -> None:
    state = await made(client, task, agent, content)

    assert state == {
        "id": state["id"],
        "task_id": task["id"],
        "agent_id": agent["id"],
        "state": content,
        "created_at": state["created_at"],
        "updated_at": state["created_at"],
    }
    assert (await client.get(f"/states/{state['id']}")).json() == state
    assert await listed(client, **of(state)) == [state]


async def test_a_second_state_is_400_and_names_the_first(
    client: httpx2.AsyncClient, agent: Json, task: Json, state: Json
) -> None:
    response = await post(client, task, agent, {})

    message = f"agent {agent['id']} has a state in task {task['id']} already: {state['id']}; update it"
    assert (response.status_code, response.headers["x-should-retry"]) == (400, "false")
    assert response.json() == problem("/states", 400, "already-exists", message)
    assert await listed(client, **of(state)) == [state]


@pytest.mark.parametrize("headers", [{"x-stainless-retry-count": "1"}, {"Idempotency-Key": "k"}])
async def test_a_repeat_is_answered_with_the_state_that_was_made(
    client: httpx2.AsyncClient, agent: Json, task: Json, headers: dict[str, str]
) -> None:
    first_headers = {} if "x-stainless-retry-count" in headers else headers
    first = await post(client, task, agent, headers=first_headers)

    again = [await post(client, task, agent, headers=headers) for _ in range(2)]

    assert [(answer.status_code, answer.json()) for answer in again] == [(200, first.json())] * 2
    assert await listed(client) == [first.json()]


@pytest.mark.parametrize("unlike", ["state", "age", "key"])
async def test_another_state_is_400_also_for_a_repeat(
    client: httpx2.AsyncClient, agent: Json, task: Json, state: Json, resources: Resources, unlike: str
) -> None:
    if unlike == "age":
        await fetch(resources, "UPDATE states SET created_at = created_at - interval '11 minutes'")
    headers = {"x-stainless-retry-count": "1"} | ({"Idempotency-Key": "k"} if unlike == "key" else {})

    response = await post(client, task, agent, {} if unlike == "state" else STATE, headers=headers)

    assert (response.status_code, state["id"] in response.json()["message"]) == (400, True)


async def test_of_ten_under_one_key_at_once_one_is_made(
    client: httpx2.AsyncClient, agent: Json, task: Json
) -> None:
    key = {"Idempotency-Key": "k"}
    answers = await asyncio.gather(*[post(client, task, agent, headers=key) for _ in range(10)])

    assert [answer.json() for answer in answers] == await listed(client) * 10


async def test_of_ten_made_at_once_one_is_made(client: httpx2.AsyncClient, agent: Json, task: Json) -> None:
    answers = await asyncio.gather(*[post(client, task, agent, {"n": n}) for n in range(10)])

    assert sorted(answer.status_code for answer in answers) == [200] + [400] * 9
    winner = next(answer.json() for answer in answers if answer.status_code == 200)
    assert await listed(client) == [winner]


@pytest.mark.parametrize("lacks", ["task", "agent"])
async def test_a_state_of_nobody_or_nowhere_is_404(
    client: httpx2.AsyncClient, agent: Json, task: Json, lacks: str
) -> None:
    nobody = {"id": UNKNOWN_ID}

    response = await post(client, nobody if lacks == "task" else task, nobody if lacks == "agent" else agent)

    message = f"{lacks} '{UNKNOWN_ID}' not found"
    assert (response.status_code, response.json()) == (404, problem("/states", 404, "not-found", message))
    assert await listed(client) == []


@pytest.mark.parametrize("named", [True, False])
async def test_an_update_replaces_the_whole_state(
    client: httpx2.AsyncClient, state: Json, *, named: bool
) -> None:
    body: Json = {"state": {"turns": 2}} | (of(state) if named else EMPTY)

    response = await client.put(f"/states/{state['id']}", json=body)

    changed = response.json()
    assert (response.status_code, changed) == (
        200,
        {**state, "state": {"turns": 2}, "updated_at": changed["updated_at"]},
    )
    assert changed["updated_at"] > state["updated_at"]
    assert (await client.get(f"/states/{state['id']}")).json() == changed


@pytest.mark.parametrize("wrong", ["task", "agent"])
async def test_an_update_for_somebody_elses_state_is_404(
    client: httpx2.AsyncClient, state: Json, wrong: str
) -> None:
    body: Json = {"state": {}, **of(state), f"{wrong}_id": UNKNOWN_ID}
    path = f"/states/{state['id']}"

    response = await client.put(path, json=body)

    message = f"state '{state['id']}' not found for {wrong} '{UNKNOWN_ID}'"
    assert (response.status_code, response.json()) == (404, problem(path, 404, "not-found", message))
    assert (await client.get(path)).json() == state


async def test_a_deleted_state_is_returned_and_another_can_be_made(
    client: httpx2.AsyncClient, agent: Json, task: Json, state: Json
) -> None:
    path = f"/states/{state['id']}"

    deleted = await client.delete(path)
    again = await client.delete(path)

    expected = problem(path, 404, "not-found", f"state '{state['id']}' not found")
    assert (deleted.status_code, deleted.json()) == (200, state)
    assert (again.status_code, again.json()) == (404, expected)
    assert await listed(client, **of(state)) == []
    new = await made(client, task, agent)
    assert (await listed(client), new["id"] != state["id"]) == ([new], True)


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
@pytest.mark.parametrize("state_id", [UNKNOWN_ID, "nonsense"])
async def test_an_unknown_state_is_404(client: httpx2.AsyncClient, method: str, state_id: str) -> None:
    path = f"/states/{state_id}"

    response = await client.request(method, path, json={"state": {}} if method == "PUT" else None)

    expected = problem(path, 404, "not-found", f"state '{state_id}' not found")
    assert (response.status_code, response.json()) == (404, expected)


async def test_lists_are_filtered_ordered_and_paged(
    client: httpx2.AsyncClient, agent: Json, task: Json
) -> None:
    other_agent = await register(client, name="other", acp_type="sync")
    other_task = await create_task(client, agent)
    first = await made(client, task, agent)
    second = await made(client, task, other_agent)
    third = await made(client, other_task, agent)

    assert await listed(client) == [third, second, first]
    assert await listed(client, order_by="created_at", order_direction="asc") == [first, second, third]
    assert await listed(client, task_id=task["id"]) == [second, first]
    assert await listed(client, agent_id=agent["id"]) == [third, first]
    assert await listed(client, task_id=task["id"], agent_id=agent["id"]) == [first]
    assert await listed(client, limit=2, page_number=2) == [first]
    assert await listed(client, agent_id=UNKNOWN_ID) == []


async def test_a_list_of_an_unknown_task_is_404(client: httpx2.AsyncClient) -> None:
    response = await client.get("/states", params={"task_id": UNKNOWN_ID})

    expected = problem("/states", 404, "not-found", f"task '{UNKNOWN_ID}' not found")
    assert (response.status_code, response.json()) == (404, expected)


async def test_another_account_sees_and_changes_nothing(
    client: httpx2.AsyncClient, agent: Json, task: Json, state: Json
) -> None:
    path = f"/states/{state['id']}"

    answers = [
        await client.get(path, headers=OTHER),
        await client.put(path, json={"state": {}}, headers=OTHER),
        await client.delete(path, headers=OTHER),
        await post(client, task, agent, headers=OTHER),
        await client.get("/states", params=of(state), headers=OTHER),
    ]
    theirs = await client.get("/states", headers=OTHER)
    by_agent = await client.get("/states", params={"agent_id": agent["id"]}, headers=OTHER)

    assert [answer.status_code for answer in answers] == [404] * 5
    assert [theirs.json(), by_agent.json()] == [[], []]
    assert await listed(client) == [state]


async def test_an_agent_of_another_account_keeps_no_state_here(
    client: httpx2.AsyncClient, task: Json
) -> None:
    body = {"name": "theirs", "description": "", "acp_url": "http://127.0.0.1:9", "acp_type": "sync"}
    theirs = (await client.post("/agents/register", json=body, headers=OTHER)).json()

    response = await post(client, task, theirs)

    assert response.json() == problem("/states", 404, "not-found", f"agent '{theirs['id']}' not found")


@pytest.mark.parametrize("readable", [True, False])
async def test_who_may_not_update_the_task_changes_no_state(
    client: httpx2.AsyncClient, agent: Json, task: Json, authz: ScriptedAuthz, *, readable: bool
) -> None:
    state = await made(client, task, await register(client, name="keeper"))
    path = f"/states/{state['id']}"
    operations = [Operation.UPDATE] if readable else [Operation.UPDATE, Operation.READ]
    authz.deny = {(operation, ResourceType.TASK) for operation in operations}

    answers = [
        await post(client, task, agent),
        await client.put(path, json={"state": {}}),
        await client.delete(path),
    ]
    read = [
        await client.get(path),
        await client.get("/states"),
        await client.get("/states", params=of(state)),
    ]

    authz.deny = frozenset()
    assert [answer.status_code for answer in answers] == [403 if readable else 404] * 3
    # A list of all is filtered, not refused.
    assert [answer.status_code for answer in read] == ([200] * 3 if readable else [404, 200, 404])
    assert readable or read[1].json() == []
    assert await listed(client) == [state]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"state": None}, "state: Input should be a valid dictionary"),
        ({"state": "a secret"}, "state: Input should be a valid dictionary"),
        ({"state": [1]}, "state: Input should be a valid dictionary"),
        ({}, "state: Field required"),
        ({"state": {}, "task_id": "x"}, "task_id is 'x': Input should be a valid UUID"),
        ({"state": {}, "agent_id": 1}, "agent_id is 1: UUID input should be a string"),
        ({"state": {"a": "\x00"}}, "body.state.a: holds the character NUL"),
    ],
)
async def test_an_invalid_body_is_422_and_shows_no_state(
    client: httpx2.AsyncClient, state: Json, body: Json, message: str
) -> None:
    whole = {"task_id": UNKNOWN_ID, "agent_id": UNKNOWN_ID, **body}
    path = f"/states/{state['id']}"

    answers = [await client.post("/states", json=whole), await client.put(path, json=body)]

    for answer, asked in zip(answers, ("/states", path), strict=True):
        assert answer.status_code == 422
        assert answer.json()["message"].startswith(message)
        assert "secret" not in answer.text
        assert answer.json() == problem(asked, 422, "invalid-input", answer.json()["message"])


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"task_id": "x"}, "task_id is 'x': Input should be a valid UUID"),
        ({"agent_id": "x"}, "agent_id is 'x': Input should be a valid UUID"),
        ({"limit": "0"}, "limit is '0': Input should be greater"),
        ({"page_number": "0"}, "page_number is '0': Input should be greater"),
        ({"order_by": "state"}, "order_by is 'state': Input should be 'created_at'"),
        ({"order_direction": "up"}, "order_direction is 'up': Input should be 'asc' or 'desc'"),
    ],
    ids=str,
)
async def test_a_wrong_query_is_422_and_named(client: httpx2.AsyncClient, query: Json, message: str) -> None:
    response = await client.get("/states", params=query)

    assert response.status_code == 422
    assert response.json()["message"].startswith(message)


async def test_a_state_over_the_limit_is_413_and_names_it(
    client: httpx2.AsyncClient, resources: Resources, agent: Json, task: Json, state: Json
) -> None:
    settings = resources.settings.model_copy(update={"max_state_bytes": 100})
    shared_app().state.resources = replace(resources, settings=settings)
    # The letter has two bytes, and the JSON around it nine.
    fits, large = {"text": "ü" * 44 + "x"}, {"text": "ü" * 45}
    path = f"/states/{state['id']}"

    within = await client.put(path, json={"state": fits})
    over = [await client.put(path, json={"state": large}), await post(client, task, agent, large)]

    message = "state is 101 bytes of JSON; a state has at most 100 bytes (AGENTEX_MAX_STATE_BYTES)"
    assert len(b'{"text":""}') + 89 == 100
    assert (within.status_code, within.json()["state"]) == (200, fits)
    assert [answer.status_code for answer in over] == [413, 413]
    assert over[0].json() == problem(path, 413, "payload-too-large", message)
    assert over[1].json() == problem("/states", 413, "payload-too-large", message)
    assert (await client.get(path)).json() == within.json()


async def test_a_state_as_large_as_a_body_may_be_is_kept(
    client: httpx2.AsyncClient, agent: Json, task: Json
) -> None:
    content = {"text": "x" * 999_980}

    state = await made(client, task, agent, content)

    assert (await client.get(f"/states/{state['id']}")).json()["state"] == content


@pytest.mark.parametrize("method", ["POST", "PUT"])
async def test_writing_a_state_proves_the_task_alive_in_the_same_statement(
    client: httpx2.AsyncClient, resources: Resources, agent: Json, task: Json, method: str
) -> None:
    state = await made(client, task, await register(client, name="keeper"))
    now = datetime.now(UTC)
    run = await add_run(
        resources,
        await add_agent(resources, "of-the-run"),
        RunStatus.FAILED,
        reason=RunReason.OUTCOME_UNKNOWN,
        task_id=UUID(task["id"]),
        lane=Lane.DELIVER,
        sending_at=now,
        finished_at=now,
    )

    with statements(resources) as sent:
        if method == "POST":
            await made(client, task, agent)
        else:
            await client.put(f"/states/{state['id']}", json={"state": {}})

    row = await read_run(resources, run.id)
    # Behind the one that asks for permission.
    assert (len(sent), row.status, row.reason) == (2, RunStatus.DELIVERED, None)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
async def test_a_task_that_is_forgotten_in_this_instant_is_404(
    client: httpx2.AsyncClient, resources: Resources, agent: Json, task: Json, method: str
) -> None:
    state = await made(client, task, await register(client, name="keeper"))
    path = f"/states/{state['id']}"

    async def write() -> httpx2.Response:
        if method == "POST":
            return await post(client, task, agent)
        return await client.request(method, path, json={"state": {}} if method == "PUT" else None)

    async with resources.db.begin() as session:
        await rows(session, "SELECT 1 FROM tasks WHERE id = :id FOR UPDATE", id=UUID(task["id"]))
        await rows(session, "SELECT 1 FROM states FOR UPDATE")
        writing = asyncio.create_task(write())
        await waiting_for_locks(resources, 1)
        await rows(session, "DELETE FROM tasks WHERE id = :id", id=UUID(task["id"]))
    answer = await writing

    lacks = f"task '{task['id']}'" if method == "POST" else f"state '{state['id']}'"
    asked = "/states" if method == "POST" else path
    assert (answer.status_code, answer.json()) == (
        404,
        problem(asked, 404, "not-found", f"{lacks} not found"),
    )
    assert list(await fetch(resources, "SELECT 1 FROM states")) == []


@pytest.mark.parametrize(
    ("by", "index"),
    [
        (["task_id", "agent_id"], "uq_states_task_id_agent_id"),
        (["task_id"], "uq_states_task_id_agent_id"),
        (["agent_id"], "ix_states_agent_id_created_at"),
        ([], "ix_states_account_id_created_at"),
    ],
    ids=str,
)
async def test_lists_are_served_by_an_index(
    client: httpx2.AsyncClient, resources: Resources, state: Json, by: list[str], index: str
) -> None:
    await crowd(resources, await register(client, name="other"))
    query = {name: state[name] for name in by}

    with statements(resources) as sent:
        assert len(await listed(client, limit=20, **query)) > 0
    plan = await explain_sent(resources, sent[-1])

    assert plan.indexes_of("states") == {index}
    assert plan.most_of("states") <= 21


async def crowd(resources: Resources, other: Json) -> None:
    """States of two thousand other tasks, every twentieth of the same agent."""
    await fetch(
        resources,
        """
        WITH made AS (
            INSERT INTO tasks (id, account_id, owner, agent_id, status, created_at, updated_at)
            SELECT gen_random_uuid(), account_id, owner, agent_id, status, created_at, updated_at
            FROM tasks, generate_series(1, 2000) RETURNING id)
        INSERT INTO states (id, account_id, task_id, agent_id, state, created_at, updated_at)
        SELECT gen_random_uuid(), s.account_id, m.id, CASE WHEN m.n % 20 = 0 THEN s.agent_id ELSE :other END,
            s.state, s.created_at, s.updated_at
        FROM (SELECT id, row_number() OVER () AS n FROM made) m, states s
        """,
        other=UUID(other["id"]),
    )
    await fetch(resources, "ANALYZE states")
