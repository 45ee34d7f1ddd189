"""Every route, asked by those who may not: another tenant, a guest, a viewer, an editor, another agent.

The requests, their bodies and the world that they are about are those of app/test_every_route.py, so that a
new route is walked here as soon as it is walked there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable
from typing import Any

import httpx2
import pytest

from agentex.auth.rules import Role
from agentex.resources import Resources
from agentex.web.permissions import PERMISSIONS
from tests.api.app.test_every_route import FORWARD, LISTS, QUERIES, Asked, make_world, requests
from tests.api.app.test_every_route import world as world  # noqa: PLC0414 - a fixture, for this file
from tests.api.authz.dump import changed, dump
from tests.api.authz.members import FIRST, SECOND, calling, join, join_agent, user
from tests.support.acp_server import AcpServer
from tests.support.api import UNKNOWN_ID, register

World = dict[str, str]
# What everybody may make for himself; the names in the bodies are per account, and free.
OWN_THINGS = {"POST /agents/register", "POST /agents/register-build", "POST /spans"}
# It goes by the agent's key in its headers, whoever calls.
BY_ITS_OWN_KEY = {FORWARD}
# Of the account rather than of one thing in it: who has which key of one's own, who is in it, what was done.
ADMINISTRATION = {
    "GET /api_keys",
    "POST /api_keys",
    "GET /members",
    "GET /members/{member}",
    "PUT /members/{member}",
    "DELETE /members/{member}",
    "GET /audit",
}
# A thread that is no task's is the account's; there it is empty.
THREAD = "a thread of the account"


def verdict(answer: httpx2.Response) -> str:
    """What came of a request: a status; for JSON-RPC that of its error, told by its words."""
    kind = answer.headers.get("content-type", "")
    if answer.status_code != 200 or not kind.startswith(("application/json", "application/x-ndjson")):
        return str(answer.status_code)
    body: Any = json.loads(answer.text.splitlines()[0]) if "ndjson" in kind else answer.json()
    words = error_of(body)
    if words is None:
        return "empty" if body in NOTHING else "200"
    return "404" if "not found" in words else "403" if "is not allowed" in words else words


# Lists of which nothing can be seen.
NOTHING: list[Any] = [
    [],
    None,
    {"runs": [], "next_cursor": None},
    {"run_schedules": [], "total": 0, "next_cursor": None},
]


def error_of(body: Any) -> str | None:
    """The words of a JSON-RPC error."""
    return body["error"]["message"] if "jsonrpc" in (body or ()) and body["error"] is not None else None


async def ask_all(
    key: str, world: World, is_asked: Callable[[Asked], bool] = lambda _: True
) -> dict[str, set[str]]:
    """What comes of every request of the walk, by route."""
    found: dict[str, set[str]] = {}
    async with calling(key) as client:
        for asked in requests():
            if asked.path in BY_ITS_OWN_KEY or not is_asked(asked) or asked.route in ADMINISTRATION:
                continue
            answer = await asked.of(client, world)
            found.setdefault(asked.route, set()).add(verdict(answer))
    return found


def is_thread(asked: Asked) -> bool:
    """Whether it is of checkpoints: threads are per account, whatever their ids."""
    return asked.path.startswith("/checkpoints")


def about_a_thread(asked: Asked) -> bool:
    return asked.body is not None and asked.body.get("thread_id") == THREAD


async def unchanged(
    resources: Resources, work: Callable[[], Awaitable[dict[str, set[str]]]]
) -> dict[str, set[str]]:
    """What the work finds, while nothing of the first account changes."""
    before = await dump(resources, FIRST)
    found = await work()
    assert changed(before, await dump(resources, FIRST)) == {}
    return found


def besides(found: dict[str, set[str]], expected: set[str]) -> dict[str, set[str]]:
    """The routes that answered anything else."""
    return {route: verdicts - expected for route, verdicts in found.items() if verdicts - expected}


async def test_another_tenants_admin_sees_and_changes_nothing(resources: Resources, world: World) -> None:
    key = await join(resources, user("eve", SECOND), Role.ADMIN)

    def is_asked(asked: Asked) -> bool:
        return not is_thread(asked) and asked.route not in OWN_THINGS

    found = await unchanged(resources, lambda: ask_all(key, world, is_asked))

    assert besides(found, {"404", "empty"}) == {}
    # Empty are lists of one's own account, of which there is nothing; each other thing is not found.
    assert {route for route, verdicts in found.items() if "empty" in verdicts} == set(LISTS) - ADMINISTRATION


async def test_another_tenants_admin_has_names_of_its_own(resources: Resources, world: World) -> None:
    """What is made under names that the first account has taken is new, and its own."""
    key = await join(resources, user("eve", SECOND), Role.ADMIN)
    before = await dump(resources, FIRST)
    for_all = [asked for asked in requests() if asked.route in OWN_THINGS or is_thread(asked)]
    async with calling(key) as client:
        for asked in for_all:
            answer = await asked.of(client, world)
            if asked.body is not None and "task_id" in asked.body:
                assert answer.status_code == 404
                continue
            assert answer.status_code < 300, answer.text
            # The thread that it names itself, which is another than the first account's.
            told = answer.text.replace(world["task_id"], "") if is_thread(asked) else answer.text
            assert [word for word in world if word.endswith("_id") and world[word] in told] == []
    assert changed(before, await dump(resources, FIRST)) == {}


async def test_one_foreign_id_among_ones_own_opens_nothing(
    resources: Resources, world: World, acp_server: AcpServer
) -> None:
    """In each path, query and body, one id after the other is that of the first account's."""
    key = await join(resources, user("eve", SECOND), Role.ADMIN)
    found: dict[str, set[str]] = {}
    async with calling(key) as client:
        mine = await make_world(
            client, resources, await register(client, acp_url=acp_server.url), acp_server.url
        )
        before = {account: await dump(resources, account) for account in (FIRST, SECOND)}
        for asked in requests():
            if asked.path in BY_ITS_OWN_KEY or is_thread(asked) or asked.route in ADMINISTRATION:
                continue
            for word in ids_in(asked):
                answer = await asked.of(client, mine | {word: world[word]})
                found.setdefault(f"{asked.route} {word}", set()).add(verdict(answer))
    assert len(found) > 100
    assert besides(found, {"404"}) == {}
    for account, then in before.items():
        assert changed(then, await dump(resources, account)) == {}


