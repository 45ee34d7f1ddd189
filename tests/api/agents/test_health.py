"""Health checks: what GET /healthz of each agent makes of its status, over several rounds."""

from __future__ import annotations

import asyncio
import json

import httpx2
import pytest

from agentex.agents import health
from agentex.agents.health import check_health
from agentex.resources import Resources
from agentex.settings import Settings
from tests.api.ledger.stage import fetch
from tests.support.acp_replies import Reply
from tests.support.acp_server import AcpServer
from tests.support.api import UNKNOWN_ID, Json, register
from tests.support.plans import explain_sent, statements

FAILURES = 3
DOWN = "agent 127.0.0.1:9, GET /healthz: no connection: "


@pytest.fixture
def settings(settings: Settings) -> Settings:
    quick = {"agent_health_failures": FAILURES, "agent_health_timeout_seconds": 0.3}
    return settings.model_copy(update=quick)


async def rounds(resources: Resources, count: int = 1) -> None:
    for _ in range(count):
        await check_health(resources)


async def state(client: httpx2.AsyncClient, agent: Json) -> tuple[str, str | None]:
    found = (await client.get(f"/agents/{agent['id']}")).json()
    return found["status"], found["status_reason"]


def healthy_as(agent_id: str) -> Reply:
    return Reply(body=json.dumps({"status": "healthy", "agent_id": agent_id}))


async def test_an_agent_that_answers_stays_ready_and_nothing_is_written(
    client: httpx2.AsyncClient, resources: Resources, agent: Json, acp_server: AcpServer
) -> None:
    acp_server.script("healthz", [healthy_as(agent["id"])], repeat=True)

    with statements(resources) as sent:
        await rounds(resources, 2)

    assert await state(client, agent) == ("Ready", None)
    assert [statement.split()[0] for statement, _ in sent] == ["SELECT", "SELECT"]
    assert acp_server.probes == 2


async def test_the_last_of_several_failures_in_a_row_makes_it_unhealthy_and_says_why(
    client: httpx2.AsyncClient, resources: Resources
) -> None:
    agent = await register(client)
    found: list[str] = []
    for _ in range(FAILURES + 1):
        await rounds(resources)
        found.append((await state(client, agent))[0])

    _, reason = await state(client, agent)
    assert found == ["Ready", "Ready", "Unhealthy", "Unhealthy"]
    assert str(reason).startswith(DOWN)


async def test_a_status_that_stays_is_not_written_again(
    client: httpx2.AsyncClient, resources: Resources
) -> None:
    agent = await register(client)
    await rounds(resources, FAILURES)
    before = (await client.get(f"/agents/{agent['id']}")).json()

    with statements(resources) as sent:
        await rounds(resources, 2)

    assert [statement.split()[0] for statement, _ in sent] == ["SELECT", "SELECT"]
    assert (await client.get(f"/agents/{agent['id']}")).json() == before
    assert before["updated_at"] > before["registered_at"]


async def test_failures_that_are_no_row_do_not_add_up(
    client: httpx2.AsyncClient, resources: Resources, agent: Json, acp_server: AcpServer
) -> None:
    away, well = Reply(status=500), Reply()
    acp_server.script("healthz", [away, away, well, away, away, well, away, away])

    await rounds(resources, 8)

    assert await state(client, agent) == ("Ready", None)
    assert (await client.get(f"/agents/{agent['id']}")).json()["updated_at"] == agent["updated_at"]


