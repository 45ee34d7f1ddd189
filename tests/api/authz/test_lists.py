"""Lists for those who see a part: full pages, right totals, an index; cursors that were tampered with."""

from __future__ import annotations

import base64
import json
from typing import Any

import httpx2
import pytest

from agentex.auth.rules import Role
from agentex.resources import Resources
from tests.api.authz.members import FIRST, SECOND, calling, join, join_agent, user
from tests.api.ledger.stage import add_agent, fetch
from tests.api.schedules.schedules import Schedules
from tests.support.acp_server import AcpServer
from tests.support.api import TEXT, Json, create_task, register
from tests.support.plans import explain_sent, statements

MANY = 50
# Which of the many a caller sees: spread, so that each page of the account's has at most one.
SEEN = (3, 14, 25, 36, 47)


async def pages(
    client: httpx2.AsyncClient, path: str, query: dict[str, str] | None = None, *, limit: int = 2
) -> list[list[Json]]:
    """Every page up to the first that is not full."""
    found: list[list[Json]] = []
    while not found or len(found[-1]) == limit:
        params: dict[str, Any] = {"limit": limit, "page_number": len(found) + 1, **(query or {})}
        answer = await client.get(path, params=params)
        assert answer.status_code == 200, answer.text
        found.append(answer.json())
    return found


@pytest.fixture
async def tasks(client: httpx2.AsyncClient, resources: Resources, acp_server: AcpServer) -> list[Json]:
    """Many of one agent's, oldest first; each has a state, a span and a tracker."""
    await join(resources, user("gus"), None)
    agent = await register(client, name="busy", acp_url=acp_server.url)
    made = [
        await create_task(client, agent, name=f"t{n}", task_metadata={"odd": n % 2, "all": 1})
        for n in range(MANY)
    ]
    for task in made:
        state: Json = {"task_id": task["id"], "agent_id": agent["id"], "state": {}}
        assert (await client.post("/states", json=state)).status_code == 200
        span = {"name": "s", "trace_id": "t", "start_time": "2026-01-01T00:00:00Z", "task_id": task["id"]}
        assert (await client.post("/spans", json=span)).status_code == 200
    for n in SEEN:
        grant = {
            "member": "user:gus",
            "resource_type": "task",
            "resource_id": made[n]["id"],
            "operations": ["read"],
        }
        assert (await client.post("/grants", json=grant)).status_code == 200
    return made


@pytest.mark.parametrize("path", ["/tasks", "/states", "/spans", "/tracker"])
async def test_a_guests_pages_are_full(resources: Resources, tasks: list[Json], path: str) -> None:
    async with calling(await join(resources, user("gus"), None)) as gus:
        found = await pages(gus, path)
    assert [len(page) for page in found] == [2, 2, 1]
    key = "id" if path == "/tasks" else "task_id"
    listed = [one[key] for page in found for one in page]
    assert sorted(listed) == sorted(tasks[n]["id"] for n in SEEN)
    if path == "/tasks":
        assert listed == [tasks[n]["id"] for n in reversed(SEEN)]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"order_direction": "asc"}, SEEN),
        ({"order_by": "updated_at"}, SEEN[::-1]),
        ({"order_by": "name", "order_direction": "asc"}, (14, 25, 3, 36, 47)),
        ({"task_metadata": '{"odd": 1}'}, (47, 25, 3)),
        ({"task_metadata": '{"all": 1}'}, SEEN[::-1]),
        ({"agent_name": "busy"}, SEEN[::-1]),
        ({"agent_name": "nobody"}, ()),
        ({"status": "RUNNING"}, SEEN[::-1]),
        ({"status": "FAILED"}, ()),
    ],
    ids=str,
)
async def test_a_guests_list_is_filtered_and_sorted_as_any(
    resources: Resources, tasks: list[Json], query: dict[str, str], expected: tuple[int, ...]
) -> None:
    async with calling(await join(resources, user("gus"), None)) as gus:
        found = await pages(gus, "/tasks", query)
    assert [task["id"] for page in found for task in page] == [tasks[n]["id"] for n in expected]


async def test_an_agents_list_has_what_hangs_on_it_what_it_made_and_what_was_shared_once_each(
    client: httpx2.AsyncClient, resources: Resources, tasks: list[Json], acp_server: AcpServer
) -> None:
    key = await join_agent(resources, "greeter")
    own = await register(client, name="greeter", acp_url=acp_server.url)
    busy = next(agent for agent in (await client.get("/agents")).json() if agent["name"] == "busy")
    async with calling(key) as greeter:
        hanging = await create_task(client, own)
        made = await create_task(greeter, busy)
        # For all three reasons.
        both = await create_task(greeter, own)
        for task in (tasks[7], both):
            grant = {
                "member": "agent:greeter",
                "resource_type": "task",
                "resource_id": task["id"],
                "operations": ["read"],
            }
            assert (await client.post("/grants", json=grant)).status_code == 200
        found = await pages(greeter, "/tasks")
        assert [[task["id"] for task in page] for page in found] == [
            [both["id"], made["id"]],
            [hanging["id"], tasks[7]["id"]],
            [],
        ]