def ids_in(asked: Asked) -> list[str]:
    text = json.dumps([asked.path, QUERIES.get(asked.route), asked.body])
    return sorted(word for word in set(re.findall(r"{([a-z_]+_id)}", text)))


async def test_a_guest_sees_and_changes_nothing(resources: Resources, world: World) -> None:
    key = await join(resources, user("guest"), None)
    found = await unchanged(resources, lambda: ask_all(key, world))
    # 403 only where a type as such is asked for: to make an agent, a span.
    assert besides(found, {"404", "empty"}) == {
        "POST /agents/register": {"403"},
        "POST /agents/register-build": {"403"},
        "POST /spans": {"403"},
    }


@pytest.mark.parametrize("who", ["guest", "agent"])
async def test_what_is_hidden_is_told_in_the_words_of_what_is_not_there(
    resources: Resources, world: World, who: str
) -> None:
    """Of the same account: by its id, by its name, and by what it hangs on."""
    if who == "guest":
        key = await join(resources, user("guest"), None)
    else:
        key = await join_agent(resources, "stranger")
    nowhere = {word: UNKNOWN_ID if word.endswith("_id") else value for word, value in world.items()}
    nowhere |= {"name": "nobody", "sync_name": "nobody"}
    if who == "agent":
        # Agents are read by all agents.
        nowhere |= {
            word: world[word] for word in ("agent_id", "sync_agent_id", "deployment_id", "history_id")
        }
    told: dict[str, tuple[str, str]] = {}
    async with calling(key) as client:
        for asked in requests():
            by_name_of_agent = who == "agent" and "/agents/name/" in asked.path
            registers = asked.path.startswith("/agents/register")
            if asked.path in BY_ITS_OWN_KEY or makes_something(asked) or by_name_of_agent or registers:
                continue
            hidden, absent = await asked.of(client, world), await asked.of(client, nowhere)
            if verdict(hidden) == "404":
                words = told_of(hidden, world, nowhere), told_of(absent, world, nowhere)
                if words[0] != words[1]:
                    told[f"{asked.route} {asked.body}"] = words
    assert "\n".join(f"{k} {v}" for k, v in told.items()) == ""


def told_of(answer: httpx2.Response, *worlds: World) -> str:
    """The words of a refusal, without the names and ids that it was asked for."""
    body = answer.json()
    words: str = error_of(body) or body["message"]
    for value in sorted({value for one in worlds for value in one.values()}, key=len, reverse=True):
        words = words.replace(value, "…")
    return words


async def test_a_viewer_sees_all_and_changes_nothing(resources: Resources, world: World) -> None:
    key = await join(resources, user("viewer"), Role.VIEWER)
    found = await unchanged(resources, lambda: ask_all(key, world))
    reads = {route: verdicts for route, verdicts in found.items() if is_read(route)}
    writes = {route: verdicts for route, verdicts in found.items() if not is_read(route)}
    assert besides(writes, {"403"}) == KEYS_ARE_HIDDEN_TO_WRITE
    assert besides(reads, {"200"}) == KEYS_ARE_HIDDEN | {
        # No agent has a card; who else has a thing is for its owner to know.
        "GET /agents": {"empty"},
        "GET /grants": {"403"},
        # Nothing listens where Temporal should be.
        "GET /tasks/{task_id}/query/{query_name}": {"503"},
    } | {"POST /checkpoints/list": {"empty"}, "POST /checkpoints/get-tuple": {"empty"}}


