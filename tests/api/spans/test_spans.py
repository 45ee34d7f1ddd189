"""/spans: taken in once, changed by key, listed by trace and task, seen by their account alone."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import httpx2
import pytest
from sqlmodel.ext.asyncio.session import AsyncSession

from agentex.auth.authorize import Operation, ResourceType
from agentex.resources import Resources
from tests.api.ledger.stage import fetch
from tests.support.api import UNKNOWN_ID, Json, create_task, problem
from tests.support.authz import ScriptedAuthz
from tests.support.plans import explain_sent, statements

NOTHING: list[Json] = [{}]
START, END = "2026-01-01T00:00:00Z", "2026-01-01T00:00:01.500000Z"
OTHER = {"x-test-account": "other"}
FORBIDDEN_TASK = {(Operation.UPDATE, ResourceType.TASK)}


@pytest.fixture
async def task(client: httpx2.AsyncClient, agent: Json) -> Json:
    return await create_task(client, agent)


def span(**changes: object) -> Json:
    """A whole span, as an agent's tracing sends it at its end."""
    return {
        "id": "a span",
        "trace_id": "a trace",
        "task_id": None,
        "parent_id": None,
        "name": "think",
        "start_time": START,
        "end_time": END,
        "input": {"question": "why"},
        "output": [{"answer": 1.5}, {}],
        "data": None,
        **changes,
    }


async def add(client: httpx2.AsyncClient, **changes: object) -> Json:
    response = await client.post("/spans", json=span(**changes))
    assert response.status_code == 200, response.text
    return response.json()


async def patch(client: httpx2.AsyncClient, span_id: str, **changes: object) -> Json:
    response = await client.patch(f"/spans/{span_id}", json=changes)
    assert response.status_code == 200, response.text
    return response.json()


async def ids(
    client: httpx2.AsyncClient, headers: dict[str, str] | None = None, /, **query: Any
) -> list[str]:
    response = await client.get("/spans", params=query, headers=headers)
    assert response.status_code == 200, response.text
    return [found["id"] for found in response.json()]


async def test_a_span_comes_back_as_it_was_sent(client: httpx2.AsyncClient, task: Json) -> None:
    sent = span(task_id=task["id"], parent_id="its parent", data={"ü": [None, {"a": "\U0001f600"}]})

    made = (await client.post("/spans", json=sent)).json()

    assert made == sent
    assert (await client.get("/spans/a span")).json() == sent
    assert (await client.get("/spans", params={"trace_id": "a trace"})).json() == [sent]
    assert (await client.get("/spans", params={"task_id": task["id"]})).json() == [sent]


async def test_the_smallest_span_gets_an_id(client: httpx2.AsyncClient) -> None:
    least = {"trace_id": "t", "name": "n", "start_time": "2026-01-01T01:00:00+01:00"}

    made = (await client.post("/spans", json=least)).json()

    nothing = dict.fromkeys(("task_id", "parent_id", "end_time", "input", "output", "data"))
    assert made == {"id": str(UUID(made["id"])), **nothing, **least, "start_time": START}


async def test_a_repeat_is_the_same_span(client: httpx2.AsyncClient, task: Json) -> None:
    sent = span(task_id=task["id"])

    answers = await asyncio.gather(*[client.post("/spans", json=sent) for _ in range(12)])

    assert [(answer.status_code, answer.json()) for answer in answers] == [(200, sent)] * 12
    assert await ids(client) == ["a span"]


async def test_start_and_end_may_come_in_any_order(client: httpx2.AsyncClient) -> None:
    nothing = {"end_time": None, "output": None}

    await add(client, id="1", **nothing)
    forward = await add(client, id="1")
    await add(client, id="2")
    backward = await add(client, id="2", **nothing)

    assert (forward, backward) == (span(id="1"), span(id="2"))


async def test_an_id_is_taken_within_its_task_caller_and_account_only(
    client: httpx2.AsyncClient, agent: Json, task: Json
) -> None:
    another = await create_task(client, agent)
    first = await add(client, task_id=task["id"])
    own = await add(client, id="own")

    answers = [
        await client.post("/spans", json=span(task_id=another["id"], name="changed")),
        await client.post("/spans", json=span(name="changed")),
        await client.post("/spans", json=span(id="own", name="x"), headers={"x-test-user": "another"}),
    ]
    elsewhere = await client.post("/spans", json=span(name="theirs"), headers=OTHER)

    assert [answer.status_code for answer in answers] == [400] * 3
    message = "span 'own' is another task's or caller's; choose another id"
    assert answers[2].json() == problem("/spans", 400, "already-exists", message)
    assert elsewhere.json() == span(name="theirs")
    assert (await client.get("/spans/a span")).json() == first
    assert (await client.get("/spans/own")).json() == own