async def test_totals_count_what_is_seen(
    client: httpx2.AsyncClient, resources: Resources, acp_server: AcpServer
) -> None:
    agent = await register(client, acp_url=acp_server.url)
    schedules = Schedules(client, resources, agent["id"])
    made = [await schedules.create(name=f"s{n}") for n in range(6)]
    key = await join(resources, user("gus"), None)
    for kind, id_ in (("agent", agent["id"]), ("schedule", made[1]["id"]), ("schedule", made[4]["id"])):
        grant = {"member": "user:gus", "resource_type": kind, "resource_id": id_, "operations": ["read"]}
        assert (await client.post("/grants", json=grant)).status_code == 200
    async with calling(key) as gus:
        first = (await gus.get(schedules.url, params={"limit": 1})).json()
        assert ([one["id"] for one in first["run_schedules"]], first["total"]) == ([made[4]["id"]], 2)
        after = {"limit": 1, "cursor": first["next_cursor"]}
        second = (await gus.get(schedules.url, params=after)).json()
        assert [one["id"] for one in second["run_schedules"]] == [made[1]["id"]]
        assert (second["total"], second["next_cursor"]) == (2, None)


async def test_whose_task_it_is_shows_who_may_see_the_task(
    client: httpx2.AsyncClient, resources: Resources, tasks: list[Json]
) -> None:
    busy = (await client.get("/agents")).json()[0]
    grant = {
        "member": "user:gus",
        "resource_type": "agent",
        "resource_id": busy["id"],
        "operations": ["read"],
    }
    assert (await client.post("/grants", json=grant)).status_code == 200
    async with calling(await join(resources, user("gus"), None)) as gus:
        for n, expected in ((3, [busy["id"]]), (4, [])):
            found = await gus.get("/agents", params={"task_id": tasks[n]["id"]})
            assert [agent["id"] for agent in found.json()] == expected


ROWS = 60_000


@pytest.mark.parametrize("limit", [1, 50])
async def test_an_agents_tasks_are_found_by_indexes_among_many(
    resources: Resources, client: httpx2.AsyncClient, limit: int
) -> None:
    """One task in 2,000 is the agent's, one in 3,000 it made; all old, so that a walk would take long."""
    busy = await add_agent(resources, "busy", account_id=FIRST)
    quiet = await add_agent(resources, "quiet", account_id=FIRST)
    key = await join_agent(resources, "quiet")
    await fetch(
        resources,
        """
        INSERT INTO tasks (id, account_id, owner, agent_id, name, status, created_at, updated_at)
        SELECT gen_random_uuid(), :account,
            CASE WHEN n <= :old AND n % 300 = 2 THEN 'agent:quiet' WHEN n % 2 = 0 THEN 'agent:busy'
                ELSE 'user:x' END,
            CASE WHEN n <= :old AND n % 200 = 1 THEN CAST(:quiet AS uuid) ELSE CAST(:busy AS uuid) END,
            't' || n, 'RUNNING',
            timestamptz '2026-01-01Z' + n * interval '1 s', timestamptz '2026-01-01Z' + n * interval '1 s'
        FROM generate_series(1, :count) AS n
        """,
        account=FIRST,
        busy=busy.id,
        quiet=quiet.id,
        count=ROWS,
        old=ROWS // 10,
    )
    await fetch(resources, "ANALYZE tasks, grants, agents")
    async with calling(key) as agent:
        with statements(resources) as sent:
            answer = await agent.get("/tasks", params={"limit": limit})
    # 30 hang on it, 20 are its own.
    assert len(answer.json()) == limit
    listing = [one for one in sent if "FROM tasks" in one[0]]
    assert len(listing) == 1
    plan = await explain_sent(resources, listing[0])
    assert plan.indexes_of("tasks") <= {
        "pk_tasks",
        "ix_tasks_agent_id_created_at",
        "ix_tasks_owner_created_at",
    }
    assert plan.most_of("tasks") <= 2 * limit + 2


def cursor_of(*parts: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(parts).encode()).decode().rstrip("=")


