"""GET /audit: for admins, within the account, by each filter, page by page."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest

from agentex.auth.authorize import Operation, ResourceType, type_ref
from agentex.auth.principal import Principal, PrincipalType
from agentex.auth.providers.none import NoneProvider
from agentex.auth.rules import Facts, Question, Role, decide
from agentex.resources import Resources
from agentex.settings import Settings
from tests.api.audit.entries import entries
from tests.api.ledger.stage import fetch
from tests.support.api import Json, create_task, registration
from tests.support.authz import ScriptedAuthz
from tests.support.plans import explain_sent, statements

OTHER = {"x-test-account": "other"}
ALICE = {"x-test-user": "alice"}


async def listed(
    client: httpx2.AsyncClient, headers: dict[str, str] | None = None, **query: Any
) -> list[Json]:
    answer = await client.get("/audit", params=query, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.json()["entries"]


@pytest.fixture
async def task(client: httpx2.AsyncClient, agent: Json) -> Json:
    """A task, made by tester and deleted by alice, and one request of hers that found nothing."""
    task = await create_task(client, agent)
    assert (await client.delete(f"/tasks/{task['id']}", headers=ALICE)).status_code == 200
    assert (await client.delete(f"/tasks/{task['id']}", headers=ALICE)).status_code == 404
    return task


@pytest.mark.usefixtures("task")
async def test_an_entry_on_the_wire(client: httpx2.AsyncClient, resources: Resources, task: Json) -> None:
    (last, *_) = await listed(client)
    stored = (await entries(resources))[-1]
    assert last == {
        "id": str(stored["id"]),
        "at": stored["at"].isoformat().replace("+00:00", "Z"),
        "principal": "user:alice",
        "operation": "delete_task",
        "rpc_method": None,
        "resource_type": "task",
        "resource_id": task["id"],
        "agent_id": None,
        "outcome": "refused",
        "status": 404,
        "request_id": stored["request_id"],
        "address": "203.0.113.7",
        "user_agent": "tests/1",
    }


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({}, ["delete_task", "delete_task", "call_agent", "register_agent"]),
        ({"principal": "user:alice"}, ["delete_task", "delete_task"]),
        ({"principal": "user:ali"}, []),
        ({"operation": "register_agent"}, ["register_agent"]),
        ({"resource_type": "agent"}, ["register_agent"]),
        ({"resource_type": "task"}, ["delete_task", "delete_task", "call_agent"]),
        ({"outcome": "refused"}, ["delete_task"]),
        ({"outcome": "done", "principal": "user:alice"}, ["delete_task"]),
        ({"outcome": "denied"}, []),
    ],
)
@pytest.mark.usefixtures("task")
async def test_filters(client: httpx2.AsyncClient, query: dict[str, str], found: list[str]) -> None:
    assert [entry["operation"] for entry in await listed(client, None, **query)] == found


async def test_by_the_object_and_by_when(client: httpx2.AsyncClient, task: Json) -> None:
    of_task = await listed(client, resource_id=task["id"])
    assert [entry["outcome"] for entry in of_task] == ["refused", "done", "done"]
    middle = of_task[1]["at"]
    assert await listed(client, resource_id=task["id"], at_after=middle) == of_task[:2]
    assert await listed(client, resource_id=task["id"], at_before=middle) == of_task[2:]


@pytest.mark.usefixtures("task")
async def test_page_by_page(client: httpx2.AsyncClient) -> None:
    everything, pages, cursor = await listed(client), [], None
    while True:
        query = {"limit": "1"} | ({"cursor": cursor} if cursor else {})
        page = (await client.get("/audit", params=query)).json()
        pages += page["entries"]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert pages == everything
    assert len(pages) == 4


@pytest.mark.parametrize(
    "query",
    [
        {"cursor": "nonsense"},
        {"limit": "0"},
        {"limit": "1001"},
        {"outcome": "well"},
        {"resource_type": "house"},
        {"at_after": "2026-01-01T00:00:00"},
        {"principal": "x" * 201},
        {"operation": "\x00"},
    ],
)
async def test_what_cannot_be_meant_is_refused(client: httpx2.AsyncClient, query: dict[str, str]) -> None:
    answer = await client.get("/audit", params=query)
    assert answer.status_code == 422, answer.text


@pytest.mark.usefixtures("task")
async def test_another_account_has_its_own(client: httpx2.AsyncClient) -> None:
    assert await listed(client, OTHER) == []
    theirs = await client.post("/agents/register", json=registration(name="theirs"), headers=OTHER)
    assert theirs.status_code == 200
    assert [entry["operation"] for entry in await listed(client, OTHER)] == ["register_agent"]
    assert len(await listed(client)) == 4
    cursor = (await client.get("/audit", params={"limit": 1})).json()["next_cursor"]
    assert await listed(client, OTHER, cursor=cursor) == []


@pytest.mark.usefixtures("task")
async def test_who_may_not_read_it_is_told_so(client: httpx2.AsyncClient, authz: ScriptedAuthz) -> None:
    authz.deny = frozenset({(Operation.READ, ResourceType.AUDIT)})
    answer = await client.get("/audit")
    assert (answer.status_code, answer.json()["message"]) == (
        403,
        "read on audit * is not allowed: scripted",
    )


@pytest.mark.parametrize("role", [*Role, None])
def test_admins_read_it_and_nobody_else(role: Role | None) -> None:
    principal = Principal(principal_type=PrincipalType.USER, user_id="alice")
    for operation in Operation:
        question = Question(principal, operation, type_ref(ResourceType.AUDIT, principal))
        assert decide(question, Facts(is_member=True, role=role)).allowed is (role is Role.ADMIN)


def test_a_key_with_scopes_has_to_name_it() -> None:
    for scopes, allowed in ((["task.read"], False), (["audit.read"], True)):
        principal = Principal(principal_type=PrincipalType.USER, user_id="alice", scopes=frozenset(scopes))
        question = Question(principal, Operation.READ, type_ref(ResourceType.AUDIT, principal))
        assert decide(question, Facts(is_member=True, role=Role.ADMIN)).allowed is allowed


async def test_without_auth_all_may_read_it(resources: Resources, settings: Settings) -> None:
    provider = NoneProvider(settings, resources.db)
    caller = await provider.authenticate({})
    async with resources.db.read() as session:
        audit = type_ref(ResourceType.AUDIT, caller)
        assert (await provider.authorize(session, caller, Operation.READ, audit)).allowed


MANY = """
    INSERT INTO audit_entries (id, account_id, at, principal, operation, resource_type, resource_id, outcome,
        status, address)
    SELECT gen_random_uuid(), 'default', now() - n * interval '1 second',
        'user:' || CASE WHEN n % 500 = 0 THEN 'rare' ELSE 'alice' END,
        CASE WHEN n % 500 = 1 THEN 'rare' ELSE 'create_message' END,
        CASE WHEN n % 500 = 2 THEN 'run' ELSE 'message' END,
        CASE WHEN n % 500 = 3 THEN 'rare' ELSE n::text END,
        CASE WHEN n % 500 = 4 THEN 'denied' ELSE 'done' END, 200, ''
    FROM generate_series(1, 20000) AS n