KEYS_ARE_HIDDEN = {
    "GET /api_keys/{api_key_id}": {"404"},
    "GET /agent_api_keys": {"empty"},
    "GET /agent_api_keys/name/{name}": {"404"},
    "GET /agent_api_keys/{key_id}": {"404"},
}
KEYS_ARE_HIDDEN_TO_WRITE = {
    "DELETE /api_keys/{api_key_id}": {"404"},
    "POST /api_keys/{api_key_id}/rotate": {"404"},
    "DELETE /agent_api_keys/name/{name}": {"404"},
    "DELETE /agent_api_keys/{key_id}": {"404"},
}


def is_read(route: str) -> bool:
    return route.startswith("GET ") or route in {"POST /checkpoints/list", "POST /checkpoints/get-tuple"}


async def test_an_editor_changes_nothing_that_is_not_its_own(resources: Resources, world: World) -> None:
    key = await join(resources, user("editor"), Role.EDITOR)

    def is_asked(asked: Asked) -> bool:
        return not is_read(asked.route) and not makes_something(asked)

    found = await unchanged(resources, lambda: ask_all(key, world, is_asked))
    assert besides(found, {"403"}) == KEYS_ARE_HIDDEN_TO_WRITE


def makes_something(asked: Asked) -> bool:
    """What is the caller's own then, or nobody's."""
    text, body = json.dumps(asked.body), asked.body or {}
    if body.get("method") == "task/create" or about_a_thread(asked):
        return True
    if body.get("method") == "message/send":
        return "{sync_task_id}" not in text
    if asked.path == "/spans":
        return "{task_id}" not in text
    return asked.path.startswith("/agents/register") and body.get("name") != "{name}"


async def test_another_agent_sees_its_own_tasks_only(resources: Resources, world: World) -> None:
    key = await join_agent(resources, "stranger")

    def is_asked(asked: Asked) -> bool:
        return not makes_something(asked)

    found = await unchanged(resources, lambda: ask_all(key, world, is_asked))
    # Agents know one another, and nothing of what is asked of others.
    assert {route for route, verdicts in found.items() if "200" in verdicts} == OF_AGENTS
    refused = {route: verdicts - {"200"} for route, verdicts in found.items()}
    assert besides(refused, {"404", "403", "empty"}) == {}
    # 403 only where it is an agent that would be changed, which may be read.
    forbidden = {route for route, verdicts in refused.items() if "403" in verdicts}
    assert {route for route in forbidden if not {*PERMISSIONS[route]} & CHANGES_AN_AGENT} == set()


CHANGES_AN_AGENT = {"agent.create", "agent.update", "agent.delete"}
OF_AGENTS = {
    "GET /agents/name/{name}",
    "GET /agents/{agent_id}",
    "GET /agents/{agent_id}/deployments",
    "GET /agents/{agent_id}/deployments/{deployment_id}",
    "GET /deployment-history",
    "GET /deployment-history/{history_id}",
}


OWN_KEYS_ONLY = {
    "GET /api_keys": {"200"},
    "POST /api_keys": {"403"},
    "GET /members": {"403"},
    "GET /members/{member}": {"403"},
    "PUT /members/{member}": {"403"},
    "DELETE /members/{member}": {"403"},
    "GET /audit": {"403"},
}
ADMINISTERS: dict[str, tuple[Role | None, str, dict[str, set[str]]]] = {
    "guest": (None, FIRST, OWN_KEYS_ONLY),
    "viewer": (Role.VIEWER, FIRST, OWN_KEYS_ONLY),
    # A key of its own it may make; none for another.
    "editor": (Role.EDITOR, FIRST, OWN_KEYS_ONLY | {"POST /api_keys": {"200", "403"}}),
    # In its own account, where nobody has the name, it is an admin.
    "another tenant's admin": (
        Role.ADMIN,
        SECOND,
        {
            "GET /api_keys": {"200"},
            "POST /api_keys": {"200", "404"},
            "GET /members": {"200"},
            "GET /members/{member}": {"404"},
            "PUT /members/{member}": {"200"},
            "DELETE /members/{member}": {"404"},
            "GET /audit": {"200"},
        },
    ),
}


@pytest.mark.parametrize("who", ADMINISTERS)
async def test_who_is_no_admin_of_the_account_learns_and_changes_nothing_of_it(
    resources: Resources, world: World, who: str
) -> None:
    role, account, expected = ADMINISTERS[who]
    key = await join(resources, user("stranger", account), role)
    before = await dump(resources, FIRST)
    found: dict[str, set[str]] = {}
    # What is removed is removed before it could be made.
    asked_of = sorted((one for one in requests() if one.route in ADMINISTRATION), key=lambda one: one.route)
    async with calling(key) as client:
        for asked in asked_of:
            answer = await asked.of(client, world)
            found.setdefault(asked.route, set()).add(verdict(answer))
            assert world["api_key_id"] not in answer.text
    assert found == expected
    after = await dump(resources, FIRST)
    mine = {name: [line for line in lines if "stranger" not in line] for name, lines in after.items()}
    there = {name: [line for line in lines if "stranger" not in line] for name, lines in before.items()}
    assert changed(there, mine) == {}