NO_CURSORS = [
    "",
    "x",
    "%00",
    "é",
    "A" * 200,
    "A" * 201,
    "A" * 60_000,
    cursor_of(),
    cursor_of("2026-01-01T00:00:00+00:00"),
    cursor_of("2026-01-01T00:00:00", "00000000-0000-4000-8000-000000000000"),
    cursor_of("2026-01-01T00:00:00+00:00", "' OR true --"),
    cursor_of("yesterday", "00000000-0000-4000-8000-000000000000"),
    cursor_of(1, 2),
    cursor_of(None, None),
    cursor_of({"a": 1}, ["b"]),
    base64.urlsafe_b64encode(b"[" * 140).decode(),
    base64.urlsafe_b64encode(b"\xff\xfe\x00").decode(),
    base64.urlsafe_b64encode(b'"ab"').decode(),
]
# What reads as a cursor at the ends of time.
ENDS = [
    cursor_of("0001-01-01T00:00:00+14:00", "00000000-0000-0000-0000-000000000000"),
    cursor_of("9999-12-31T23:59:59.999999-14:00", "ffffffff-ffff-ffff-ffff-ffffffffffff"),
    cursor_of("0001-01-01T00:00:00+00:00", "00000000-0000-0000-0000-000000000000"),
    cursor_of("9999-12-31T23:59:59.999999+00:00", "ffffffff-ffff-ffff-ffff-ffffffffffff"),
]


@pytest.fixture
async def paged(client: httpx2.AsyncClient, resources: Resources, acp_server: AcpServer) -> dict[str, Json]:
    """Each list that has cursors, with what it is asked for; three of everything in it."""
    resources.hooks.run_opened = None
    agent = await register(client, acp_url=acp_server.url)
    task = await create_task(client, agent)
    schedules = Schedules(client, resources, agent["id"])
    schedule = await schedules.create(name="s")
    grant = {"resource_type": "task", "resource_id": task["id"]}
    for n in range(3):
        await schedules.create(name=f"s{n}")
        await client.post("/messages", json={"task_id": task["id"], "content": TEXT})
        await join(resources, user(f"g{n}"), None)
        made = await client.post("/grants", json={**grant, "member": f"user:g{n}", "operations": ["read"]})
        assert made.status_code == 200
    for _ in range(3):
        await schedules.act(schedule, "trigger")
    return {
        "/messages/paginated": {"task_id": task["id"]},
        "/runs": {},
        schedules.url: {},
        f"{schedules.url}/{schedule['id']}/runs": {},
        "/grants": grant,
    }


@pytest.mark.parametrize("cursor", NO_CURSORS, ids=[repr(one[:20]) for one in NO_CURSORS])
async def test_what_is_no_cursor_is_refused(
    client: httpx2.AsyncClient, paged: dict[str, Json], cursor: str
) -> None:
    for path, query in paged.items():
        answer = await client.get(path, params={**query, "cursor": cursor})
        assert answer.status_code in {400, 413, 414, 422, 431}, (path, answer.text)


@pytest.mark.parametrize("cursor", ENDS)
async def test_the_ends_of_time_are_refused_or_an_end_of_the_list(
    client: httpx2.AsyncClient, paged: dict[str, Json], cursor: str
) -> None:
    for path, query in paged.items():
        answer = await client.get(path, params={**query, "cursor": cursor})
        assert answer.status_code in {200, 422}, (path, answer.text)


async def test_a_cursor_of_another_tenant_or_list_or_with_a_bit_flipped_shows_ones_own_rows_only(
    client: httpx2.AsyncClient, resources: Resources, paged: dict[str, Json], acp_server: AcpServer
) -> None:
    cursors = {
        path: (await client.get(path, params={**query, "limit": 1})).json()["next_cursor"]
        for path, query in paged.items()
    }
    assert None not in cursors.values()
    eve_key = await join(resources, user("eve", SECOND), Role.ADMIN)
    async with calling(eve_key) as eve:
        agent = await register(eve, acp_url=acp_server.url)
        own = Schedules(eve, resources, agent["id"])
        schedule = await own.create(name="eves")
        await own.act(schedule, "trigger")
        mine = {agent["id"], schedule["id"]}
        for path, cursor in cursors.items():
            flips = [cursor, *(flip(cursor, place) for place in range(0, len(cursor), 7))]
            for tried in flips:
                for url in ("/runs", own.url):
                    answer = await eve.get(url, params={"cursor": tried})
                    assert answer.status_code in {200, 422}, answer.text
                    for row in answer.json().get("runs", answer.json().get("run_schedules", [])):
                        assert {row["agent_id"], row.get("schedule_id", row["id"])} == mine
                # Of the first tenant's own lists there is nothing to begin with.
                foreign = await eve.get(path, params={**paged[path], "cursor": tried})
                assert foreign.status_code in {404, 422} or path == "/runs"


def flip(cursor: str, place: int) -> str:
    """Another character of the alphabet there: a few bits of what it says."""
    other = chr(ord(cursor[place]) ^ 1)
    return cursor[:place] + (other if other.isalnum() else "A") + cursor[place + 1 :]
