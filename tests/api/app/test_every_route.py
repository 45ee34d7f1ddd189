"""Each route asks who may do that, and asks before it opens a transaction."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest
from fastapi.routing import iter_route_contexts
from sqlmodel.ext.asyncio.session import AsyncSession

from agentex.auth.principal import Principal, PrincipalType
from agentex.auth.rules import Role
from agentex.auth.service import put_member
from agentex.database import rows
from agentex.resources import Resources
from agentex.web.permissions import OPEN, PERMISSIONS
from tests.api.conftest import shared_app
from tests.api.ledger.stage import fetch
from tests.api.schedules.schedules import INPUT, Schedules
from tests.support.acp_server import AcpServer
from tests.support.api import TEXT, Json, create_task, register, registration, rpc
from tests.support.authz import EVERYTHING, ScriptedAuthz
from tests.support.sse import first_update

INSTANT: Json = {"scheduled_time": "{coming}"}
SKIPPED: Json = {"scheduled_time": "{skipped}"}
RPC: list[Json] = [
    {"method": "task/create", "params": {"name": "{name}"}},
    {"method": "event/send", "params": {"task_id": "{task_id}", "content": TEXT}},
    {"method": "event/send", "params": {"task_name": "{name}", "content": TEXT}},
    {"method": "task/cancel", "params": {"task_id": "{task_id}"}},
    {"method": "task/interrupt", "params": {"task_name": "{name}"}},
]
# Sync agents take these; the others are for async ones.
SYNC_RPC: list[Json] = [
    {"method": "message/send", "params": {"content": TEXT}},
    {"method": "message/send", "params": {"content": TEXT, "task_name": "another"}},
    {"method": "message/send", "params": {"content": TEXT, "task_id": "{sync_task_id}"}},
    {"method": "message/send", "params": {"content": TEXT, "task_id": "{sync_task_id}", "stream": True}},
]
ONE_SCHEDULE = "/agents/{agent_id}/schedules/{schedule_id}"
NAMED_SCHEDULE = "/agents/{agent_id}/schedules/name/{name}"
CHECKPOINTS: dict[str, Json] = {
    "get-tuple": {},
    "list": {},
    "put": {"checkpoint_id": "c", "checkpoint": {}},
    "put-writes": {"checkpoint_id": "c", "writes": []},
    "delete-thread": {},
}
THREADS = ("{task_id}", "a thread of the account")
# Bodies with which a route answers 200; a route that is not named here needs none.
BODIES: dict[str, list[Json]] = {
    "POST /agents/register": [registration(name="another"), registration(name="{name}", acp_type="sync")],
    "POST /agents/register-build": [
        {"name": "another", "description": ""},
        {"name": "{name}", "description": ""},
    ],
    "POST /agents/{agent_id}/rpc": RPC,
    "POST /agents/name/{name}/rpc": RPC,
    "POST /agents/{sync_agent_id}/rpc": SYNC_RPC,
    "POST /agents/name/{sync_name}/rpc": SYNC_RPC,
    "POST /messages": [{"task_id": "{task_id}", "content": TEXT | {"author": "agent"}}],
    "POST /spans": [
        {"name": "s", "trace_id": "t", "start_time": "2026-01-01T00:00:00Z", "task_id": "{task_id}"},
        {"name": "s", "trace_id": "t", "start_time": "2026-01-01T00:00:00Z"},
    ],
    "PATCH /spans/{span_id}": [{"name": "changed"}, {"task_id": "{task_id}"}],
    "PUT /tracker/{tracker_id}": [{"status": "working"}],
    **{
        f"POST /checkpoints/{verb}": [{"thread_id": thread, **body} for thread in THREADS]
        for verb, body in CHECKPOINTS.items()
    },
    "PUT /messages/{message_id}": [{"task_id": "{task_id}", "content": TEXT | {"author": "agent"}}],
    "POST /messages/batch": [{"task_id": "{task_id}", "contents": [TEXT]}],
    "PUT /messages/batch": [{"task_id": "{task_id}", "updates": {"{message_id}": TEXT}}],
    "POST /states": [{"task_id": "{task_id}", "agent_id": "{agent_id}", "state": {}}],
    "PUT /states/{state_id}": [{"state": {}}],
    "POST /agents/{agent_id}/schedules": [
        {"name": "another", "interval_seconds": 3_600, "initial_input": INPUT}
    ],
    "POST /agents/{agent_id}/deployments": [{"docker_image": "greeter:2"}],
    "POST /agents/{agent_id}/deployments/{deployment_id}/rpc": [RPC[0]],
    "POST /api_keys": [{"name": "another"}, {"name": "another", "member": "{member}"}],
    "POST /api_keys/{api_key_id}/rotate": [{}],
    "PUT /members/{member}": [{"role": "viewer"}],
    "POST /agent_api_keys": [{"agent_id": "{agent_id}", "name": "another"}],
    "POST /agent_api_keys/webhook-trigger": [{"agent_name": "{name}", "name": "a/b", "forward_path": "c"}],
    **{f"PATCH {path}": [{"description": "changed"}] for path in (ONE_SCHEDULE, NAMED_SCHEDULE)},
    **{f"POST {path}/skip": [INSTANT] for path in (ONE_SCHEDULE, NAMED_SCHEDULE)},
    **{f"POST {path}/unskip": [SKIPPED] for path in (ONE_SCHEDULE, NAMED_SCHEDULE)},
    **{f"PUT {path}": [{"task_metadata": {}}] for path in ("/tasks/{task_id}", "/tasks/name/{name}")},
    "POST /tasks/{task_id}/clean": [{"force": True}],
    "POST /tasks/{task_id}/rehydrate": [{"task_id": "{task_id}", "messages": []}],
    **{
        f"POST {path}/transfer": [{"owner": "user:friend"}]
        for path in (ONE_SCHEDULE, NAMED_SCHEDULE, "/agents/{agent_id}")
    },
    "POST /grants": [
        {
            "member": "user:friend",
            "resource_type": kind,
            "resource_id": f"{{{kind}_id}}",
            "operations": ["read"],
        }
        for kind in ("agent", "task", "schedule", "run")
    ],
}
# What the world must be like before a route answers 200, where it is not so by itself.
BEFORE = {
    "POST /tasks/{task_id}/clean": "UPDATE tasks SET status = 'COMPLETED'",
    "POST /tasks/{task_id}/rehydrate": "UPDATE tasks SET cleaned_at = now()",
}
# Other answers than 200 that a route gives when all is well; nothing listens where Temporal should be.
ANSWERED = {
    "POST /tasks/{task_id}/rehydrate": 204,
    "GET /tasks/{task_id}/query/{query_name}": 503,
    "POST /checkpoints/put-writes": 204,
    "POST /checkpoints/delete-thread": 204,
}
QUERIES = {
    "GET /agents": "?agent_card_metadata=%7B%7D",
    "GET /agent_api_keys": "?agent_id={agent_id}",
    "GET /agent_api_keys/name/{name}": "?agent_id={agent_id}",
    "DELETE /agent_api_keys/name/{name}": "?agent_id={agent_id}",
    "GET /deployment-history": "?agent_id={agent_id}",
    "GET /messages": "?task_id={task_id}",
    "GET /messages/paginated": "?task_id={task_id}",
    "GET /events": "?task_id={task_id}&agent_id={agent_id}",
    "GET /grants": "?resource_type=task&resource_id={task_id}",
}
# Lists that are not of one thing, and what they have for those who may see nothing.
LISTS: dict[str, Any] = {
    "GET /agents": [],
    "GET /tasks": [],
    "GET /states": [],
    "GET /spans": [],
    "GET /tracker": [],
    "GET /api_keys": {"api_keys": [], "next_cursor": None},
    "GET /runs": {"runs": [], "next_cursor": None},
}
FORWARD = "/agents/forward/name/{agent_name}/{path}"
# The others need none; the caller of an agent's own routes is who made the key.
HEADERS = {FORWARD: {"x-agent-api-key": "{api_key}"}}


@dataclass(frozen=True)
class Asked:
    """A request, with words in braces for what the world has."""

    method: str
    path: str
    body: Json | None

    @property
    def route(self) -> str:
        """As it is declared."""
        path = self.path.replace("{sync_agent_id}", "{agent_id}").replace("{sync_name}", "{name}")
        return f"{self.method} {path}"

    async def of(self, client: httpx2.AsyncClient, world: dict[str, str]) -> httpx2.Response:
        """Its answer in this world."""
        query, headers = QUERIES.get(f"{self.method} {self.path}", ""), HEADERS.get(self.path)
        filled = json.dumps([self.path + query, self.body, headers])
        for word, value in world.items():
            filled = filled.replace(f"{{{word}}}", value)
        url, content, given = json.loads(filled)
        if url.endswith("/stream"):
            # It has no end while its task runs.
            return await first_update(shared_app(), url, headers=client.headers)
        return await client.request(self.method, url, json=content, headers=given)


def requests() -> list[Asked]:
    """Every route of the app but the open ones, with each of its bodies."""
    found: list[Asked] = []
    for route in iter_route_contexts(shared_app().routes):
        path = (route.path or "").replace(":path}", "}")
        for method in sorted((route.methods or set()) - {"HEAD"}):
            bodies = BODIES.get(f"{method} {path}", [None])
            found += [Asked(method, path, body) for body in bodies if path not in OPEN]
            if path.endswith("/rpc"):
                of_sync = path.replace("{agent_id}", "{sync_agent_id}").replace("{name}", "{sync_name}")
                found += [Asked(method, of_sync, body) for body in BODIES.get(f"{method} {of_sync}", [])]
    return sorted(found, key=str)


each_request = pytest.mark.parametrize(
    "asked",
    requests(),
    ids=[f"{number}-{one.method}-{one.path}" for number, one in enumerate(requests())],
)


async def members(client: httpx2.AsyncClient) -> dict[str, str]:
    """The caller as a member with a key, and another member."""
    for name, role in (("user:tester", "admin"), ("service_account:ci", "editor")):
        assert (await client.put(f"/members/{name}", json={"role": role})).status_code == 200
    key = await client.post("/api_keys", json={"name": "own"})
    return {"api_key_id": key.json()["id"], "member": "service_account:ci"}


@pytest.fixture
async def world(
    client: httpx2.AsyncClient, resources: Resources, agent: Json, acp_server: AcpServer
) -> dict[str, str]:
    """That of the client."""
    return await make_world(client, resources, agent, acp_server.url)


async def make_world(
    client: httpx2.AsyncClient, resources: Resources, agent: Json, acp_url: str
) -> dict[str, str]:
    """One of each, by the words that paths and bodies have for it; agent, task and schedule share a name."""
    # Who starts runs has transactions of its own.
    resources.hooks.run_opened = None
    name = agent["name"]
    task = await create_task(client, agent, name=name)
    answerer = await register(client, name="answerer", acp_type="sync", acp_url=acp_url)
    message = await client.post("/messages", json={"task_id": task["id"], "content": TEXT})
    event = await rpc(client, agent, "event/send", {"task_id": task["id"], "content": TEXT})
    keeper = await register(client, name="keeper")
    kept = {"task_id": task["id"], "agent_id": keeper["id"], "state": {"turns": 1}}
    state = await client.post("/states", json=kept)
    schedules = Schedules(client, resources, agent["id"])
    schedule = await schedules.create(name=name)
    coming, skipped = schedule["next_action_times"][:2]
    await schedules.act(schedule, "skip", scheduled_time=skipped)
    triggered = await schedules.act(schedule, "trigger")
    span = await client.post(
        "/spans",
        json={"name": "s", "trace_id": "t", "start_time": "2026-01-01T00:00:00Z", "task_id": task["id"]},
    )
    trackers = await client.get("/tracker", params={"task_id": task["id"]})
    deployments = f"/agents/{agent['id']}/deployments"
    deployment = (await client.post(deployments, json={"docker_image": "greeter:1"})).json()
    # As of another agent process of the same commit, which is Ready and not in production.
    told = {"deployment_id": deployment["id"], "commit_sha": "abc"}
    known = registration(acp_url=acp_url, registration_metadata=told)
    assert (await client.post("/agents/register", json=known)).status_code == 200
    known["registration_metadata"] = {"commit_sha": "abc"}
    assert (await client.post("/agents/register", json=known)).status_code == 200
    history = await client.get("/deployment-history", params={"agent_id": agent["id"]})
    key = await client.post("/agent_api_keys", json={"agent_id": agent["id"], "name": name})
    return {
        **await members(client),
        "grant_id": await _share(client, resources, task),
        "span_id": span.json()["id"],
        "tracker_id": trackers.json()[0]["id"],
        "deployment_id": deployment["id"],
        "history_id": history.json()[0]["id"],
        "key_id": key.json()["id"],
        "api_key": key.json()["api_key"],
        "agent_name": name,
        "path": "own/route",
        "name": name,
        "agent_id": agent["id"],
        "task_id": task["id"],
        "sync_agent_id": answerer["id"],
        "sync_name": answerer["name"],
        "sync_task_id": (await create_task(client, answerer))["id"],
        "message_id": message.json()["id"],
        "event_id": event["result"]["id"],
        "state_id": state.json()["id"],
        "schedule_id": schedule["id"],
        "run_id": triggered.json()["run_id"],
        "coming": coming,
        "skipped": skipped,
        "query_name": "state",
    }


async def _share(client: httpx2.AsyncClient, resources: Resources, task: Json) -> str:
    """Share a task with a friend; returns the grant's id."""
    found = await fetch(resources, "SELECT account_id FROM tasks WHERE id = :id", id=task["id"])
    friend = Principal(principal_type=PrincipalType.USER, user_id="friend", account_id=found[0]["account_id"])
    async with resources.db.begin() as session:
        await put_member(session, friend, Role.EDITOR)
    given = {"member": friend.creator, "resource_type": "task", "resource_id": task["id"]}
    grant = await client.post("/grants", json={**given, "operations": ["read"]})
    return grant.json()["id"]