async def test_one_answer_makes_it_ready_again(
    client: httpx2.AsyncClient, resources: Resources, agent: Json, acp_server: AcpServer
) -> None:
    acp_server.script("healthz", [Reply(status=500)] * FAILURES)
    await rounds(resources, FAILURES)
    assert await state(client, agent) == ("Unhealthy", "GET /healthz answered HTTP 500")

    await rounds(resources)

    assert await state(client, agent) == ("Ready", None)
    found = await fetch(resources, "SELECT health_failures FROM agents")
    assert [row["health_failures"] for row in found] == [0]


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (healthy_as(UNKNOWN_ID), f"GET /healthz answered as another agent, {UNKNOWN_ID!r}"),
        (healthy_as("\x00"), "GET /healthz answered as another agent, '\\x00'"),
        (Reply(status=503), "GET /healthz answered HTTP 503"),
        (Reply(body="ok"), 'GET /healthz did not answer {"status": "healthy"}'),
        (Reply(body="{" * 70_000), 'GET /healthz did not answer {"status": "healthy"}'),
    ],
    ids=["another id", "NUL", "503", "no JSON", "too large"],
)
async def test_the_reason_is_what_was_wrong_with_the_answer(
    client: httpx2.AsyncClient,
    resources: Resources,
    agent: Json,
    acp_server: AcpServer,
    reply: Reply,
    reason: str,
) -> None:
    acp_server.script("healthz", [reply], repeat=True)

    await rounds(resources, FAILURES)

    assert await state(client, agent) == ("Unhealthy", reason)


async def test_an_agent_that_hangs_is_given_up_and_holds_up_no_other(
    client: httpx2.AsyncClient, resources: Resources, agent: Json, acp_server: AcpServer
) -> None:
    acp_server.script("healthz", [Reply(hang="before")], repeat=True)
    async with AcpServer() as quick:
        other = await register(client, name="other", acp_url=quick.url)
        await rounds(resources, FAILURES)

    assert ((await state(client, agent))[0], await state(client, other)) == ("Unhealthy", ("Ready", None))
    assert "no complete answer within 0.3 s" in str(await state(client, agent))


async def test_an_agent_without_healthz_is_ready_as_soon_as_it_answers(
    client: httpx2.AsyncClient, resources: Resources, agent: Json, acp_server: AcpServer
) -> None:
    acp_server.script("healthz", [*[Reply(status=500)] * FAILURES, Reply(status=404)])
    await rounds(resources, FAILURES)
    assert (await state(client, agent))[0] == "Unhealthy"

    await rounds(resources)

    assert await state(client, agent) == ("Ready", None)


async def test_a_reason_that_changes_is_told(
    client: httpx2.AsyncClient, resources: Resources, agent: Json, acp_server: AcpServer
) -> None:
    acp_server.script("healthz", [*[Reply(status=500)] * FAILURES, Reply(status=502)])
    await rounds(resources, FAILURES + 1)

    assert await state(client, agent) == ("Unhealthy", "GET /healthz answered HTTP 502")


async def test_registering_makes_it_ready_at_once_and_failures_count_anew(
    client: httpx2.AsyncClient, resources: Resources
) -> None:
    agent = await register(client)
    await rounds(resources, FAILURES)

    again = await register(client)
    assert (again["status"], again["status_reason"]) == ("Ready", None)
    await rounds(resources, FAILURES - 1)

    assert await state(client, agent) == ("Ready", None)


async def test_what_is_found_of_an_agent_that_registers_meanwhile_is_not_written(
    client: httpx2.AsyncClient, resources: Resources, agent: Json, acp_server: AcpServer
) -> None:
    """Its old address has nothing to say of its new one, and its old process of the new one."""
    acp_server.script("healthz", [Reply(status=500)] * (FAILURES - 1))
    await rounds(resources, FAILURES - 1)
    acp_server.script("healthz", [Reply(hang="before", status=500)])
    looking = asyncio.create_task(check_health(resources))
    await acp_server.is_hanging()
    await register(client, acp_url=acp_server.url)
    acp_server.release()
    await looking

    assert await state(client, agent) == ("Ready", None)


@pytest.mark.parametrize("status", ["Failed", "Unknown", "BuildOnly", "Deleted"])
async def test_other_statuses_are_left_alone(
    client: httpx2.AsyncClient, resources: Resources, agent: Json, acp_server: AcpServer, status: str
) -> None:
    await fetch(resources, "UPDATE agents SET status = :status, status_reason = 'as it was'", status=status)
    acp_server.script("healthz", [Reply(status=500)] * FAILURES)

    await rounds(resources, FAILURES + 1)

    assert (await state(client, agent), acp_server.probes) == ((status, "as it was"), 0)


