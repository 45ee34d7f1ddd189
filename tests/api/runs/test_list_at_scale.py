"""GET /runs in a long ledger: each filter has an index, or a page looks at no more than so many rows."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest

from agentex.agents.models import Agent
from agentex.database import rows
from agentex.executors.base import Lane
from agentex.ids import new_id
from agentex.resources import Resources
from agentex.runs import service
from agentex.runs.claims import claim_page
from agentex.runs.models import REASONED_STATUSES, UNFINISHED_STATUSES, RunReason, RunStatus
from agentex.runs.pages import PageRef
from tests.api.ledger.stage import NOON, add_agent, add_run, fetch, minutes
from tests.support.api import Json
from tests.support.plans import Plan, explain_sent, statements

QUIET = "01930000-0000-7000-8000-0000000000cc"
SCHEDULE = "01930000-0000-7000-8000-0000000000dd"
ROWS = 50_000


@pytest.fixture
async def agent(resources: Resources) -> Agent:
    return await add_agent(resources)


async def page(client: httpx2.AsyncClient, **query: Any) -> Json:
    answer = await client.get("/runs", params={key: str(value) for key, value in query.items()})
    assert answer.status_code == 200, answer.text
    return answer.json()


async def walk(client: httpx2.AsyncClient, **query: Any) -> list[list[str]]:
    """The ids of each page, to the last."""
    listed = await page(client, **query)
    pages = [[run["id"] for run in listed["runs"]]]
    while listed["next_cursor"]:
        listed = await page(client, **query, cursor=listed["next_cursor"])
        pages.append([run["id"] for run in listed["runs"]])
    return pages


@pytest.fixture
def short_walks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "WALK_ROWS", 4)


@pytest.mark.usefixtures("short_walks")
async def test_pages_of_a_filter_without_an_index_have_cursors_until_all_was_looked_at(
    client: httpx2.AsyncClient, resources: Resources, agent: Agent
) -> None:
    wanted = {3, 4, 5, 10}
    runs = [
        await add_run(
            resources,
            agent,
            RunStatus.CANCELED if number in wanted else RunStatus.DELIVERED,
            due_at=NOON - minutes(number // 2),
            finished_at=NOON,
        )
        for number in range(11)
    ]
    runs.sort(key=lambda run: (run.due_at, run.id), reverse=True)
    found = [str(run.id) for run in runs if run.status is RunStatus.CANCELED]
    pages = await walk(client, status="canceled", limit=2)
    assert [run for ids in pages for run in ids] == found
    assert len(pages) == 3 or [] in pages
    assert await walk(client, cause="webhook", limit=2) == [[], [], []]
    assert [run for ids in await walk(client, cause="manual", limit=3) for run in ids] == [
        str(run.id) for run in runs
    ]


@pytest.mark.usefixtures("short_walks")
async def test_a_page_that_is_full_goes_on_behind_its_last_run(
    client: httpx2.AsyncClient, resources: Resources, agent: Agent
) -> None:
    runs = [
        await add_run(resources, agent, RunStatus.CANCELED, due_at=NOON - minutes(n), finished_at=NOON)
        for n in range(6)
    ]
    assert await walk(client, status="canceled", limit=3) == [
        [str(run.id) for run in runs[:3]],
        [str(run.id) for run in runs[3:]],
    ]


@pytest.mark.usefixtures("short_walks")
@pytest.mark.parametrize("status", list(RunStatus))
async def test_every_status_is_found_and_no_other(
    client: httpx2.AsyncClient, resources: Resources, agent: Agent, status: RunStatus
) -> None:
    for other in RunStatus:
        await add_run(
            resources,
            agent,
            other,
            reason=RunReason.OURS if other in REASONED_STATUSES else None,
            finished_at=None if other in UNFINISHED_STATUSES else NOON,
        )
    found = [run for ids in await walk(client, status=status) for run in ids]
    expected = await fetch(resources, "SELECT id FROM runs WHERE status = :status", status=status)
    assert found == [str(row["id"]) for row in expected]


async def fill(resources: Resources, agent: Agent) -> None:
    """Many runs, newest last, of twenty agents; a few that ended badly, run, or are a quiet agent's."""
    await fetch(
        resources,
        """
        INSERT INTO runs (id, account_id, agent_id, schedule_id, fire_id, cause, due_at, status, reason,
            opened_at, finished_at, updated_at, principal)
        SELECT gen_random_uuid(), 'default',
            CASE WHEN n % 5000 = 1 THEN CAST(:quiet AS uuid) WHEN n % 20 = 0 THEN CAST(:agent AS uuid)
                ELSE overlay(CAST(:agent AS text) placing lpad(to_hex(n % 20), 4, '0') from 33)::uuid END,
            CASE WHEN n % 1000 = 2 THEN CAST(:schedule AS uuid) ELSE gen_random_uuid() END,
            'k' || n, 'cadence', at, status, CASE WHEN status IN ('failed', 'skipped') THEN 'ours' END, at,
            CASE WHEN status <> 'running' THEN at END, at,
            '{"principal_type": "user", "account_id": "default"}'
        FROM (
            SELECT n, timestamptz '2026-01-01Z' + n * interval '1 s' AS at,
                CASE WHEN n % 1000 = 3 THEN 'failed' WHEN n % 500 = 4 THEN 'skipped'
                    WHEN n < 5000 AND n % 1000 = 5 THEN 'running' ELSE 'delivered' END AS status
            FROM generate_series(1, :count) AS n) made
        """,
        quiet=QUIET,
        schedule=SCHEDULE,
        agent=str(agent.id),
        count=ROWS,
    )
    await fetch(resources, "ANALYZE runs")