def test_every_route_declares_its_permission() -> None:
    """In web/permissions.py, from where it goes into the OpenAPI document."""
    assert {asked.route for asked in requests()} == set(PERMISSIONS)
    known = {f"{kind}.{operation}" for operation, kind in EVERYTHING}
    assert {word for words in PERMISSIONS.values() for word in words} <= known


@each_request
async def test_permission_is_asked_while_no_transaction_is_open(
    client: httpx2.AsyncClient,
    resources: Resources,
    authz: ScriptedAuthz,
    world: dict[str, str],
    asked: Asked,
) -> None:
    seen: list[list[str]] = []

    async def look(given: AsyncSession) -> None:
        # As a provider does that knows who may what from tables.
        await rows(given, "SELECT 1")
        async with resources.db.read() as other:
            found = await rows(
                other,
                """
                SELECT query FROM pg_stat_activity
                WHERE datname = current_database() AND pid <> pg_backend_pid()
                    AND backend_type = 'client backend' AND xact_start IS NOT NULL
                """,
            )
            seen.append([row["query"] for row in found])

    route = f"{asked.method} {asked.path}"
    if route in BEFORE:
        await fetch(resources, BEFORE[route])
    authz.while_asked = look
    before = len(authz.asked)
    answer = await asked.of(client, world)

    assert answer.status_code == ANSWERED.get(route, 200), answer.text
    assert '"error":{' not in answer.text
    assert seen
    assert seen == [[]] * len(seen)
    words = {f"{kind}.{operation}" for operation, kind in authz.asked[before:]}
    assert words <= {*PERMISSIONS[asked.route]}


@each_request
async def test_who_may_do_nothing_gets_nothing(
    client: httpx2.AsyncClient, authz: ScriptedAuthz, world: dict[str, str], asked: Asked
) -> None:
    authz.deny = EVERYTHING

    answer = await asked.of(client, world)

    if f"{asked.method} {asked.path}" in LISTS:
        # Filtered rather than refused (wire.md §4).
        assert (answer.status_code, answer.json()) == (200, LISTS[f"{asked.method} {asked.path}"])
    else:
        assert answer.status_code in {403, 404}, answer.text
