"""GET /messages and /messages/paginated: order, pages, cursors, filters, and what it costs."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID, uuid4

import httpx2
import pytest

from agentex.auth.authorize import Operation, ResourceType
from agentex.pagination import encode_cursor
from agentex.resources import Resources
from tests.api.ledger.stage import NOON, fetch
from tests.api.messages.messages import AGENTS_TEXT, add, add_many, listed
from tests.support.api import Json, create_task, problem
from tests.support.authz import ScriptedAuthz
from tests.support.plans import explain_sent, statements

CONTENTS: dict[str, Json] = {
    "user": {"type": "text", "author": "user", "content": "hi"},
    "agent": {"type": "text", "author": "agent", "content": "hello", "format": "markdown"},
    "log": {"type": "data", "author": "agent", "data": {"kind": "log", "level": {"n": 1, "s": "low"}}},
    "report": {"type": "data", "author": "agent", "data": {"kind": "report", "ok": True, "tags": ["a", "b"]}},
    "call": {
        "type": "tool_request",
        "author": "agent",
        "tool_call_id": "c1",
        "name": "search",
        "arguments": {"q": "x"},
    },
    "result": {
        "type": "tool_response",
        "author": "agent",
        "tool_call_id": "c1",
        "name": "search",
        "content": [1, 2],
    },
    "thought": {"type": "reasoning", "author": "agent", "summary": ["s"], "style": "active"},
}
ALL = set(CONTENTS)


@pytest.fixture
async def three(client: httpx2.AsyncClient, task: Json) -> list[Json]:
    """Three of one moment, and an older one that was added last; newest first."""
    same = "2026-01-01T00:00:00Z"
    made = [await add(client, task, created_at=same) for _ in range(3)]
    return [*reversed(made), await add(client, task, created_at="2025-01-01T00:00:00Z")]


async def test_the_list_is_newest_first_and_paged(
    client: httpx2.AsyncClient, task: Json, three: list[Json]
) -> None:
    pages = [
        await listed(client, "/messages", task_id=task["id"], limit=3, page_number=page) for page in (1, 2, 3)
    ]

    assert pages == [three[:3], three[3:], []]


async def test_a_list_has_fifty_unless_told_otherwise(
    client: httpx2.AsyncClient, task: Json, resources: Resources
) -> None:
    await add_many(resources, task, 60)

    sizes = [
        len(await listed(client, "/messages", task_id=task["id"])),
        len((await listed(client, "/messages/paginated", task_id=task["id"]))["data"]),
        len(await listed(client, "/messages", task_id=task["id"], limit=1000)),
    ]

    assert sizes == [50, 50, 60]


async def test_the_order_is_as_asked(client: httpx2.AsyncClient, task: Json, three: list[Json]) -> None:
    changed = three[2]
    body = {"task_id": task["id"], "content": changed["content"]}
    now = (await client.put(f"/messages/{changed['id']}", json=body)).json()
    newest_first = [three[0], three[1], now, three[3]]

    async def order(**query: str) -> list[Json]:
        return await listed(client, "/messages", task_id=task["id"], **query)

    assert await order(order_by="created_at", order_direction="desc") == newest_first
    assert await order(order_direction="asc") == newest_first[::-1]
    assert await order(order_by="id") == [three[3], three[0], three[1], now]
    assert await order(order_by="updated_at") == [now, three[3], three[0], three[1]]
    assert await order(order_by="updated_at", order_direction="asc") == [three[1], three[0], three[3], now]


async def test_pages_by_cursor_have_each_message_once_though_new_ones_arrive(
    client: httpx2.AsyncClient, task: Json, three: list[Json]
) -> None:
    pages: list[Json] = []
    query: Json = {"task_id": task["id"], "limit": 3}
    while not pages or pages[-1]["has_more"]:
        pages.append(await listed(client, "/messages/paginated", **query))
        query["cursor"] = pages[-1]["next_cursor"]
        await add(client, task)

    assert pages == [
        {"data": three[:3], "next_cursor": pages[0]["next_cursor"], "has_more": True},
        {"data": three[3:], "next_cursor": None, "has_more": False},
    ]


async def test_newer_goes_the_other_way_from_the_oldest_or_from_a_cursor(
    client: httpx2.AsyncClient, task: Json, three: list[Json]
) -> None:
    query: Json = {"task_id": task["id"], "limit": 2}
    older = await listed(client, "/messages/paginated", **query)
    new = await add(client, task)

    first = await listed(client, "/messages/paginated", direction="newer", **query)
    second = await listed(
        client, "/messages/paginated", direction="newer", cursor=first["next_cursor"], **query
    )
    turned = await listed(
        client, "/messages/paginated", direction="newer", cursor=older["next_cursor"], **query
    )

    assert [first["data"], second["data"]] == [[three[3], three[2]], [three[1], three[0]]]
    # What is newer than the last of a page begins with its neighbour there.
    assert turned == {"data": [three[0], new], "next_cursor": None, "has_more": False}


async def test_a_task_without_messages_has_an_empty_page(client: httpx2.AsyncClient, task: Json) -> None:
    empty: Json = {"data": [], "next_cursor": None, "has_more": False}

    assert await listed(client, "/messages", task_id=task["id"]) == []
    assert await listed(client, "/messages/paginated", task_id=task["id"]) == empty


FILTERS: list[tuple[Any, set[str]]] = [
    ([], ALL),
    ([{}], ALL),
    ([{"exclude": True}], ALL),
    ({"content": {"type": "text"}}, {"user", "agent"}),
    ([{"content": {"type": "text", "author": "agent"}}], {"agent"}),
    ([{"content": {"type": "text"}}, {"content": {"type": "data"}}], {"user", "agent", "log", "report"}),
    ([{}, {"content": {"type": "data"}}], {"log", "report"}),
    ([{"content": {"author": "user"}, "exclude": True}], ALL - {"user"}),
    # What others do not have at all does not leave them out.
    ([{"content": {"data": {"kind": "log"}}, "exclude": True}], ALL - {"log"}),
    ([{"content": {"type": "data"}}, {"content": {"data": {"kind": "log"}}, "exclude": True}], {"report"}),
    (
        [
            {"content": {"type": "data"}, "exclude": True},
            {"content": {"type": "text"}, "exclude": True},
        ],
        {"call", "result", "thought"},
    ),
    ([{"content": {"data": {"level": {"n": 1}}}}], {"log"}),
    ([{"content": {"data": {"level": {"n": "1"}}}}], set()),
    ([{"content": {"data": {"ok": True}}}], {"report"}),
    ([{"content": {"data": {"tags": ["a", "b"]}}}], {"report"}),
    ([{"content": {"data": {"tags": ["a"]}}}], set()),
    ([{"content": {"data": {"kind": None}, "type": "data"}}], {"log", "report"}),
    ([{"content": {"tool_call_id": "c1"}}], {"call", "result"}),
    ([{"content": {"arguments": {"q": "x"}}}], {"call"}),
    ([{"content": {"content": "hi"}}], {"user"}),
    ([{"content": {"content": [1, 2]}}], {"result"}),
    ([{"content": {"summary": ["s"]}}], {"thought"}),
    ([{"content": {"style": "active"}}], {"thought"}),
    ([{"content": {"format": "markdown"}}], {"agent"}),
    ([{"streaming_status": "IN_PROGRESS"}], {"agent"}),
    ([{"streaming_status": "IN_PROGRESS", "exclude": True}], ALL - {"agent"}),
    ([{"streaming_status": "IN_PROGRESS", "content": {"author": "user"}}], set()),
    ([{"content": {"data": {"'; DROP TABLE messages; --": "%:x"}}}], set()),
]


async def test_filters_include_and_exclude_in_both_lists(client: httpx2.AsyncClient, task: Json) -> None:
    names: dict[str, str] = {}
    for name, content in CONTENTS.items():
        status = "IN_PROGRESS" if name == "agent" else None
        made = await add(client, task, content=content, streaming_status=status)
        names[made["id"]] = name

    for filters, expected in FILTERS:
        query = {"task_id": task["id"], "filters": json.dumps(filters)}
        all_at_once = await listed(client, "/messages", **query)
        by_cursor = (await listed(client, "/messages/paginated", **query))["data"]
        assert {names[one["id"]] for one in all_at_once} == expected, filters
        assert by_cursor == all_at_once, filters


async def test_a_filtered_list_goes_on_by_cursor(
    client: httpx2.AsyncClient, task: Json, resources: Resources
) -> None:
    await add_many(resources, task, 1_000)
    query: Json = {"task_id": task["id"], "limit": 4, "filters": '{"content": {"type": "data"}}'}
    sizes: list[int] = []
    seen: set[str] = set()
    more = True
    while more:
        page = await listed(client, "/messages/paginated", **query)
        sizes.append(len(page["data"]))
        seen |= {one["id"] for one in page["data"]}
        more, query["cursor"] = page["has_more"], page["next_cursor"]

    assert (sizes, len(seen)) == ([4, 4, 2], 10)


WRONG_FILTERS = [
    ("[", "filters: is not JSON: EOF while parsing a list at line 1 column 1"),
    ("[1]", "filters: 0 is 1: Input should be an object"),
    ('{"contents": {}}', "filters: 0.contents: Extra inputs are not permitted"),
    ('{"content": {"kind": "x"}}', "filters: 0.content.…: Extra inputs are not permitted"),
    ('{"content": {"author": "x"}}', "filters: 0.content.author: Input should be 'user' or 'agent'"),
    (
        '{"content": {"type": "song"}}',
        "filters: 0.content.type: Input should be 'text', 'data', 'tool_request', 'tool_response' or ",
    ),
    (
        '[{}, {"streaming_status": "HALF"}]',
        "filters: 1.streaming_status is 'HALF': Input should be 'IN_PROGRESS' or 'DONE'",
    ),
    ('{"content": {"data": {"x": NaN}}}', "filters: holds NaN or Infinity, which JSON has not (RFC 8259 §6)"),
    (json.dumps([{}] * 51), "filters: 51 filters; a list takes 50 at most"),
    (
        '{"content": {"data": ' + '{"a":' * 300 + "1" + "}" * 302,
        "filters: is not JSON: recursion limit exceeded",
    ),
    (
        '{"content": {"data": {"x": "\\u0000"}}}',
        "request: holds a character that cannot be stored, such as NUL; leave it out",
    ),
    (
        '{"content": {"data": {"\\u0000": 1}}}',
        "request: holds a character that cannot be stored, such as NUL; leave it out",
    ),
]


@pytest.mark.parametrize("path", ["/messages", "/messages/paginated"])
@pytest.mark.parametrize(("filters", "message"), WRONG_FILTERS, ids=range(len(WRONG_FILTERS)))
async def test_a_wrong_filter_is_422_and_named(
    client: httpx2.AsyncClient, task: Json, path: str, filters: str, message: str
) -> None:
    response = await client.get(path, params={"task_id": task["id"], "filters": filters})

    assert response.status_code == 422
    assert response.json()["message"].startswith(message)


@pytest.mark.parametrize(
    ("path", "query", "message"),
    [
        ("/messages", {"order_by": "content"}, "order_by is 'content': Input should be 'created_at', "),
        ("/messages", {"order_direction": "up"}, "order_direction is 'up': Input should be 'asc' or 'desc'"),
        ("/messages", {"limit": "0"}, "limit is '0': Input should be greater than or equal to 1"),
        ("/messages", {"limit": "1001"}, "limit is '1001': Input should be less than or equal to 1000"),
        ("/messages", {"page_number": "0"}, "page_number is '0': Input should be greater than or equal to 1"),
        (
            "/messages",
            {"page_number": "9" * 20},
            "page_number is '99999999999999999999': Input should be less than or equal to 1000000",
        ),
        ("/messages", {"task_id": "x"}, "task_id is 'x': Input should be a valid UUID"),
        ("/messages/paginated", {"direction": "up"}, "direction is 'up': Input should be 'older' or 'newer'"),
        ("/messages/paginated", {"limit": "1001"}, "limit is '1001': Input should be less than"),
        ("/messages/paginated", {"cursor": "x"}, "cursor: 'x' is not a next_cursor of this list"),
        ("/messages/paginated", {"cursor": ""}, "cursor: '' is not a next_cursor of this list"),
        ("/messages/paginated", {"cursor": "x", "direction": "newer"}, "cursor: 'x' is not a next_cursor"),
        ("/messages/paginated", {"cursor": "x" * 201}, "cursor is 'xxx"),
    ],
    ids=str,
)
async def test_a_wrong_query_is_422_and_named(
    client: httpx2.AsyncClient, task: Json, path: str, query: Json, message: str
) -> None:
    response = await client.get(path, params={"task_id": task["id"], **query})

    assert response.status_code == 422
    assert response.json()["message"].startswith(message)
    assert response.json() == problem(path, 422, "invalid-input", response.json()["message"])


async def test_pages_of_an_unknown_task_are_404(client: httpx2.AsyncClient) -> None:
    task_id = str(uuid4())

    response = await client.get("/messages/paginated", params={"task_id": task_id})

    expected = problem("/messages/paginated", 404, "not-found", f"task '{task_id}' not found")
    assert (response.status_code, response.json()) == (404, expected)


@pytest.mark.parametrize("path", ["/messages", "/messages/paginated"])
async def test_lists_are_only_for_those_who_may_read_the_task(
    client: httpx2.AsyncClient, task: Json, authz: ScriptedAuthz, path: str
) -> None:
    await add(client, task)
    query = {"task_id": task["id"]}

    elsewhere = await client.get(path, params=query, headers={"x-test-account": "other"})
    authz.deny = {(Operation.READ, ResourceType.TASK)}
    denied = await client.get(path, params=query)

    assert [elsewhere.status_code, denied.status_code] == [404, 404]


async def test_a_cursor_of_another_task_shows_nothing_of_that(
    client: httpx2.AsyncClient, agent: Json, task: Json, three: list[Json]
) -> None:
    other = await create_task(client, agent)
    spoken = [await add(client, other, content=AGENTS_TEXT) for _ in range(2)]
    cursor = encode_cursor(NOON, UUID(three[0]["id"]))

    page = await listed(client, "/messages/paginated", task_id=other["id"], cursor=cursor, direction="newer")

    assert page["data"] == spoken


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("/messages", {}),
        ("/messages", {"order_direction": "asc"}),
        ("/messages/paginated", {}),
        ("/messages/paginated", {"cursor": True}),
        ("/messages/paginated", {"direction": "newer"}),
        ("/messages/paginated", {"cursor": True, "direction": "newer"}),
    ],
    ids=str,
)
async def test_a_page_looks_at_no_more_than_it_shows(
    client: httpx2.AsyncClient, agent: Json, task: Json, resources: Resources, path: str, query: Json
) -> None:
    await add_many(resources, task, 5_000)
    await add_many(resources, await create_task(client, agent), 5_000)
    asked = {"task_id": task["id"], "limit": 20, **query}
    if "cursor" in query:
        middle = await fetch(
            resources,
            "SELECT created_at, id FROM messages WHERE task_id = :id ORDER BY created_at OFFSET 2500 LIMIT 1",
            id=UUID(task["id"]),
        )
        asked["cursor"] = encode_cursor(middle[0]["created_at"], middle[0]["id"])

    with statements(resources) as sent:
        assert len(await listed(client, path, **asked)) > 0
    plan = await explain_sent(resources, sent[-1])

    # Who may read the task, and the page.
    assert len(sent) == 2
    assert plan.indexes_of("messages") == {"ix_messages_task_id_created_at"}
    assert plan.most_of("messages") <= 30


async def test_a_filtered_page_looks_at_its_task_alone(
    client: httpx2.AsyncClient, agent: Json, task: Json, resources: Resources
) -> None:
    await add_many(resources, task, 500)
    await add_many(resources, await create_task(client, agent), 20_000)
    query = {"task_id": task["id"], "filters": '{"content": {"data": {"kind": "log"}}}'}

    with statements(resources) as sent:
        page = await listed(client, "/messages/paginated", **query)
    plan = await explain_sent(resources, sent[-1])

    assert len(page["data"]) == 5
    assert plan.indexes_of("messages") == {"ix_messages_task_id_created_at"}
    assert plan.most_of("messages") <= 500