async def test_only_given_keys_change(client: httpx2.AsyncClient, task: Json) -> None:
    await add(client)

    assert await patch(client, "a span", output={"x": 1}) == span(output={"x": 1})
    assert await patch(client, "a span") == span(output={"x": 1})
    emptied = await patch(client, "a span", input=None, end_time=None, name=None, start_time=None)
    assert emptied == span(output={"x": 1}, input=None, end_time=None)
    whole = span(task_id=task["id"], trace_id="t", name="n", start_time=END, parent_id="p", data=NOTHING)
    assert await patch(client, "a span", **{k: v for k, v in whole.items() if k != "id"}) == whole


async def test_changes_side_by_side_are_all_kept(client: httpx2.AsyncClient) -> None:
    await add(client)

    await asyncio.gather(patch(client, "a span", input={"i": 1}), patch(client, "a span", output={"o": 1}))

    assert (await client.get("/spans/a span")).json() == span(input={"i": 1}, output={"o": 1})


async def test_lists_are_by_start_and_paged(client: httpx2.AsyncClient, task: Json) -> None:
    for number in range(4):
        await add(client, id=str(number), start_time=f"2026-01-01T00:00:0{number // 2}Z", trace_id="t")
    await add(client, id="5", task_id=task["id"], trace_id="t")
    await add(client, id="6", start_time="2027-01-01T00:00:00Z")

    assert await ids(client) == ["6", "3", "2", "5", "1", "0"]
    assert await ids(client, trace_id="t", order_direction="asc", order_by="start_time") == [
        *["0", "1", "5", "2", "3"]
    ]
    assert [await ids(client, trace_id="t", limit=3, page_number=page) for page in (1, 2, 3)] == [
        *[["3", "2", "5"], ["1", "0"], []]
    ]
    assert await ids(client, trace_id="t", task_id=task["id"]) == ["5"]
    assert await ids(client, trace_id="unknown") == []


async def test_another_account_sees_and_changes_no_span(client: httpx2.AsyncClient, task: Json) -> None:
    mine = await add(client, id="mine")
    tasks = await add(client, id="task's", task_id=task["id"])

    for span_id in ("mine", "task's"):
        path = f"/spans/{span_id}"
        answers = [
            await client.get(path, headers=OTHER),
            await client.patch(path, json={"name": "stolen"}, headers=OTHER),
        ]
        message = problem(path, 404, "not-found", f"span {span_id!r} not found")
        assert [(answer.status_code, answer.json()) for answer in answers] == [(404, message)] * 2
    assert await ids(client, OTHER) == []
    assert await ids(client, OTHER, trace_id="a trace") == []
    assert (await client.get("/spans", params={"task_id": task["id"]}, headers=OTHER)).status_code == 404
    theirs = await client.post("/spans", json=span(id="x", task_id=task["id"]), headers=OTHER)
    assert theirs.status_code == 404
    assert [(await client.get(f"/spans/{one}")).json() for one in ("mine", "task's")] == [mine, tasks]


async def test_unknown_spans_and_tasks_are_404(client: httpx2.AsyncClient) -> None:
    await add(client)

    answers = [
        await client.get("/spans/nobody"),
        await client.patch("/spans/nobody", json={"name": "n"}),
        await client.patch("/spans/nobody", json={}),
        await client.post("/spans", json=span(task_id=UNKNOWN_ID)),
        await client.patch("/spans/a span", json={"task_id": UNKNOWN_ID}),
        await client.get("/spans", params={"task_id": UNKNOWN_ID}),
    ]

    assert [answer.status_code for answer in answers] == [404] * 6
    assert answers[3].json() == problem("/spans", 404, "not-found", f"task '{UNKNOWN_ID}' not found")
    assert (await client.get("/spans/a span")).json() == span()


