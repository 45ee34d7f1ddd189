"""GET /tasks among very many: each list goes by an index, and looks at few tasks beside those it answers."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import pytest

from agentex.agents.models import Agent
from agentex.resources import Resources
from agentex.tasks.reads import WALK_ROWS
from tests.api.ledger.stage import add_agent, fetch
from tests.support.api import Json
from tests.support.plans import Plan, explain_sent, statements

ROWS = 100_000
GIN = "ix_tasks_task_metadata"
NEWEST = "ix_tasks_account_id_created_at"


@pytest.fixture
async def agents(resources: Resources) -> dict[str, Agent]:
    """A busy agent and a quiet one, and another account's."""
    return {
        "busy": await add_agent(resources, "busy"),
        "quiet": await add_agent(resources, "quiet"),
        "other": await add_agent(resources, "other", account_id="other"),
    }


@pytest.fixture
async def crowd(resources: Resources, agents: dict[str, Agent]) -> None:
    """One task in ten is another account's; one in 2,000 the quiet agent's, and as many are running."""
    await fetch(
        resources,
        """
        INSERT INTO tasks (id, account_id, owner, agent_id, name, status, task_metadata, created_at,
            updated_at)
        SELECT gen_random_uuid(), CASE WHEN n % 10 = 0 THEN 'other' ELSE 'default' END, 'x',
            CASE WHEN n % 10 = 0 THEN CAST(:other AS uuid) WHEN n % 2000 = 1 THEN CAST(:quiet AS uuid)
                ELSE CAST(:busy AS uuid) END,
            't' || n, CASE WHEN n % 2000 = 3 THEN 'RUNNING' ELSE 'COMPLETED' END,
            jsonb_build_object('fire', n, 'user', n % 1000, 'trigger', CASE WHEN n % 3 = 0 THEN 'manual'
                ELSE 'scheduled' END, 'era', CASE WHEN n <= :old THEN 'old' ELSE 'new' END,
                'account', CASE WHEN n % 10 = 0 THEN 'other' ELSE 'mine' END),
            timestamptz '2026-01-01Z' + n * interval '1 s', timestamptz '2026-01-01Z' + n * interval '1 s'
        FROM generate_series(1, :count) AS n
        """,
        busy=agents["busy"].id,
        quiet=agents["quiet"].id,
        other=agents["other"].id,
        count=ROWS,
        old=ROWS // 50,
    )
    await fetch(resources, "ANALYZE tasks")


async def plans_of(
    client: httpx2.AsyncClient, resources: Resources, query: dict[str, Any]
) -> tuple[list[Json], list[Plan]]:
    """What is answered, and how each statement about tasks that was sent for it is carried out."""
    with statements(resources) as sent:
        answer = await client.get("/tasks", params=query)
    assert answer.status_code == 200, answer.text
    listing = [one for one in sent if "FROM tasks" in one[0]]
    return answer.json(), [await explain_sent(resources, one) for one in listing]


# What the metadata is to hold; how many are answered; how many tasks may be looked at by each statement.
HOLDS: list[tuple[str, Json, int, list[int]]] = [
    ("one", {"fire": 4_321}, 1, [WALK_ROWS, 10]),
    ("some", {"user": 7}, 50, [WALK_ROWS, 200]),
    ("very many", {"trigger": "scheduled"}, 50, [WALK_ROWS]),
    ("many, all of them old", {"era": "old"}, 50, [WALK_ROWS, ROWS // 50]),
    ("many, of another account", {"account": "other"}, 0, [WALK_ROWS, ROWS // 10]),
    ("both of two that many hold", {"era": "old", "user": 7}, 2, [WALK_ROWS, 10]),
    ("none", {"fire": -1}, 0, [WALK_ROWS, 0]),
]


@pytest.mark.usefixtures("crowd")
async def test_what_metadata_holds_is_found_by_its_index_or_among_the_newest(
    client: httpx2.AsyncClient, resources: Resources
) -> None:
    for what, wanted, count, most in HOLDS:
        found, plans = await plans_of(client, resources, {"task_metadata": json.dumps(wanted)})
        used = [plan.indexes_of("tasks") for plan in plans]
        assert (what, len(found), used) == (what, count, [{NEWEST}, {GIN}][: len(most)])
        looked_at = [plan.most_of("tasks") for plan in plans]
        assert [seen <= may for seen, may in zip(looked_at, most, strict=True)] == [True] * len(most), (
            what,
            looked_at,
        )


@pytest.mark.usefixtures("crowd")
async def test_each_other_list_goes_by_an_index_in_its_order(
    client: httpx2.AsyncClient, resources: Resources, agents: dict[str, Agent]
) -> None:
    quiet = str(agents["quiet"].id)
    served: list[tuple[dict[str, Any], str]] = [
        ({}, NEWEST),
        ({"order_direction": "asc"}, NEWEST),
        ({"page_number": 3}, NEWEST),
        ({"status": "COMPLETED"}, f"{NEWEST} or ix_tasks_account_id_status_created_at"),
        ({"status": "RUNNING"}, "ix_tasks_account_id_status_created_at"),
        ({"status": "FAILED"}, "ix_tasks_account_id_status_created_at"),
        ({"agent_id": quiet}, "ix_tasks_agent_id_created_at"),
        ({"agent_name": "quiet"}, "ix_tasks_agent_id_created_at"),
        ({"agent_name": "busy"}, f"{NEWEST} or ix_tasks_agent_id_created_at"),
        ({"order_by": "updated_at"}, "ix_tasks_account_id_updated_at"),
        ({"order_by": "updated_at", "order_direction": "asc"}, "ix_tasks_account_id_updated_at"),
        ({"order_by": "name"}, "uq_tasks_account_id_name"),
        ({"order_by": "name", "order_direction": "asc"}, "uq_tasks_account_id_name"),
    ]
    # Where nearly all tasks of the account fit, two are as good.
    for query, indexes in served:
        _, plans = await plans_of(client, resources, query)
        assert "".join(plans[0].indexes_of("tasks")) in indexes.split(" or "), query
        assert plans[0].most_of("tasks") <= 200, query