async def plan_of(client: httpx2.AsyncClient, resources: Resources, **query: Any) -> Plan:
    with statements(resources) as sent:
        await page(client, **query)
    listing = next(one for one in sent if "FROM runs" in one[0] and "output" in one[0])
    return await explain_sent(resources, listing)


SERVED = {
    "": "ix_runs_account_id_due_at",
    f"agent_id={QUIET}": "ix_runs_agent_id_due_at",
    # A schedule of 50 runs: sorted by its index, or found by the unique one and sorted, whichever ANALYZE's
    # sample makes look cheaper.
    f"schedule_id={SCHEDULE}": "ix_runs_schedule_id_due_at or uq_runs_schedule_id_fire_id",
    "status=failed": "ix_runs_account_id_due_at_reasoned",
    "status=skipped": "ix_runs_account_id_due_at_reasoned",
    "status=running": "ix_runs_account_id_due_at_unfinished",
    "status=due": "ix_runs_account_id_due_at_unfinished",
    "due_after=2026-01-01T02:00:00Z&due_before=2026-01-01T02:01:00Z": "ix_runs_account_id_due_at",
    "status=failed&due_before=2026-01-01T02:00:00Z": "ix_runs_account_id_due_at_reasoned",
}


async def test_a_filter_s_index_leads_to_its_runs_and_few_others(
    client: httpx2.AsyncClient, resources: Resources, agent: Agent
) -> None:
    await fill(resources, agent)
    used: dict[str, str] = {}
    for query, index in SERVED.items():
        plan = await plan_of(client, resources, **dict(part.split("=") for part in query.split("&") if part))
        used[query] = "".join(plan.indexes_of("runs"))
        # What was skipped is in one index with what failed: here two of three.
        assert plan.most_of("runs") <= 3 * 101, (query, index)
    assert {query: index for query, index in used.items() if index not in SERVED[query].split(" or ")} == {}
    # And a page in the middle begins at its cursor, rather than walk to it.
    last = (await page(client, due_before="2026-01-01T07:00:00Z", limit=1))["next_cursor"]
    plan = await plan_of(client, resources, cursor=last)
    assert (plan.indexes_of("runs"), plan.most_of("runs")) == ({"ix_runs_account_id_due_at"}, 101)


@pytest.mark.parametrize("query", ["status=timed_out", "status=succeeded", "cause=manual"])
async def test_a_filter_without_an_index_looks_at_so_many_rows(
    client: httpx2.AsyncClient, resources: Resources, agent: Agent, query: str
) -> None:
    await fill(resources, agent)
    name, value = query.split("=")
    plan = await plan_of(client, resources, **{name: value})
    assert plan.most_of("runs") == service.WALK_ROWS
    assert len(await walk(client, **{name: value})) == ROWS // service.WALK_ROWS + 1


async def test_a_claim_stays_hot(resources: Resources, agent: Agent) -> None:
    """A column of an index's predicate counts as one of its key, whether or not the row is in the index."""
    page = PageRef(new_id(), Lane.DELIVER, 0)
    place = {"batch_id": page.batch_id, "lane": page.lane, "page": page.page}
    for _ in range(3):
        await add_run(resources, agent, RunStatus.DUE, **place)
    async with resources.db.begin() as session:
        assert len(await claim_page(session, resources.settings, page, new_id())) == 3
        counted = await rows(
            session, "SELECT pg_stat_get_xact_tuples_hot_updated('runs'::regclass::oid) AS hot"
        )
        assert counted[0]["hot"] == 3