async def test_who_may_not_update_the_task_writes_no_span(
    client: httpx2.AsyncClient, task: Json, authz: ScriptedAuthz
) -> None:
    await add(client, task_id=task["id"])
    await add(client, id="free")
    authz.deny = FORBIDDEN_TASK

    answers = [
        await client.post("/spans", json=span(id="new", task_id=task["id"])),
        await client.patch("/spans/a span", json={"name": "changed"}),
        await client.patch("/spans/free", json={"task_id": task["id"]}),
    ]

    assert [answer.status_code for answer in answers] == [403] * 3
    message = f"update on task {task['id']} is not allowed: scripted"
    assert answers[0].json() == problem("/spans", 403, "forbidden", message)
    assert (await client.get("/spans", params={"task_id": task["id"]})).json() == [span(task_id=task["id"])]


async def test_a_span_proves_its_task_alive(
    client: httpx2.AsyncClient, task: Json, resources: Resources
) -> None:
    told: list[str] = []

    async def note(session: AsyncSession, task_id: UUID) -> None:
        told.append(str(task_id))

    resources.hooks.task_alive = [note]
    await add(client, task_id=task["id"])
    await add(client, id="without a task")

    assert told == [task["id"]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"start_time": "2026-01-01T00:00:00"}, "start_time is '2026-01-01T00:00:00': Input should have"),
        ({"start_time": 1}, "start_time: 1 is a number; an instant is text"),
        ({"start_time": None}, "start_time: Input should be"),
        ({"end_time": "9999-12-31T23:59:59Z"}, "end_time: 9999-12-31T23:59:59+00:00 is not an instant"),
        ({"trace_id": None}, "trace_id: Input should be a valid string"),
        ({"trace_id": "x" * 256}, "should have at most 255 characters"),
        ({"id": ""}, "id is '': String should have at least 1 character"),
        ({"id": "x" * 256}, "should have at most 255 characters"),
        ({"name": None}, "name: Input should be a valid string"),
        ({"name": "a\x00b"}, "body.name: holds the character NUL"),
        ({"task_id": "nonsense"}, "task_id is 'nonsense': Input should be a valid UUID"),
        ({"input": "secret"}, "input.dict[str,any]: Input should be a valid dictionary"),
        ({"output": ["secret"]}, "output.list[dict[str,any]].0: Input should be a valid dictionary"),
        ({"data": 5}, "data.dict[str,any]: Input should be a valid dictionary"),
    ],
)
async def test_an_invalid_field_is_named_without_its_prompt(
    client: httpx2.AsyncClient, changes: Json, message: str
) -> None:
    answer = await client.post("/spans", json=span(**changes))

    assert answer.status_code == 422
    assert message in answer.json()["message"]
    assert "secret" not in answer.text
    assert await ids(client) == []


@pytest.mark.parametrize(
    "query",
    [
        {"task_id": "nonsense"},
        {"trace_id": "x" * 256},
        {"order_by": "input"},
        {"order_direction": "sideways"},
        {"limit": "0"},
        {"limit": "1001"},
        {"page_number": "0"},
        {"page_number": "99999999999999999999"},
    ],
    ids=str,
)
async def test_an_invalid_query_is_422(client: httpx2.AsyncClient, query: dict[str, str]) -> None:
    answer = await client.get("/spans", params=query)

    assert (answer.status_code, next(iter(query)) in answer.json()["message"]) == (422, True)


async def test_indexes_serve_the_lists(client: httpx2.AsyncClient, resources: Resources, task: Json) -> None:
    await add(client, task_id=task["id"])
    await fetch(
        resources,
        """
        INSERT INTO spans SELECT account_id, n::text, owner, CASE WHEN n % 10 = 0 THEN task_id END,
            't' || n % 100, NULL, name, start_time + n * interval '1 s', NULL, input, output, data,
            created_at, updated_at
        FROM generate_series(1, 3000) n, spans
        """,
    )
    await fetch(resources, "ANALYZE spans")
    with statements(resources) as sent:
        await ids(client, trace_id="t3", limit=2)
        await ids(client, task_id=task["id"], limit=2)
        await ids(client, limit=2, order_direction="asc")

    plans = [await explain_sent(resources, one) for one in sent if "ORDER BY spans" in one[0]]
    assert [plan.indexes_of("spans") for plan in plans] == [
        {"ix_spans_account_id_trace_id_start_time"},
        {"ix_spans_task_id_start_time"},
        {"ix_spans_account_id_start_time"},
    ]
    assert [plan.most_of("spans") for plan in plans] == [2, 2, 2]
