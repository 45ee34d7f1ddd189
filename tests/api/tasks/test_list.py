"""GET /tasks: by what the metadata holds, in any order, with agents."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import pytest

from agentex.tasks import reads
from tests.api.tasks.wire import listed
from tests.support.api import Json, create_task, problem, read_agent, register

METADATA: dict[str, Json | None] = {
    "none": None,
    "empty": {},
    "a": {"team": "a", "n": 1, "deep": {"x": [1, 2], "y": None}},
    "b": {"team": "b", "n": 1, "tags": ["red", "blue"]},
    "ab": {"team": "a", "n": 2, "tags": ["red"], "deep": {"x": [2]}},
}


@pytest.fixture
async def made(client: httpx2.AsyncClient, agent: Json) -> dict[str, Json]:
    """A task for each of these, oldest first."""
    return {
        name: await create_task(client, agent, name=name, params={"n": name}, task_metadata=metadata)
        for name, metadata in METADATA.items()
    }


async def names(client: httpx2.AsyncClient, **query: Any) -> list[str]:
    """The names of the tasks of a list."""
    answer = await client.get("/tasks", params={key: str(value) for key, value in query.items()})
    assert answer.status_code == 200, answer.text
    return [task["name"] for task in answer.json()]


@pytest.mark.parametrize("walk_rows", [1, 2, reads.WALK_ROWS])
@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({"team": "a"}, ["ab", "a"]),
        ({"n": 1}, ["b", "a"]),
        ({"n": 1, "team": "a"}, ["a"]),
        ({"tags": ["red"]}, ["ab", "b"]),
        ({"tags": ["blue", "red"]}, ["b"]),
        ({"deep": {"x": [2]}}, ["ab", "a"]),
        ({"deep": {"y": None}}, ["a"]),
        ({"n": "1"}, []),
        ({"team": None}, []),
        ({}, ["ab", "b", "a", "empty"]),
        ({"team": "ä\U0001f600"}, []),
    ],
    ids=str,
)
@pytest.mark.usefixtures("made")
async def test_the_metadata_holds_what_is_asked_for(
    client: httpx2.AsyncClient,
    monkeypatch: pytest.MonkeyPatch,
    walk_rows: int,
    wanted: Json,
    found: list[str],
) -> None:
    monkeypatch.setattr(reads, "WALK_ROWS", walk_rows)

    assert await names(client, task_metadata=json.dumps(wanted)) == found


@pytest.mark.parametrize("walk_rows", [1, 2, 3, reads.WALK_ROWS])
@pytest.mark.usefixtures("made")
async def test_pages_join_however_they_are_found(
    client: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch, walk_rows: int
) -> None:
    monkeypatch.setattr(reads, "WALK_ROWS", walk_rows)
    pages = [await names(client, task_metadata="{}", limit=1, page_number=page) for page in range(1, 6)]
    rising = await names(client, task_metadata="{}", limit=2, page_number=2, order_direction="asc")

    assert pages == [["ab"], ["b"], ["a"], ["empty"], []]
    assert rising == ["b", "ab"]


async def test_metadata_goes_together_with_the_other_filters(
    client: httpx2.AsyncClient, agent: Json, made: dict[str, Json]
) -> None:
    other = await register(client, name="other", acp_type="sync")
    await create_task(client, other, name="of-other", task_metadata={"team": "a"})
    await client.post(f"/tasks/{made['a']['id']}/fail")
    team_a = '{"team": "a"}'

    assert await names(client, task_metadata=team_a) == ["of-other", "ab", "a"]
    assert await names(client, task_metadata=team_a, agent_id=agent["id"]) == ["ab", "a"]
    assert await names(client, task_metadata=team_a, agent_name="other") == ["of-other"]
    assert await names(client, task_metadata=team_a, status="FAILED,CANCELED") == ["a"]
    assert await names(client, task_metadata=team_a, status="RUNNING", agent_name="greeter") == ["ab"]


async def test_whole_tasks_without_params(client: httpx2.AsyncClient, made: dict[str, Json]) -> None:
    found = await client.get("/tasks", params={"task_metadata": '{"team": "a"}'})

    assert found.json() == [listed(made["ab"]), listed(made["a"])]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("{", 'is not JSON; give an object such as {"team": "a"}'),
        ("", 'is not JSON; give an object such as {"team": "a"}'),
        ('{"a": NaN}', 'is not JSON; give an object such as {"team": "a"}'),
        ('{"a": 1e999}', 'is not JSON; give an object such as {"team": "a"}'),
        ("[" * 5_000, 'is not JSON; give an object such as {"team": "a"}'),
        ('{"a":' * 1_100 + "1" + "}" * 1_100, 'is not JSON; give an object such as {"team": "a"}'),
        ('["team"]', 'is not a JSON object; give one such as {"team": "a"}'),
        ('"team"', 'is not a JSON object; give one such as {"team": "a"}'),
        ("null", 'is not a JSON object; give one such as {"team": "a"}'),
        ('{"a": "\\u0000"}', "holds NUL or half a surrogate pair, which no metadata can hold"),
        ('{"\\ud800": 1}', "holds NUL or half a surrogate pair, which no metadata can hold"),
        ('{"a": "' + "x" * 8_000 + '"}', "is longer than 8000 characters"),
    ],
    ids=lambda value: value[:20],
)
async def test_metadata_that_is_no_object_is_422(
    client: httpx2.AsyncClient, given: str, message: str
) -> None:
    response = await client.get("/tasks", params={"task_metadata": given})

    expected = problem("/tasks", 422, "invalid-input", f"task_metadata: {message}")
    assert (response.status_code, response.json()) == (422, expected)


async def test_each_order_both_ways(client: httpx2.AsyncClient, agent: Json, made: dict[str, Json]) -> None:
    await client.put(f"/tasks/{made['a']['id']}", json={"task_metadata": {}})
    by_creation, by_change = list(made), ["none", "empty", "b", "ab", "a"]

    orders = {"created_at": by_creation, "updated_at": by_change, "name": sorted(made)}
    for order_by, rising in orders.items():
        assert await names(client, order_by=order_by, order_direction="asc") == rising
        assert await names(client, order_by=order_by) == rising[::-1]
    assert await names(client, order_by="name", limit=2, page_number=2) == ["b", "ab"]


@pytest.mark.parametrize("relationships", [{"relationships": "agents"}, {}])
async def test_agents_come_where_they_are_asked_for(
    client: httpx2.AsyncClient, agent: Json, relationships: Json
) -> None:
    other = await register(client, name="other", acp_type="sync")
    made = [await create_task(client, one) for one in (agent, other, agent)]
    await client.delete(f"/agents/{other['id']}")

    found = (await client.get("/tasks", params=relationships)).json()

    gone = (await client.get(f"/tasks/{made[1]['id']}")).json()["agents"]
    agents = [[read_agent(agent)], gone, [read_agent(agent)]] if relationships else [None] * 3
    expected = [{**listed(task), "agents": of} for task, of in zip(made, agents, strict=True)]
    assert found == expected[::-1]
    assert gone[0]["status"] == "Deleted"


@pytest.mark.parametrize(
    ("path", "query", "message"),
    [
        ("/tasks", "relationships=agents,runs", "relationships: 'runs' is none of agents"),
        ("/tasks/name/x", "relationships=", "relationships: '' is none of agents"),
        ("/tasks/x", "relationships=agent", "relationships: 'agent' is none of agents"),
        (
            "/tasks",
            "order_by=params",
            "order_by is 'params': Input should be 'created_at', 'updated_at' or 'name'",
        ),
        ("/tasks", "order_direction=up", "order_direction is 'up': Input should be 'asc' or 'desc'"),
        ("/tasks", "limit=0", "limit is '0': Input should be greater than or equal to 1"),
        ("/tasks", "limit=1001", "limit is '1001': Input should be less than or equal to 1000"),
        ("/tasks", "page_number=0", "page_number is '0': Input should be greater than or equal to 1"),
        (
            "/tasks",
            "page_number=99999999999999999999",
            "page_number is '99999999999999999999': Input should be less than or equal to 1000000",
        ),
        (
            "/tasks",
            "agent_name=" + "x" * 256,
            "agent_name is '" + "x" * 78 + "…: String should have at most 255 characters",
        ),
    ],
)
async def test_what_is_no_query_is_422(
    client: httpx2.AsyncClient, path: str, query: str, message: str
) -> None:
    response = await client.get(f"{path}?{query}")

    assert (response.status_code, response.json()) == (422, problem(path, 422, "invalid-input", message))


async def test_an_agent_id_that_is_none_is_422(client: httpx2.AsyncClient) -> None:
    response = await client.get("/tasks?agent_id=greeter")

    assert response.status_code == 422
    assert response.json()["message"].startswith("agent_id is 'greeter': Input should be a valid UUID")


async def test_deleted_tasks_are_in_no_list(client: httpx2.AsyncClient) -> None:
    response = await client.get("/tasks?status=RUNNING,DELETED")

    expected = problem("/tasks", 400, "bad-request", "status is DELETED: deleted tasks are in no list")
    assert (response.status_code, response.json()) == (400, expected)


async def test_a_list_is_of_one_account(client: httpx2.AsyncClient, made: dict[str, Json]) -> None:
    other = {"x-test-account": "other"}
    queries = ["", f"?task_metadata={json.dumps({'team': 'a'})}", "?agent_name=greeter", "?status=RUNNING"]

    answers = [(await client.get(f"/tasks{query}", headers=other)).json() for query in queries]

    assert (answers, len(made)) == ([[]] * 4, 5)
