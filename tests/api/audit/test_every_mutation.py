"""Each route that changes something leaves one entry for each request, however that ends."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import httpx2
import pytest
from fastapi.routing import APIRoute, iter_route_contexts

from agentex.auth.authorize import Operation
from agentex.noted import Audited
from agentex.resources import Resources
from agentex.web.audited import READING_OPERATIONS, is_mutating, subject
from tests.api.app.test_every_route import ANSWERED, BEFORE, Asked, requests
from tests.api.app.test_every_route import world as world  # noqa: PLC0414 - a fixture, which pytest finds by its name here
from tests.api.audit.conftest import audited_app
from tests.api.audit.entries import entries
from tests.api.ledger.stage import fetch
from tests.support.api import Json
from tests.support.authz import EVERYTHING, ScriptedAuthz

OPERATIONS = {
    f"{method} {(route.path or '').replace(':path}', '}')}": route.name or ""
    for route in iter_route_contexts(audited_app().routes)
    for method in route.methods or ()
}
NOT_TO_READ = frozenset(
    (operation, kind) for operation, kind in EVERYTHING if operation is not Operation.READ
)
# By the words that the world has for them: what a request to this path is about.
ABOUT = {
    "/agents/{agent_id}": "agent_id",
    "/tasks/{task_id}": "task_id",
    "/messages/batch": "task_id",
    "/messages/{message_id}": "message_id",
    "/states/{state_id}": "state_id",
    "/spans/{span_id}": "span_id",
    "/tracker/{tracker_id}": "tracker_id",
    "/runs/{run_id}": "run_id",
    "/agents/{agent_id}/schedules/{schedule_id}": "schedule_id",
    "/agents/{agent_id}/schedules/name/{name}": "schedule_id",
    "/agents/{agent_id}/deployments/{deployment_id}": "deployment_id",
    "/agent_api_keys/{key_id}": "key_id",
    "/agents/forward/name/{agent_name}/{path}": "agent_id",
}


def route_of(asked: Asked) -> str:
    """The route as the app has it."""
    return f"{asked.method} {asked.path.replace('sync_', '')}"


MUTATIONS = [asked for asked in requests() if is_mutating(asked.method, OPERATIONS[route_of(asked)])]
each_mutation = pytest.mark.parametrize(
    "asked",
    MUTATIONS,
    ids=[f"{number}-{one.method}-{one.path}" for number, one in enumerate(MUTATIONS)],
)


def about(asked: Asked, world: dict[str, str]) -> str | None:
    """The id that the entry has to name, None where the world does not know it."""
    if asked.path.endswith("/rpc"):
        params: Json = asked.body["params"] if asked.body else {}
        return world.get(params.get("task_id", "").strip("{}"))
    if asked.path.endswith(("/schedules", "/deployments", "/webhook-trigger")):
        return None
    fitting = [path for path in ABOUT if asked.path == path or asked.path.startswith(f"{path}/")]
    return world[ABOUT[max(fitting, key=len)]] if fitting else None


async def left(client: httpx2.AsyncClient, resources: Resources, asked: Asked, world: dict[str, str]) -> Any:
    """The answer to a request, and the one entry that it leaves."""
    before = await entries(resources)
    answer = await asked.of(client, world)
    (entry,) = (await entries(resources))[len(before) :]
    return answer, entry


def test_operations_that_read_are_there() -> None:
    assert set(OPERATIONS.values()) >= READING_OPERATIONS


@pytest.mark.parametrize("route", [r for r, name in OPERATIONS.items() if is_mutating(r.split()[0], name)])
def test_it_is_known_what_a_route_is_about(route: str) -> None:
    kind, _ = subject(route.split()[1])
    assert kind is not Audited.OTHER, "name its collection in agentex/noted.py"


def test_all_that_changes_something_is_walked() -> None:
    walked = {OPERATIONS[route_of(asked)] for asked in MUTATIONS}
    mutating = {name for route, name in OPERATIONS.items() if is_mutating(route.split()[0], name)}
    assert walked == mutating
    assert all(
        isinstance(route.original_route, APIRoute)
        for route in iter_route_contexts(audited_app().routes)
        if (route.methods or set()) & {"POST", "PUT", "PATCH", "DELETE"}
    ), "only FastAPI's routes are seen by the audit"


@each_mutation
async def test_what_is_done_leaves_one_entry(
    client: httpx2.AsyncClient, resources: Resources, world: dict[str, str], asked: Asked
) -> None:
    route = f"{asked.method} {asked.path}"
    if route in BEFORE:
        await fetch(resources, BEFORE[route])

    answer, entry = await left(client, resources, asked, world)

    path_agent = {"{agent_id}": "agent_id", "{sync_agent_id}": "sync_agent_id"}
    agent_ids = [world[word] for part, word in path_agent.items() if part in asked.path]
    assert answer.status_code == ANSWERED.get(route, 200), answer.text
    assert entry == {
        **entry,
        "account_id": "default",
        "principal": "user:tester",
        "operation": OPERATIONS[route_of(asked)],
        "rpc_method": asked.body["method"] if asked.body and asked.path.endswith("/rpc") else None,
        "agent_id": UUID(agent_ids[0]) if agent_ids else None,
        "outcome": "done",
        "status": answer.status_code,
        "request_id": answer.headers["x-request-id"],
        "address": "203.0.113.7",
        "user_agent": "tests/1",
    }
    known = about(asked, world)
    assert entry["resource_id"]
    assert known in {None, entry["resource_id"]}


@each_mutation
async def test_what_is_denied_leaves_one_entry(
    client: httpx2.AsyncClient,
    resources: Resources,
    authz: ScriptedAuthz,
    world: dict[str, str],
    asked: Asked,
) -> None:
    authz.deny = NOT_TO_READ

    answer, entry = await left(client, resources, asked, world)

    # JSON-RPC's errors are 200.
    assert answer.status_code == (200 if asked.path.endswith("/rpc") else 403), answer.text
    assert entry["principal"] == "user:tester"
    assert entry["operation"] == OPERATIONS[route_of(asked)]
    assert (entry["outcome"], entry["status"]) == ("denied", answer.status_code)


@pytest.mark.parametrize(
    "asked", [asked for asked in requests() if asked not in MUTATIONS and not asked.path.endswith("/stream")]
)
async def test_what_reads_leaves_none(
    client: httpx2.AsyncClient, resources: Resources, world: dict[str, str], asked: Asked
) -> None:
    before = await entries(resources)

    await asked.of(client, world)

    assert await entries(resources) == before