"""


@pytest.mark.parametrize(
    ("query", "index"),
    [
        ({}, "at"),
        ({"at_before": "2026-01-01T00:00:00Z"}, "at"),
        ({"outcome": "done"}, "at"),
        ({"principal": "user:rare"}, "principal"),
        ({"operation": "rare"}, "operation"),
        ({"resource_type": "run"}, "resource_type"),
        ({"resource_id": "rare"}, "resource_id"),
        ({"resource_id": "rare", "resource_type": "message"}, "resource_id"),
        ({"outcome": "denied"}, "not_done"),
    ],
)
async def test_each_filter_has_an_index(
    client: httpx2.AsyncClient, resources: Resources, query: dict[str, str], index: str
) -> None:
    await fetch(resources, MANY)
    await fetch(resources, "ANALYZE audit_entries")
    cursor = (await client.get("/audit", params={"limit": 5, **query})).json()["next_cursor"]

    next_page = {"limit": "5", **query} | ({"cursor": cursor} if cursor else {})
    with statements(resources) as sent:
        await client.get("/audit", params=next_page)

    plan = await explain_sent(resources, next(one for one in sent if "FROM audit_entries" in one[0]))
    assert plan.indexes_of("audit_entries") == {f"ix_audit_entries_{index}"}
    assert plan.most_of("audit_entries") <= 6