async def test_a_status_that_is_set_meanwhile_is_left_alone(
    client: httpx2.AsyncClient, resources: Resources, agent: Json, acp_server: AcpServer
) -> None:
    acp_server.script("healthz", [Reply(hang="before", status=500)] * FAILURES, repeat=True)
    for _ in range(FAILURES):
        looking = asyncio.create_task(check_health(resources))
        await acp_server.is_hanging()
        await fetch(resources, "UPDATE agents SET status = 'Failed'")
        acp_server.release()
        await looking
        await fetch(resources, "UPDATE agents SET status = 'Ready'")

    assert (await state(client, agent))[0] == "Ready"


async def test_a_deleted_agent_is_not_asked(
    client: httpx2.AsyncClient, resources: Resources, agent: Json, acp_server: AcpServer
) -> None:
    await client.delete(f"/agents/{agent['id']}")

    await rounds(resources)

    assert acp_server.probes == 0


async def test_all_accounts_and_all_pages_are_asked_and_each_page_is_one_write(
    client: httpx2.AsyncClient, resources: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "AGENTS_AT_ONCE", 3)
    agents = [await register(client, name=f"agent-{n}") for n in range(6)]
    await client.post(
        "/agents/register",
        json={"name": "other", "description": "", "acp_url": "http://127.0.0.1:9", "acp_type": "sync"},
        headers={"x-test-account": "other"},
    )

    with statements(resources) as sent:
        await rounds(resources)
    await rounds(resources, FAILURES - 1)

    found = await fetch(resources, "SELECT status FROM agents")
    assert [row["status"] for row in found] == ["Unhealthy"] * (len(agents) + 1)
    kinds = [statement.split()[0] for statement, _ in sent]
    assert kinds == ["SELECT", "WITH"] * 3


async def test_no_more_than_the_places_are_asked_at_once(
    client: httpx2.AsyncClient, resources: Resources, monkeypatch: pytest.MonkeyPatch, acp_server: AcpServer
) -> None:
    monkeypatch.setattr(health, "PROBES_AT_ONCE", 4)
    for n in range(12):
        await register(client, name=f"agent-{n}", acp_url=acp_server.url)
    # Long enough that all who may come at once are there together.
    acp_server.script("healthz", [Reply(delay_seconds=0.1)], repeat=True)

    await rounds(resources)

    assert (acp_server.probes, acp_server.most_open) == (12, 4)


async def test_two_processes_that_both_look_do_not_deadlock(
    client: httpx2.AsyncClient, resources: Resources
) -> None:
    for n in range(30):
        await register(client, name=f"agent-{n}")

    await asyncio.gather(*[check_health(resources) for _ in range(8)])

    found = await fetch(resources, "SELECT DISTINCT status, health_failures FROM agents")
    assert [tuple(row.values()) for row in found] == [("Unhealthy", FAILURES)]


async def test_a_page_of_agents_is_found_by_the_primary_key(
    resources: Resources, monkeypatch: pytest.MonkeyPatch, acp_server: AcpServer
) -> None:
    monkeypatch.setattr(health, "AGENTS_AT_ONCE", 10)
    await fetch(
        resources,
        """
        INSERT INTO agents (id, account_id, owner, name, description, acp_url, acp_type, status, created_at,
            updated_at)
        SELECT gen_random_uuid(), 'a' || n % 10, 'o', 'n' || n, '', :url, 'async',
            CASE WHEN n % 100 = 0 THEN 'Ready' ELSE 'Failed' END, now(), now()
        FROM generate_series(1, 5000) AS n
        """,
        url=acp_server.url,
    )
    await fetch(resources, "ANALYZE agents")

    with statements(resources) as sent:
        await rounds(resources)

    assert (len(sent), acp_server.probes) == (6, 50)
    assert (await explain_sent(resources, sent[0])).indexes_of("agents") == {"pk_agents"}
