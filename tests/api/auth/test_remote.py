"""AGENTEX_AUTH=remote: what the authorizer is asked, and what its answers mean."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import uuid4

import pytest

from agentex.auth.principal import Principal, PrincipalType, agent_principal
from agentex.auth.providers.remote import KnownCallers
from agentex.auth.rules import Role
from agentex.auth.service import KeyWanted, make_key, put_member
from agentex.resources import Resources, open_resources
from agentex.settings import Settings
from tests.api.auth.conftest import Remote
from tests.api.auth.remote import ALICE, is_outage, make
from tests.support.api import UNKNOWN_ID, Json, register
from tests.support.auth_stub import AuthStub, principal


async def test_the_authorizer_is_shown_what_tells_who_calls_and_nothing_else(
    remote: Remote, stub: AuthStub
) -> None:
    shown = {
        "cookie": "session=1",
        "x-api-key": "k",
        "x-agent-api-key": "a",
        "x-user-id": "u",
        "x-account-id": "c",
        "x-selected-account-id": "s",
    }
    kept = {
        "x-request-id": "r",
        "x-forwarded-for": "10.0.0.1",
        "te": "trailers",
        "x-other": "o",
        "idempotency-key": "i",
    }
    assert (await remote.alice.get("/agents", headers={**shown, **kept})).status_code == 200
    [sent] = stub.sent
    assert {name: sent.get(name) for name in shown} == shown
    assert sent["authorization"] == "Bearer alice"
    assert kept.keys() & sent.keys() == set()
    assert "agentex.test" not in sent["host"]


async def test_who_somebody_is_is_remembered_for_a_minute(remote: Remote, stub: AuthStub) -> None:
    now = [0.0]
    remote.provider.known.clock = lambda: now[0]
    for seconds, asked in ((0, 1), (59, 1), (61, 2), (62, 2)):
        now[0] = seconds
        assert (await remote.alice.get("/agents")).status_code == 200
        assert stub.counts["authn"] == asked
    assert (await remote.alice.get("/agents", headers={"cookie": "a=1"})).status_code == 200
    assert (await remote.bob.get("/agents")).status_code == 200
    assert stub.counts["authn"] == 4


async def test_what_somebody_may_do_is_asked_each_time(remote: Remote, stub: AuthStub) -> None:
    for count in (1, 2, 3):
        await remote.alice.get("/agents")
        assert stub.counts["search"] == count


@pytest.mark.parametrize("status", [401, 403, 502])
async def test_no_failure_is_remembered(remote: Remote, stub: AuthStub, status: int) -> None:
    stub.status["authn"] = status
    first = await remote.alice.get("/agents")
    del stub.status["authn"]
    again = await remote.alice.get("/agents")
    assert (first.status_code, again.status_code) == ({502: 503}.get(status, status), 200)


def test_so_many_callers_are_remembered_and_the_longest_unused_goes() -> None:
    known = KnownCallers(2, 60)
    for name in ("a", "b"):
        known.put(name.encode(), Principal(user_id=name))
    assert known.get(b"a") is not None
    known.put(b"c", Principal(user_id="c"))
    assert (known.get(b"a") is None, known.get(b"b") is None, known.get(b"c") is None) == (False, True, False)
    assert len(known) == 2


async def test_nobody_is_asked_about_a_request_without_a_credential(remote: Remote, stub: AuthStub) -> None:
    for headers in ({}, {"x-other": "1"}, {"authorization": ""}):
        assert (await remote.nobody.get("/agents", headers=headers)).status_code == 401
    assert stub.counts["authn"] == 0
    assert (await remote.nobody.get("/agents", headers={"authorization": "Bearer eve"})).status_code == 401
    assert stub.counts["authn"] == 1


OUTAGES = [0, 302, 400, 404, 500, 502, 503, 504]


@pytest.mark.parametrize("status", OUTAGES)
@pytest.mark.parametrize("path", ["authn", "check", "search"])
async def test_an_outage_is_a_503_that_may_be_repeated(
    remote: Remote, stub: AuthStub, path: str, status: int
) -> None:
    agent = await register(remote.alice)
    remote.provider.known.clock = lambda: float("inf")
    stub.status[path] = status
    asked = "/agents" if path == "search" else f"/agents/{agent['id']}"
    assert is_outage(await remote.alice.get(asked))
    assert stub.counts["elsewhere"] == 0
    del stub.status[path]
    assert (await remote.alice.get(asked)).status_code == 200


async def test_an_authorizer_that_does_not_listen_is_an_outage(remote: Remote, stub: AuthStub) -> None:
    agent = await register(remote.alice)
    await stub.close()
    assert is_outage(await remote.bob.get("/agents"))
    assert is_outage(await remote.alice.get(f"/agents/{agent['id']}"))


@pytest.mark.parametrize(
    "said",
    [
        [],
        "x",
        {},
        {"user_id": "alice"},
        {"account_id": "acme"},
        {"account_id": "acme", "user_id": ""},
        {"account_id": 7, "user_id": "alice"},
        {"account_id": "acme", "user_id": "a\x00b"},
        {"account_id": "acme", "user_id": "x" * 256},
        {"account_id": "acme", "user_id": "alice", "principal_type": "god"},
        {"account_id": "acme", "user_id": "alice", "principal_type": "service_account"},
        {"account_id": "acme", "service_account_id": "greeter", "principal_type": "agent"},
        {"account_id": "acme", "user_id": "alice", "principal_type": []},
    ],
    ids=str,
)
async def test_an_answer_that_is_no_principal_lets_nobody_in(
    remote: Remote, stub: AuthStub, said: Any
) -> None:
    stub.answers["authn"] = said
    assert is_outage(await remote.alice.get("/agents"))


async def test_a_principal_s_kind_is_known_by_its_id(remote: Remote, stub: AuthStub) -> None:
    stub.answers["authn"] = {"account_id": "acme", "service_account_id": "ci", "more": {"x": 1}}
    await remote.alice.get("/agents")
    [asked] = stub.asked["search"]
    assert asked == {
        "principal": {
            "principal_type": "service_account",
            "user_id": None,
            "service_account_id": "ci",
            "account_id": "acme",
        },
        "filter_resource": "agent",
        "filter_operation": "read",
    }


async def test_401_of_a_check_or_search_is_401(remote: Remote, stub: AuthStub) -> None:
    agent = await register(remote.alice)
    stub.status |= {"check": 401, "search": 401}
    for path in (f"/agents/{agent['id']}", "/agents"):
        assert (await remote.alice.get(path)).status_code == 401


async def test_what_is_not_readable_is_404_and_what_is_readable_403(remote: Remote, stub: AuthStub) -> None:
    agent = await register(remote.alice)
    url = f"/agents/{agent['id']}"
    assert (await remote.bob.delete(url)).status_code == 404
    stub.deny = {("delete", "agent")}
    assert (await remote.alice.delete(url)).status_code == 403
    stub.deny = set()
    assert (await remote.alice.delete(url)).status_code == 200


@pytest.mark.parametrize(
    ("said", "names"),
    [
        ({"unscoped": True}, ["b", "a"]),
        ({"items": None}, ["b", "a"]),
        ({"items": []}, []),
        ({"items": ["{a}", UNKNOWN_ID, "*", "x", 7, None, "' OR true --"]}, ["a"]),
        ({"items": ["{b}", "{a}"], "unscoped": False}, ["b", "a"]),
    ],
    ids=["unscoped", "null", "none", "garbage", "two"],
)
async def test_a_list_has_what_a_search_finds(
    remote: Remote, stub: AuthStub, said: Json, names: list[str]
) -> None:
    made = {name: (await register(remote.alice, name=name))["id"] for name in ("a", "b")}
    if isinstance(said.get("items"), list):
        said = {
            **said,
            "items": [one.format(**made) if isinstance(one, str) else one for one in said["items"]],
        }
    stub.answers["search"] = said
    listed = await remote.bob.get("/agents")
    assert (listed.status_code, [agent["name"] for agent in listed.json()]) == (200, names)


@pytest.mark.parametrize("said", [{}, {"items": "all"}, {"items": {}}, [], {"unscoped": "yes"}], ids=str)
async def test_a_search_that_is_answered_otherwise_is_an_outage(
    remote: Remote, stub: AuthStub, said: Any
) -> None:
    stub.answers["search"] = said
    assert is_outage(await remote.alice.get("/agents"))


async def test_a_list_is_never_forbidden(remote: Remote, stub: AuthStub) -> None:
    await register(remote.alice)
    stub.status["search"] = 403
    listed = await remote.alice.get("/agents")
    assert (listed.status_code, listed.json()) == (200, [])


async def test_another_account_s_things_are_not_there_whatever_the_authorizer_says(
    remote: Remote, stub: AuthStub
) -> None:
    agent = await register(remote.alice)
    stub.answers = {"authn": principal("bob", "other"), "search": {"unscoped": True}, "check": {}}
    assert (await remote.bob.get(f"/agents/{agent['id']}")).status_code == 404
    assert (await remote.bob.get("/agents")).json() == []


async def test_two_users_have_each_their_own(remote: Remote, stub: AuthStub) -> None:
    agent = await register(remote.alice, name="hers")
    schedule = await make(remote.alice, agent)
    url = f"/agents/{agent['id']}/schedules"
    run_id = (await remote.alice.post(f"{url}/{schedule['id']}/trigger")).json()["run_id"]
    paths = [f"/agents/{agent['id']}", url, f"{url}/{schedule['id']}", f"/runs/{run_id}"]
    assert [(await remote.alice.get(path)).status_code for path in paths] == [200] * 4
    assert [(await remote.bob.get(path)).status_code for path in paths] == [404] * 4
    lists = {"/agents": None, "/runs": "runs"}
    for path, key in lists.items():
        hers, his = (await remote.alice.get(path)).json(), (await remote.bob.get(path)).json()
        assert [len(found[key] if key else found) for found in (hers, his)] == [1, 0]
    # Shared by the authorizer: the agent alone, and with it what is registered under it.
    stub.granted.add(("bob", agent["id"]))
    assert [(await remote.bob.get(path)).status_code for path in paths] == [200] * 4
    assert (await remote.bob.get(url)).json()["total"] == 1
    assert len((await remote.bob.get("/runs")).json()["runs"]) == 1


async def test_making_an_agent_asks_for_the_type_as_such(remote: Remote, stub: AuthStub) -> None:
    agent = await register(remote.alice)
    assert stub.asked["check"][0] == {
        "principal": ALICE,
        "resource": {"type": "agent", "selector": "*"},
        "operation": "create",
    }
    assert (await remote.alice.get(f"/agents/{agent['id']}")).status_code == 200
    assert stub.registered[agent["id"]]["parent"] is None
    stub.deny = {("create", "agent")}
    body = {"name": "x", "description": "", "acp_url": "http://127.0.0.1:9", "acp_type": "async"}
    assert (await remote.alice.post("/agents/register", json=body)).status_code == 403


async def key_of(
    resources: Resources, member: Principal, role: Role | None, scopes: list[str] | None = None
) -> str:
    async with resources.db.begin() as session:
        await put_member(session, member, role)
        wanted = KeyWanted(member, "k", "test", scopes=scopes)
        _, made = await make_key(session, resources.settings, wanted)
    return made.text


async def test_agents_keys_are_of_this_service_and_judged_here(remote: Remote, stub: AuthStub) -> None:
    agent = await register(remote.alice, name="greeter")
    other = await register(remote.alice, name="other")
    key = await key_of(remote.resources, agent_principal("acme", "greeter"), Role.AGENT)
    asked = stub.counts.total()
    headers = {"x-agent-api-key": key}
    assert (await remote.nobody.get(f"/agents/{agent['id']}", headers=headers)).status_code == 200
    assert (await remote.nobody.get(f"/agents/{other['id']}/schedules", headers=headers)).status_code == 200
    assert (await remote.nobody.delete(f"/agents/{other['id']}", headers=headers)).status_code == 403
    assert stub.counts.total() == asked
    both = await remote.alice.get("/agents", headers=headers)
    assert both.status_code == 401


async def test_a_person_s_key_is_of_this_service_and_what_it_may_the_authorizer_s(
    remote: Remote, stub: AuthStub
) -> None:
    agent = await register(remote.alice)
    alice = Principal(principal_type=PrincipalType.USER, user_id="alice", account_id="acme")
    key = await key_of(remote.resources, alice, None, ["agent.read"])
    headers = {"x-api-key": key}
    url = f"/agents/{agent['id']}"
    assert (await remote.nobody.get(url, headers=headers)).status_code == 200
    assert stub.asked["check"][-1]["principal"] == ALICE
    assert (await remote.nobody.delete(url, headers=headers)).status_code == 403
    assert (await remote.nobody.get("/runs", headers=headers)).json()["runs"] == []
    assert stub.counts["authn"] == 1


async def test_a_header_that_no_header_is_is_401(remote: Remote, stub: AuthStub) -> None:
    for value in (b"Bearer \x00", b"Bearer a\tb", b"Bearer \xe9"):
        answer = await remote.nobody.get("/agents", headers=[(b"authorization", value)])
        assert answer.status_code == 401
    assert stub.counts["authn"] == 0


async def test_many_at_once_are_answered_alike(remote: Remote) -> None:
    """Not one is told no while another tells the authorizer, and they do not wait for connections."""
    agent = await register(remote.alice)
    answers = await asyncio.gather(*[remote.alice.get(f"/agents/{agent['id']}") for _ in range(60)])
    assert {answer.status_code for answer in answers} == {200}


async def test_an_authorizer_that_hangs_holds_no_connections(remote: Remote, stub: AuthStub) -> None:
    agent = await register(remote.alice)
    await remote.bob.get("/agents")
    stub.status["check"] = 0
    hanging = [asyncio.create_task(remote.alice.get(f"/agents/{agent['id']}")) for _ in range(30)]
    await stub.asked_times("check", 31)
    assert (await remote.bob.get("/agents")).status_code == 200
    assert all([is_outage(await answer) for answer in hanging])


async def test_a_caller_is_known_to_one_process_only(
    remote: Remote, remote_settings: Settings, stub: AuthStub
) -> None:
    """Nothing of a credential is kept beside memory."""
    await remote.alice.get("/agents", headers={"cookie": f"marked-{uuid4()}"})
    async with open_resources(remote_settings) as other:
        assert await other.authz.authenticate({"authorization": "Bearer alice"}) == Principal.model_validate(
            ALICE
        )
    assert stub.counts["authn"] == 2
