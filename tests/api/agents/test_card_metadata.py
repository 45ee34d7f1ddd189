"""GET /agents?agent_card_metadata: agents whose card's metadata holds an object, by an index."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import pytest

from agentex.resources import Resources
from tests.api.ledger.stage import fetch
from tests.support.api import problem, register
from tests.support.plans import explain_sent, statements

CARDS: dict[str, Any] = {
    "plain": None,
    "empty": {"agent_card": {}},
    "no-object": {"agent_card": {"metadata": "eu"}},
    "bare": {"agent_card": {"metadata": {}}},
    "eu": {"agent_card": {"metadata": {"region": "eu", "tags": ["a", "b"], "limits": {"n": 1, "m": 2}}}},
    "us": {"agent_card": {"metadata": {"region": "us", "permits_capable": True}}, "commit_sha": "abc"},
    "elsewhere": {"metadata": {"region": "eu"}, "region": "eu"},
}


async def listed(client: httpx2.AsyncClient, wanted: object, **query: Any) -> list[str]:
    answer = await client.get("/agents", params={"agent_card_metadata": json.dumps(wanted), **query})
    assert answer.status_code == 200, answer.text
    return [agent["name"] for agent in answer.json()]


async def cards(client: httpx2.AsyncClient) -> None:
    for name, metadata in CARDS.items():
        await register(client, name=name, registration_metadata=metadata)


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        ({"region": "eu"}, ["eu"]),
        ({"permits_capable": True}, ["us"]),
        ({"permits_capable": False}, []),
        ({"permits_capable": "true"}, []),
        ({"tags": ["b"]}, ["eu"]),
        ({"limits": {"m": 2}}, ["eu"]),
        ({"region": "eu", "limits": {"m": 3}}, []),
        ({}, ["us", "eu", "bare"]),
        ({"'; --": ":x %s"}, []),
    ],
)
async def test_it_is_containment(client: httpx2.AsyncClient, wanted: object, names: list[str]) -> None:
    await cards(client)
    assert await listed(client, wanted) == names


async def test_it_goes_with_order_and_pages(client: httpx2.AsyncClient) -> None:
    await cards(client)
    by_name: dict[str, Any] = {"order_by": "name", "order_direction": "asc", "limit": 2}
    assert await listed(client, {}, **by_name) == ["bare", "eu"]
    assert await listed(client, {}, **by_name, page_number=2) == ["us"]


async def test_it_stays_in_the_account_and_leaves_out_deleted_agents(client: httpx2.AsyncClient) -> None:
    await cards(client)
    await client.delete("/agents/name/eu")
    other = await client.get(
        "/agents", params={"agent_card_metadata": "{}"}, headers={"x-test-account": "other"}
    )
    assert (await listed(client, {"region": "eu"}), other.json()) == ([], [])


async def test_a_card_that_registers_later_is_found(client: httpx2.AsyncClient) -> None:
    await register(client)
    await register(client, registration_metadata=CARDS["eu"])
    assert await listed(client, {"region": "eu"}) == ["greeter"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("{", '\'{\' is not JSON; give an object such as {"team": "a"}'),
        ("", '\'\' is not JSON; give an object such as {"team": "a"}'),
        ("[1]", '\'[1]\' is not a JSON object; give an object such as {"team": "a"}'),
        ("null", '\'null\' is not a JSON object; give an object such as {"team": "a"}'),
        ('{"a": NaN}', '\'{"a": NaN}\' is not JSON; give an object such as {"team": "a"}'),
        ('{"a": 1e999}', '\'{"a": 1e999}\' is not JSON; give an object such as {"team": "a"}'),
        ('{"a": "\\u0000"}', "holds NUL or half a surrogate pair, which cannot be stored; leave it out"),
        ('{"\\ud800": 1}', "holds NUL or half a surrogate pair, which cannot be stored; leave it out"),
        ("[" * 9_000, f'{"[" * 80!r} is not JSON; give an object such as {{"team": "a"}}'),
        ("x" * 10_001, "is longer than 10000 characters"),
    ],
    ids=lambda value: str(value)[:20],
)
async def test_what_is_no_object_is_422(client: httpx2.AsyncClient, given: str, message: str) -> None:
    answer = await client.get("/agents", params={"agent_card_metadata": given})

    assert answer.status_code == 422
    assert answer.json() == problem("/agents", 422, "invalid-input", f"agent_card_metadata: {message}")


async def test_an_index_serves_it_whatever_the_order(
    client: httpx2.AsyncClient, resources: Resources
) -> None:
    await fetch(
        resources,
        """
        INSERT INTO agents (id, account_id, owner, name, description, acp_url, acp_type, status,
            registration_metadata, created_at, updated_at)
        SELECT gen_random_uuid(), 'default', 'o', 'n' || n, '', 'http://a', 'async', 'Ready',
            jsonb_build_object('agent_card', jsonb_build_object('metadata',
                jsonb_build_object('team', 't' || n % 500, 'all', true))), now(), now()
        FROM generate_series(1, 10000) AS n
        """,
    )
    await fetch(resources, "ANALYZE agents")
    for order_by in ("created_at", "updated_at", "name"):
        with statements(resources) as sent:
            assert len(await listed(client, {"team": "t7"}, order_by=order_by)) == 20
        plan = await explain_sent(resources, next(one for one in sent if "ORDER BY" in one[0]))
        assert (plan.indexes_of("agents"), plan.most_of("agents")) == ({"ix_agents_card_metadata"}, 20)


@pytest.mark.parametrize(
    ("order_by", "index"),
    [
        ("created_at", "ix_agents_account_id_created_at"),
        ("updated_at", "ix_agents_account_id_updated_at"),
        ("name", "uq_agents_account_id_name"),
    ],
)
async def test_each_order_has_an_index(
    client: httpx2.AsyncClient, resources: Resources, order_by: str, index: str
) -> None:
    await fetch(
        resources,
        """
        INSERT INTO agents (id, account_id, owner, name, description, acp_url, acp_type, status, created_at,
            updated_at)
        SELECT gen_random_uuid(), 'default', 'o', 'n' || n, '', 'http://a', 'async', 'Ready',
            now() - make_interval(secs => n), now() - make_interval(secs => n)
        FROM generate_series(1, 5000) AS n
        """,
    )
    await fetch(resources, "ANALYZE agents")
    with statements(resources) as sent:
        await client.get("/agents", params={"order_by": order_by})
    plan = await explain_sent(resources, next(one for one in sent if "ORDER BY" in one[0]))
    assert (plan.indexes_of("agents"), plan.most_of("agents") <= 60) == ({index}, True)
